"""The `analyze` stage: from a trained model to an embedding, clusters, trajectories and the landscape page."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.gmm.regions import region_mask
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.assignment import by_image, by_latent
from gmmhet.engine.latent.eigenmotion import localised_motions
from gmmhet.engine.latent.landscape import landscape_figure
from gmmhet.engine.latent.motion import decoded, relative_amplitude_change, rms_motion, spread_motion
from gmmhet.engine.latent.paths import asked_lines, covariance, line_through, named_line, nearest
from gmmhet.engine.latent.reduce import principal_axes, umap_plane
from gmmhet.engine.latent.write import write_clusters, write_directions, write_trajectory
from gmmhet.engine.log import log, progress
from gmmhet.engine.model.saved import load_model

#: arrays of latents.npz: always, and to assign by image
PLACES, BY_IMAGE = ("id", "copy", "z"), ("z_covariance", "pose_change", "held_out")
JACOBIAN_POINTS = 32    # particles over which motion inside a region is averaged
PLACING_NEIGHBOURS = 50                     # whose mean place in the UMAP plane stands for a point of a trajectory
LANDSCAPE_NOTE = ("Grey: log density of the points. Outlines hold 70 %% of a cluster. Lines run from the 5th to the 95th percentile of "
                  "the points. Seed %d.")


def assigns_by_image(config):
    """Whether particles are assigned to clusters by their images."""
    return config.assign_by == "image" and config.clusters > 1


def read_latents(folder, by_image=False):
    """latents.npz of a train run, checked: dict with id, copy [n] and z [n, D]; `by_image` also z_covariance [n, D, D], pose_change
    [n, 5] and held_out [n].

    Raises
    ------
    LatentError
        when the run is not finished, lacks one of them, or z is not finite.
    """
    problem = rundir.missing_run(folder, "train")
    if problem:
        raise LatentError("--model: " + problem)
    path = os.path.join(folder, rundir.LATENTS)
    with np.load(path) as data:
        wanted = PLACES + BY_IMAGE * by_image
        found = {name: data[name] for name in wanted if name in data.files}
    bad = int(np.sum(~np.isfinite(found["z"]).all(axis=1)))
    if bad:
        raise LatentError("%s: z of %d of the %d particles is not finite: train again, with a lower --learning-rate" % (
            path, bad, len(found["z"])))
    lacks = [name for name in wanted if name not in found]
    if lacks:
        raise LatentError("%s lacks %s: train again, or take --assign-by latent" % (path, " and ".join(lacks)))
    return found


def some_rows(count, most, seed):
    """At most `most` of `count` rows, drawn with a seed, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def motions_for(config, model, z):
    """Localised directions [M, D] for ``--motion-region`` (one standard deviation long), none without it."""
    if not config.motion_region:
        return np.empty((0, z.shape[1])), {}
    inside = region_mask(config.motion_region, model.neutral)
    rows = some_rows(len(z), JACOBIAN_POINTS, config.seed)
    points = [np.zeros(z.shape[1])] + list(z[rows])
    found = localised_motions([model.jacobian(np.float32(point)) for point in progress(points, len(points), "Localised motion")],
                              inside, covariance(z))
    log.info("Localised motions, rms inside and outside the region per standard deviation of the particles: %s.", "; ".join(
        "motion%d %.2f and %.2f Å" % (i + 1, a, b) for i, (a, b) in enumerate(zip(found.inside_angst, found.outside_angst))))
    if found.inside_angst[0] < found.outside_angst[0]:
        log.warning("No direction moves the region more than the rest of the molecule: motion1 is not localised.")
    if inside.all():
        log.info("The motion region holds every Gaussian: the motions found are the largest ones, not localised ones.")
    return found.vectors, {"motion%d" % (i + 1): {"inside_angst": float(a), "outside_angst": float(b)}
                           for i, (a, b) in enumerate(zip(found.inside_angst, found.outside_angst))}


def directions_for(lines, z, axes, motions):
    """Every line that is described: the asked ones, all principal axes and all localised motions, each once."""
    found = {line.name: line for line in lines}
    for i, vector in enumerate(axes.vectors):
        found.setdefault("pc%d" % (i + 1), line_through("pc%d" % (i + 1), z, axes.mean, vector))
    for i, vector in enumerate(motions):
        name = "motion%d" % (i + 1)
        found.setdefault(name, line_through(name, z, np.zeros(z.shape[1]), vector))
    return list(found.values())


def changes_along(model, lines):
    """What each line does to the model from end to end: dict of name to (rms motion in Å, relative amplitude change)."""
    ends = decoded(model, np.concatenate([line.points(2) for line in lines]))
    return {line.name: (rms_motion(start, end), relative_amplitude_change(start, end))
            for line, start, end in zip(lines, ends[::2], ends[1::2])}


def in_plane(points, embedding, z, xy, axes):
    """Places [P, 2] of latent points in the drawn plane: exact for PCA, for UMAP the mean place of the nearest particles."""
    if embedding == "pca":
        return axes.coordinates(points)
    return np.array([xy[nearest(z, point, PLACING_NEIGHBOURS)].mean(axis=0) for point in points])


