"""Scipion sets <-> RELION 3.1 star files: the only place where the two conventions meet.

Scipion keeps the alignment of a projection as the inverse of ``T = [A | -origin]``, where ``A = (Rz(rot) Ry(tilt) Rz(psi))^T`` takes a
point of the molecule into the frame of the image and ``origin`` is RELION's ``rlnOriginX/Y``, in pixels. In the star file the origins are
in Å. A particle's id in the set is its ``rlnImageId``: everything that comes back is joined by it.
"""
import os

import numpy as np
from emtable import Table
from pwem.constants import ALIGN_PROJ, NO_INDEX
from pwem.objects import Transform
from pyworkflow.object import Float, Integer, Scalar

RELION_PREFIX = "_rln"
_OPTICS_OF_SET = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
                  "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality")


class ConversionError(ValueError):
    """A set cannot be written for the engine, or a result does not fit the set it is to be joined with; the message says why."""


# ------------------------------------------------------------------ alignment
def eulerFromAlignment(matrices, pixelSize):
    """RELION's angles and origins from Scipion's projection alignments.

    Parameters
    ----------
    matrices : [n,4,4] array, as ``Transform.getMatrix`` gives them (translation in px).
    pixelSize : float, Å/px.

    Returns
    -------
    angles : [n,3] array, rot, tilt, psi in degrees, tilt in [0, 180].
    origins : [n,2] array, rlnOriginXAngst and rlnOriginYAngst.
    """
    inverse = np.linalg.inv(np.asarray(matrices, float))
    euler = np.swapaxes(inverse[:, :3, :3], 1, 2)           # Rz(rot) Ry(tilt) Rz(psi)
    tilt = np.arctan2(np.hypot(euler[:, 0, 2], euler[:, 1, 2]), euler[:, 2, 2])
    rot = np.arctan2(euler[:, 1, 2], euler[:, 0, 2])
    psi = np.arctan2(euler[:, 2, 1], -euler[:, 2, 0])
    polar = np.hypot(euler[:, 0, 2], euler[:, 1, 2]) < 1e-9  # rot and psi turn about one axis: all goes to psi
    up = np.sign(euler[:, 2, 2])
    rot = np.where(polar, 0.0, rot)
    psi = np.where(polar, np.arctan2(-euler[:, 0, 1] * up, euler[:, 0, 0] * up), psi)
    return np.degrees(np.stack([rot, tilt, psi], 1)), -inverse[:, :2, 3] * pixelSize


def alignmentFromEuler(angles, origins, pixelSize):
    """Scipion's projection alignments from RELION's angles and origins: the inverse of `eulerFromAlignment`.

    Parameters
    ----------
    angles : [n,3] array, rot, tilt, psi in degrees.
    origins : [n,2] array, Å.
    pixelSize : float, Å/px.

    Returns
    -------
    [n,4,4] array.
    """
    rot, tilt, psi = np.radians(np.asarray(angles, float)).T
    matrices = np.tile(np.eye(4), (len(rot), 1, 1))
    matrices[:, :3, :3] = np.swapaxes(_about_z(rot) @ _about_y(tilt) @ _about_z(psi), 1, 2)
    matrices[:, :2, 3] = -np.asarray(origins, float) / pixelSize
    return np.linalg.inv(matrices)


def _about_z(angle):
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).reshape(-1, 3, 3)


def _about_y(angle):
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).reshape(-1, 3, 3)


