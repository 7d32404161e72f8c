"""The `analyze` stage: from a trained model to an embedding, clusters, trajectories and the landscape page."""
import os
from dataclasses import dataclass
from typing import Optional

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import render, write_cif_models
from gmmhet.engine.gmm.regions import region_mask
from gmmhet.engine.io.chimerax import series_commands, write_script
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.cluster import by_size, cluster_centers, density_labels, kmeans_labels, largest_first
from gmmhet.engine.latent.eigenmotion import localised_motions
from gmmhet.engine.latent.landscape import landscape_figure
from gmmhet.engine.latent.membership import likeliest, likelihoods, memberships, mixed, sharpened, two_levels
from gmmhet.engine.latent.motion import decoded, relative_amplitude_change, rms_motion, write_bild
from gmmhet.engine.latent.paths import asked_lines, covariance, line_through, named_line, nearest, nearest_particles
from gmmhet.engine.latent.reduce import principal_axes, umap_plane
from gmmhet.engine.log import log, progress
from gmmhet.engine.training.batches import Items
from gmmhet.engine.training.evidence import spread_motion
from gmmhet.engine.training.finished import particles_of, posed_otherwise
from gmmhet.engine.training.latents import latent_prior, unit_prior
from gmmhet.engine.training.model import load_model
from gmmhet.engine.training.pace import read, spread

#: arrays of latents.npz: always, and to assign by image
PLACES, BY_IMAGE = ("id", "copy", "z"), ("z_covariance", "pose_change", "held_out")
PLACED_BY = 2000    # particles whose images say where the clusters' centres are
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


def write_ids(path, ids, copies):
    """One particle id per line; of symmetric particles the id and its symmetry copy (from 0), as `reconstruct --ids` reads them."""
    np.savetxt(path, np.stack([ids, copies], axis=1) if np.any(copies) else ids, fmt="%d")


def write_clusters(run, model, centers, labels, ids, copies):
    """Of each cluster: the ids of its particles, and the decoded map at its centre."""
    for number in range(1, len(centers) + 1):
        inside = np.flatnonzero(labels == number)
        inside = inside[np.lexsort((copies[inside], ids[inside]))]
        write_ids(run(rundir.cluster_ids(number)), ids[inside], copies[inside])
        mixture, = decoded(model, centers[number - 1:number])
        write_map(run(rundir.cluster_map(number)), render(mixture, model.box, model.pixel_size), model.pixel_size)


def write_trajectory(run, line, points, model, z, ids, copies, neighbours):
    """Folder of one trajectory: model, map and nearest particles of each point; arrows, multi-model mmCIF and ChimeraX script."""
    folder = run(rundir.trajectory(line.name))
    os.makedirs(folder, exist_ok=True)
    mixtures = decoded(model, points)
    np.savetxt(os.path.join(folder, "z.txt"), points, fmt="%.6f")
    for i, (point, mixture) in enumerate(zip(points, mixtures), 1):
        mixture.save(os.path.join(folder, rundir.point(i, ".npz")), z=point)
        write_map(os.path.join(folder, rundir.point(i, ".mrc")), render(mixture, model.box, model.pixel_size), model.pixel_size)
        rows = nearest_particles(z, ids, point, neighbours)
        write_ids(os.path.join(folder, rundir.point(i, "_ids.txt")), ids[rows], copies[rows])
    write_bild(os.path.join(folder, "motion.bild"), mixtures[0].centers, mixtures[-1].centers, line.name)
    write_cif_models(os.path.join(folder, "motion.cif"), mixtures, "trajectory")
    write_script(os.path.join(folder, rundir.SHOW), series_commands(
        [os.path.join(folder, rundir.point(i, ".mrc")) for i in range(1, len(points) + 1)], model.box, model.pixel_size,
        os.path.join(folder, "motion.cif"), os.path.join(folder, "motion.bild")))


def write_directions(path, lines, changes):
    """directions.npz: names, vectors [K, D] (unit), origins [K, D], percentiles [K, 2] (where each line begins and ends along its
    vector), motion_rms_angst and amplitude_rms [K] (between the two ends)."""
    np.savez(path, names=np.array([line.name for line in lines]), vectors=np.array([line.vector for line in lines]),
             origins=np.array([line.origin for line in lines]), percentiles=np.array([(line.low, line.high) for line in lines]),
             motion_rms_angst=np.array([changes[line.name][0] for line in lines]),
             amplitude_rms=np.array([changes[line.name][1] for line in lines]))


def in_plane(points, embedding, z, xy, axes):
    """Places [P, 2] of latent points in the drawn plane: exact for PCA, for UMAP the mean place of the nearest particles."""
    if embedding == "pca":
        return axes.coordinates(points)
    return np.array([xy[nearest(z, point, PLACING_NEIGHBOURS)].mean(axis=0) for point in points])


