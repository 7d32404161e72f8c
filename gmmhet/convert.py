"""Scipion sets <-> RELION 3.1 star files: the only place where the two conventions meet.

Scipion stores the alignment of a projection as the inverse of ``T = [A | -origin]``, where
``A = (Rz(rot) Ry(tilt) Rz(psi))^T`` takes a point of the molecule into the frame of the image and ``origin``
is RELION's ``rlnOriginX/Y`` in pixels. In a RELION 3.1 star file the origins are in Å. A particle's id in the
set is its ``rlnImageId``: everything that comes back is joined by it.
"""
import io
import os
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Sequence, TextIO, Tuple, TypeVar

import numpy as np
from emtable import Table
from pwem.constants import ALIGN_PROJ, NO_INDEX
from pwem.objects import Transform
from pyworkflow.object import Float, Integer, Scalar

from gmmhet.engine import rundir
from gmmhet.engine.latents import Latents, LatentsError

RELION_PREFIX = "_rln"
#: endings of the maps that the engine reads where they are
MRC_ENDINGS = (".mrc", ".map", ".mrcs", ".ccp4")
#: difference (degrees) below which a phase shift counts as that of the amplitude contrast
SAME_PHASE_DEG = 0.05
_OPTICS_OF_SET = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration",
                  "rlnAmplitudeContrast", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality")
_COLUMNS = ("rlnImageId", "rlnImageName", "rlnOpticsGroup", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi",
            "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle",
            "rlnPhaseShift")
_COORDINATE_COLUMNS = ("rlnCoordinateX", "rlnCoordinateY", "rlnMicrographName")

Row = Dict[str, Any]
Value = TypeVar("Value")


class ConversionError(ValueError):
    """A set cannot be written for the engine, or results do not belong to the set that they are to be joined
    with; the message says why."""


class RelionPose(NamedTuple):
    """Euler angles (degrees) and origin (Å) of a particle, as in the columns of a RELION star file."""

    rot_deg: float
    tilt_deg: float
    psi_deg: float
    origin_x_angst: float
    origin_y_angst: float


class ParticleLatents(NamedTuple):
    """Latent points of a particle: z [copies, D] in the order of the symmetry copies, agreement with its own
    and with the neutral model (nats, means over the copies), and whether it was held out from
    training."""

    z: np.ndarray
    agreement: float
    neutral_agreement: float
    held_out: bool


# ------------------------------------------------------------------ alignment
def euler_from_alignment(matrices: np.ndarray, pixel_size: float) -> Tuple[np.ndarray, np.ndarray]:
    """RELION's angles and origins from Scipion's projection alignments.

    Parameters
    ----------
    matrices : [n,4,4] array, as ``Transform.getMatrix`` gives them (translation in px).
    pixel_size : float, Å/px.

    Returns
    -------
    angles_deg : [n,3] array, rot, tilt, psi, tilt in [0, 180].
    origins_angst : [n,2] array, rlnOriginXAngst and rlnOriginYAngst.
    """
    inverse = np.linalg.inv(np.asarray(matrices, float))
    euler = np.swapaxes(inverse[:, :3, :3], 1, 2)           # Rz(rot) Ry(tilt) Rz(psi)
    tilt = np.arctan2(np.hypot(euler[:, 0, 2], euler[:, 1, 2]), euler[:, 2, 2])
    rot = np.arctan2(euler[:, 1, 2], euler[:, 0, 2])
    psi = np.arctan2(euler[:, 2, 1], -euler[:, 2, 0])
    polar = np.hypot(euler[:, 0, 2], euler[:, 1, 2]) < 1e-9     # rot and psi turn about one axis: all to psi
    up = np.sign(euler[:, 2, 2])
    rot = np.where(polar, 0.0, rot)
    psi = np.where(polar, np.arctan2(-euler[:, 0, 1] * up, euler[:, 0, 0] * up), psi)
    return np.degrees(np.stack([rot, tilt, psi], 1)), -inverse[:, :2, 3] * pixel_size


