"""Going on from an earlier training: its networks trained further, or a further stage on top of its
conformations."""
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.config import ConfigError, TrainConfig
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.io.errors import listing
from gmmhet.engine.latents import Latents, MissingLatents
from gmmhet.engine.likelihood.conformations import Conformations, SingleConformation
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.model.settings import PRESETS
from gmmhet.engine.particles.particle_set import read_particles


class EarlierConformations:
    """The mixture that the stages below found of each particle, as `Conformations`.

    Parameters
    ----------
    model : HeterogeneityModel of the stages below.
    z_earlier : float32 [n_views, D], its latent points.
    """

    def __init__(self, model: HeterogeneityModel, z_earlier: np.ndarray) -> None:
        self._model = model
        self._by_particle = z_earlier.reshape(-1, model.copies, z_earlier.shape[1])

    def at(self, rows: np.ndarray) -> MixtureBatch:
        """Whole particles of the rows [B]."""
        z = self._by_particle[rows].reshape(-1, self._by_particle.shape[2])
        return self._model.symmetry.assemble(self._model.mixture(z))


@dataclass(frozen=True)
class EarlierLatents:
    """Latent points of the stages below, of n views: z [n, D] and covariance [n, D, D], both float32; D is 0
    without any."""

    z: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class Continuation:
    """What a training goes on from; nothing where it begins anew.

    Attributes
    ----------
    earlier : HeterogeneityModel of the stages below, or None.
    networks : HeterogeneityModel whose networks this stage's start from; None: new ones.
    folder : the earlier run; empty without one.
    text : for the log.
    """

    earlier: "HeterogeneityModel | None" = None
    networks: "HeterogeneityModel | None" = None
    folder: str = ""
    text: str = ""

    @property
    def poses_are_exact(self) -> bool:
        """Whether these networks have found the poses to be exact."""
        return self.networks is not None and not self.networks.state.removes_rigid_motion

    def latents(self, views: Views) -> EarlierLatents:
        """Latent points of the stages below, joined by id and copy.

        Raises
        ------
        ConfigError
            naming particles that the earlier run has no latent point for, or when that run is of an older
            version.
        """
        if self.earlier is None:
            return EarlierLatents(np.zeros((len(views), 0), np.float32),
                                  np.zeros((len(views), 0, 0), np.float32))
        latents = Latents.load(self.folder)
        if latents.z_covariance is None:
            raise ConfigError("--continue-from %s is of an older version, which did not keep how certain "
                              "the particles' latent points are (its %s lacks z_covariance), and a further "
                              "stage needs that: train it again (gmmhet train --config %s --out "
                              "NEW)" % (self.folder, rundir.LATENTS,
                                                 os.path.join(self.folder, rundir.CONFIG)))
        try:
            rows = latents.rows_of(views.ids, views.copy)
        except MissingLatents as error:
            raise ConfigError("--continue-from %s has no latent point for %d of the %d particles (ids %s), "
                              "and a further stage starts from the conformation that each particle has "
                              "there: give --ids with particles that it was trained on" % (
                                  self.folder, len(error.missing), len(views.particles),
                                  listing(sorted(error.missing)))) from None
        kept = self.earlier.latent_dim
        return EarlierLatents(latents.z[rows, :kept].astype(np.float32),
                              latents.z_covariance[rows, :kept, :kept].astype(np.float32))

    def conformations(self, neutral: Mixture, z_earlier: np.ndarray) -> Conformations:
        """What each particle is of before this stage: the neutral mixture, or what the stages below found at
        z_earlier [n_views, D]."""
        return SingleConformation(neutral) if self.earlier is None else EarlierConformations(self.earlier,
                                                                                             z_earlier)


def _check_run(folder: str) -> None:
    """Refuse an earlier run that has not finished."""
    problem = rundir.missing_run(folder, "train")
    if problem:
        raise ConfigError("--continue-from: " + problem)


def _run_before(folder: str) -> str:
    """Folder of the run that a run went on from; empty where it is not there, or there was none."""
    paths = [rundir.read_json(os.path.join(folder, file)).get(name, "") for file, name in (
        (rundir.SUMMARY, "continued_from"), (rundir.CONFIG, "continue_from"))]
    return next((path for path in paths if path and os.path.exists(os.path.join(path, rundir.LATENTS))), "")


def check_same_images(folder: str, particles: Any) -> None:
    """Refuse particles that are known by their row in the star file alone, where the earlier run had other
    images of these numbers.

    Raises
    ------
    ConfigError
        naming a particle and both images.
    """
    if not particles.numbered:
        return
    before = load_model(folder).settings.particles
    if not os.path.exists(before) or os.path.samefile(before, particles.path):
        return
    earlier = read_particles(before)
    shared, ours, theirs = np.intersect1d(particles.ids, earlier.ids, return_indices=True)
    for number, one, other in zip(shared, particles.image_names(ours), earlier.image_names(theirs)):
        if one != other:
            raise ConfigError("--continue-from %s was trained on %s, in which particle %d is image %s; in "
                              "%s, which has no rlnImageId, so that particles are numbered by their rows, "
                              "it is %s: give the file of then, with --ids for a part of it, or one with "
                              "rlnImageId (every star file that gmmhet writes has it)" % (
                                  folder, before, number, other, particles.path, one))


