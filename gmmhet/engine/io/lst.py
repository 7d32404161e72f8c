"""EMAN2's .lst files: lines of image number (from 0), stack, and a JSON dict of parameters, apart by tabs; the HDF stacks hold the CTF.

Conventions, taken from EMAN2's documentation (its wiki pages on other files, on the Transform object and on metadata) and from the way its
own importer of star files fills them in; the program itself was not at hand to check against:

* A Transform is mirror, translation, scale and rotation, applied to points of the map from right to left; its matrix [3, 4] holds the
  product. The rotation of ``az, alt, phi`` is Z(phi) X(alt) Z(az) of turns of the coordinate system, which is A of the engine's
  conventions with rot = az - 90, tilt = alt, psi = phi + 90. The translation (pixels) is where the molecule's origin lies in the image.
* A mirrored image is the projection from another side: a projection does not change when the map's z is negated, so the last row
  of a matrix with determinant -1 is negated.
* ``defocus`` is the mean of both, in µm, underfocus positive; ``dfdiff`` their difference in µm; ``dfang`` the angle of the larger one;
  amplitude contrast is in percent, and above 100 or below 0 a phase shift (phase plate); the B-factor is RELION's, exp(-B k² / 4).
  A number ``defocus`` in the JSON is added to the header's. Headers hold four digits of each.
* Stacks whose name says ``flip`` (``__ctf_flip``) are phase-flipped. ``class`` 0 and 1 are the half sets.
"""
import json
import os

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from gmmhet.engine.imaging.pose import euler_from_rotation, rotation_from_euler
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.io.places import find_stacks
from gmmhet.engine.io.stacks import hdf_attributes, is_hdf, stack_shape
from gmmhet.engine.io.star import ParticleTable
from gmmhet.engine.log import log

_POSE = "xform.projection"
_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize", "rlnCtfDataArePhaseFlipped", "rlnImageSize")
_DEFOCI = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor")


def is_lst(path):
    """Whether `path` names an EMAN2 list of images."""
    return path.lower().endswith(".lst")


def read_lst(path):
    """Read an EMAN2 list of posed particles as if it were a RELION star file.

    Parameters
    ----------
    path : str

    Returns
    -------
    ParticleTable
        with RELION's columns and optics groups; stacks by their absolute path.

    Raises
    ------
    ParticleError
        naming the line, when the file is none, or an image has no orientation or no CTF.
    """
    entries = list(_entries(path))
    if not entries:
        raise ParticleError("'%s' holds no particles: expected lines of image number, stack and parameters" % path)
    names = sorted({stack for _, _, stack, _ in entries})
    stacks = dict(zip(names, find_stacks(path, names)))
    matrix = np.array([_matrix(where, values) for where, _, _, values in entries])
    header = _headers(entries, stacks)
    table: dict[str, object] = {"rlnImageName": ["%06d@%s" % (number + 1, stacks[stack]) for _, number, stack, _ in entries]}
    angles, origin = _poses(path, matrix, header[:, 3:4])
    table.update(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles))
    table.update(zip(("rlnOriginXAngst", "rlnOriginYAngst"), origin.T))
    groups, group_of = np.unique(header[:, :6], axis=0, return_inverse=True)
    table.update(rlnOpticsGroup=group_of.reshape(-1) + 1, **dict(zip(_DEFOCI, header[:, 6:].T)))
    classes = [values.get("class") for _, _, _, values in entries]
    if all(isinstance(c, int) for c in classes) and set(classes) == {0, 1}:
        log.info("%s: classes 0 and 1 are taken as half sets 1 and 2.", path)
        table["rlnRandomSubset"] = np.array(classes) + 1
    number = np.arange(1, len(groups) + 1)
    optics = pd.DataFrame({"rlnOpticsGroup": number, "rlnOpticsGroupName": ["opticsGroup%d" % i for i in number],
                           **dict(zip(_OPTICS, groups.T))})
    optics = optics.astype({"rlnCtfDataArePhaseFlipped": int, "rlnImageSize": int}).assign(rlnImageDimensionality=2)
    log.warning("%s: RELION reads no HDF stacks; for work in RELION convert them (e2proc2d.py particles.hdf particles.mrcs) and put the "
                "new names into the star files written here.", path)
    return ParticleTable(path, pd.DataFrame(table), optics, {})


def _entries(path):
    """For each image: where it is said, number from 0, stack, dict of parameters."""
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
        parts = line.rstrip().split("\t", 2) if "\t" in line else line.split(None, 2)
        if len(parts) < 2 or not parts[0].strip().isdecimal() or not parts[0].isascii():
            raise ParticleError("%s: expected image number, stack and parameters apart by tabs, got '%s'" % (where, line.strip()[:60]))
        if is_lst(parts[1].strip()):
            raise ParticleError("%s names another list, '%s', and not a stack: write a list of the images themselves "
                                "(e2proclst.py --dereforig)" % (
                where, parts[1].strip()))
        yield where, int(parts[0]), parts[1].strip(), _parameters(where, parts[2] if len(parts) > 2 else "")


def _parameters(where, text):
    try:
        values = json.loads(text) if text.strip() else {}
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ParticleError("%s: expected parameters as JSON in braces after the stack, got '%s': lists of EMAN1 and of early EMAN2 hold "
                            "other comments; write the list again with EMAN2 2.9 or later" % (where, text.strip()[:60]))
    return values


