"""Half sets of particles: those of the star file where it has them, else drawn at random."""
from dataclasses import dataclass
from typing import Tuple

import numpy as np


@dataclass(frozen=True)
class HalfSets:
    """The half set of every particle.

    Attributes
    ----------
    number : int8 [n], 1 or 2.
    source : str, where they come from, for a log or summary.
    n_drawn : int, particles whose half set was drawn at random.
    """

    number: np.ndarray
    source: str
    n_drawn: int

    @property
    def sizes(self) -> Tuple[int, int]:
        """Particles in half set 1 and in half set 2."""
        return int(np.sum(self.number == 1)), int(np.sum(self.number == 2))


def draw_half_sets(known: np.ndarray, seed: int, stream: Tuple[int, ...] = ()) -> HalfSets:
    """Complete half sets: known ones are kept, and particles without one are divided at random into equal
    halves.

    Parameters
    ----------
    known : int [n], 1 or 2 (``rlnRandomSubset``), and 0 where unknown.
    seed : int, of the draw; `stream` makes it another one than that of other random choices with the seed.
    """
    unknown = np.flatnonzero(~np.isin(known, (1, 2)))
    number = np.array(known, np.int8)
    number[unknown] = np.random.default_rng([seed, *stream]).permutation(len(unknown)) % 2 + 1
    source = "rlnRandomSubset of the star file"
    if len(unknown):
        source = "drawn at random with seed %d" % seed
        if len(unknown) < len(number):
            source = "rlnRandomSubset, and for %d particles without it %s" % (len(unknown), source)
    return HalfSets(number, source, len(unknown))
