"""EMAN2's .lst files of particles, whose CTF is in the headers of HDF stacks.

A line is image number (from 0), stack, and a JSON dict of parameters, separated by tabs. Conventions, taken
from EMAN2's documentation (its wiki pages on other files, on the Transform object and on metadata) and from
the way its own importer of star files fills them in; the program itself was not at hand to check against:

* A Transform is mirror, translation, scale and rotation, applied to points of the map from right to left; its
  matrix [3, 4] holds the product. The rotation of ``az, alt, phi`` is Z(phi) X(alt) Z(az) of turns of the
  coordinate system, which is A of the engine's conventions with rot = az - 90, tilt = alt, psi = phi + 90.
  The translation (pixels) is where the molecule's origin lies in the image.
* A mirrored image is the projection from another side: a projection does not change when the map's z is
  negated, so the last row of a matrix with determinant -1 is negated.
* ``defocus`` is the mean of both, in µm, underfocus positive; ``dfdiff`` their difference in µm; ``dfang``
the
  angle of the larger one; amplitude contrast is in percent, and above 100 or below 0 a phase shift (phase
  plate); the B-factor is RELION's, exp(-B k² / 4). A number ``defocus`` in the JSON is added to the header's.
  Headers hold four digits of each.
* Stacks whose name says ``flip`` (``__ctf_flip``) are phase-flipped. ``class`` 0 and 1 are the half sets.
"""
import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from gmmhet.engine.imaging.pose import euler_from_rotation, rotation_from_euler
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.io.stacks import hdf_attributes, is_hdf, stack_shape
from gmmhet.engine.log import log
from gmmhet.engine.particles.image_places import find_stacks
from gmmhet.engine.particles.star import ANGLE_LABELS, ParticleTable

_POSE = "xform.projection"
_OPTICS_LABELS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize",
                  "rlnCtfDataArePhaseFlipped", "rlnImageSize")
_DEFOCUS_LABELS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor")


class _Entry(NamedTuple):
    """One line of a list: where it stands, number of the image from 0, its stack, its parameters."""

    where: str
    number: int
    stack: str
    parameters: Dict[str, Any]


def is_lst(path: str) -> bool:
    """Whether `path` names an EMAN2 list of images."""
    return path.lower().endswith(".lst")


def read_lst(path: str) -> ParticleTable:
    """Read an EMAN2 list of particles with poses as if it were a RELION star file.

    Returns
    -------
    ParticleTable
        with RELION's columns and optics groups; stacks by their absolute path.

    Raises
    ------
    ParticleError
        naming the line, when the file is none, or an image has no orientation or no CTF.
    """
    entries = list(_read_entries(path))
    if not entries:
        raise ParticleError("'%s' holds no particles: expected lines of image number, stack and parameters"
                            % path)
    names = sorted({entry.stack for entry in entries})
    stacks = dict(zip(names, find_stacks(path, names)))
    matrix = np.array([_matrix(entry) for entry in entries])
    header = _headers(entries, stacks)
    image_names = ["%06d@%s" % (entry.number + 1, stacks[entry.stack]) for entry in entries]
    table: Dict[str, object] = {"rlnImageName": image_names}
    angles, origin = _poses(matrix, header[:, 3:4])
    table.update(zip(ANGLE_LABELS, angles))
    table.update(zip(("rlnOriginXAngst", "rlnOriginYAngst"), origin.T))
    groups, group_of = np.unique(header[:, :6], axis=0, return_inverse=True)
    table.update(rlnOpticsGroup=group_of.reshape(-1) + 1, **dict(zip(_DEFOCUS_LABELS, header[:, 6:].T)))
    classes = [entry.parameters.get("class") for entry in entries]
    if all(isinstance(c, int) for c in classes) and set(classes) == {0, 1}:
        log.info("%s: classes 0 and 1 are taken as half sets 1 and 2.", path)
        table["rlnRandomSubset"] = np.array(classes) + 1
    number = np.arange(1, len(groups) + 1)
    optics = pd.DataFrame({"rlnOpticsGroup": number,
                           "rlnOpticsGroupName": ["opticsGroup%d" % i for i in number],
                           **dict(zip(_OPTICS_LABELS, groups.T))})
    optics = optics.astype({"rlnCtfDataArePhaseFlipped": int, "rlnImageSize": int})
    optics = optics.assign(rlnImageDimensionality=2)
    log.warning("%s: RELION reads no HDF stacks; for work in RELION convert them (e2proc2d.py particles.hdf "
                "particles.mrcs) and put the new names into the star files written here.", path)
    return ParticleTable(path, pd.DataFrame(table), optics, {})


