"""Particles of a molecule without any symmetry, mirror included: five blobs whose mirror image no rotation
can reach."""
import os
from typing import Any, Dict

import mrcfile
import numpy as np

BOX, PIXEL_SIZE, NUMBER = 32, 4.0, 300
CENTERS = np.array([[-28, 0, 0], [24, 8, 0], [16, 26, 14], [-14, -16, 30], [18, 6, -26]], float)    # Å
AMPLITUDES = np.array([1.0, 0.7, 1.3, 0.9, 0.5])
WIDTH_ANGST = 9.0
COLUMNS = ("rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot",
           "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV",
           "rlnDefocusAngle", "rlnPhaseShift", "rlnOpticsGroup", "rlnRandomSubset", "rlnImageId",
           "rlnCtfBfactor")


def density() -> np.ndarray:
    """The molecule, [z,y,x]."""
    axis = (np.arange(BOX) - BOX // 2) * PIXEL_SIZE
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return sum(a * np.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * WIDTH_ANGST ** 2))
               for a, c in zip(AMPLITUDES, CENTERS)).astype(np.float32)


def write_map(path: str, pixel_size: float = PIXEL_SIZE) -> None:
    """Write the molecule as a map."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(density())
        file.voxel_size = pixel_size


def read_map(path: str) -> np.ndarray:
    """A map [z,y,x], also one whose header is RELION's."""
    with mrcfile.open(path, permissive=True) as file:
        return np.array(file.data)


def parameters() -> Dict[str, Any]:
    """Values of every column but the image's name, with the six decimals of a RELION star file; ids begin at
    11 and have gaps."""
    rng = np.random.default_rng(7)
    defocus = rng.uniform(9000, 20000, NUMBER)
    values = {
        "rlnMicrographName": ["mic_%02d.mrc" % (1 + i // 60) for i in range(NUMBER)],
        "rlnCoordinateX": rng.integers(100, 4000, NUMBER), "rlnCoordinateY": rng.integers(100, 4000, NUMBER),
        "rlnAngleRot": rng.uniform(-179, 179, NUMBER),
        "rlnAngleTilt": np.degrees(np.arccos(rng.uniform(-1, 1, NUMBER))),
        "rlnAnglePsi": rng.uniform(-179, 179, NUMBER), "rlnOriginXAngst": rng.normal(0, 6, NUMBER),
        "rlnOriginYAngst": rng.normal(0, 6, NUMBER), "rlnDefocusU": defocus + 400, "rlnDefocusV": defocus,
        "rlnDefocusAngle": rng.uniform(0, 180, NUMBER), "rlnPhaseShift": np.zeros(NUMBER),
        "rlnOpticsGroup": 1 + np.arange(NUMBER) % 2, "rlnRandomSubset": rng.integers(1, 3, NUMBER),
        "rlnImageId": 11 + 3 * np.arange(NUMBER), "rlnCtfBfactor": np.zeros(NUMBER)}
    return {name: np.round(value, 6) if getattr(value, "dtype", None) == float else value
            for name, value in values.items()}


def write_star(path: str, stack: str = "particles.mrcs") -> None:
    """Write the parameters as a RELION 3.1 star file with two optics groups."""
    values = parameters()
    values["rlnImageName"] = ["%06d@%s" % (i + 1, stack) for i in range(NUMBER)]
    with open(path, "w", encoding="utf-8") as star:
        star.write("\n# version 30001\n\ndata_optics\n\nloop_\n")
        names = ("OpticsGroup", "OpticsGroupName", "Voltage", "SphericalAberration", "AmplitudeContrast",
                 "ImagePixelSize", "ImageSize", "ImageDimensionality")
        star.writelines("_rln%s #%d\n" % (name, i) for i, name in enumerate(names, 1))
        star.writelines("%d group%d 300.0 2.7 0.1 %.4f %d 2\n" % (g, g, PIXEL_SIZE, BOX) for g in (1, 2))
        star.write("\n\n# version 30001\n\ndata_particles\n\nloop_\n")
        star.writelines("_%s #%d\n" % (name, i) for i, name in enumerate(COLUMNS, 1))
        for i in range(NUMBER):
            row = [values[name][i] for name in COLUMNS]
            words = ["%.6f" % value if isinstance(value, float) else str(value) for value in row]
            star.write(" ".join(words) + "\n")
        star.write("\n")


def finish_star(folder: str, projected: str, wanted: str) -> None:
    """Turn the output of relion_project into ``wanted.mrcs`` and ``wanted.star``, with a little noise in the
    images."""
    with mrcfile.open(os.path.join(folder, projected + ".mrcs"), permissive=True) as file:
        images = np.array(file.data)
    images += np.random.default_rng(3).normal(0, 0.3 * images.std(), images.shape).astype(np.float32)
    with mrcfile.new(os.path.join(folder, wanted + ".mrcs"), overwrite=True) as file:
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = PIXEL_SIZE
    write_star(os.path.join(folder, wanted + ".star"), wanted + ".mrcs")


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two maps."""
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])