def alignment_from_euler(angles_deg: Sequence, origins_angst: Sequence, pixel_size: float) -> np.ndarray:
    """Scipion's projection alignments from RELION's angles and origins: the inverse of
    `euler_from_alignment`.

    Parameters
    ----------
    angles_deg : [n,3] array, rot, tilt, psi.
    origins_angst : [n,2] array.
    pixel_size : float, Å/px.

    Returns
    -------
    [n,4,4] array.
    """
    rot, tilt, psi = np.radians(np.asarray(angles_deg, float)).T
    matrices = np.tile(np.eye(4), (len(rot), 1, 1))
    matrices[:, :3, :3] = np.swapaxes(_about_z(rot) @ _about_y(tilt) @ _about_z(psi), 1, 2)
    matrices[:, :2, 3] = -np.asarray(origins_angst, float) / pixel_size
    return np.linalg.inv(matrices)


def _about_z(angle: np.ndarray) -> np.ndarray:
    """Rotations about z: angles [n] in radians to [n,3,3]."""
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).reshape(-1, 3, 3)


def _about_y(angle: np.ndarray) -> np.ndarray:
    """Rotations about y: angles [n] in radians to [n,3,3]."""
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).reshape(-1, 3, 3)


# ------------------------------------------------------------------ writing
def write_particles(particles: Any, path: str, chunk: int = 10000) -> int:
    """Write a set as a RELION 3.1 star file; images stay where they are.

    Preserved exactly: ids, image locations (MRC and EMAN2 HDF stacks), angles and origins with their
    handedness, defocus and phase shift, optics groups, half sets (``rlnRandomSubset``) and every other RELION
    column that the items carry, coordinates and micrograph names.

    Parameters
    ----------
    particles : SetOfParticles, one of its classes or any iterable set of particles with projection alignment
        and CTF.
    path : str
    chunk : int, particles converted at a time.

    Returns
    -------
    int, the number of particles written (disabled ones are left out).

    Raises
    ------
    ConversionError
        for a set without particles, alignment or CTF.
    """
    first = particles.getFirstItem() if particles.getSize() else None
    problem = why_not_writable(particles, first)
    if problem:
        raise ConversionError(problem)
    columns, pixel_size = _columns(first), particles.getSamplingRate()
    count, rows, matrices = 0, [], []
    with open(path, "w", encoding="utf-8") as star:
        star.write("# written by gmmhet for Scipion\n\n# version 30001\n")
        _optics_table(particles, first).writeStar(star, tableName="optics")
        star.write("\n# version 30001\n\ndata_particles\n\nloop_\n")
        star.writelines("_%s #%d\n" % (name, i + 1) for i, name in enumerate(columns))
        for item in particles.iterItems():
            if not item.isEnabled():
                continue
            rows.append(_row(item, columns))
            matrices.append(item.getTransform().getMatrix())
            count += 1
            if len(rows) == chunk:
                _write_rows(star, columns, rows, matrices, pixel_size)
                rows, matrices = [], []
        if rows:
            _write_rows(star, columns, rows, matrices, pixel_size)
        star.write("\n")
    if not count:
        raise ConversionError("The set of particles is empty: all its particles are disabled. Choose another "
                              "one.")
    return count


def why_not_writable(particles: Any, first: Any = None) -> str:
    """A sentence when a set lacks what the engine needs, else an empty string."""
    if not particles.getSize():
        return "The set of particles is empty: choose a set that holds particles."
    first = first or particles.getFirstItem()
    if particles.getAlignment() != ALIGN_PROJ or not first.hasTransform():
        return ("The particles have no projection alignment (their alignment is '%s'): choose the particles "
                "of a 3D refinement. A RELION star file whose first particle has rlnAngleRot 0 loses its "
                "alignment when Scipion imports it." % particles.getAlignment())
    if not first.hasCTF():
        return "The particles have no CTF: choose particles with defocus values, or assign a CTF to them."
    if not particles.getSamplingRate():
        return "The particles have no pixel size: set it where they were imported."
    return ""


def doubts(particles: Any) -> List[str]:
    """Sentences about a set that can be written but looks wrong."""
    first, contrast = particles.getFirstItem(), particles.getAcquisition().getAmplitudeContrast()
    shift_deg = first.getCTF().getPhaseShift() if first is not None and first.hasCTF() else None
    if shift_deg and contrast and abs(shift_deg - np.degrees(np.arcsin(contrast))) < SAME_PHASE_DEG:
        return ["The phase shift of the particles (%.2f°) equals the phase of their amplitude contrast "
                "(%.3g), as EMAN2 stores it, and would count twice: set the amplitude contrast to 0 or "
                "remove the phase shift, unless a phase plate was used." % (shift_deg, contrast)]
    return []


