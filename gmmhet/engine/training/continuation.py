"""Going on from an earlier training: its networks trained further, or a further stage on top of its conformations."""
import os
from dataclasses import dataclass

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError
from gmmhet.engine.io.errors import listing
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.model.settings import NETWORKS


@dataclass(frozen=True)
class Beginning:
    """What a training starts from.

    Attributes
    ----------
    earlier : HeterogeneityModel of the stages below, or None.
    weights : str, folder of the saved networks that this stage's start from; empty: new ones.
    folder : str, the earlier run; empty without one.
    words : str, for the log.
    exact : bool, whether these networks have found the poses to be exact.
    looks : int, at how many resolutions these networks see gradients; 0 without any.
    unblurred : bool, whether a faint motion of theirs sharpens what it moves.
    """

    earlier: "HeterogeneityModel | None" = None
    weights: str = ""
    folder: str = ""
    words: str = ""
    exact: bool = False
    looks: int = 0
    unblurred: bool = True

    def given(self, items):
        """Latent points of the stages below, float32 [n_items, given_dim], and their covariances; joined by id and copy.

        Raises
        ------
        ConfigError
            naming particles that the earlier run has no latent point for, or when that run is of an older version.
        """
        if self.earlier is None:
            return np.zeros((len(items), 0), np.float32), np.zeros((len(items), 0, 0), np.float32)
        with np.load(os.path.join(self.folder, rundir.LATENTS)) as data:
            if "z_covariance" not in data:
                raise ConfigError("--continue-from %s is of an older version, which did not keep how certain the particles' latent points "
                                  "are (its %s lacks z_covariance), and a further stage needs that: train it again (gmmhet train --config "
                                  "%s --out NEW)" % (
                                      self.folder, rundir.LATENTS, os.path.join(self.folder, rundir.CONFIG)))
            row = {pair: i for i, pair in enumerate(zip(data["id"].tolist(), data["copy"].tolist()))}
            kept = self.earlier.latent_dim
            points, covariance = data["z"][:, :kept], data["z_covariance"][:, :kept, :kept]
        wanted = list(zip(items.ids.tolist(), items.copy.tolist()))
        missing = sorted({i for i, copy in wanted if (i, copy) not in row})
        if missing:
            raise ConfigError("--continue-from %s has no latent point for %d of the %d particles (ids %s), and a further stage starts from "
                              "the conformation that each particle has there: give --ids with particles that it was trained on" % (
                                  self.folder, len(missing), len(items.particles), listing(missing)))
        rows = [row[pair] for pair in wanted]
        return points[rows].astype(np.float32), covariance[rows].astype(np.float32)

    def conformations(self, given):
        """A function, rows [B] of the particles to their mixtures below this stage; None where the neutral model stands for all."""
        if self.earlier is None:
            return None
        copies = self.earlier.copies
        return lambda rows: self.earlier.assembled(
            self.earlier.mixture(given.reshape(-1, copies, given.shape[1])[rows].reshape(-1, given.shape[1])))


def _check_run(folder):
    """Refuse an earlier run that has not finished."""
    problem = rundir.missing_run(folder, "train")
    if problem:
        raise ConfigError("--continue-from: " + problem)


def _before(folder):
    """Folder of the run that a run went on from; empty where it is not there, or there was none."""
    paths = [rundir.read_json(os.path.join(folder, file)).get(name, "") for file, name in (
        (rundir.SUMMARY, "continued_from"), (rundir.CONFIG, "continue_from"))]
    return next((path for path in paths if path and os.path.exists(os.path.join(path, rundir.LATENTS))), "")


def check_same_images(folder, particles):
    """Refuse particles that are known by their row in the star file alone, where the earlier run had other images of these numbers.

    Raises
    ------
    ConfigError
        naming a particle and both images.
    """
    if not particles.numbered:
        return
    before = load_model(folder).particles_path
    if not os.path.exists(before) or os.path.samefile(before, particles.path):
        return
    earlier = read_particles(before)
    shared, ours, theirs = np.intersect1d(particles.ids, earlier.ids, return_indices=True)
    for number, one, other in zip(shared, particles.image_names(ours), earlier.image_names(theirs)):
        if one != other:
            raise ConfigError("--continue-from %s was trained on %s, in which particle %d is image %s; in %s, which has no rlnImageId, so "
                              "that particles are numbered by their rows, it is %s: give the file of then, with --ids for a part of it, "
                              "or one with rlnImageId (every star file that gmmhet writes has it)" % (
                                  folder, before, number, other, particles.path, one))