def _read_entries(path: str) -> Iterator[_Entry]:
    """The lines of a list."""
    if not os.path.isfile(path):
        raise ParticleError("particles file '%s' does not exist" % path)
    with open(path, encoding="utf-8") as file:
        try:
            lines = file.read().splitlines()
        except UnicodeDecodeError:
            raise ParticleError("'%s' is not an EMAN2 list: it is not UTF-8 text" % path) from None
    for i, line in enumerate(lines, 1):
        where = "%s, line %d" % (path, i)
        if not line.strip() or line.startswith("#"):
            continue
        words = line.rstrip().split("\t", 2) if "\t" in line else line.split(None, 2)
        if len(words) < 2 or not words[0].strip().isdecimal() or not words[0].isascii():
            raise ParticleError("%s: expected image number, stack and parameters apart by tabs, got '%s'" % (
                where, line.strip()[:60]))
        stack = words[1].strip()
        if is_lst(stack):
            raise ParticleError("%s names another list, '%s', and not a stack: write a list of the images "
                                "themselves (e2proclst.py --dereforig)" % (where, stack))
        yield _Entry(where, int(words[0]), stack, _parameters(where, words[2] if len(words) > 2 else ""))


def _parameters(where: str, text: str) -> Dict[str, Any]:
    """The JSON dict of a line; an empty one where it has none."""
    try:
        values = json.loads(text) if text.strip() else {}
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ParticleError("%s: expected parameters as JSON in braces after the stack, got '%s': lists of "
                            "EMAN1 and of early EMAN2 hold other comments; write the list again with EMAN2 "
                            "2.9 or later" % (where, text.strip()[:60]))
    return values


def _matrix(entry: _Entry) -> np.ndarray:
    """The Transform of an image as a matrix [3, 4]."""
    where, values = entry.where, entry.parameters
    if _POSE not in values:
        raise ParticleError("%s: the image has no orientation (%s is missing): give the list of a 3D "
                            "refinement, for example r3d_00/ptcls_05.lst" % (where, _POSE))
    if "dxf" in values:
        raise ParticleError("%s: the image belongs to a tilt series of a tomogram (it has 'dxf'), expected "
                            "single particles" % where)
    pose = values[_POSE]
    try:
        if not isinstance(pose, dict):
            raise TypeError(pose)
        if "matrix" in pose:
            numbers = pose["matrix"]
            numbers = json.loads(numbers) if isinstance(numbers, str) else numbers
            matrix = np.array(numbers, np.float64).reshape(3, 4)
        else:
            matrix = _from_angles(pose)
    except (KeyError, TypeError, ValueError):
        matrix = np.full((3, 4), np.nan)
    square = matrix[:, :3] @ matrix[:, :3].T
    if not (np.isfinite(matrix).all() and np.abs(square - np.eye(3)).max() < 1e-3):
        raise ParticleError("%s: %s must be a Transform without scale (a matrix of 12 numbers, or az, alt, "
                            "phi, tx, ty), got '%s'" % (where, _POSE, json.dumps(pose)[:150]))
    return matrix


def _from_angles(pose: Dict[str, Any]) -> np.ndarray:
    """Matrix [3, 4] of a Transform given by its parameters; types eman (az, alt, phi) and spider (phi, theta,
    psi, which are rot, tilt, psi)."""
    kind = pose.get("type", "eman")
    if kind == "eman":
        angles = float(pose["az"]) - 90.0, float(pose["alt"]), float(pose["phi"]) + 90.0
    elif kind == "spider":
        angles = float(pose["phi"]), float(pose["theta"]), float(pose["psi"])
    else:
        raise ValueError(kind)
    translation = [[float(pose.get("t" + axis, 0.0))] for axis in "xyz"]
    matrix = np.concatenate([rotation_from_euler(*angles)[0], translation], axis=1)
    matrix *= float(pose.get("scale", 1.0))
    return np.diag([-1.0 if pose.get("mirror") else 1.0, 1.0, 1.0]) @ matrix