# ------------------------------------------------------------------ writing
def writeParticles(particles, path, chunk=10000):
    """Write a set as a RELION 3.1 star file; images stay where they are.

    Kept exactly: ids, image locations (MRC and EMAN2 HDF stacks), angles and origins with their hand, defocus and phase shift, optics
    groups, half sets (``rlnRandomSubset``) and every other RELION column that the items carry, coordinates and micrograph names.

    Parameters
    ----------
    particles : SetOfParticles, one of its classes or any iterable set of particles with projection alignment and CTF.
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
    problem = whyNotWritable(particles, first)
    if problem:
        raise ConversionError(problem)
    columns = _columns(first)
    count, rows, matrices = 0, [], []
    with open(path, "w", encoding="utf-8") as star:
        star.write("# written by gmmhet for Scipion\n\n# version 30001\n")
        _opticsTable(particles, first).writeStar(star, tableName="optics")
        star.write("\n# version 30001\n\ndata_particles\n\nloop_\n")
        star.writelines("_%s #%d\n" % (name, i + 1) for i, name in enumerate(columns))
        for item in particles.iterItems():
            if not item.isEnabled():
                continue
            rows.append(_row(item, columns))
            matrices.append(item.getTransform().getMatrix())
            count += 1
            if len(rows) == chunk:
                _writeRows(star, columns, rows, matrices, particles.getSamplingRate())
                rows, matrices = [], []
        if rows:
            _writeRows(star, columns, rows, matrices, particles.getSamplingRate())
        star.write("\n")
    if not count:
        raise ConversionError("The set of particles is empty: all its particles are disabled. Choose another set.")
    return count


def whyNotWritable(particles, first=None):
    """A sentence when a set lacks what the engine needs, else an empty string."""
    if not particles.getSize():
        return "The set of particles is empty: choose a set that holds particles."
    first = first or particles.getFirstItem()
    if particles.getAlignment() != ALIGN_PROJ or not first.hasTransform():
        return ("The particles have no projection alignment (their alignment is '%s'): choose the particles of a 3D refinement. A RELION "
                "star file whose first particle has rlnAngleRot 0 loses its alignment when Scipion imports it." % particles.getAlignment())
    if not first.hasCTF():
        return "The particles have no CTF: choose particles with defocus values, or assign a CTF to them first."
    if not particles.getSamplingRate():
        return "The particles have no pixel size: set it where they were imported."
    return ""


def doubts(particles):
    """Sentences about a set that can be written but looks wrong."""
    first, contrast = particles.getFirstItem(), particles.getAcquisition().getAmplitudeContrast()
    shift = first.getCTF().getPhaseShift() if first is not None and first.hasCTF() else None
    if shift and contrast and abs(shift - np.degrees(np.arcsin(contrast))) < 0.05:
        return ["The phase shift of the particles (%.2f°) is that of their amplitude contrast (%.3g), as EMAN2 notes it, and would count "
                "twice: set the amplitude contrast to 0 or remove the phase shift, unless a phase plate was used." % (shift, contrast)]
    return []


def _columns(first):
    names = ["rlnImageId", "rlnImageName", "rlnOpticsGroup", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst",
             "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"]
    if first.hasCoordinate():
        names += ["rlnCoordinateX", "rlnCoordinateY", "rlnMicrographName"]
    carried = [key[1:] for key, value in first.getAttributes() if key.startswith(RELION_PREFIX) and isinstance(value, Scalar)]
    return names + [name for name in carried if name not in names]


def _row(item, columns):
    """A particle's values by column, without alignment."""
    ctf = item.getCTF()
    values = {"rlnImageId": item.getObjId(), "rlnImageName": imageName(item), "rlnDefocusU": ctf.getDefocusU(),
              "rlnDefocusV": ctf.getDefocusV(), "rlnDefocusAngle": ctf.getDefocusAngle(), "rlnPhaseShift": ctf.getPhaseShift() or 0.0,
              "rlnOpticsGroup": 1}
    if "rlnCoordinateX" in columns and item.hasCoordinate():
        coordinate = item.getCoordinate()
        values.update(rlnCoordinateX=coordinate.getX(), rlnCoordinateY=coordinate.getY(),
                      rlnMicrographName=coordinate.getMicName() or coordinate.getMicId() or "unknown")
    for name in columns:
        value = item.getAttributeValue("_" + name, None)
        if value is not None:
            values[name] = value
    return values


def _writeRows(star, columns, rows, matrices, pixelSize):
    angles, origins = eulerFromAlignment(np.stack(matrices), pixelSize)
    for row, angle, origin in zip(rows, angles, origins):
        row["rlnAngleRot"], row["rlnAngleTilt"], row["rlnAnglePsi"] = angle
        row["rlnOriginXAngst"], row["rlnOriginYAngst"] = origin
        star.write(" ".join(_text(row.get(name, 0)) for name in columns) + "\n")


def _text(value):
    """A value as STAR text: floats with twelve digits, names with blanks in quotes."""
    if isinstance(value, (float, np.floating)):
        return "%.12g" % value
    text = str(value)
    return '"%s"' % text if " " in text or not text else text


def imageName(item):
    """``000001@stack.mrcs`` of an item; a leading or trailing format mark of Xmipp (``:mrcs``) is dropped."""
    index, path = item.getLocation()
    head, _, tail = path.rpartition(":")
    path = head if head and os.sep not in tail else path
    return path if index == NO_INDEX else "%06d@%s" % (index, path)