def held_out_before(folder, ids, otherwise):
    """Which particles (by id) the networks of a run have not learned from, bool [n]: of those that it had, and those that it went on from,
    what they held out; of other particles `otherwise`, bool [n]."""
    earlier: dict[int, bool] = {}
    while folder:
        with np.load(os.path.join(folder, rundir.LATENTS)) as data:
            earlier = {**dict(zip(data["id"].tolist(), data["held_out"].tolist())), **earlier}
        folder = _before(folder)
    return np.array([earlier.get(i, other) for i, other in zip(ids.tolist(), otherwise.tolist())], bool)


def held_out_of(folder, ids, otherwise):
    """Which particles (by id) a run holds out that goes on from another (see `held_out_before`).

    Raises
    ------
    ConfigError
        when none is left to judge by, or none to learn from.
    """
    _check_run(folder)
    held = held_out_before(folder, ids, otherwise)
    if held.all() or not held.any():
        raise ConfigError("--continue-from %s held out %s of %d particles that this run would train on, and it needs some that were held "
                          "out, to judge by, and others to learn from: give --ids with both (held_out in its %s says which is "
                          "which), and where there are few, no --half-sets" % (
                              folder, "every one" if held.any() else "none", len(held), rundir.LATENTS))
    return held


def beginning(config, columns, neutral, free):
    """What `--continue-from` means for a run: the same columns, Gaussians and latent dimensions are trained further, others are a further
    stage.

    Parameters
    ----------
    config : TrainConfig, with its preset.
    columns : tuple of str; neutral : Mixture; free : int [N], Gaussians that may vary, and their bodies.

    Raises
    ------
    ConfigError
        when the earlier run cannot be used.
    """
    folder = config.continue_from
    if not folder:
        return Beginning()
    _check_run(folder)
    found = load_model(folder)
    if found.symmetry != config.symmetry.lower():
        raise ConfigError("--continue-from %s was trained with --symmetry %s, this run has %s: give the same" % (
            folder, found.symmetry, config.symmetry))
    new = [words for words, same in (("--vary", set(found.settings["columns"]) == set(columns)),
                                     ("--region", np.array_equal(found.free, free > 0)),
                                     ("--rigid", _same_bodies(config, found, free)),
                                     ("--latent-dim", found.own_dim == config.latent_dim)) if not same]
    if not new:
        _check_networks(config, found.settings)
        return Beginning(found.earlier, os.path.join(folder, rundir.MODEL), folder, "the networks of %s are trained further" % folder,
                         not found.settings.get("at_rest", False), found.looks, found.settings.get("unblurred", False))
    if len(neutral) != len(found.neutral) or not all(
            np.allclose(a, b, rtol=1e-4)
            for a, b in ((neutral.centers, found.neutral.centers), (neutral.amplitudes, found.neutral.amplitudes))):
        raise ConfigError("--continue-from %s stands on another neutral model than --gmm %s: a further stage needs the same" % (
            folder, config.gmm))
    return Beginning(found, folder=folder,
                     words="a further stage on top of %s (other %s): its conformations stay, z gets %d more dimensions after its %d" % (
        folder, " and ".join(new), config.latent_dim, found.latent_dim))


def _same_bodies(config, found, free):
    """Whether the rigid bodies are those of an earlier model, or neither has any."""
    if not found.settings.get("rigid", False):
        return not config.rigid
    return config.rigid and np.array_equal(found.bodies, free)


def _check_networks(config, settings):
    """Refuse an earlier run whose networks do not have the shape of this one's."""
    network = NETWORKS[config.preset]
    wanted = {"--preset (hidden layers)": ("hidden", network["hidden"]), "--preset (variational)": ("variational", network["variational"]),
              "--preset (base learned)": ("base", network["base"]), "--preset (linear part of the decoder)": ("ahead", network["ahead"]),
              "--preset (averages of the weights)": ("averaged", network["averaged"]),
              "--smoothness": ("smoothness", config.smoothness)}
    for words, (name, value) in wanted.items():
        if settings.get(name, False) != value:
            raise ConfigError("--continue-from %s was trained with %s %s, this run has %s: give the same" % (
                config.continue_from, words, settings.get(name, False), value))
