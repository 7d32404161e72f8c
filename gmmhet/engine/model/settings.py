"""What a model was asked to be: frozen settings, and the presets in one place."""
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from gmmhet.engine.config import TrainConfig


@dataclass(frozen=True)
class NetworkSettings:
    """Networks and objective of a preset; the defaults are what measured best.

    Attributes
    ----------
    hidden : widths of the hidden layers of encoder and decoder.
    dropout : rate before the last layer; batch_norm : batch normalisation there; l2 : weight decay in the
        loss.
    variational : whether the encoder learns a posterior of z; else a point, with fixed noise while training.
    encoder_scale : size of the encoder's last layer at the start, over the usual one.
    n_axes : axes of the gradients' subspaces that the encoder is given; 0 for the standardised gradients.
    linear_decoder : whether the decoder has a linear part, where positions vary.
    amplitude_share : the distance over which amplitudes change together, over that of positions: what comes
        and goes has sharper borders than what moves.
    description_weight : what a nat of the decoder's description length costs while learning; 0 for nothing.
    draws : draws of z of the importance-weighted bound; 1 for the ELBO throughout.
    resolution_levels : at how many resolutions the encoder sees gradients; 0 for 2 where training goes finer
        than COARSE_ANGST and the encoder is given axes, else 1.
    consensus_shift : whether the mixture that moves is learned along, where positions vary.
    averages_weights : whether running averages of the weights are what counts.
    sharpens : whether the mixture that moves is sharpened by what a small motion blurs.
    """

    hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.0
    batch_norm: bool = False
    l2: float = 0.0
    variational: bool = True
    encoder_scale: float = 0.3
    n_axes: int = 256
    linear_decoder: bool = True
    amplitude_share: float = 2 / 3
    description_weight: float = 1.5
    draws: int = 4
    resolution_levels: int = 0
    consensus_shift: bool = True
    averages_weights: bool = True
    sharpens: bool = True


@dataclass(frozen=True)
class ModelSettings:
    """What a run asked its model to be; never changed (what training finds is `ModelState`).

    Attributes
    ----------
    parameters : of each Gaussian, that may vary: some of 'amplitude', 'position', 'width', in this order.
    likelihood : state of the likelihood's Agreement (see `Agreement.state`).
    latent_dim : latent dimensions of this stage.
    smoothness_angst : distance over which neighbouring Gaussians move together, Å.
    rigid : whether each body of the region moves as a whole.
    removes_rigid_motion : whether the overall rigid motion is taken out of every displacement, as where poses
        are found along with conformations.
    latent_noise : standard deviation of the noise on z of networks that are not variational.
    seed : of the initial weights.
    symmetry : point group; whole_unit : whether what varies is a whole asymmetric unit.
    particles : path of the star file or list of the particles.
    network : NetworkSettings.
    """

    parameters: tuple[str, ...]
    likelihood: dict[str, Any]
    latent_dim: int = 4
    smoothness_angst: float = 12.0
    rigid: bool = False
    removes_rigid_motion: bool = False
    latent_noise: float = 0.1
    seed: int = 1
    symmetry: str = "c1"
    whole_unit: bool = False
    particles: str = ""
    network: NetworkSettings = field(default_factory=NetworkSettings)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelSettings":
        """Settings from what `to_json` gave.

        Raises
        ------
        TypeError
            when a name is not known.
        """
        network = dict(values["network"], hidden=tuple(values["network"]["hidden"]))
        return cls(**dict(values, parameters=tuple(values["parameters"]), network=NetworkSettings(**network)))


@dataclass(frozen=True)
class Preset:
    """Networks, and the parameters of the train stage that the preset sets where they were left at their
    default."""

    network: NetworkSettings
    flags: dict[str, Any] = field(default_factory=dict)


#: the paper's networks and rates are from its Methods
PRESETS = {
    "default": Preset(NetworkSettings()),
    "paper": Preset(
        NetworkSettings(hidden=(512, 512, 512, 512), dropout=0.3, batch_norm=True, l2=1e-3, variational=False,
                        encoder_scale=0.1, n_axes=0, linear_decoder=False, amplitude_share=1.0,
                        description_weight=0.0, draws=1, resolution_levels=1, consensus_shift=False,
                        averages_weights=False, sharpens=False),
        dict(objective="frc", learning_rate=1e-4, batch_size=8, smoothness=0.0, latent_noise=0.01,
             amplitude_cost=0.0, latent_steps=0))}


def with_preset(config: TrainConfig) -> TrainConfig:
    """The parameters of the train stage with those of its preset in place of defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    flags = {name: value for name, value in PRESETS[config.preset].flags.items()
             if getattr(config, name) == defaults[name]}
    return dataclasses.replace(config, **flags)
