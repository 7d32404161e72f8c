"""The `decode` stage: Gaussian models and maps at given latent points."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import render, write_cif
from gmmhet.engine.io.chimerax import series_commands, write_script
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.motion import decoded, rms_motion
from gmmhet.engine.log import log, progress


def read_points(path, dimension):
    """Latent points from a text file: numbers apart by spaces or commas, one point per row; '#' begins a comment.

    Parameters
    ----------
    path : str
    dimension : int, D of the model.

    Returns
    -------
    z : [P, D] float

    Raises
    ------
    LatentError
        naming the first row that does not hold D finite numbers.
    """
    if not os.path.isfile(path):
        raise LatentError("--z must name a text file with one latent point per row, got '%s', which does not exist" % path)
    points = []
    with open(path, encoding="utf-8") as f:
        for row, text in enumerate(f, 1):
            words = text.split("#")[0].replace(",", " ").split()
            if words:
                points.append(_point(path, row, words, dimension))
    if not points:
        raise LatentError("--z %s holds no latent point: write one row of %d numbers per point" % (path, dimension))
    return np.array(points)


def _point(path, row, words, dimension):
    if len(words) != dimension:
        raise LatentError("--z %s, row %d: expected %d numbers (the model's latent dimension), got %d" % (path, row, dimension, len(words)))
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise LatentError("--z %s, row %d: expected numbers, %s" % (path, row, error)) from None
    if not np.isfinite(values).all():
        raise LatentError("--z %s, row %d: expected finite numbers, got '%s'" % (path, row, " ".join(words)))
    return values


def decode(config, run):
    """Write the Gaussian model (npz, mmCIF) and its map for every row of ``--z``.

    Parameters
    ----------
    config : DecodeConfig
    run : RunDir

    Returns
    -------
    summary : dict, also written as summary.json.
    """
    problem = rundir.missing_run(config.model, "train")
    if problem:
        raise LatentError("--model: " + problem)
    from gmmhet.engine.model.saved import load_model
    model = load_model(config.model)
    return write_points(run, model, read_points(config.z, model.latent_dim))


def write_points(run, model, points):
    """Models, maps and summary of latent points [P, D] in the folder `run`; motion is from the origin of the latent space."""
    run.create()
    motion, (origin,) = [], decoded(model, np.zeros((1, points.shape[1])))
    for i, point in enumerate(progress(points, len(points), "Decoding"), 1):
        mixture, = decoded(model, point[None])
        mixture.save(run(rundir.point(i, ".npz")), z=point)
        write_cif(run(rundir.point(i, ".cif")), mixture)
        write_map(run(rundir.point(i, ".mrc")), render(mixture, model.box, model.pixel_size), model.pixel_size)
        motion.append(rms_motion(origin, mixture))
    write_script(run(rundir.SHOW), series_commands([run(rundir.point(i, ".mrc")) for i in range(1, len(points) + 1)], model.box,
                                                   model.pixel_size))
    summary = {"stage": "decode", "points": len(points), "motion_rms_angst": motion}
    run.write_summary(summary)
    log.info("%d models and maps in %s", len(points), run.path)
    return summary