def held_out_before(folder: str, ids: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Which particles (by id) the networks of a run have not learned from, bool [n]: of those that it had,
    and those that it went on from, what they held out; of other particles `otherwise`, bool [n]."""
    earlier: dict[int, bool] = {}
    while folder:
        latents = Latents.load(folder, needed=("held_out",))
        earlier = {**dict(zip(latents.ids.tolist(), np.asarray(latents.held_out).tolist())), **earlier}
        folder = _run_before(folder)
    return np.array([earlier.get(i, other) for i, other in zip(ids.tolist(), otherwise.tolist())], bool)


def held_out_of(folder: str, ids: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Which particles (by id) a run holds out that goes on from another (see `held_out_before`), bool [n].

    Raises
    ------
    ConfigError
        when none is left to judge by, or none to learn from.
    """
    _check_run(folder)
    held = held_out_before(folder, ids, otherwise)
    if held.all() or not held.any():
        raise ConfigError("--continue-from %s held out %s of %d particles that this run would train on, and "
                          "it needs some that were held out, to judge by, and others to learn from: give "
                          "--ids with both (held_out in its %s says which is which), and where there are "
                          "few, no --half-sets" % (
                              folder, "every one" if held.any() else "none", len(held), rundir.LATENTS))
    return held


def find_continuation(config: TrainConfig, parameters: tuple[str, ...], neutral: Mixture,
                      body: np.ndarray) -> Continuation:
    """What `--continue-from` means for a run: the same parameters, Gaussians and latent dimensions are
    trained further, others are a further stage.

    Parameters
    ----------
    config : TrainConfig, with its preset.
    parameters : that may vary.
    neutral : Mixture.
    body : int [N], Gaussians that may vary, and their bodies.

    Raises
    ------
    ConfigError
        when the earlier run cannot be used.
    """
    folder = config.continue_from
    if not folder:
        return Continuation()
    _check_run(folder)
    model = load_model(folder)
    if model.settings.symmetry != config.symmetry.lower():
        raise ConfigError("--continue-from %s was trained with --symmetry %s, this run has %s: give the same"
                          % (
            folder, model.settings.symmetry, config.symmetry))
    alike = {"--vary": set(model.settings.parameters) == set(parameters),
             "--region": np.array_equal(model.free, body > 0),
             "--rigid": _same_bodies(config, model, body), "--latent-dim": model.n_stage == config.latent_dim}
    other = [flag for flag, same in alike.items() if not same]
    if not other:
        _check_networks(config, model)
        return Continuation(model.earlier, model, folder, "the networks of %s are trained further" % folder)
    if len(neutral) != len(model.neutral) or not all(
            np.allclose(a, b, rtol=1e-4)
            for a, b in ((neutral.centers, model.neutral.centers),
                         (neutral.amplitudes, model.neutral.amplitudes))):
        raise ConfigError("--continue-from %s stands on another neutral model than --gmm %s: a further "
                          "stage needs the same" % (
            folder, config.gmm))
    text = "a further stage on top of %s (other %s): its conformations stay, z gets %d more dimensions" % (
        folder, " and ".join(other), config.latent_dim)
    text += " after its %d" % model.latent_dim
    return Continuation(model, None, folder, text)


def _same_bodies(config: TrainConfig, model: HeterogeneityModel, body: np.ndarray) -> bool:
    """Whether the rigid bodies are those of an earlier model, or neither has any."""
    if not model.settings.rigid:
        return not config.rigid
    return config.rigid and np.array_equal(model.body, body)


def _check_networks(config: TrainConfig, model: HeterogeneityModel) -> None:
    """Refuse an earlier run whose networks do not have the shape of this one's."""
    wanted, settings = PRESETS[config.preset].network, model.settings
    own = settings.network
    pairs = {"--preset (hidden layers)": (own.hidden, wanted.hidden),
             "--preset (variational)": (own.variational, wanted.variational),
             "--preset (consensus learned)": (own.consensus_shift, wanted.consensus_shift),
             "--preset (linear part of the decoder)": (own.linear_decoder, wanted.linear_decoder),
             "--preset (averages of the weights)": (own.averages_weights, wanted.averages_weights),
             "--smoothness": (settings.smoothness_angst, config.smoothness)}
    for name, (before, now) in pairs.items():
        if before != now:
            raise ConfigError("--continue-from %s was trained with %s %s, this run has %s: give the same" % (
                config.continue_from, name, before, now))
