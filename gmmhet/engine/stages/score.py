"""The score stage: latents against a simulated truth, beside the oracle."""
import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import numpy as np
from sklearn.cluster import KMeans

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError, ScoreConfig
from gmmhet.engine.gmm.mixture import Mixture, MixtureDecoder
from gmmhet.engine.latents import Latents
from gmmhet.engine.log import log
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.rundir import RunDir
from gmmhet.engine.simulate.phantom import ASSEMBLY_STATES, SYMMETRIC, Phantom
from gmmhet.engine.simulate.physics import decoded_angles, decoded_states, plain_r2
from gmmhet.engine.simulate.scores import (
    FEWEST_VALUES,
    Scores,
    figure_text,
    fraction_of_oracle,
    score_all,
    score_or_none,
)


@dataclass(frozen=True)
class Plan:
    """What is scored against what, one row a particle.

    Attributes
    ----------
    config : ScoreConfig.
    model : the trained model.
    phantom : Phantom, of the truth.
    z : [n, D], or [n, copies, D] where particles have symmetry copies.
    truth : arrays of `oracle.truths`, [n, ...].
    oracle : the oracle's figures by name.
    clusters : [n], of an analyze run, or None.
    """

    config: ScoreConfig
    model: MixtureDecoder
    phantom: Phantom
    z: np.ndarray
    truth: Dict[str, np.ndarray]
    oracle: Dict[str, Any]
    clusters: Optional[np.ndarray]


def prepare(config: ScoreConfig) -> Plan:
    """Read the latent points, the truth, the model and the clusters, joined by id.

    Raises
    ------
    ConfigError, LatentsError
        when a run is not finished, or they are not of the same particles.
    """
    _check_run("model", config.model, "train")
    _check_run("truth", config.truth, "simulate")
    with open(os.path.join(config.truth, rundir.ORACLE), encoding="utf-8") as f:
        oracle = json.load(f)
    with np.load(os.path.join(config.truth, rundir.TRUTH)) as data:
        row = {int(i): row for row, i in enumerate(data["id"])}
        truth = {name[len("true_"):]: data[name] for name in data.files if name.startswith("true_")}
        phantom = _phantom(oracle["kind"], data)
    latents = Latents.load(config.model)
    ids = latents.particle_ids.tolist()
    unknown = [i for i in ids if i not in row]
    if unknown:
        raise ConfigError("%d particles of --model %s are not in --truth %s, the first is id %d: give the "
                          "'simulate' run that made them" % (
                              len(unknown), config.model, config.truth, unknown[0]))
    if latents.copies != len(phantom.unit_rotations):
        raise ConfigError("--truth %s is of kind %s, so the model must be trained with --symmetry %s; "
                          "--model %s has %d latent points a particle" % (
                              config.truth, phantom.kind, phantom.kind if phantom.kind in SYMMETRIC else "c1",
                              config.model, latents.copies))
    truth_rows = np.array([row[i] for i in ids])
    z = latents.z[latents.rows_of(ids)]                                             # [n, copies, D]
    clusters = _clusters(config.analysis, ids) if config.analysis and phantom.kind == "assembly" else None
    return Plan(config, load_model(config.model), phantom, z if latents.copies > 1 else z[:, 0],
                {name: values[truth_rows] for name, values in truth.items()}, oracle, clusters)


def _check_run(name: str, folder: str, stage: str) -> None:
    problem = rundir.missing_run(folder, stage)
    if problem:
        raise ConfigError("--%s: %s" % (name, problem))


def _phantom(kind: str, data: Any) -> Phantom:
    """The phantom that a simulate run keeps in its truth."""
    base = Mixture(data["centers"], data["amplitudes"], data["widths"])
    return Phantom(kind, base, data["part"], data["pivot"], data["axis"], float(data["angle_deg"]))


def _clusters(folder: str, ids: List[int]) -> np.ndarray:
    """Cluster of every particle in an analyze run."""
    _check_run("analysis", folder, "analyze")
    with np.load(os.path.join(folder, rundir.EMBEDDING)) as data:
        label = dict(zip(data["id"].tolist(), data["label"].tolist()))
    return np.array([label[i] for i in ids])


def execute(plan: Plan, run: RunDir) -> Dict[str, Any]:
    """Latents against the truth, beside the oracle; the summary (see `gmmhet score --help`)."""
    kind, truth = plan.phantom.kind, plan.truth
    figures = score_all(kind, truth, _estimate(plan))
    oracle = dict(plan.oracle)
    if "angle" in truth:
        turns = np.isfinite(truth["angle"])
        angles = decoded_angles(plan.model, plan.z[turns], plan.phantom)
        figures["decoded_angle_r2"] = score_or_none(plain_r2, truth["angle"][turns], angles)
        oracle["decoded_angle_r2"] = oracle["r2"]
    fractions = {name: fraction_of_oracle(figures[name], oracle[name]) for name in figures}
    summary = dict(stage="score", seed=plan.config.seed, kind=kind, scores=figures,
                   oracle={name: oracle.get(name) for name in figures}, fraction_of_oracle=fractions)
    _log(figures, summary, len(plan.z))
    return summary


def _estimate(plan: Plan) -> Dict[str, np.ndarray]:
    """What the latent points say: z itself, and states where the truth has some, from an analyze run where
    one is given, else by k-means with as many clusters as there are states."""
    kind, estimate = plan.phantom.kind, dict(z=plan.z)
    if kind == "assembly" and plan.clusters is not None:
        estimate["state"] = plan.clusters
    elif kind == "assembly":
        estimate["state"] = KMeans(len(ASSEMBLY_STATES), n_init=10, random_state=0).fit_predict(plan.z)
    elif kind == "mixed":
        estimate["state"] = decoded_states(plan.model, plan.z, plan.phantom)
    return estimate


def _log(figures: Scores, summary: Dict[str, Any], particles: int) -> None:
    for name, value in figures.items():
        if value is None:
            log.warning("%s is not scored: fewer than %d of the %d particles have a true value, or all have "
                        "the same",
                        name.replace("_", " "), FEWEST_VALUES, particles)
        else:
            log.info("%s: %s; oracle %s; fraction of the oracle %s", name.replace("_", " "), *(
                figure_text(summary[key][name]) for key in ("scores", "oracle", "fraction_of_oracle")))
