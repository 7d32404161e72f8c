"""What is not known of each particle's pose: estimated along with the training, so that a wrong pose does not
pass for a conformation.

A change x of the pose (see `imaging.pose_change`) has the prior N(0, diag(sigma)^2). The log-likelihood is
taken as quadratic, ``p x - x C x / 2``, so that everything has a closed form: the posterior is ``N((C + P)^-1
p, (C + P)^-1)`` with P = diag(sigma)^-2, and the marginal likelihood over that at x = 0

    p S (1 + S C S)^-1 S p / 2 - log det(1 + S C S) / 2,    S = diag(sigma)

says which sigma the images want (empirical Bayes; MacKay 1992). There z and x must be integrated out
together: a pose can follow a motion half way, and taken one after the other, whichever is first keeps what
belongs to the other. Sigma 0: the poses are as good as the images can tell.
"""
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize

from gmmhet.engine.batching.batches import ParticleBatch, by_view
from gmmhet.engine.imaging.pose_change import POSE_NUMBERS, difference_steps
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.likelihood.forward import ImageModel
from gmmhet.engine.likelihood.quadratic import Quadratic, expand_at_zero
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel

#: particles from which sigma is estimated
SIGMA_SAMPLE = 512
#: optimizer steps, or epochs, after which it is estimated anew
ESTIMATE_EVERY_STEPS, ESTIMATE_EVERY_EPOCHS = 150, 3
#: sigma's range: degrees and pixels; what is at the lower end counts as 0
RANGE_DEG, RANGE_PX = (0.01, 10.0), (0.005, 5.0)
#: step by which derivatives with respect to z are taken
Z_STEP = 0.02
#: numbers of a change of pose that are angles, and that are shifts
ANGLES_AND_SHIFTS = 3, 2


