"""The `decode` stage: Gaussian models and maps at given latent points."""
import os
from dataclasses import dataclass
from typing import Any, Dict, List

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import DecodeConfig
from gmmhet.engine.gmm.mixture import MixtureDecoder, render, write_cif
from gmmhet.engine.io.chimerax import series_commands, write_script
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.motion import decode_mixtures, rms_displacement
from gmmhet.engine.log import log, progress
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.rundir import RunDir


@dataclass(frozen=True)
class Plan:
    """What is decoded: the trained model, and latent points [P, D]."""

    config: DecodeConfig
    model: MixtureDecoder
    points: np.ndarray


def prepare(config: DecodeConfig) -> Plan:
    """Read the model and the latent points.

    Raises
    ------
    LatentError
        when the run is not finished, or ``--z`` does not hold latent points of the model.
    """
    problem = rundir.missing_run(config.model, "train")
    if problem:
        raise LatentError("--model: " + problem)
    model = load_model(config.model)
    return Plan(config, model, read_points(config.z, model.latent_dim))


def read_points(path: str, dimension: int) -> np.ndarray:
    """Latent points from a text file: numbers apart by spaces or commas, one point per row; '#' begins a
    comment.

    Parameters
    ----------
    path : str
    dimension : int, D of the model.

    Returns
    -------
    float64 [P, D].

    Raises
    ------
    LatentError
        naming the first row that does not hold D finite numbers.
    """
    if not os.path.isfile(path):
        raise LatentError("--z must name a text file with one latent point per row, got '%s', which does not "
                          "exist" % path)
    points = []
    with open(path, encoding="utf-8") as f:
        for row, text in enumerate(f, 1):
            words = text.split("#")[0].replace(",", " ").split()
            if words:
                points.append(_point(path, row, words, dimension))
    if not points:
        raise LatentError("--z %s holds no latent point: write one row of %d numbers per point" % (
            path, dimension))
    return np.array(points)


def _point(path: str, row: int, words: List[str], dimension: int) -> List[float]:
    if len(words) != dimension:
        raise LatentError("--z %s, row %d: expected %d numbers (the model's latent dimension), got %d" % (
            path, row, dimension, len(words)))
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise LatentError("--z %s, row %d: expected numbers, %s" % (path, row, error)) from None
    if not np.isfinite(values).all():
        raise LatentError("--z %s, row %d: expected finite numbers, got '%s'" % (path, row, " ".join(words)))
    return values


def execute(plan: Plan, run: RunDir) -> Dict[str, Any]:
    """Write the Gaussian model (npz, mmCIF) and its map for every latent point; the summary, with motion from
    the origin of the latent space."""
    model, points = plan.model, plan.points
    (origin,), motion = decode_mixtures(model, np.zeros((1, points.shape[1]))), []
    for i, point in enumerate(progress(points, len(points), "Decoding"), 1):
        mixture, = decode_mixtures(model, point[None])
        mixture.save(run(rundir.point(i, ".npz")), z=point)
        write_cif(run(rundir.point(i, ".cif")), mixture)
        volume = render(mixture, model.box, model.pixel_size)
        write_map(run(rundir.point(i, ".mrc")), volume, model.pixel_size)
        motion.append(rms_displacement(origin, mixture))
    maps = [run(rundir.point(i, ".mrc")) for i in range(1, len(points) + 1)]
    write_script(run(rundir.SHOW), series_commands(maps, model.box, model.pixel_size))
    log.info("%d models and maps in %s", len(points), run.path)
    return {"stage": "decode", "points": len(points), "motion_rms_angst": motion}
