"""The model: encoder, decoder and deformation of a neutral mixture, on top of the model of an earlier stage
where there is one."""
import copy
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.likelihood.forward import ImageModel
from gmmhet.engine.model.decoder import Decoder
from gmmhet.engine.model.deformation import CONSENSUS_WIDTH_UNIT, Deformation
from gmmhet.engine.model.encoder import Encoder, LatentNormal, kept_axes
from gmmhet.engine.model.latent_scale import LatentScale
from gmmhet.engine.model.settings import ModelSettings
from gmmhet.engine.model.state import ModelState
from gmmhet.engine.model.symmetry import SymmetryCopies


class HeterogeneityModel:
    """From a view's features to its latent point, and from a latent point to a mixture.

    A model may stand on that of an earlier stage, which is never changed: its latent points are then ``z =
    (z_earlier, z_stage)``, and

        mixture(z) = deformation.apply(decoder(z_stage),
        deformation.with_neutral_region(earlier.mixture(z_earlier)), consensus shift)

    (see `Deformation` for how changes add up, and for the consensus shift, which is learned along with the
    networks). The encoder finds z_stage; z_earlier of each particle was found by the earlier training and
    stays. It comes with the view's features.

    When training has ended, z_stage may get another scale (`latent_scale`, see `inference.latent_metric`).
    From then on everything that takes or gives latent points means that one, but for the encoder and the
    decoder; `as_trained` is the same model without it.

    Parameters
    ----------
    neutral : Mixture of N Gaussians.
    body : bool array [N], Gaussians that may vary; of rigid bodies int, each Gaussian's body from 1 (see
        `Deformation`).
    settings : ModelSettings.
    earlier : HeterogeneityModel of the same neutral mixture, or None.

    Attributes
    ----------
    state : ModelState, what training has found out.
    likelihood : Agreement, the likelihood of the run's images.
    consensus_shift : tf.Variable [N, 4], see `Deformation.apply`; None where it is not learned.
    latent_scale : LatentScale from the scale that is trained to the one that is used; None where both are the
        same.
    """

    def __init__(self, neutral: Mixture, body: np.ndarray, settings: ModelSettings,
                 earlier: "HeterogeneityModel | None" = None) -> None:
        self.neutral, self.body, self.settings, self.earlier = neutral, np.asarray(body), settings, earlier
        self.free = self.body.astype(bool)
        self.latent_scale: LatentScale | None = None
        self.likelihood = Agreement.from_state(settings.likelihood)
        self.deformation = Deformation(neutral, self.body, settings)
        sizes, network, moves = self.deformation.sizes, settings.network, "position" in settings.parameters
        self.state = ModelState(len(sizes), settings.removes_rigid_motion, network.sharpens)
        self.encoder = Encoder(settings, sizes, self.resolution_levels, self.n_earlier)
        self.decoder = Decoder(settings, sizes, self.state,
                               bool(self.encoder.n_axes) and network.linear_decoder and moves)
        shifts = network.consensus_shift and moves
        self.consensus_shift = tf.Variable(tf.zeros([len(neutral), 4])) if shifts else None

    # ---------------------------------------------------------------- sizes and names
    @property
    def n_stage(self) -> int:
        """Latent dimensions of this stage."""
        return self.settings.latent_dim

    @property
    def n_earlier(self) -> int:
        """Latent dimensions of the earlier stages, which come first in z; 0 without any."""
        return self.earlier.latent_dim if self.earlier else 0

    @property
    def latent_dim(self) -> int:
        """Latent dimensions D of all stages."""
        return self.n_earlier + self.n_stage

    @cached_property
    def resolution_levels(self) -> int:
        """At how many resolutions the encoder sees gradients: 1, or 2 where the coarser ones stand beside
        those of all rings."""
        network = self.settings.network
        if network.resolution_levels:
            return network.resolution_levels
        has_axes = any(kept_axes(network.n_axes, self.deformation.sizes))
        return 2 if has_axes and self.likelihood.coarse is not self.likelihood else 1

    @property
    def box(self) -> int:
        """Box of the particles, px."""
        return self.likelihood.grid.box

    @property
    def pixel_size(self) -> float:
        """Pixel size of the particles, Å/px."""
        return self.likelihood.grid.pixel_size

    @property
    def is_variational(self) -> bool:
        """Whether the encoder learned a posterior of z, whose prior is then the unit normal."""
        return self.settings.network.variational

    @property
    def active_parameters(self) -> list[str]:
        """The parameters that vary: those that may, less what training closed again."""
        return [name for name, gate in zip(self.deformation.parameters, self.state.gates.numpy()) if gate > 0]

    @property
    def position_gate(self) -> tf.Tensor:
        """How much of what the decoder says of positions counts, from 0 to 1; 0 where they may not vary."""
        parameters = self.deformation.parameters
        return self.state.gates[parameters.index("position")] if "position" in parameters else tf.zeros([])

    @property
    def small_motion(self) -> bool:
        """Whether training began with a linear answer that says little of any one particle, of motion that is
        small. In a training that goes finer than COARSE_ANGST such an answer may be of motion that goes
        further than the resolution: its neutral Gaussians are smeared, which is why first order sees little
        of it."""
        return self.state.low_signal and self.resolution_levels == 1

    # ---------------------------------------------------------------- symmetry
    @cached_property
    def _varies(self) -> np.ndarray:
        """Gaussians that vary in this stage or an earlier one, bool [N]."""
        return self.free | self.earlier._varies if self.earlier else self.free

    @property
    def whole_unit(self) -> bool:
        """Whether what varies is a whole asymmetric unit."""
        return self.settings.whole_unit or bool(self.earlier and self.earlier.whole_unit)

    @cached_property
    def symmetry(self) -> SymmetryCopies:
        """How whole particles are made of their symmetry copies."""
        return SymmetryCopies(self.settings.symmetry, self.neutral, self._varies, self.whole_unit)

    @property
    def copies(self) -> int:
        """Symmetry copies of a particle."""
        return self.symmetry.copies

    # ---------------------------------------------------------------- from images to mixtures
    @cached_property
    def image_model(self) -> ImageModel:
        """The forward model of the likelihood."""
        return ImageModel(self.likelihood)

    def encode(self, features: tf.Tensor, training: bool = False) -> LatentNormal:
        """Posterior of z_stage of features [B, F], on the scale that is trained."""
        return self.encoder(features, training)

    def decoder_outputs(self, z_stage: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The decoder's numbers [B, n_outputs] at latent points [B, n_stage]; see `Deformation.apply`."""
        if self.latent_scale is not None:
            z_stage = self.latent_scale.inverse.rescale_tensor(z_stage)
        return self.decoder(z_stage, training)

    def starting_mixture(self, z_earlier: tf.Tensor) -> "MixtureBatch | None":
        """What this stage changes: mixtures of the earlier stages at their latent points [B, n_earlier]; None
        for the neutral mixture."""
        return self.deformation.with_neutral_region(self.earlier.mixture(z_earlier)) if self.earlier else None

    def deform(self, outputs: tf.Tensor, start: "MixtureBatch | None",
               with_shift: bool = True) -> MixtureBatch:
        """Mixtures of the decoder's numbers [B, n_outputs], from what this stage starts from; `with_shift`,
        of the shifted consensus."""
        shift = self.applied_consensus_shift if with_shift else None
        return self.deformation.apply(outputs, start, shift, self.state.removes_rigid_motion)

    def mixture(self, z: tf.Tensor, training: bool = False) -> MixtureBatch:
        """Mixtures at latent points z [B, D], of one symmetry copy each; before training as the earlier
        stages left them."""
        z_earlier, z_stage = tf.split(z, [self.n_earlier, self.n_stage], axis=1)
        return self.deform(self.decoder_outputs(z_stage, training), self.starting_mixture(z_earlier))

    def unchanged_mixture(self, z_earlier: tf.Tensor) -> MixtureBatch:
        """Mixtures before this stage, at latent points [B, n_earlier] of the earlier ones (B rows also where
        there are none)."""
        outputs = tf.zeros([tf.shape(z_earlier)[0], self.deformation.n_outputs])
        return self.deform(outputs, self.starting_mixture(z_earlier), with_shift=False)

    # ---------------------------------------------------------------- the consensus
    @property
    def applied_consensus_shift(self) -> Any:
        """What is changed of the mixture that moves, against the neutral one, [N, 4]: what is learned of it,
        and how much narrower it is where motion is small; None where it is not learned."""
        return None if self.consensus_shift is None else self.learned_consensus_shift + self._sharpening()

    @property
    def learned_consensus_shift(self) -> Any:
        """The learned consensus shift [N, 4], as much of it as of motion; 0 where training left it out."""
        return self.state.consensus_shift_on * self.position_gate * self.consensus_shift

    def _sharpening(self) -> Any:
        """Changes of log-width [N, 4] that take out of the neutral mixture the blur that the motion itself
        makes, where that is small.

        A Gaussian of variance s^2 that moves by d is seen, to second order, with s^2 + <d^2>/3 along each
        axis, and what is seen is the neutral one. As a learned change that would have to be described for
        every Gaussian, which a small motion is not worth; a motion that goes further than the Gaussians are
        wide is beyond second order. The mean is over 2 D points with the second moments of the prior.
        """
        if not self.state.sharpens:
            return 0.0
        ends = np.sqrt(self.n_stage) * np.concatenate([np.eye(self.n_stage), -np.eye(self.n_stage)])
        outputs = self.decoder(tf.constant(ends, tf.float32))
        centers = self.deformation.apply(outputs,
                                         removes_rigid_motion=self.state.removes_rigid_motion).centers
        blur = tf.reduce_sum(tf.math.reduce_variance(centers, 0), 1) / 3                             # [N] Å^2
        log_width = -tf.math.log1p(blur / self.neutral.widths**2) / (2 * CONSENSUS_WIDTH_UNIT)
        return tf.pad(log_width[:, None], [[0, 0], [3, 0]])

    # ---------------------------------------------------------------- for readers of the landscape
    def decode(self, z: np.ndarray) -> MixtureBatch:
        """As `mixture`, NumPy in and out, with a row per latent point in all three arrays."""
        centers, amplitudes, widths = (
            values.numpy() for values in self.mixture(tf.constant(np.atleast_2d(z), tf.float32)))
        return MixtureBatch(centers, amplitudes, np.broadcast_to(widths, amplitudes.shape))

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        """Change of the centres with z at one latent point [D]: [N, 3, D], Å per unit of z."""
        point = tf.constant(np.atleast_2d(z), tf.float32)
        slopes = []
        for direction in np.eye(self.latent_dim, dtype=np.float32):
            with tf.autodiff.ForwardAccumulator(point, tf.constant(direction[None])) as accumulator:
                centers = self.mixture(point).centers
            slopes.append(accumulator.jvp(centers)[0].numpy())
        return np.stack(slopes, axis=-1)

    def as_trained(self, throughout: bool = False) -> "HeterogeneityModel":
        """This model with z_stage on the scale that it is trained on; `throughout`, z_earlier too."""
        model = copy.copy(self)
        model.latent_scale = None
        if throughout and self.earlier:
            model.earlier = self.earlier.as_trained(True)
        return model

    @property
    def latent_scales(self) -> LatentScale:
        """The scales of all of z: from those that the stages were trained on to those that are used."""
        own = self.latent_scale or LatentScale.identity(self.n_stage)
        return self.earlier.latent_scales.beside(own) if self.earlier else own

    def alone(self) -> "HeterogeneityModel":
        """This stage alone: the same networks and z_stage, but what they change is the neutral mixture."""
        model = copy.copy(self)
        model.earlier = None
        model.__dict__.pop("symmetry", None)
        model.__dict__.pop("_varies", None)
        return model

    # ---------------------------------------------------------------- weights
    @property
    def trainable(self) -> list[Any]:
        """Variables that training changes."""
        others = [self.encoder.linear, self.decoder.linear, self.consensus_shift]
        return [*self.encoder.network.trainable_variables, *self.decoder.network.trainable_variables,
                *(variable for variable in others if variable is not None)]

    def named_weights(self) -> dict[str, Any]:
        """Every variable of this stage by name, such as 'encoder.layer0.kernel'."""
        groups: dict[str, Any] = dict(encoder=self.encoder, decoder=self.decoder, state=self.state)
        named = {"%s.%s" % (group, name): variable for group, owner in groups.items()
                 for name, variable in owner.named_weights().items()}
        return named if self.consensus_shift is None else {**named, "consensus_shift": self.consensus_shift}