class PoseErrors:
    """Changes of pose of all particles of a training, and how large they may be.

    Parameters
    ----------
    derivatives : Quadratic of every particle at the model that training starts from: p [n, 5] and C [n, 5,
        5].
    pixel_size : float, Å.
    training_rows : int [m], the particles that sigma may be estimated from.
    seed : int

    Attributes
    ----------
    change : float32 [n, 5], radians and Å.
    sigma : float [2], standard deviations of the prior: radians, and Å.
    first_sigma : float [2], the first estimate: what poses have to make up for when one model stands for all
        particles.
    sample : int, the particles that sigma is estimated from.
    precision : tf.Variable [5], diagonal of P; 0 where sigma is 0, and every change with it.
    """

    def __init__(self, derivatives: Quadratic, pixel_size: float, training_rows: np.ndarray,
                 seed: int) -> None:
        slope, curvature = derivatives
        self.curvature, self._pixel_size = np.asarray(curvature, np.float32), pixel_size
        order = np.random.default_rng([seed, 16]).permutation(len(training_rows))
        self.sample = np.sort(np.asarray(training_rows)[order[:SIGMA_SAMPLE]])
        self.sigma, self.precision = np.zeros(2), tf.Variable(tf.zeros(POSE_NUMBERS), trainable=False)
        self.change = np.zeros_like(slope)
        of_sample = Quadratic(slope[self.sample], curvature[self.sample])
        self.set_sigma(estimate_sigma(of_sample, pixel_size, self.sigma))
        self.first_sigma = self.sigma
        for rows in row_chunks(len(slope)):
            self.change[rows] = (self.response(rows) @ slope[rows, :, None])[..., 0]

    @property
    def sigmas(self) -> np.ndarray:
        """Standard deviations of the prior [5]."""
        return np.repeat(self.sigma, ANGLES_AND_SHIFTS)

    @property
    def uncertain(self) -> bool:
        """Whether the poses have errors that the images show."""
        return bool(np.any(self.sigma > 0))

    def re_estimate(self, derivatives: Quadratic) -> None:
        """Estimate sigma anew from slopes [m, Q + 5] and curvatures by latent points, whose prior is the unit
        normal, and pose."""
        self.set_sigma(estimate_sigma(derivatives, self._pixel_size, self.sigma))

    def set_sigma(self, sigma: np.ndarray) -> None:
        """Take these standard deviations [2] for true; what has none goes back to where it was given."""
        self.sigma, s = np.asarray(sigma, float), np.repeat(sigma, ANGLES_AND_SHIFTS)
        self.change[:, s == 0] = 0
        self.precision.assign(np.divide(1.0, s**2, out=np.zeros(POSE_NUMBERS), where=s > 0))

    def _inner(self, rows: "slice | np.ndarray") -> np.ndarray:
        s = self.sigmas
        return np.eye(POSE_NUMBERS) + s[:, None] * self.curvature[rows] * s

    def response(self, rows: "slice | np.ndarray") -> np.ndarray:
        """``(C + P)^-1`` of particles, float32 [B, 5, 5]: the posterior's covariance, and what takes a slope
        at x = 0 to its mean."""
        s = self.sigmas
        return (s[:, None] * np.linalg.inv(self._inner(rows)) * s).astype(np.float32)

    def log_volume(self, rows: np.ndarray) -> np.ndarray:
        """``log det(1 + S C S) / 2`` [B], what the precision of its pose takes from a particle's likelihood;
        nats."""
        return 0.5 * np.linalg.slogdet(self._inner(rows))[1]

    def draw(self, rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Changes [B, 5] drawn from the posterior with standard normal noise [B, 5]."""
        root = np.linalg.cholesky(np.linalg.inv(self._inner(rows)))
        return self.change[rows] + self.sigmas * np.einsum("bij,bj->bi", root, noise)

    def __str__(self) -> str:
        return "%.2g° and %.2g Å" % (np.degrees(self.sigma[0]), self.sigma[1])


def row_chunks(count: int, size: int = 2048) -> Iterator[slice]:
    """Slices that cover `count` rows: small matrices of many particles take much memory when they are made
    all at once."""
    return (slice(start, start + size) for start in range(0, count, size))


def log_marginal(sigmas: np.ndarray, derivatives: Quadratic) -> np.ndarray:
    """The marginal likelihood over that at x = 0 (see above), nats [n]; of standard deviations [Q], slopes
    [n, Q] and curvatures."""
    slope, curvature = derivatives

    def of(rows: slice) -> np.ndarray:
        inner = np.eye(len(sigmas)) + sigmas[:, None] * curvature[rows] * sigmas
        scaled = sigmas * slope[rows]
        gain = 0.5 * np.einsum("bi,bi->b", scaled, np.linalg.solve(inner, scaled[..., None])[..., 0])
        return gain - 0.5 * np.linalg.slogdet(inner)[1]
    return np.concatenate([of(rows) for rows in row_chunks(len(slope))])


def estimate_sigma(derivatives: Quadratic, pixel_size: float, start: np.ndarray) -> np.ndarray:
    """Sigma [2] (radians, Å) of the largest marginal likelihood; 0 where it does not pay for the number
    itself (Schwarz 1978).

    Parameters
    ----------
    derivatives : Quadratic, slopes [n, Q + 5] and curvatures [n, Q + 5, Q + 5]; the first Q numbers have
        standard deviation 1.
    pixel_size : float, Å.
    start : [2], a guess; 0 for none.
    """
    low, high = np.log([np.radians(RANGE_DEG), np.multiply(RANGE_PX, pixel_size)]).T
    exact = Quadratic(*(values.astype(np.float64) for values in derivatives))
    others = np.ones(exact.slope.shape[1] - POSE_NUMBERS)

    def value(sigma: np.ndarray) -> float:
        return float(log_marginal(np.append(others, np.repeat(sigma, ANGLES_AND_SHIFTS)), exact).sum())

    def lost(log_sigma: np.ndarray) -> float:
        return -value(np.exp(np.clip(log_sigma, low, high)))

    guesses = [np.log(start)] if np.all(start > 0) else [low + (high - low) * share for share in (0.4, 0.7)]
    options = dict(xatol=0.02, fatol=0.01, maxiter=200)
    best = min((minimize(lost, guess, method="Nelder-Mead", options=options) for guess in guesses),
               key=lambda r: r.fun)
    log_sigma = np.clip(best.x, low, high)
    sigma = np.where(log_sigma > low + 0.05, np.exp(log_sigma), 0.0)
    return sigma if value(sigma) > value(np.zeros(2)) + np.log(len(exact.slope)) else np.zeros(2)


class JointDerivatives:
    """A function of a batch (features and pose_change): slope and curvature of the log-likelihood by z_stage
    of all copies and the pose.

    Expanded about the encoder's z and the change of pose, with the slope where z is 0 and the pose as given;
    [B, Q + 5] and [B, Q + 5, Q + 5].
    """

    def __init__(self, model: HeterogeneityModel, agreement: Agreement) -> None:
        self._model, self._image_model = model, ImageModel(agreement)

    def __call__(self, batch: ParticleBatch) -> Quadratic:
        model, image_model = self._model, self._image_model
        observed, features = image_model.observe(batch), by_view(batch.features)
        z_earlier, latent = model.encoder.z_earlier(features), model.n_stage * model.copies
        steps = np.append(np.full(latent, Z_STEP), difference_steps(image_model.grid.pixel_size))

        def residual(q: tf.Tensor) -> tf.Tensor:
            z_stage = tf.reshape(q[:, :latent], [-1, model.n_stage])
            mixture = model.symmetry.assemble(model.mixture(tf.concat([z_earlier, z_stage], 1)))
            return image_model.residual(mixture, observed, observed.pose.perturbed(q[:, latent:]))
        here = tf.concat([tf.reshape(model.encode(features).mean, [-1, latent]), batch.pose_change], 1)
        return expand_at_zero(residual, here, tf.constant(steps, tf.float32))
