"""What is not known of each particle's pose: estimated along with the training, so that a wrong pose does not pass for a conformation.

A change x of the pose (see `imaging.pose_change`) has the prior N(0, diag(sigma)^2). The log-likelihood is taken as quadratic, ``p x - x C
x / 2``, so that everything has a closed form: the posterior is ``N((C + P)^-1 p, (C + P)^-1)`` with P = diag(sigma)^-2, and the marginal
likelihood over that at x = 0

    p S (1 + S C S)^-1 S p / 2 - log det(1 + S C S) / 2,    S = diag(sigma)

says which sigma the images want (empirical Bayes; MacKay 1992). There z and x must be integrated out together: a pose can follow a motion
half way, and taken one after the other, whichever is first keeps what belongs to the other. Sigma 0: the poses are as good as the images
can tell.
"""
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize

from gmmhet.engine.batching.batches import by_item
from gmmhet.engine.imaging.pose_change import changed, difference_steps
from gmmhet.engine.inference.least_squares import linearised
from gmmhet.engine.likelihood.forward import residuals

#: particles from which sigma is estimated, and optimizer steps, or epochs, after which it is estimated anew
MOST_ITEMS, SETTLE_STEPS, SETTLE_EPOCHS = 512, 150, 3
#: sigma's range: degrees and pixels; what is at the lower end counts as 0
RANGE_DEG, RANGE_PX = (0.01, 10.0), (0.005, 5.0)


class PoseErrors:
    """Changes of pose of all particles of a training.

    Parameters
    ----------
    slope : [n, 5], p of every particle at the model that training starts from; curvature : [n, 5, 5], C there.
    pixel_size : float, Å.
    learned : int [m], the particles that sigma may be estimated from.
    seed : int

    Attributes
    ----------
    change : float32 [n, 5], radians and Å.
    sigma : float [2], standard deviations of the prior: radians, and Å.
    first_sigma : float [2], the first estimate: what poses have to make up for when one model stands for all particles.
    sample : int, the particles that sigma is estimated from.
    precision : tf.Variable [5], diagonal of P; 0 where sigma is 0, and every change with it.
    """

    def __init__(self, slope, curvature, pixel_size, learned, seed):
        self.curvature, self._pixel_size = np.asarray(curvature, np.float32), pixel_size
        order = np.random.default_rng([seed, 16]).permutation(len(learned))
        self.sample = np.sort(np.asarray(learned)[order[:MOST_ITEMS]])
        self.sigma, self.precision, self.change = np.zeros(2), tf.Variable(tf.zeros(5), trainable=False), np.zeros_like(slope)
        self.assume(likeliest_sigma(slope[self.sample], curvature[self.sample], pixel_size, self.sigma))
        self.first_sigma = self.sigma
        for rows in parts(len(slope)):
            self.change[rows] = (self.response(rows) @ slope[rows, :, None])[..., 0]

    @property
    def sigmas(self):
        """Standard deviations of the prior [5]."""
        return np.repeat(self.sigma, (3, 2))

    @property
    def uncertain(self):
        """Whether the poses have errors that the images show."""
        return bool(np.any(self.sigma > 0))

    def settle(self, slope, curvature):
        """Estimate sigma anew from slopes [m, Q + 5] and curvatures [m, Q + 5, Q + 5] by latent points, whose prior is the unit normal, and
        pose."""
        self.assume(likeliest_sigma(slope, curvature, self._pixel_size, self.sigma))

    def assume(self, sigma):
        """Take these standard deviations [2] for true; what has none goes back to where it was given."""
        self.sigma, s = np.asarray(sigma, float), np.repeat(sigma, (3, 2))
        self.change[:, s == 0] = 0
        self.precision.assign(np.divide(1.0, s**2, out=np.zeros(5), where=s > 0))

    def _inner(self, rows):
        s = self.sigmas
        return np.eye(5) + s[:, None] * self.curvature[rows] * s

    def response(self, rows):
        """``(C + P)^-1`` of particles, float32 [B, 5, 5]: the posterior's covariance, and what takes a slope at x = 0 to its mean."""
        s = self.sigmas
        return (s[:, None] * np.linalg.inv(self._inner(rows)) * s).astype(np.float32)

    def volume(self, rows):
        """``log det(1 + S C S) / 2`` [B], what the precision of its pose takes from a particle's likelihood; nats."""
        return 0.5 * np.linalg.slogdet(self._inner(rows))[1]

    def drawn(self, rows, noise):
        """Changes [B, 5] drawn from the posterior with standard normal noise [B, 5]."""
        s = self.sigmas
        return self.change[rows] + s * np.einsum("bij,bj->bi", np.linalg.cholesky(np.linalg.inv(self._inner(rows))), noise)

    def __str__(self):
        return "%.2g° and %.2g Å" % (np.degrees(self.sigma[0]), self.sigma[1])


