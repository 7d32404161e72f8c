"""Symmetric particles: one asymmetric unit varies, in each symmetry-related place of a particle by itself."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.imaging.projection import MixtureBatch


class SymmetryCopies:
    """How a whole particle is made of the mixtures of its symmetry copies.

    Parameters
    ----------
    group : point group, cN or dN.
    neutral : Mixture of N Gaussians.
    varies : bool [N], Gaussians that vary, in this stage or an earlier one.
    whole_unit : whether those are a whole asymmetric unit.

    Attributes
    ----------
    group : as given.
    rotations : float32 [copies, 3, 3], which take the unit to each of its places.
    static_part : MixtureBatch without a batch, what a particle holds beside the varying Gaussians of all its
        copies. Nothing without symmetry, and where one asymmetric unit varies, whose copies make the whole.
        Else the neutral mixture, less what those Gaussians are in it when nothing varies: it need not have
        copies of them that match one by one.
    """

    def __init__(self, group: str, neutral: Mixture, varies: np.ndarray, whole_unit: bool) -> None:
        self.group = group
        self.rotations = symmetry_matrices(group).astype(np.float32)
        self._varies = np.flatnonzero(varies)
        self.static_part = self._static_part(neutral, whole_unit)

    @property
    def copies(self) -> int:
        """Symmetry copies of a particle."""
        return len(self.rotations)

    def _static_part(self, neutral: Mixture, whole_unit: bool) -> MixtureBatch:
        if self.copies == 1 or whole_unit:
            return MixtureBatch(np.zeros((0, 3), np.float32), *[np.zeros(0, np.float32)] * 2)
        unit = neutral.select(self._varies)
        turned = np.concatenate([unit.centers @ rotation.T for rotation in self.rotations])
        pairs = ((neutral.centers, turned), (neutral.amplitudes, np.tile(-unit.amplitudes, self.copies)),
                 (neutral.widths, np.tile(unit.widths, self.copies)))
        return MixtureBatch(*[np.concatenate(pair).astype(np.float32) for pair in pairs])

    def asymmetric_unit(self, mixture: MixtureBatch) -> MixtureBatch:
        """What one symmetry copy is of mixtures: the Gaussians that vary in this stage or an earlier one;
        without symmetry all."""
        if self.copies == 1:
            return mixture
        return MixtureBatch(*[tf.gather(values, self._varies, axis=0 if len(values.shape) == 1 else 1)
                              for values in mixture])

    def assemble(self, mixture: MixtureBatch) -> MixtureBatch:
        """Whole particles from the mixtures of their symmetry copies, which vary each in its own way.

        Parameters
        ----------
        mixture : centers [B * copies, N, 3], amplitudes [B * copies, N], widths [B * copies, N] or [N];
            copies of a particle in a row.

        Returns
        -------
        MixtureBatch: centers [B, M, 3], amplitudes [B, M], widths [B, M] or [M]; the same without symmetry.
        """
        if self.copies == 1:
            return mixture
        centers, amplitudes, widths = self.asymmetric_unit(mixture)
        count, varying = tf.shape(centers)[0] // self.copies, len(self._varies)
        by_copy = tf.reshape(centers, [count, self.copies, varying, 3])
        turned = tf.einsum("jkl,bjnl->bjnk", self.rotations, by_copy)

        def whole(static: np.ndarray, unit: tf.Tensor, *shape: int) -> tf.Tensor:
            if len(unit.shape) == 1:
                return tf.concat([static, tf.tile(unit, [self.copies])], 0)
            every = tf.zeros([count, len(static), *shape]) + static
            return tf.concat([every, tf.reshape(unit, [count, self.copies * varying, *shape])], 1)
        static = self.static_part
        return MixtureBatch(whole(static.centers, turned, 3), whole(static.amplitudes, amplitudes),
                            whole(static.widths, widths))
