"""Heterogeneity training: encoder and decoder learn together, held-out particles say when to stop (METHOD.md section 4)."""
import csv
import io
import os
import time

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.log import log, progress
from gmmhet.engine.losses.agreement import Agreement
from gmmhet.engine.training.batches import prefetched
from gmmhet.engine.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from gmmhet.engine.training.model import assign

#: networks of the presets; the paper's are from its Methods
NETWORKS = {
    "default": dict(hidden=[256, 256], dropout=0.0, batch_norm=False, l2=0.0, variational=True, encoder_scale=1.0),
    "paper": dict(hidden=[512, 512, 512, 512], dropout=0.3, batch_norm=True, l2=1e-3, variational=False, encoder_scale=0.1),
}
WARM_UP_EPOCHS, CLIP_NORM = 2, 10.0


class TrainError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class Trainer:
    """The state of one training run.

    Loss per particle: minus the agreement, plus (variational, likelihood) the Kullback-Leibler divergence of the latent posterior from
    the unit normal, so that the held-out value is a bound on the evidence for heterogeneity and not only a fit.

    Parameters
    ----------
    model : HeterogeneityModel.
    items : Items; features : Rows [n_items, F]; neutral : float [n_items], agreement before this training: neutral, or of the earlier stages.
    held_out : bool [n_items].
    config : TrainConfig.
    run : RunDir.
    devices : Devices.
    """

    def __init__(self, model, items, features, neutral, held_out, config, run, devices):
        self.model, self.items, self.features, self.neutral = model, items, features, neutral
        self.held_out, self.config, self.run, self.devices = held_out, config, run, devices
        self.agreement = model.likelihood if config.objective == "likelihood" else Agreement.from_state(
            dict(model.likelihood.state(), objective="frc"))
        self.learned = np.flatnonzero(~held_out)
        self.steps_per_epoch = -(-len(self.learned) // config.batch_size)
        schedule = tf.keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * self.steps_per_epoch, alpha=0.05)
        self.optimizer = tf.keras.optimizers.Adam(schedule, clipnorm=None, global_clipnorm=CLIP_NORM)
        self.optimizer.build(model.trainable)
        self.history, self.best, self.best_weights = [], None, None
        self._step = tf.function(self._train_step, reduce_retracing=True, autograph=False)
        self._evaluate = devices.compiled(lambda *batch: self._bound(*batch)[:2])

    def _bound(self, images, rotation, shift, ctf, features, noise, training=False):
        """Agreement with z drawn from the latent posterior, divergence from the prior, and restraint, each [B]."""
        mean, log_std = self.model.encode(features, training)
        given = self.model.given(features)
        z = tf.concat([given, mean + tf.exp(log_std) * noise], 1)
        data, transfer = self.agreement.observe(images, ctf)
        centers, amplitudes, widths = self.model.mixture(z, training)
        image = transfer * project(place(centers, rotation, shift), amplitudes, widths, self.agreement.grid)
        divergence = 0.5 * tf.reduce_sum(mean**2 + tf.exp(2 * log_std) - 2 * log_std - 1, 1)
        if not self.model.settings["variational"] or self.agreement.objective == "frc":
            divergence = tf.zeros_like(divergence)
        return self.agreement.value(data, image), divergence, self._restraint(given, amplitudes, widths)

    def _restraint(self, given, amplitudes, widths):
        """What a model pays for changing amplitudes (nats) and, as in the paper, for widths that differ; [B]."""
        cost = tf.zeros_like(amplitudes[:, 0])
        if "amplitude" in self.model.settings["columns"] and self.agreement.objective == "likelihood":
            neutral, start = self.model.neutral.amplitudes, self.model.start(given)
            change = amplitudes - (neutral if start is None else start[1])
            cost += self.config.amplitude_cost / np.sum(neutral) * tf.reduce_sum(tf.abs(change), 1)
        if "width" in self.model.settings["columns"]:
            cost += tf.math.reduce_std(widths, -1) / tf.reduce_mean(widths)
        return cost

    def _train_step(self, batch, warmth):
        gradients, *found = self.devices.each(self._gradients, (*batch, warmth))
        self.optimizer.apply_gradients(zip(self.devices.total(gradients), self.model.trainable))
        return self.devices.whole(found)

    def _gradients(self, images, rotation, shift, ctf, features, noise, share, warmth):
        """What one device adds to the gradient of the batch's mean loss; agreement and divergence of its items [b], of share [b] each."""
        with tf.GradientTape() as tape:
            value, divergence, restraint = self._bound(images, rotation, shift, ctf, features, noise, True)
            loss = tf.reduce_sum(share * (warmth * divergence - value + restraint))
            penalties = self.model.encoder.losses + self.model.decoder.losses
            if penalties:
                loss += tf.add_n(penalties) / self.devices.replicas
        return tape.gradient(loss, self.model.trainable), value, divergence

    def _noise(self, count, *seed):
        """This process's part of the latent noise of a batch of `count`: the same however the batch is shared."""
        return self.devices.own(tf.random.stateless_normal([count, self.config.latent_dim], seed).numpy(), self.config.batch_size)

    def resume(self):
        """Go on from the last checkpoint, if there is one."""
        path = self.run(rundir.WORK, CHECKPOINT)
        if os.path.exists(path):
            state, kept = load_checkpoint(path, dict(model=self.model.variables, optimizer=self.optimizer.variables, best=None))
            self.history, self.best, self.best_weights = state["history"], state["best"], kept["best"]
            log.info("resumed after epoch %d; the learning rate is %.3g, and falls until epoch %d", len(self.history),
                     float(self.optimizer.learning_rate), self.config.epochs)
            if self.devices.is_chief:
                self.write_history()
        if len(set(self.devices.ask(len(self.history)))) > 1:
            raise TrainError("the hosts do not see the same checkpoint: --out %s must lie on a disk that all of them share" % self.run.path)

    def finished(self):
        """Whether the last epoch is done or held-out agreement has stopped improving."""
        done = len(self.history)
        return done >= self.config.epochs or (self.best is not None and done - self.best["epoch"] >= self.config.patience)

    def epoch(self):
        """One pass through the particles learned from, then the held-out ones; writes a checkpoint.

        Raises
        ------
        TrainError
            when the agreement of a batch is not finite; names its particle ids.
        """
        number, started, config = len(self.history) + 1, time.monotonic(), self.config
        order = np.random.default_rng([config.seed, 3, number]).permutation(self.learned)
        warmth = tf.constant(min(1.0, (number - 0.5) / WARM_UP_EPOCHS), tf.float32)
        gain, divergence = 0.0, 0.0
        batches = prefetched(self.items, order, config.batch_size, self.features, self.devices.own)
        for i, (chosen, batch) in enumerate(progress(batches, self.steps_per_epoch, "epoch %d" % number)):
            count = len(chosen)
            batch += self._noise(count, config.seed, (number * 1000003 + i) % 2**31), self.devices.shares(count, config.batch_size)
            value, kl = (found.numpy()[:count] for found in self._step(self.devices.spread(batch), warmth))
            self._check_finite(value, chosen, number)
            gain += float(np.sum(value - self.neutral[chosen]))
            divergence += float(np.sum(kl))
        self.devices.average(self.model.variables)
        held = self.held_out_gain()
        self.history.append(dict(epoch=number, training_gain=(gain - divergence) / len(order), held_out_gain=held,
                                 divergence=divergence / len(order), seconds=time.monotonic() - started))
        log.info("epoch %d: gain over %s %.4g (training), %.4g (held out)", number, "the earlier stage" if self.model.earlier else "neutral",
                 self.history[-1]["training_gain"], held)
        if self.best is None or held > self.best["held_out_gain"]:
            self.best, self.best_weights = self.history[-1], [v.numpy() for v in self.model.variables]
        if self.devices.is_chief:
            save_checkpoint(self.run(rundir.WORK, CHECKPOINT),
                            dict(model=self.model.variables, optimizer=self.optimizer.variables, best=self.best_weights),
                            dict(history=self.history, best=self.best))
            self.write_history()

    def _check_finite(self, value, chosen, number):
        """Refuse to go on when the agreement [B] of the chosen items is not finite."""
        if not np.all(np.isfinite(value)):
            raise TrainError("the agreement became NaN in epoch %d at particles %s: look at these images. --resume tries again from the last "
                             "checkpoint; a smaller --learning-rate needs another --out" % (
                                 number, ", ".join(str(p) for p in self.items.ids[chosen])))

    def held_out_gain(self):
        """Mean over held-out items of the bound minus the neutral agreement."""
        chosen_rows = np.flatnonzero(self.held_out)
        total = 0.0
        batches = prefetched(self.items, chosen_rows, self.config.batch_size, self.features, self.devices.own)
        for i, (chosen, batch) in enumerate(batches):
            value, kl = self._evaluate(len(chosen), *batch, self._noise(len(chosen), self.config.seed, -i - 1))
            self._check_finite(value, chosen, len(self.history) + 1)
            total += float(np.sum(value.numpy() - kl.numpy() - self.neutral[chosen]))
        return total / max(len(chosen_rows), 1)

    def write_history(self):
        """history.csv: one row an epoch; gains per particle over the neutral model or the earlier stage (nats, or FRC)."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(self.history[0]))
        writer.writeheader()
        writer.writerows(self.history)
        with rundir.whole_file(self.run(rundir.HISTORY)) as f:
            f.write(text.getvalue().encode("utf-8"))

    def restore_best(self):
        """Set the weights that agreed best with the held-out particles."""
        if self.best_weights:
            assign(self.model.variables, self.best_weights)