def _columns(first: Any) -> List[str]:
    """Columns of the star file for items like `first`."""
    names = list(_COLUMNS + (_COORDINATE_COLUMNS if first.hasCoordinate() else ()))
    relion = [key[1:] for key, value in first.getAttributes()
              if key.startswith(RELION_PREFIX) and isinstance(value, Scalar)]
    return names + [name for name in relion if name not in names]


def _row(item: Any, columns: Sequence[str]) -> Row:
    """A particle's values by column, without alignment."""
    ctf = item.getCTF()
    values = {"rlnImageId": item.getObjId(), "rlnImageName": image_name(item),
              "rlnDefocusU": ctf.getDefocusU(), "rlnDefocusV": ctf.getDefocusV(),
              "rlnDefocusAngle": ctf.getDefocusAngle(),
              "rlnPhaseShift": ctf.getPhaseShift() or 0.0, "rlnOpticsGroup": 1}
    if "rlnCoordinateX" in columns and item.hasCoordinate():
        coordinate = item.getCoordinate()
        values.update(rlnCoordinateX=coordinate.getX(), rlnCoordinateY=coordinate.getY(),
                      rlnMicrographName=coordinate.getMicName() or coordinate.getMicId() or "unknown")
    for name in columns:
        value = item.getAttributeValue("_" + name, None)
        if value is not None:
            values[name] = value
    return values


def _write_rows(star: TextIO, columns: Sequence[str], rows: List[Row], matrices: List[np.ndarray],
                pixel_size: float) -> None:
    """Write particles with their alignment."""
    angles, origins = euler_from_alignment(np.stack(matrices), pixel_size)
    for row, angle, origin in zip(rows, angles, origins):
        row["rlnAngleRot"], row["rlnAngleTilt"], row["rlnAnglePsi"] = angle
        row["rlnOriginXAngst"], row["rlnOriginYAngst"] = origin
        star.write(" ".join(_text(row.get(name, 0)) for name in columns) + "\n")


def _text(value: Any) -> str:
    """A value as STAR text: floats with twelve digits, names with blanks in quotes."""
    if isinstance(value, (float, np.floating)):
        return "%.12g" % value
    text = str(value)
    return '"%s"' % text if " " in text or not text else text


def image_name(item: Any) -> str:
    """``000001@stack.mrcs`` of an item; a format mark of Xmipp at either end (``:mrcs``) is dropped."""
    index, path = item.getLocation()
    head, _, tail = path.rpartition(":")
    path = head if head and os.sep not in tail else path
    return path if index == NO_INDEX else "%06d@%s" % (index, path)


def _optics_table(particles: Any, first: Any) -> Table:
    """The optics groups: those that came with the set where it has them, else one made of its acquisition."""
    size, pixel_size = particles.getXDim() or first.getXDim(), particles.getSamplingRate()
    groups = _optics_groups(particles.getAcquisition())
    for group in groups:
        if particles.isPhaseFlipped():
            group["rlnCtfDataArePhaseFlipped"] = 1
        group.update(rlnImagePixelSize=float(pixel_size), rlnImageSize=int(size), rlnImageDimensionality=2)
        lacking = [name for name in _OPTICS_OF_SET if group.get(name) is None]
        if lacking:
            raise ConversionError("The particles' acquisition lacks %s: set it where they were imported."
                                  % ", ".join(lacking))
    table = Table(columns=[Table.Column(name, type(value)) for name, value in groups[0].items()])
    for group in groups:
        table.addRow(**group)
    return table


def _optics_groups(acquisition: Any) -> List[Row]:
    """The optics groups that RELION's import left in an acquisition, else one of its values."""
    text = acquisition.opticsGroupInfo.get()
    if not text:
        return [{"rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1",
                 "rlnVoltage": acquisition.getVoltage(),
                 "rlnSphericalAberration": acquisition.getSphericalAberration(),
                 "rlnAmplitudeContrast": acquisition.getAmplitudeContrast()}]
    table = Table()
    table.readStar(io.StringIO(text), tableName="optics")
    return [dict(row._asdict()) for row in table]


