"""Whether a map shows its molecule white (density positive) or black."""
import numpy as np
from scipy.ndimage import uniform_filter

from gmmhet.engine.log import log

#: skewness of the smoothed density below which a map is neither white nor black
UNCLEAR = 0.3


def map_contrast(volume):
    """'white', 'black' or 'unclear': which way the density of a map [L, L, L] stands out from its surroundings.

    The map is smoothed over 5 voxels; its contrast is clear where the skewness inside the sphere that touches the faces, and the mean of
    the inner half of that sphere over the mean of its rim, have one sign.
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
    if abs(skewness) < UNCLEAR or skewness * lifted < 0:
        return "unclear"
    return "white" if skewness > 0 else "black"


def whitening_signs(group, trained):
    """1 or -1 for every particle [n]: what its image is multiplied by to be white, by what a training found.

    Parameters
    ----------
    group : int [n], optics groups.
    trained : dict, summary of a train run: `contrast`, and `contrast_of_optics_group` where there are several; a group that it does not
        name takes `contrast`, or stays as it is.
    """
    signs = {"white": 1.0, "black": -1.0}
    found = np.full(len(group), signs.get(trained.get("contrast"), 1.0))
    for number, contrast in trained.get("contrast_of_optics_group", {}).items():
        found[group == int(number)] = signs[contrast]
    return found


def made_white(volume, what):
    """The map, inverted where it is black; says so. what : str, where the map comes from."""
    if map_contrast(volume) != "black":
        return volume
    log.warning("the density of %s is negative: the particles' contrast is black. The map is inverted, so that the molecule is white", what)
    return -volume
