"""The trained model: neutral mixture, deformation, encoder, decoder, agreement; saved as JSON and npz, never pickled."""
import copy
from functools import cached_property

import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.model.deformation import BASE_WIDTH_UNIT, Deformation
from gmmhet.engine.model.encoder import LOG_STD_OFFSET, LOG_STD_RANGE, kept_axes
from gmmhet.engine.model.latent_scale import PLACES, read_in_graph
from gmmhet.engine.model.mlp import mlp
from gmmhet.engine.objective.description_length import told_together

#: motion that explains less is faint (nats a particle, to first order)
FAINT = 0.3


class HeterogeneityModel:
    """Everything that turns an image's gradient into a latent point, and a latent point into a mixture.

    A model may stand on an earlier one, which is never changed: its latent points are then ``z = (z of the earlier stages, own z)``, and

        mixture(z) = deformation.apply(decoder(own z), deformation.begin(earlier.mixture(z of the earlier stages)), base)

    (see `Deformation` for how changes add up, for what `begin` takes back in a part that may move, and for the base, which is learned along
    with the networks). The encoder finds the own part; the
    other part of each particle was found by the earlier training and stays. It comes with the particle's features, so "features" are a
    gradient and a latent point of the earlier stages side by side.

    When training has ended, z may get other scales (`pace`, see `training.pace`). From then on everything that takes or gives latent points
    means those, but for `encode` and what is trained; `as_trained` is the same model without them.

    Parameters
    ----------
    neutral : Mixture.
    free : bool array [N], Gaussians that may vary; of rigid bodies int, each Gaussian's body from 1 (see `Deformation`).
    settings : dict: columns, smoothness, rigid, amplitude_share, at_rest, latent_dim, hidden, dropout, batch_norm, l2, variational, seed,
        symmetry, whole_unit, particles, likelihood (state of the likelihood Agreement), objective, subspace, ahead, description, draws,
        base. latent_dim is that of the own part; subspace is how many axes of the features' subspaces the encoder is given, 0 for the
        standardised features (see `training.subspace`); ahead, whether the decoder has a linear part, where positions vary; description is
        what a nat of it costs while learning, 0 for nothing (see `description`); draws is how many of z training takes in its second part
        (see `training.bound`); looks, at how many resolutions the encoder sees gradients (see `training.features`): 1, 2, or 0 for 2 where
        training goes finer than FIRST_ANGST and the encoder is given axes; base, whether the mixture that moves is learned too, where
        positions vary; averaged, whether running averages of the weights are what counts; unblurred, whether the mixture that moves is
        sharpened by what the motion blurs, which `begin_in` keeps for small motion alone (`begins_near`).
    earlier : HeterogeneityModel of the same neutral mixture, or None.

    Attributes
    ----------
    modes : rigid modes of parts, their readers and whose they are (see `networks.parts.rigid_modes`), by which small motion is described
        while learning; None without.
    """

    def __init__(self, neutral, free, settings, earlier=None):
        self.neutral, self.free, self.settings, self.earlier, self.pace = neutral, np.asarray(free, bool), settings, earlier, None
        self.bodies, s = np.asarray(free), settings
        self.deformation = Deformation(neutral, free, s["columns"], s["smoothness"], s.get("at_rest", False), s.get("amplitude_share", 1.0),
                                       s.get("rigid", False))
        self.likelihood = Agreement.from_state(s["likelihood"])
        self.turns = symmetry_matrices(s["symmetry"]).astype(np.float32)
        common = dict(hidden=s["hidden"], dropout=s["dropout"], batch_norm=s["batch_norm"], l2=s["l2"])
        begins = any(kept_axes(s.get("subspace", 0), self.deformation.sizes))
        self.looks = s.get("looks", 1) or (2 if begins and self.likelihood.coarse is not self.likelihood else 1)
        self.gradients = self.looks * self.deformation.outputs
        outputs, features = self.own_dim * (2 if s["variational"] else 1), self.gradients + self.given_dim
        self.kept = sum(kept_axes(s.get("subspace", 0), self.deformation.sizes * self.looks))
        self.encoder = mlp(self.kept + self.given_dim if self.kept else features, outputs=outputs, seed=s["seed"],
                           last_scale=s["encoder_scale"], **common)
        self.decoder = mlp(self.own_dim, outputs=self.deformation.outputs, seed=s["seed"] + 1000, zero_last=True, **common)
        self.base = self.based = self.ahead = self.led = self.faint = self.modes = None
        if s.get("base") and "position" in s["columns"]:
            self.base, self.based = tf.Variable(tf.zeros([len(neutral), 4])), tf.Variable(1.0, trainable=False)
        self.feature_mean = tf.Variable(tf.zeros(features), trainable=False)
        self.feature_deviation = tf.Variable(tf.ones(features), trainable=False)
        if self.kept:
            self.axes = tf.Variable(tf.zeros([self.gradients, self.kept]), trainable=False)
            self.straight = tf.Variable(tf.zeros([self.kept, self.own_dim]))
            if s.get("ahead") and "position" in s["columns"]:
                self.ahead = tf.Variable(tf.zeros([self.own_dim, self.deformation.outputs]))
                self.led, self.faint = (tf.Variable(0.0, trainable=False) for _ in range(2))
            self.open = tf.Variable(tf.ones([len(self.deformation.columns)]), trainable=False)

    @property
    def own_dim(self):
        """Latent dimensions of this stage."""
        return self.settings["latent_dim"]

    @property
    def given_dim(self):
        """Latent dimensions of the earlier stages, which come first in z; 0 without any."""
        return self.earlier.latent_dim if self.earlier else 0

    @property
    def latent_dim(self):
        return self.given_dim + self.own_dim

    @property
    def stages(self):
        """For a summary: what varies in each stage, and its latent dimensions (from 1, first and last); the first stage first."""
        here = dict(vary=self.settings["columns"], free_gaussians=int(self.free.sum()),
                    latent_dimensions=[self.given_dim + 1, self.latent_dim])
        return [*(self.earlier.stages if self.earlier else []), here]

    @property
    def box(self):
        return self.likelihood.grid.box

    @property
    def pixel_size(self):
        return self.likelihood.grid.pixel_size

    @property
    def symmetry(self):
        return self.settings["symmetry"]

    @property
    def particles_path(self):
        return self.settings["particles"]

    @property
    def trainable(self):
        """Variables that training changes."""
        others = [*([self.straight, self.ahead] if self.kept else []), self.base]
        return [*self.encoder.trainable_variables, *self.decoder.trainable_variables, *(v for v in others if v is not None)]

    @property
    def variables(self):
        """All variables of this stage, in the order in which they are saved."""
        axes = [self.axes, self.straight, self.ahead, self.led, self.faint, self.open] if self.kept else []
        others = [v for v in (*axes, self.base, self.based) if v is not None]
        return [*self.encoder.variables, *self.decoder.variables, self.feature_mean, self.feature_deviation, *others]

    def encode(self, features, training=False):
        """Features [B, F] to the mean and log standard deviation of the own part of z as it is trained, both [B, own_dim]."""
        inputs, linear = (features - self.feature_mean) / self.feature_deviation, 0.0
        if self.kept:
            along = tf.matmul(inputs[:, :self.gradients], self.axes)
            inputs, linear = tf.concat([along, inputs[:, self.gradients:]], 1), tf.matmul(along, self.straight)
        out = self.encoder(inputs, training=training)
        if not self.settings["variational"]:
            return out, tf.fill(tf.shape(out), np.float32(np.log(max(self.settings["latent_noise"], 1e-6))))
        mean, log_std = tf.split(out, 2, axis=1)
        return mean + linear, tf.clip_by_value(log_std - LOG_STD_OFFSET, *LOG_STD_RANGE)

    def changes(self, own, training=False):
        """The decoder's outputs [B, outputs] at own latent points [B, own_dim]; see `Deformation.apply`."""
        if self.pace is not None:
            own = read_in_graph(own, *self.pace[::-1])
        return self._said(own, training)

    def _said(self, own, training=False):
        """`changes` at latent points on the scales that they are trained on."""
        u = self.decoder(own, training=training)
        if not self.kept:
            return u
        if self.ahead is not None:
            u += self.led * tf.matmul(own, self.ahead)
        return u * tf.repeat(self.open, self.deformation.sizes)

    @property
    def varying(self):
        """Names of the columns that vary: those that may, less what training closed again."""
        return [name for name, share in zip(self.deformation.columns, self.open.numpy()) if share > 0] if self.kept else list(
            self.deformation.columns)

    @property
    def open_motion(self):
        """How much of what the decoder says of positions counts, from 0 to 1; 0 where they may not vary."""
        columns = self.deformation.columns
        if "position" not in columns:
            return tf.zeros([])
        return self.open[columns.index("position")] if self.kept else tf.ones([])

    @property
    def own_base(self):
        """The mixture that moves, against the neutral one (see `Deformation.apply`) [N, 4]: what is learned of it, and how much narrower it
        is where motion is small (`_unblurred`); None where it is not learned."""
        return None if self.base is None else self._learned_base + self._unblurred

    @property
    def _learned_base(self):
        """As much of it as of motion; 0 where training left it out (`based`)."""
        return self.based * self.open_motion * self.base

    @property
    def _unblurred(self):
        """Changes of width [N, 4] that take out of the neutral mixture the blur that the motion itself makes, where that is small (see
        `begins_near`).

        A Gaussian of variance s^2 that moves by d is seen, to second order, with s^2 + <d^2>/3 along each axis, and what is seen is the
        neutral one. As a learned change that would have to be told for every Gaussian, which a faint motion is not worth; a motion that
        goes further than the Gaussians are wide is beyond second order. The mean is over 2 D points with the second moments of the prior.
        """
        if not self.settings.get("unblurred") or self.faint is None:
            return 0.0
        ends = np.sqrt(self.own_dim) * np.concatenate([np.eye(self.own_dim), -np.eye(self.own_dim)])
        centers = self.deformation.apply(self._said(tf.constant(ends, tf.float32)))[0]
        blur = tf.reduce_sum(tf.math.reduce_variance(centers, 0), 1) / 3
        return tf.pad(-tf.math.log1p(blur / self.neutral.widths**2)[:, None] / (2 * BASE_WIDTH_UNIT), [[0, 0], [3, 0]])

    def description(self, points, count):
        """What it takes to tell the decoder's outputs and the base, in nats.

        x = count F v is the mean square v of an output, at latent points [P, own_dim], in errors of estimation after `count` images: F is
        the Fisher information that an image has of it. Motion is told by neighbourhoods (`Deformation.neighbourhoods`), each of which has
        one variance for all its outputs: of where nothing moves hardly anything is left, and what moves together may be small in every
        single output (see `told_together`). Of small motion, what each part does as a whole is told before, by six numbers of one variance,
        from the whole molecule to parts of the size of a neighbourhood (`modes`, see `networks.parts`): where motion is not small, the
        neutral Gaussians are of a smeared density, and what they do has to bend. Other outputs cost
        ``log(1 + x) / 2`` each (minimum description length; Rissanen 1978), and amplitudes ``D log(1 + count F s) / 2`` more, with s their
        mean square distance from two levels (`Deformation.scatter`): of parts that come and go no more has to be told, of others what they
        are along each of the D latent dimensions. The base is held by the motion (`Deformation.unlike`).
        """
        u, deformation = self.changes(points, training=True), self.deformation
        information = self.feature_deviation[:deformation.outputs] ** 2
        columns = zip(deformation.columns, tf.split(count * information, deformation.sizes), tf.split(u, deformation.sizes, axis=1))
        cost = 0.0
        for name, known, said in columns:
            if name == "position" and self.modes is not None:
                modes, reader, owner = self.modes
                of_parts = tf.matmul(said, reader)
                said -= tf.matmul(of_parts, modes, transpose_b=True)
                cost += told_together(count * tf.reduce_mean(of_parts**2, 0)[:, None], np.float32(owner[:, None] == np.unique(owner)))
            square = tf.reduce_mean(said**2, 0)
            if name == "position":
                cost += told_together(tf.reshape(known * square, [deformation.motions.shape[0], -1]), deformation.motions)
            else:
                cost += tf.reduce_sum(tf.math.log1p(known * square))
            if name == "amplitude":
                cost += self.own_dim * tf.reduce_sum(tf.math.log1p(known * deformation.scatter(u)))
        if self.base is not None:
            cost += deformation.unlike(self._learned_base, tf.stop_gradient(u))
        return 0.5 * cost

    def move_freely(self):
        """Let the whole molecule move too; for poses that are exact (see `Deformation`)."""
        self.settings["at_rest"] = self.deformation.at_rest = False

    def open_beside(self, leading, share):
        """Let column number `leading` vary, and this share of what the decoder says of the others."""
        self.open.assign(np.where(np.arange(len(self.deformation.columns)) == leading, 1.0, share))

    def begin_in(self, subspaces, leading):
        """Start from the linear answer to features whose mean and deviation are set (see `training.subspace`).

        The encoder sees the features along the axes of every subspace, scaled to what part of each axis is no noise, and begins with the
        linear answer of the one that leads. Where that is of positions, so does the decoder, and the networks at first add nothing;
        amplitudes have levels, between which a line passes. Motion that explains less than FAINT nats a particle is marked so, for the
        trainer; it alone sharpens what it moves, where it is small (`begins_near`).

        Parameters
        ----------
        subspaces : list of Subspace, one for each of the deformation's columns, and as many more for every further look.
        leading : int, number of the subspace that leads; None where none explains anything.
        """
        sizes, deviation = self.deformation.sizes, self.feature_deviation.numpy()
        axes, straight = np.zeros(self.axes.shape), np.zeros(self.straight.shape)
        row = column = 0
        for number, (found, size) in enumerate(zip(subspaces, sizes * self.looks)):
            scale, kept = found.scale, len(found.strength)
            axes[row:row + size, column:column + kept] = found.axes * deviation[row:row + size, None] * scale
            if number == leading:
                count = min(found.significant, self.own_dim)
                strength, first = found.strength[:count], np.arange(count)
                straight[column + first, first] = np.sqrt(strength) / (1 + strength) / scale[:count]
                bias = np.zeros(2 * self.own_dim)
                bias[self.own_dim:] = LOG_STD_OFFSET
                bias[self.own_dim + first] -= 0.5 * np.log1p(strength)
                kernel, last = self.encoder.variables[-2:]
                last.assign(bias)
                if self.ahead is not None and self.led is not None and self.faint is not None and \
                        self.deformation.columns[number % len(sizes)] == "position":
                    kernel.assign(tf.zeros_like(kernel))
                    first_output = row % self.deformation.outputs
                    self.ahead[:count, first_output:first_output + size].assign((found.axes[:, :count] * np.sqrt(strength)).T)
                    self.led.assign(1.0)
                    self.faint.assign(float(found.evidence(self.own_dim) < FAINT))
            row, column = row + size, column + kept
        self.axes.assign(axes)
        self.straight.assign(straight)
        self.settings["unblurred"] = bool(self.settings.get("unblurred")) and self.begins_near

    @property
    def linear(self):
        """Whether encoder and decoder began with the linear answer (see `begin_in`); else the decoder's linear part says nothing."""
        return self.led is not None and bool(self.led.numpy())

    @property
    def begins_faint(self):
        """Whether the linear answer that training began with says little of any one particle (see `begin_in`)."""
        return self.faint is not None and bool(self.faint.numpy())

    @property
    def begins_near(self):
        """Whether it does so of motion that is small. In a training that goes finer than FIRST_ANGST a faint answer may be of motion that
        goes further than the resolution: its neutral Gaussians are smeared, which is why first order sees little of it."""
        return self.begins_faint and self.looks == 1

    def given(self, features):
        """The part [B, given_dim] of z that features [B, F] bring along."""
        return features[:, self.gradients:]

    def start(self, given):
        """What this stage changes: mixtures of the earlier stages at their latent points [B, given_dim], as `Deformation.begin` takes them
        over; None for the neutral mixture."""
        return self.deformation.begin(self.earlier.mixture(given)) if self.earlier else None

    def mixture(self, z, training=False):
        """Latent points [B, D] to centers [B, N, 3], amplitudes [B, N], widths [B, N] or [N]; before training as the earlier stages left
        them."""
        given, own = tf.split(z, [self.given_dim, self.own_dim], axis=1)
        return self.deformation.apply(self.changes(own, training), self.start(given), base=self.own_base)

    @property
    def copies(self):
        """Symmetry copies of a particle."""
        return len(self.turns)

    @cached_property
    def _varies(self):
        """Numbers of the Gaussians that vary in this stage or an earlier one."""
        return np.flatnonzero(self.free) if self.earlier is None else np.union1d(np.flatnonzero(self.free), self.earlier._varies)

    @cached_property
    def rest(self):
        """What a particle holds beside the units (see `unit`) of all its copies: centers [M, 3], amplitudes [M], widths [M].

        Nothing without symmetry, and where one asymmetric unit varies, whose copies make the whole. Else the neutral mixture, less what
        those Gaussians are in it at rest: it need not have copies of them that match one by one.
        """
        if self.copies == 1 or self.whole_unit:
            return [np.zeros((0, 3), np.float32)] + [np.zeros(0, np.float32)] * 2
        rest = self.neutral.select(self._varies)
        turned = np.concatenate([rest.centers @ turn.T for turn in self.turns])
        parts = (self.neutral.centers, turned), (self.neutral.amplitudes, np.tile(-rest.amplitudes, self.copies)), (
            self.neutral.widths, np.tile(rest.widths, self.copies))
        return [np.concatenate(part).astype(np.float32) for part in parts]

    @property
    def whole_unit(self):
        """Whether what varies is a whole asymmetric unit."""
        return bool(self.settings.get("whole_unit")) or bool(self.earlier and self.earlier.whole_unit)

    def unit(self, mixture):
        """What one symmetry copy is of a mixture (see `mixture`): the Gaussians that vary in this stage or an earlier one; without symmetry
        all."""
        if self.copies == 1:
            return mixture
        return tuple(tf.gather(part, self._varies, axis=0 if len(part.shape) == 1 else 1) for part in mixture)

    def assembled(self, mixture):
        """Whole particles from the mixtures of their symmetry copies, which vary each in its own way.

        Parameters
        ----------
        mixture : centers [B * copies, N, 3], amplitudes [B * copies, N], widths [B * copies, N] or [N], as of `mixture`; copies of a
            particle in a row.

        Returns
        -------
        centers [B, M, 3], amplitudes [B, M], widths [B, M] or [M]; the same without symmetry.
        """
        if self.copies == 1:
            return mixture
        centers, amplitudes, widths = self.unit(mixture)
        count, varying = tf.shape(centers)[0] // self.copies, len(self._varies)
        turned = tf.einsum("jkl,bjnl->bjnk", self.turns, tf.reshape(centers, [count, self.copies, varying, 3]))

        def whole(rest, part, *shape):
            if len(part.shape) == 1:
                return tf.concat([rest, tf.tile(part, [self.copies])], 0)
            return tf.concat([tf.zeros([count, len(rest), *shape]) + rest, tf.reshape(part, [count, self.copies * varying, *shape])], 1)
        rest = self.rest
        return whole(rest[0], turned, 3), whole(rest[1], amplitudes), whole(rest[2], widths)

    def decode(self, z):
        """As `mixture`, NumPy in and out, with a row per latent point in all three."""
        centers, amplitudes, widths = (part.numpy() for part in self.mixture(tf.constant(np.atleast_2d(z), tf.float32)))
        return centers, amplitudes, np.broadcast_to(widths, amplitudes.shape)

    @property
    def compared_with(self):
        """What the evidence for this stage is over, in words."""
        if not self.earlier:
            return "a single model"
        return "the conformations of the earlier stage" + (" with the moving part at rest" if self.deformation.moves_part else " alone")

    def as_trained(self, throughout=False):
        """This model with the own part of z on the scales that it is trained on; `throughout`, that of the earlier stages too."""
        model = copy.copy(self)
        model.pace = None
        if throughout and self.earlier:
            model.earlier = self.earlier.as_trained(True)
        return model

    @property
    def paces(self):
        """Scales of all of z [2, latent_dim, K]: as the stages are trained, and as it is (see `training.pace`)."""
        own = np.tile(np.linspace(-1, 1, PLACES, dtype=np.float32), (2, self.own_dim, 1)) if self.pace is None else self.pace
        return np.concatenate([self.earlier.paces, own], 1) if self.earlier else own

    def alone(self):
        """This stage alone: the same networks and own latent points, but what they change is the neutral mixture."""
        model = copy.copy(self)
        model.earlier = None
        return model

    def jacobian(self, z):
        """Change of the centres with z at one latent point [D]: [N, 3, D], Å per unit of z."""
        point = tf.constant(np.atleast_2d(z), tf.float32)
        columns = []
        for direction in np.eye(self.latent_dim, dtype=np.float32):
            with tf.autodiff.ForwardAccumulator(point, tf.constant(direction[None])) as accumulator:
                centers = self.mixture(point)[0]
            columns.append(accumulator.jvp(centers)[0].numpy())
        return np.stack(columns, axis=-1)