def _opticsTable(particles, first):
    """The optics groups: those that came with the set where it has them, else one group made of its acquisition."""
    size, pixelSize = particles.getXDim() or first.getXDim(), particles.getSamplingRate()
    text = particles.getAcquisition().opticsGroupInfo.get()
    if text:
        import io
        table = Table()
        table.readStar(io.StringIO(text), tableName="optics")
        given = [dict(row._asdict()) for row in table]
    else:
        acquisition = particles.getAcquisition()
        given = [{"rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", "rlnVoltage": acquisition.getVoltage(),
                  "rlnSphericalAberration": acquisition.getSphericalAberration(),
                  "rlnAmplitudeContrast": acquisition.getAmplitudeContrast()}]
    for group in given:
        if particles.isPhaseFlipped():
            group["rlnCtfDataArePhaseFlipped"] = 1
        group.update(rlnImagePixelSize=float(pixelSize), rlnImageSize=int(size), rlnImageDimensionality=2)
        lacking = [name for name in _OPTICS_OF_SET if group.get(name) is None]
        if lacking:
            raise ConversionError("The particles' acquisition lacks %s: set it where they were imported." % ", ".join(lacking))
    table = Table(columns=[Table.Column(name, type(value)) for name, value in given[0].items()])
    for group in given:
        table.addRow(**group)
    return table


def writeMap(volume, path):
    """Give a Volume to the engine: MRC files are used where they are, HDF files of EMAN2 are rewritten to `path`.

    Returns
    -------
    str, the file to read.
    """
    source = volume.getFileName().split("@")[-1].split(":mrc")[0]
    if source.endswith((".mrc", ".map", ".mrcs", ".ccp4")):
        return source
    if not source.endswith((".hdf", ".h5")):
        from pwem.emlib.image import ImageHandler
        ImageHandler().convert(source, path)
        return path
    import mrcfile
    with mrcfile.new(path, overwrite=True) as out:
        out.set_data(_hdfMap(source))
        out.voxel_size = volume.getSamplingRate()
    return path


def _hdfMap(path):
    try:
        import h5py
    except ImportError:
        raise ConversionError("'%s' is an HDF file, and h5py is not in Scipion's Python. Run: scipion3 pip install h5py" % path) from None
    with h5py.File(path, "r") as source:
        return np.asarray(source["MDF/images/0/image"], np.float32)


# ------------------------------------------------------------------ reading
def readAlignment(path):
    """Ids, angles and origins of a star file the engine wrote.

    Returns
    -------
    dict id -> (rot, tilt, psi in degrees, rlnOriginXAngst, rlnOriginYAngst).
    """
    wanted = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    rows = Table.iterRows(path, tableName="particles", guessType=False)    # emtable guesses types from the first row alone
    return {int(row.rlnImageId): tuple(float(getattr(row, name)) for name in wanted) for row in rows}


def setAlignment(item, values, pixelSize):
    """Give an item the alignment `values` of `readAlignment`."""
    matrix = alignmentFromEuler([values[:3]], [values[3:]], pixelSize)[0]
    transform = Transform()
    transform.setMatrix(matrix)
    item.setTransform(transform)


def readLatents(path):
    """The latents of a train run, by particle.

    Parameters
    ----------
    path : str, latents.npz.

    Returns
    -------
    dict id -> dict with ``z`` [copies, D] (in the order of the symmetry copies), ``agreement``, ``neutral_agreement`` (means over the
    copies) and ``held_out``.

    Raises
    ------
    ConversionError
        when a particle lacks one of its copies.
    """
    with np.load(path, allow_pickle=False) as file:
        ids, copies, z = file["id"], file["copy"], file["z"]
        gains = {name: file[name] for name in ("agreement", "neutral_agreement", "held_out")}
    order = np.lexsort((copies, ids))
    number = int(copies.max()) + 1
    if len(ids) % number or np.any(copies[order].reshape(-1, number) != np.arange(number)):
        raise ConversionError("'%s' is damaged: it does not hold all %d symmetry copies of every particle. Run the training again."
                              % (path, number))
    rows = order.reshape(-1, number)
    return {int(ids[row[0]]): {"z": z[row], "agreement": float(np.mean(gains["agreement"][row])),
                               "neutral_agreement": float(np.mean(gains["neutral_agreement"][row])),
                               "held_out": bool(np.any(gains["held_out"][row]))} for row in rows}


def readIds(path):
    """Particle ids of a text file, one a line."""
    with open(path, encoding="utf-8") as file:
        return [int(line.split()[0]) for line in file if line.strip() and not line.startswith("#")]


def join(items, values, what):
    """Pair the items of a set with values by id.

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
            raise ConversionError("Particle %d of the input set has no %s: the input is not the set that the results were computed from."
                                  % (item.getObjId(), what))
        yield item, values[item.getObjId()]


def setScalar(item, name, value):
    """Set attribute `name` of an item to a plain Python number."""
    plain = Integer(int(value)) if isinstance(value, (bool, np.bool_, int, np.integer)) else Float(float(value))
    setattr(item, name, plain)


def pixelSizeOf(path):
    """Pixel size of an MRC map, Å."""
    import mrcfile
    with mrcfile.open(path, header_only=True, permissive=True) as file:
        return float(file.voxel_size.x)
