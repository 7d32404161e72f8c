"""Whether a map shows its molecule white (density positive) or black."""
from typing import Any, Mapping

import numpy as np
from scipy.ndimage import uniform_filter

from gmmhet.engine.log import log

#: skewness of the smoothed density below which a map is neither white nor black
LEAST_SKEWNESS = 0.3


def map_contrast(volume: np.ndarray) -> str:
    """'white', 'black' or 'unclear': which way the density of a map [L, L, L] stands out from its
    surroundings.

    The map is smoothed over 5 voxels; its contrast is clear where the skewness inside the sphere that touches
    the faces, and the mean of the inner half of that sphere over the mean of its rim, have one sign.
    """
    box = len(volume)
    smooth = uniform_filter(np.asarray(volume, np.float64), 5)
    axis = (np.arange(box) - box // 2) / (box / 2.0)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    inside = smooth[radius < 0.85]
    deviation = inside.std()
    if not deviation > 0:
        return "unclear"
    skewness = np.mean(((inside - inside.mean()) / deviation) ** 3)
    lifted = smooth[radius < 0.5].mean() - smooth[(radius > 0.7) & (radius < 0.85)].mean()
    if abs(skewness) < LEAST_SKEWNESS or skewness * lifted < 0:
        return "unclear"
    return "white" if skewness > 0 else "black"


def whitening_signs(group: np.ndarray, training: Mapping[str, Any]) -> np.ndarray:
    """1 or -1 for every particle, float64 [n]: what its image is multiplied by to be white, by the contrast
    that a training determined.

    Parameters
    ----------
    group : int [n], optics groups.
    training : summary of a train run: `contrast`, and `contrast_of_optics_group` where there are several; a
        group that it does not name takes `contrast`, or stays as it is.
    """
    sign_of = {"white": 1.0, "black": -1.0}
    signs = np.full(len(group), sign_of.get(training.get("contrast", ""), 1.0))
    for number, contrast in training.get("contrast_of_optics_group", {}).items():
        signs[group == int(number)] = sign_of[contrast]
    return signs


def ensure_white(volume: np.ndarray, name: str) -> np.ndarray:
    """The map, inverted where it is black, which the log then says. name : str, what the map is, for the
    log."""
    if map_contrast(volume) != "black":
        return volume
    log.warning("the density of %s is negative: the particles' contrast is black. The map is inverted, so "
                "that the molecule is white", name)
    return -volume
