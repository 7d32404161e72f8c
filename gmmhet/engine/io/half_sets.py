"""Half sets of particles: the star file's where it has them, else drawn at random."""
import numpy as np

from gmmhet.engine.config import ConfigError
from gmmhet.engine.log import log


def half_sets(particles, seed):
    """Half set 1 or 2 of every particle, int [n]: those of the star file where it has them, else random ones.

    Raises
    ------
    ConfigError
        when a half holds fewer than ten particles.
    """
    half = np.asarray(particles.half)
    if not np.isin(half, (1, 2)).all():
        log.info("half sets: not known for every particle, drawn at random")
        half = 1 + np.random.default_rng([seed, 14]).permutation(len(particles)) % 2
    sizes = [int(np.sum(half == number)) for number in (1, 2)]
    if min(sizes) < 10:
        raise ConfigError("--half-sets: %s has half sets of %d and %d particles; at least 10 each are needed to train" % (
            particles.path, *sizes))
    return half