@dataclass(frozen=True)
class Clusters:
    """Clusters of latent points, in order of size.

    Parameters
    ----------
    labels : int [n], from 1; 0 for none.
    centers : [K, D]
    probability : [n, K], of each cluster by the particle's image; population : [K]. None where clusters are by z alone.
    """

    labels: np.ndarray
    centers: np.ndarray
    probability: Optional[np.ndarray] = None
    population: Optional[np.ndarray] = None

    @property
    def certainty(self):
        """How probable the cluster of a particle is, on average; None where clusters are by z alone."""
        return None if self.probability is None else float(self.probability.max(1).mean())

    @property
    def sizes(self):
        """Points of each cluster [K]."""
        return np.bincount(self.labels, minlength=len(self.centers) + 1)[1:]

    @property
    def unassigned(self):
        """How many points are in no cluster."""
        return int(np.sum(self.labels == 0))


def by_latent(config, z):
    """Clusters in z [n, D], as many as ``--clusters`` asks for, or by density."""
    labels = kmeans_labels(z, config.clusters, config.seed) if config.clusters else density_labels(z)
    return Clusters(labels, cluster_centers(z, labels))


def posed_particles(config, latents, model):
    """The particles of the landscape, in the order of their latent points, and what training found that their poses change by, [n, 5].

    What `--particles` gives another pose than it had in training is taken as it is.
    """
    ids, change = latents["id"][::model.copies], latents["pose_change"][::model.copies]
    given = particles_of(config.model, model, config.particles) if config.particles else None
    whole = given is not None and bool(np.isin(ids, given.ids).all())
    try:
        trained = particles_of(config.model, model)
    except (ValueError, OSError):
        if given is None or not whole:
            raise
        return given.select(given.rows_of(ids)), np.zeros_like(change)
    trained = trained.select(trained.rows_of(ids))
    if given is None:
        return trained, change
    rows = np.flatnonzero(np.isin(ids, given.ids))
    given = given.select(given.rows_of(ids[rows]))
    other = posed_otherwise(given, trained.select(rows))
    log.info("%d of the %d particles have another pose in %s than in training", other.sum(), len(ids), config.particles)
    rotation, shift, change = trained.rotation.copy(), trained.shift_angst.copy(), change.copy()
    rotation[rows], shift[rows], change[rows[other]] = given.rotation, given.shift_angst, 0
    return (given if whole else trained).with_poses(rotation, shift), change


def by_image(config, latents, model, labels):
    """Clusters that begin as `labels` [n] say, with particles assigned by their images (see `membership`)."""
    try:
        particles, change = posed_particles(config, latents, model)
    except (ValueError, OSError) as error:
        raise LatentError("%s (--assign-by latent needs no images)" % error) from error
    to, back = model.paces[::-1], model.paces
    model, z = model.as_trained(throughout=True), read(latents["z"], *to)
    covariance = spread(latents["z"], latents["z_covariance"], *to)
    prior = unit_prior(model.latent_dim) if model.settings["variational"] else latent_prior(z)
    some = np.random.default_rng([config.seed, 20]).permutation(len(particles))[:PLACED_BY]
    items, few = Items(particles, model.symmetry), Items(particles.select(some), model.symmetry)
    centers = likeliest(lambda places: likelihoods(model, few, z[items.of(some).ravel()], places, change[some], "centers"),
                        cluster_centers(z, labels), sharpened(z, covariance, labels, prior))
    centers, found, probability, population = populated(centers, likelihoods(model, items, z, centers, change))
    found = levelled(model, items, z, latents["held_out"], centers, change, found, population)
    centers, found, probability, population = populated(centers, found)
    most = probability.argmax(1)
    kept = largest_first(most)
    return Clusters(by_size(most), read(centers[kept], *back), probability[:, kept], population[kept])


def populated(centers, found):
    """Clusters that are the most probable one of some item: centers [K, D], log-likelihoods [n, K], probability [n, K], population [K]."""
    probability, population = memberships(found)
    while len(present := np.unique(probability.argmax(1))) < len(population):      # what no image fits best takes no share either
        centers, found = centers[present], found[:, present]
        probability, population = memberships(found)
    return centers, found, probability, population


def levelled(model, items, z, held_out, centers, change, found, population):
    """Log-likelihoods [n_items, K] at the centers: those `found`, or with amplitudes of two levels (see `two_levels`) where particles that
    the networks never saw are likelier so, by two standard errors and more."""
    _, plain, _ = model.decode(centers)
    held = held_out[::model.copies]
    if len(plain) < 3 or not np.any(held):
        return found
    amplitudes = two_levels(plain, population)
    if np.allclose(amplitudes, plain, rtol=1e-3):
        return found
    rows = items.of(np.flatnonzero(held)).ravel()
    those = Items(items.particles.select(np.flatnonzero(held)), model.symmetry)
    by_levels = likelihoods(model, those, z[rows], centers, change[held], "held out", amplitudes=amplitudes)
    gain = mixed(by_levels, population) - mixed(found[rows], population)
    if gain.mean() < 2 * gain.std() / np.sqrt(len(gain)):
        return found
    log.info("Parts that come and go are taken to be there or not: held-out particles gain %.3g nats by it.", gain.mean())
    return likelihoods(model, items, z, centers, change, amplitudes=amplitudes)


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