def _poses(matrix: np.ndarray, pixel_size: np.ndarray) -> Tuple[Tuple[np.ndarray, ...], np.ndarray]:
    """RELION's angles (3 x [n]) and origins [n, 2] in Å, of Transforms [n, 3, 4] in pixels (Å/px, [n, 1])."""
    rotation = matrix[:, :, :3].copy()
    rotation[np.linalg.det(rotation) < 0, 2] *= -1
    angles = euler_from_rotation(Rotation.from_matrix(rotation).as_matrix())
    return angles, -matrix[:, :2, 3] * pixel_size + 0.0


def _headers(entries: Sequence[_Entry], stacks: Dict[str, str]) -> np.ndarray:
    """Columns _OPTICS_LABELS and _DEFOCUS_LABELS of each image, [n, 11], from the headers of its stack."""
    table = np.empty((len(entries), len(_OPTICS_LABELS) + len(_DEFOCUS_LABELS)))
    rows_of: Dict[str, List[int]] = {}
    for row, entry in enumerate(entries):
        rows_of.setdefault(entry.stack, []).append(row)
    flipped = [stack for stack in rows_of if "flip" in os.path.basename(stack)]
    if flipped:
        log.info("%d of %d stacks are named as phase-flipped, such as '%s'.", len(flipped), len(stacks),
                 flipped[0])
    for stack, rows in rows_of.items():
        if not is_hdf(stack):
            raise ParticleError("%s names the stack '%s': the CTF is read from headers of HDF stacks, which "
                                "other stacks do not have; give a star file of these particles instead" % (
                                    entries[rows[0]].where, stack))
        box = stack_shape(stacks[stack])[2]
        headers = hdf_attributes(stacks[stack], [entries[row].number for row in rows])
        for row, header in zip(rows, headers):
            voltage, cs, contrast, pixel_size, *of_image = _ctf(entries[row], header)
            table[row] = voltage, cs, contrast, pixel_size, stack in flipped, box, *of_image
    return table


def _ctf(entry: _Entry, header: Dict[str, Any]) -> Tuple[float, ...]:
    """Voltage (kV), aberration (mm), contrast, pixel size (Å/px); defoci (Å), their angle (°), phase shift
    (°), B-factor (Å²)."""
    where = "%s: image %d of '%s'" % (entry.where, entry.number, entry.stack)
    text = header.get("EMAN.ctf")
    if text is None:
        raise ParticleError("%s has no CTF in its header (EMAN.ctf is missing): fit the CTF (e2ctf.py, or "
                            "e2ctf_auto.py) before making the list, or give a star file" % where)
    text = (text.decode() if isinstance(text, bytes) else str(text)).strip()
    try:
        plain = text.removeprefix("O")
        kind, numbers = plain[:1], [float(word) for word in plain[1:].split()[:8]]
        extra = float(entry.parameters.get("defocus", 0.0))
        pixel_size = float(np.ravel(header.get("EMAN.apix_x", numbers[7]))[0])
    except (ValueError, TypeError, IndexError):
        kind, numbers = "", []
    if kind != "E" or len(numbers) != 8 or not np.isfinite([*numbers, extra, pixel_size]).all():
        raise ParticleError("%s has the CTF '%s', expected EMAN2's: E and 8 numbers "
                            "(defocus, dfdiff, dfang, bfactor, ampcont, voltage, cs, apix)" % (
                                where, text[:80]))
    defocus, difference, angle, bfactor, percent, voltage, cs, _ = numbers
    mean = 1e4 * (defocus + extra)
    contrast, phase = (percent / 100.0, 0.0) if 0 <= percent <= 100 else (0.0, _phase_deg(percent / 100.0))
    u, v = mean + 5e3 * difference, mean - 5e3 * difference
    return voltage, cs, contrast, pixel_size, u, v, angle, phase, bfactor


def _phase_deg(contrast: float) -> float:
    """Phase shift that EMAN2 notes as an amplitude contrast below 0 or above 1, degrees."""
    if not -3 <= contrast <= 3:
        return np.nan
    if abs(contrast) <= 1:
        return float(np.degrees(np.arcsin(contrast)))
    return float(np.degrees(np.sign(contrast) * (np.pi - np.arcsin(2.0 - abs(contrast)))))