def say_clusters(config, clusters):
    """Sizes of the clusters in the log; by image also what is certain of them."""
    log.info("%d clusters of %s points%s.", len(clusters.sizes), ", ".join(str(s) for s in clusters.sizes) or "no",
             "; %d lie between clusters" % clusters.unassigned if clusters.unassigned else "")
    if clusters.population is None:
        return
    log.info("By image, they hold %s of the particles; a particle's cluster is %.0f %% certain on average.",
             ", ".join("%.1f %%" % (100 * share) for share in clusters.population), 100 * clusters.certainty)
    lost = config.clusters - len(clusters.sizes)
    if lost:
        log.warning("%d of the %d clusters fit no particle's image best, and have vanished: --assign-by latent keeps them.",
                    lost, config.clusters)


def embed(config, z, axes):
    """The plane that is drawn: [n, 2] and the names of its axes."""
    if config.embedding == "pca":
        explained = list(axes.explained[:2]) + [0.0]
        return axes.coordinates(z), ["Principal axis %d of z  (%.1f %%)" % (i + 1, 100 * explained[i]) for i in range(2)]
    log.info("UMAP of %d points with seed %d: a fixed seed makes it single-threaded.", len(z), config.seed)
    return umap_plane(z, config.umap_neighbours, config.seed), ["UMAP 1", "UMAP 2"]


def analyze(config, run):
    """Read the landscape of a trained model and write what the package's tables list into `run`.

    Parameters
    ----------
    config : AnalyzeConfig
    run : RunDir

    Returns
    -------
    summary : dict, also written as summary.json.

    Raises
    ------
    LatentError, RegionError
        before anything is written, when the model, a line, the clusters or the region cannot be used.
    """
    latents = read_latents(config.model, assigns_by_image(config))
    return read_landscape(config, run, latents, load_model(config.model))


def read_landscape(config, run, latents, model):
    """`analyze` with the latents (see `read_latents`) and the model already loaded."""
    z, ids, copies = np.asarray(latents["z"], float), latents["id"], latents["copy"]
    axes, clusters = principal_axes(z), by_latent(config, z)
    motions, localised = motions_for(config, model, z)

    def asked():
        return [named_line(word, z, axes, clusters.centers, motions) for word in asked_lines(config.line, z.shape[1])]
    lines = asked()
    xy, axis_labels = embed(config, z, axes)
    if assigns_by_image(config):      # the longest work, after all that could be refused
        clusters = by_image(config, latents, model, clusters.labels)
        lines = asked()
    say_clusters(config, clusters)
    labels, centers = clusters.labels, clusters.centers
    run.create()

    described = directions_for(lines, z, axes, motions)
    changes = changes_along(model, described)
    seen = {} if clusters.probability is None else dict(probability=np.float32(clusters.probability))
    np.savez(run(rundir.EMBEDDING), id=ids, copy=copies, xy=np.float32(xy), label=labels, explained=axes.explained,
             centers=centers, **seen)
    write_clusters(run, model, centers, labels, ids, copies)
    write_directions(run(rundir.DIRECTIONS), described, changes)
    for line in progress(lines, len(lines), "Trajectories"):
        write_trajectory(run, line, line.points(config.points), model, z, ids, copies, config.neighbours)
    paths = {line.name: in_plane(line.points(config.points), config.embedding, z, xy, axes) for line in lines}
    figure = landscape_figure(xy, labels, paths, axis_labels, axes.explained, {line.name: changes[line.name] for line in described},
                              LANDSCAPE_NOTE % config.seed, int(copies.max()) + 1, clusters.population)
    figure.savefig(run(rundir.LANDSCAPE), dpi=130)
    return summarise(config, run, model, z, ids, axes, clusters, lines, changes, localised)


def summarise(config, run, model, z, ids, axes, clusters, lines, changes, localised):
    """Write summary.json and say its main figures."""
    motion, amplitude = spread_motion(model, z)
    summary = {
        "stage": "analyze", "particles": int(len(np.unique(ids))), "latent_points": int(len(z)), "latent_dim": int(z.shape[1]),
        "explained_variance": [float(e) for e in axes.explained],
        "clusters": [int(s) for s in clusters.sizes], "unassigned": clusters.unassigned,
        "assigned_by": "latent" if clusters.population is None else "image",
        "motion_rms_angst": motion, "amplitude_rms": amplitude,
        "directions": {name: {"motion_rms_angst": m, "amplitude_rms": a, **localised.get(name, {})} for name, (m, a) in changes.items()},
        "trajectories": [line.name for line in lines], "points": config.points, "embedding": config.embedding, "seed": config.seed}
    if clusters.population is not None:
        summary.update(populations=[float(p) for p in clusters.population], certainty=clusters.certainty)
    run.write_summary(summary)
    log.info("Decoded motion about the mean model: %.2f Å rms; amplitudes %.1f %%. Variance explained: %s.", motion, 100 * amplitude,
             ", ".join("%.0f %%" % (100 * e) for e in axes.explained))
    log.info("Landscape: %s", run(rundir.LANDSCAPE))
    return summary
