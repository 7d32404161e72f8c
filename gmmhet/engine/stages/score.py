"""The score stage: latents against a simulated truth, beside the oracle."""
import json
import os

import numpy as np
from sklearn.cluster import KMeans

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.log import log
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.simulate.phantom import ASSEMBLY_STATES, SYMMETRIC, Phantom
from gmmhet.engine.simulate.physics import decoded_angles, decoded_states, plain_r2
from gmmhet.engine.simulate.scores import FEWEST, fraction, said, score_all, scored


def score(config, run):
    """Run the score stage: latents against the truth, beside the oracle (see `gmmhet score --help`)."""
    for name, stage in (("model", "train"), ("truth", "simulate")):
        problem = rundir.missing_run(getattr(config, name), stage)
        if problem:
            raise ConfigError("--%s: %s" % (name, problem))
    with open(os.path.join(config.truth, rundir.ORACLE), encoding="utf-8") as f:
        oracle = json.load(f)
    with np.load(os.path.join(config.truth, rundir.TRUTH)) as data:
        rows = {int(i): row for row, i in enumerate(data["id"])}
        truth = {k[5:]: data[k] for k in data.files if k.startswith("true_")}
        phantom = _phantom(oracle["kind"], data)
    latents = dict(np.load(os.path.join(config.model, rundir.LATENTS)))
    ids = latents["id"][latents["copy"] == 0].tolist()
    copies = int(latents["copy"].max()) + 1
    unknown = [i for i in ids if i not in rows]
    if unknown:
        raise ConfigError("%d particles of --model %s are not in --truth %s, the first is id %d: give the 'simulate' run that made them" % (
            len(unknown), config.model, config.truth, unknown[0]))
    if copies != len(phantom.turns):
        raise ConfigError("--truth %s is of kind %s, so the model must be trained with --symmetry %s; --model %s has %d latent points a "
                          "particle" % (config.truth, oracle["kind"], oracle["kind"] if oracle["kind"] in SYMMETRIC else "c1",
                                        config.model, copies))
    run.create()
    order = np.array([rows[i] for i in ids])
    truth = {k: v[order] for k, v in truth.items()}
    z = latents["z"].reshape(-1, copies, latents["z"].shape[-1]) if copies > 1 else latents["z"]
    estimate = dict(z=z)
    if oracle["kind"] == "assembly":
        estimate["state"] = _clusters(config, latents)
    model = load_model(config.model)
    if oracle["kind"] == "mixed":
        estimate["state"] = decoded_states(model, z, phantom)
    figures = score_all(oracle["kind"], truth, estimate)
    if "angle" in truth:
        turns = np.isfinite(truth["angle"])
        figures["decoded_angle_r2"] = scored(plain_r2, truth["angle"][turns], decoded_angles(model, z[turns], phantom))
        oracle["decoded_angle_r2"] = oracle["r2"]
    summary = dict(stage="score", seed=config.seed, kind=oracle["kind"], scores=figures, oracle={k: oracle.get(k) for k in figures},
                   fraction_of_oracle={k: fraction(figures[k], oracle[k]) for k in figures})
    run.write_summary(summary)
    for name, value in figures.items():
        if value is None:
            log.warning("%s is not scored: fewer than %d of the %d particles have a true value, or all have the same",
                        name.replace("_", " "), FEWEST, len(ids))
        else:
            log.info("%s: %s; oracle %s; fraction of the oracle %s", name.replace("_", " "), *(
                said(summary[part][name]) for part in ("scores", "oracle", "fraction_of_oracle")))


def _phantom(kind, data):
    """The phantom that a simulate run keeps in its truth."""
    base = Mixture(data["centers"], data["amplitudes"], data["widths"])
    return Phantom(kind, base, data["part"], data["pivot"], data["axis"], float(data["angle_deg"]))


def _clusters(config, latents):
    """Cluster label of every particle: from an analyze run where one is given, else k-means with as many clusters as there are states."""
    if config.analysis:
        problem = rundir.missing_run(config.analysis, "analyze")
        if problem:
            raise ConfigError("--analysis: " + problem)
        with np.load(os.path.join(config.analysis, rundir.EMBEDDING)) as data:
            label = dict(zip(data["id"].tolist(), data["label"].tolist()))
        return np.array([label[i] for i in latents["id"].tolist()])
    return KMeans(len(ASSEMBLY_STATES), n_init=10, random_state=0).fit_predict(latents["z"])