def _matrix(where, values):
    """The Transform of an image as a matrix [3, 4]."""
    if _POSE not in values:
        raise ParticleError("%s: the image has no orientation (%s is missing): give the list of a 3D refinement, "
                            "for example r3d_00/ptcls_05.lst" % (
            where, _POSE))
    if "dxf" in values:
        raise ParticleError("%s: the image belongs to a tilt series of a tomogram (it has 'dxf'), expected single particles" % where)
    pose = values[_POSE]
    try:
        if not isinstance(pose, dict):
            raise TypeError(pose)
        if "matrix" in pose:
            found = pose["matrix"]
            matrix = np.array(json.loads(found) if isinstance(found, str) else found, np.float64).reshape(3, 4)
        else:
            matrix = _from_angles(pose)
    except (KeyError, TypeError, ValueError):
        matrix = np.full((3, 4), np.nan)
    square = matrix[:, :3] @ matrix[:, :3].T
    if not (np.isfinite(matrix).all() and np.abs(square - np.eye(3)).max() < 1e-3):
        raise ParticleError("%s: %s must be a Transform without scale (a matrix of 12 numbers, or az, alt, phi, tx, ty), got '%s'" % (
            where, _POSE, json.dumps(pose)[:150]))
    return matrix


def _from_angles(pose):
    """Matrix of a Transform given by its parameters; types eman (az, alt, phi) and spider (phi, theta, psi, which are rot, tilt, psi)."""
    kind = pose.get("type", "eman")
    if kind == "eman":
        angles = float(pose["az"]) - 90.0, float(pose["alt"]), float(pose["phi"]) + 90.0
    elif kind == "spider":
        angles = float(pose["phi"]), float(pose["theta"]), float(pose["psi"])
    else:
        raise ValueError(kind)
    matrix = np.concatenate([rotation_from_euler(*angles)[0], [[float(pose.get("t" + axis, 0.0))] for axis in "xyz"]], axis=1)
    matrix *= float(pose.get("scale", 1.0))
    return np.diag([-1.0 if pose.get("mirror") else 1.0, 1.0, 1.0]) @ matrix


def _poses(path, matrix, pixel_size):
    """RELION's angles (3 x [n]) and origins [n, 2] in Å."""
    rotation = matrix[:, :, :3].copy()
    rotation[np.linalg.det(rotation) < 0, 2] *= -1
    return euler_from_rotation(Rotation.from_matrix(rotation).as_matrix()), -matrix[:, :2, 3] * pixel_size + 0.0


def _headers(entries, stacks):
    """For each image the columns _OPTICS and _DEFOCI, [n, 11], from the headers of its stack."""
    found = np.empty((len(entries), len(_OPTICS) + len(_DEFOCI)))
    rows_of: dict[str, list[int]] = {}
    for row, (_, _, stack, _) in enumerate(entries):
        rows_of.setdefault(stack, []).append(row)
    flipped = [stack for stack in rows_of if "flip" in os.path.basename(stack)]
    if flipped:
        log.info("%d of %d stacks are named as phase-flipped, such as '%s'.", len(flipped), len(stacks), flipped[0])
    for stack, rows in rows_of.items():
        if not is_hdf(stack):
            raise ParticleError("%s names the stack '%s': the CTF is read from headers of HDF stacks, which other stacks do not have; give "
                                "a star file of these particles instead" % (entries[rows[0]][0], stack))
        box = stack_shape(stacks[stack])[2]
        attributes = hdf_attributes(stacks[stack], [entries[row][1] for row in rows])
        for row, values in zip(rows, attributes):
            where, number, _, parameters = entries[row]
            voltage, cs, contrast, pixel_size, *deferred = _ctf("%s: image %d of '%s'" % (where, number, stack), values, parameters)
            found[row] = voltage, cs, contrast, pixel_size, stack in flipped, box, *deferred
    return found


def _ctf(where, header, parameters):
    """Voltage (kV), aberration (mm), contrast, pixel size (Å/px); defoci (Å), their angle (°), phase shift (°), B-factor (Å²)."""
    text = header.get("EMAN.ctf")
    if text is None:
        raise ParticleError("%s has no CTF in its header (EMAN.ctf is missing): fit the CTF (e2ctf.py, or e2ctf_auto.py) before making the "
                            "list, or give a star file" % where)
    text = (text.decode() if isinstance(text, bytes) else str(text)).strip()
    try:
        kind, numbers = text.removeprefix("O")[:1], [float(word) for word in text.removeprefix("O")[1:].split()[:8]]
        extra, pixel_size = float(parameters.get("defocus", 0.0)), float(np.ravel(header.get("EMAN.apix_x", numbers[7]))[0])
    except (ValueError, TypeError, IndexError):
        kind, numbers = "", []
    if kind != "E" or len(numbers) != 8 or not np.isfinite([*numbers, extra, pixel_size]).all():
        raise ParticleError("%s has the CTF '%s', expected EMAN2's: E and 8 numbers "
                            "(defocus, dfdiff, dfang, bfactor, ampcont, voltage, cs, apix)" % (
            where, text[:80]))
    defocus, difference, angle, bfactor, percent, voltage, cs, _ = numbers
    mean = 1e4 * (defocus + extra)
    contrast, phase = (percent / 100.0, 0.0) if 0 <= percent <= 100 else (0.0, _phase_deg(percent / 100.0))
    return voltage, cs, contrast, pixel_size, mean + 5e3 * difference, mean - 5e3 * difference, angle, phase, bfactor


def _phase_deg(contrast):
    """Phase shift that EMAN2 notes as an amplitude contrast below 0 or above 1, degrees."""
    if not -3 <= contrast <= 3:
        return np.nan
    phase = np.arcsin(contrast) if abs(contrast) <= 1 else np.sign(contrast) * (np.pi - np.arcsin(2.0 - abs(contrast)))
    return float(np.degrees(phase))
