"""Which mixture each particle is of: the same for all, or one of its own."""
from typing import Protocol

import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.projection import MixtureBatch


class Conformations(Protocol):
    """What says of every particle which mixture it is of."""

    def at(self, rows: np.ndarray) -> MixtureBatch:
        """Mixtures of the particles of rows [B]: centers [B, N, 3], amplitudes [B, N], widths [B, N] or [N];
        without B where they are the same for all."""
        ...


class SingleConformation:
    """The same mixture for all particles."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def at(self, rows: np.ndarray) -> MixtureBatch:
        """The mixture: centers [N, 3], amplitudes [N], widths [N]."""
        mixture = self.mixture
        return MixtureBatch(*(tf.constant(np.float32(values)) for values in (
            mixture.centers, mixture.amplitudes, mixture.widths)))