def parts(count, size=2048):
    """Slices that cover `count` rows: small matrices of many particles take much memory when they are made all at once."""
    return [slice(start, start + size) for start in range(0, count, size)]


def marginal(s, slope, curvature):
    """The marginal likelihood over that at x = 0 (see above), nats [n]; s [Q], slope [n, Q], curvature [n, Q, Q]."""
    def of(rows):
        inner, scaled = np.eye(len(s)) + s[:, None] * curvature[rows] * s, s * slope[rows]
        return 0.5 * np.einsum("bi,bi->b", scaled, np.linalg.solve(inner, scaled[..., None])[..., 0]) - 0.5 * np.linalg.slogdet(inner)[1]
    return np.concatenate([of(rows) for rows in parts(len(slope))])


def likeliest_sigma(slope, curvature, pixel_size, start):
    """Sigma [2] (radians, Å) of the largest marginal likelihood; 0 where it does not pay for the number itself (Schwarz 1978).

    Parameters
    ----------
    slope : [n, Q + 5]; curvature : [n, Q + 5, Q + 5]; the first Q have standard deviation 1.
    pixel_size : float, Å.
    start : [2], a guess; 0 for none.
    """
    low, high = np.log([np.radians(RANGE_DEG), np.multiply(RANGE_PX, pixel_size)]).T
    slope, curvature = slope.astype(np.float64), curvature.astype(np.float64)

    def value(sigma):
        return marginal(np.append(np.ones(slope.shape[1] - 5), np.repeat(sigma, (3, 2))), slope, curvature).sum()

    def lost(log_sigma):
        return -value(np.exp(np.clip(log_sigma, low, high)))

    guesses = [np.log(start)] if np.all(start > 0) else [low + (high - low) * share for share in (0.4, 0.7)]
    best = min((minimize(lost, guess, method="Nelder-Mead", options=dict(xatol=0.02, fatol=0.01, maxiter=200)) for guess in guesses),
               key=lambda r: r.fun)
    found = np.clip(best.x, low, high)
    sigma = np.where(found > low + 0.05, np.exp(found), 0.0)
    return sigma if value(sigma) > value(np.zeros(2)) + np.log(len(slope)) else np.zeros(2)


def told_from_zero(residual, x, steps):
    """Slope at 0 and curvature of the quadratic that the log-likelihood is like about x."""
    slope, curvature = linearised(residual, x, residual(x), steps)
    return slope + tf.linalg.matvec(curvature, x), curvature


def pose_function(agreement):
    """A function: data, transfer, rotation, shift, mixture to slope [B, 5] and curvature [B, 5, 5] of the log-likelihood by a change of
    pose."""
    steps = tf.constant(difference_steps(agreement.grid.pixel_size))

    def function(data, transfer, rotation, shift, mixture):
        def residual(x):
            return residuals(agreement, data, transfer, changed(rotation, shift, x), mixture)
        return told_from_zero(residual, tf.zeros([tf.shape(rotation)[0], 5]), steps)
    return function


def joint_function(agreement, model):
    """A function: images, rotation, shift, ctf, features [B, copies, F], change [B, 5] to slope and curvature by the own z of all copies
    and the pose.

    Expanded about the encoder's z and the change, and told from where z is 0 and the pose as given; [B, Q + 5] and [B, Q + 5, Q + 5].
    """
    own = model.own_dim * model.copies
    steps = tf.constant(np.append(np.full(own, 0.02), difference_steps(agreement.grid.pixel_size)), tf.float32)

    def function(images, rotation, shift, ctf, features, change):
        data, transfer = agreement.observe(images, ctf)
        features = by_item(features)
        given = model.given(features)

        def residual(q):
            mixture = model.mixture(tf.concat([given, tf.reshape(q[:, :own], [-1, model.own_dim])], 1))
            return residuals(agreement, data, transfer, changed(rotation, shift, q[:, own:]), model.assembled(mixture))
        here = tf.concat([tf.reshape(model.encode(features)[0], [-1, own]), change], 1)
        return told_from_zero(residual, here, steps)
    return function