def write_map(volume: Any, path: str) -> str:
    """Give a Volume to the engine: MRC files are used where they are, HDF files of EMAN2 are rewritten to
    `path`.

    Returns
    -------
    str, the file to read.
    """
    source = volume.getFileName().split("@")[-1].split(":mrc")[0]
    if source.endswith(MRC_ENDINGS):
        return source
    if not source.endswith((".hdf", ".h5")):
        from pwem.emlib.image import ImageHandler
        ImageHandler().convert(source, path)
        return path
    import mrcfile
    with mrcfile.new(path, overwrite=True) as out:
        out.set_data(_read_hdf_map(source))
        out.voxel_size = volume.getSamplingRate()
    return path


def _read_hdf_map(path: str) -> np.ndarray:
    """Map [z,y,x] of an EMAN2 HDF file."""
    try:
        import h5py
    except ImportError:
        raise ConversionError("'%s' is an HDF file, and h5py is not in Scipion's Python. Run: scipion3 pip "
                              "install h5py" % path) from None
    with h5py.File(path, "r") as source:
        return np.asarray(source["MDF/images/0/image"], np.float32)


# ------------------------------------------------------------------ reading
def read_poses(path: str) -> Dict[int, RelionPose]:
    """Poses of a star file that the engine wrote, by particle id."""
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    rows = Table.iterRows(path, tableName="particles",
                          guessType=False)     # it guesses from the first row alone
    return {int(row.rlnImageId): RelionPose(*[float(getattr(row, name)) for name in names]) for row in rows}


def set_alignment(item: Any, pose: RelionPose, pixel_size: float) -> None:
    """Give an item the projection alignment of `pose`."""
    transform = Transform()
    transform.setMatrix(alignment_from_euler([pose[:3]], [pose[3:]], pixel_size)[0])
    item.setTransform(transform)


def read_latents_by_id(folder: str) -> Dict[int, ParticleLatents]:
    """The latent points of a train run, by particle id.

    Parameters
    ----------
    folder : str, of the run.

    Raises
    ------
    ConversionError
        when there are none, or a particle lacks one of its symmetry copies.
    """
    try:
        latents = Latents.load(folder, needed=("agreement", "neutral_agreement", "held_out"))
    except LatentsError as error:
        raise ConversionError(str(error)) from None
    try:
        rows = latents.rows_of(np.unique(latents.ids))
    except LatentsError:
        raise ConversionError("'%s' is damaged: it does not hold all %d symmetry copies of every particle. "
                              "Run the training again."
                              % (os.path.join(folder, rundir.LATENTS), latents.copies)) from None
    agreement, neutral = [np.mean(values[rows], axis=1, dtype=float)
                          for values in (latents.agreement, latents.neutral_agreement)]
    held_out = np.any(latents.held_out[rows], axis=1)
    return {int(latents.ids[row[0]]): ParticleLatents(latents.z[row], float(agreement[i]), float(neutral[i]),
                                                      bool(held_out[i])) for i, row in enumerate(rows)}


def join(items: Iterable[Any], values: Dict[int, Value], what: str) -> Iterator[Tuple[Any, Value]]:
    """Pair the items of a set with values by id; disabled items are left out.

    Parameters
    ----------
    items : iterable of Scipion items.
    values : dict id -> value.
    what : str, what the values are, for the message.

    Yields
    ------
    item, value

    Raises
    ------
    ConversionError
        when a particle has no value.
    """
    for item in items:
        if not item.isEnabled():
            continue
        if item.getObjId() not in values:
            raise ConversionError("Particle %d of the input set has no %s: the input is not the set that the "
                                  "results were computed from." % (item.getObjId(), what))
        yield item, values[item.getObjId()]


def set_scalar(item: Any, name: str, value: float) -> None:
    """Set attribute `name` of an item to a plain Python number."""
    whole = isinstance(value, (bool, np.bool_, int, np.integer))
    setattr(item, name, Integer(int(value)) if whole else Float(float(value)))


def pixel_size_of(path: str) -> float:
    """Pixel size of an MRC map, Å/px."""
    import mrcfile
    with mrcfile.open(path, header_only=True, permissive=True) as file:
        return float(file.voxel_size.x)
