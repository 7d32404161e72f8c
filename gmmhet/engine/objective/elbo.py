"""What training maximises: bounds on the evidence of particles, in which z (and where poses are uncertain, the pose) is integrated out."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import by_item
from gmmhet.engine.imaging.pose_change import changed
from gmmhet.engine.imaging.projection import place, project


class Bound:
    """Two lower bounds on the log-likelihood of a particle's image under the decoder and the prior of z, the unit normal.

    By one draw z from the encoder's posterior q: agreement less the divergence of q from the prior (Kingma & Welling 2014), whose gradient
    teaches encoder and decoder together. It is loose where q is not the true posterior: between states, or where a motion and its opposite
    explain an image alike. By several draws: ``log mean_s p(image | z_s) p(z_s) / q(z_s)`` (Burda, Grosse & Salakhutdinov 2016), which is
    tighter with every draw. The decoder learns from one of the draws, chosen with the probability that its weight gives it, which on
    average is that bound's gradient; the encoder learns to expect it (reweighted wake-sleep; Bornschein & Bengio 2015), and so becomes as
    wide as the true posterior.

    With a `precision` [5] of the changes of pose, each pose is moved to its most probable place for the mixture that was drawn, by a
    Gauss-Newton step from `change`, and the agreement is less by what the move costs: together with `PoseErrors.volume`, the marginal
    likelihood over all poses (Laplace).

    Particles come as images [B, L, L], rotation [B, 3, 3], shift [B, 2] (Å), ctf [B, 11], features [B, copies, F], noise, change [B, 5] and
    response [B, 5, 5] (nothing in the last two without a precision). Noise is standard normal: [B, copies, D] for one draw; for several
    [B, copies, S, D + 1], where the last number of a particle's first copy and draw chooses between draws.

    Parameters
    ----------
    model : HeterogeneityModel.
    agreement : Agreement.
    amplitude_cost : float, nats for the whole mass (see `_restraint`).
    """

    def __init__(self, model, agreement, amplitude_cost):
        self.model, self.agreement, self.amplitude_cost = model, agreement, amplitude_cost

    @property
    def by_several(self):
        """Whether several draws make a bound: of a likelihood, with a posterior that the encoder learns."""
        return self.agreement.is_likelihood and self.model.settings["variational"] and self.model.settings.get("draws", 1) > 1

    def of_one(self, precision, images, rotation, shift, ctf, features, noise, change, response, training=False):
        """Agreement and divergence [B], changes of pose [B, 5], and the restraint [B]; by one draw."""
        mean, log_std = self.model.encode(by_item(features), training)
        mixture, restraint = self._mixture(features, mean + tf.exp(log_std) * by_item(noise), training)
        value, change = self._posed(precision, self._seen(images, rotation, shift, ctf), mixture, change, response)
        divergence = self._divergence(mean, log_std)
        paid = self.agreement.is_likelihood and self.model.settings["variational"]
        return value, divergence if paid else tf.zeros_like(divergence), change, restraint

    def of_several(self, precision, images, rotation, shift, ctf, features, noise, change, response, training=False):
        """As `of_one`, by several draws: agreement less divergence is the bound. In place of the restraint the own z [B * copies, D] that
        was chosen; the changes of pose are for it. Has no gradient."""
        mean, log_std = self.model.encode(by_item(features), training)
        seen, draws = self._seen(images, rotation, shift, ctf), noise.shape[2]
        drawn, weights, changes = [], [], []
        for draw in range(draws):
            e = by_item(noise[:, :, draw, :-1])
            z = mean + tf.exp(log_std) * e
            value, moved = self._posed(precision, seen, self._mixture(features, z, training)[0], change, response)
            drawn.append(z)
            weights.append(value + self._by_particle(tf.reduce_sum(0.5 * (e**2 - z**2) + log_std, 1)))
            changes.append(moved)
        weights = tf.stack(weights, 1)
        uniform = 0.5 * tf.math.erfc(-noise[:, 0, 0, -1:] / np.sqrt(2.0))
        chosen = tf.reduce_sum(tf.cast(tf.cumsum(tf.nn.softmax(weights), 1)[:, :-1] < uniform, tf.int32), 1)
        divergence = self._divergence(mean, log_std)
        change = tf.gather(tf.stack(changes, 1), chosen, batch_dims=1)
        own = tf.gather(tf.stack(drawn, 1), tf.repeat(chosen, self.model.copies), batch_dims=1)
        return tf.reduce_logsumexp(weights, 1) - np.log(draws) + divergence, divergence, change, own

    def learned(self, precision, images, rotation, shift, ctf, features, own, change):
        """What to raise after `of_several` [B]: the agreement of the draw that was chosen, and the logarithm of q there; and the restraint
        [B]."""
        mean, log_std = self.model.encode(by_item(features), True)
        mixture, restraint = self._mixture(features, own, True)
        value = self._agreement(self._seen(images, rotation, shift, ctf), mixture, change if precision is not None else None)
        return value - self._by_particle(tf.reduce_sum(0.5 * ((own - mean) * tf.exp(-log_std)) ** 2 + log_std, 1)), restraint

    def _seen(self, images, rotation, shift, ctf):
        return *self.agreement.observe(images, ctf), rotation, shift

    def _mixture(self, features, own, training):
        """Whole particles at own latent points [B * copies, D], and their restraint [B]."""
        given = self.model.given(by_item(features))
        mixture = self.model.mixture(tf.concat([given, own], 1), training)
        return self.model.assembled(mixture), self._by_particle(self._restraint(given, *mixture[1:]))

    def _agreement(self, seen, mixture, change):
        data, transfer, rotation, shift = seen
        centers, amplitudes, widths = mixture
        if change is not None:
            rotation, shift = changed(rotation, shift, change)
        return self.agreement.value(data, transfer * project(place(centers, rotation, shift), amplitudes, widths, self.agreement.grid))

    def _posed(self, precision, seen, mixture, change, response):
        """Agreement [B] at the best pose, less the cost of moving there, and the changes of pose."""
        if precision is None:
            return self._agreement(seen, mixture, None), change
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(change)
            value = self._agreement(seen, mixture, change)
        slope = tape.gradient(value, change) - precision * change
        change = tf.stop_gradient(change + tf.linalg.matvec(response, slope))
        return self._agreement(seen, mixture, change) - 0.5 * tf.reduce_sum(precision * change**2, 1), change

    def _divergence(self, mean, log_std):
        """Kullback-Leibler divergence of the encoder's posterior from the unit normal, [B]."""
        return self._by_particle(0.5 * tf.reduce_sum(mean**2 + tf.exp(2 * log_std) - 2 * log_std - 1, 1))

    def _by_particle(self, values):
        """Sums over the copies of each particle, [B * copies] to [B]."""
        return tf.reduce_sum(tf.reshape(values, [-1, self.model.copies]), 1)

    def _restraint(self, given, amplitudes, widths):
        """What a model pays for changing amplitudes beside positions (nats) and, as in the paper, for widths that differ; [B * copies]."""
        cost = tf.zeros_like(amplitudes[:, 0])
        if "amplitude" in self.model.settings["columns"] and self.agreement.is_likelihood:
            neutral, start = self.model.neutral.amplitudes, self.model.start(given)
            change = amplitudes - (neutral if start is None else start[1])
            cost += self.model.open_motion * self.amplitude_cost / np.sum(neutral) * tf.reduce_sum(tf.abs(change), 1)
        if "width" in self.model.settings["columns"]:
            cost += tf.math.reduce_std(widths, -1) / tf.reduce_mean(widths)
        return cost
