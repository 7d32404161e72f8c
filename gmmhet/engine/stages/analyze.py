"""The `analyze` stage: from a trained model to an embedding, clusters, trajectories and the landscape
page."""
import os
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import AnalyzeConfig
from gmmhet.engine.gmm.mixture import MixtureDecoder
from gmmhet.engine.gmm.regions import region_mask
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.assignment import (
    Clusters,
    PosedParticles,
    assign_by_image,
    assign_by_latent,
    posed_particles,
)
from gmmhet.engine.latent.eigenmotion import LocalMotions, localised_motions
from gmmhet.engine.latent.figure import landscape_figure
from gmmhet.engine.latent.landscape import Landscape, changes_along
from gmmhet.engine.latent.motion import motion_rms
from gmmhet.engine.latent.paths import Line, NamedLines, covariance, line_words
from gmmhet.engine.latent.reduce import check_neighbours, embed
from gmmhet.engine.latent.write import write_clusters, write_directions, write_embedding, write_trajectory
from gmmhet.engine.latents import Latents, PrincipalAxes, principal_axes
from gmmhet.engine.log import log, progress
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.rundir import RunDir

#: what assignment by image takes of latents.npz
BY_IMAGE = ("z_covariance", "pose_change", "held_out")
#: particles over which motion inside a region is averaged
JACOBIAN_POINTS = 32
LANDSCAPE_NOTE = ("Grey: log density of the points. Outlines hold 70 %% of a cluster. Lines run from the 5th "
                  "to the 95th percentile of the points. Seed %d.")


@dataclass(frozen=True)
class Plan:
    """What is read of a train run, and what its latent points alone say.

    Attributes
    ----------
    config : AnalyzeConfig.
    latents : Latents.
    model : the trained model.
    axes : PrincipalAxes of the latent points.
    clusters : Clusters of the latent points, by z.
    motions : LocalMotions; none without a region.
    posed : PosedParticles whose images are to be compared; None where clusters are by z alone.
    """

    config: AnalyzeConfig
    latents: Latents
    model: MixtureDecoder
    axes: PrincipalAxes
    clusters: Clusters
    motions: LocalMotions
    posed: Optional[PosedParticles]


# ---------------------------------------------------------------- prepare
def prepare(config: AnalyzeConfig) -> Plan:
    """Read the latent points and the model, and find everything that does not need long work.

    Raises
    ------
    LatentError, RegionError
        when the model, a line, the clusters, the region or the particles cannot be used.
    """
    latents = read_latents(config.model, assigns_by_image(config))
    return plan_for(config, latents, load_model(config.model))


def assigns_by_image(config: AnalyzeConfig) -> bool:
    """Whether particles are assigned to clusters by their images."""
    return config.assign_by == "image" and config.clusters > 1


def read_latents(folder: str, by_image: bool = False) -> Latents:
    """The latent points of a train run, checked; `by_image` also those arrays that assignment by image takes.

    Raises
    ------
    LatentError
        when the run is not finished, lacks one of them, or z is not finite.
    """
    problem = rundir.missing_run(folder, "train")
    if problem:
        raise LatentError("--model: " + problem)
    path, latents = os.path.join(folder, rundir.LATENTS), Latents.load(folder)
    bad = int(np.sum(~np.isfinite(latents.z).all(axis=1)))
    if bad:
        raise LatentError("%s: z of %d of the %d particles is not finite: train again, with a lower "
                          "--learning-rate" % (
            path, bad, len(latents)))
    lacking = [name for name in BY_IMAGE * by_image if getattr(latents, name) is None]
    if lacking:
        raise LatentError("%s lacks %s: train again, or take --assign-by latent" % (
            path, " and ".join(lacking)))
    return latents


def plan_for(config: AnalyzeConfig, latents: Latents, model: Any) -> Plan:
    """`prepare` with the latents and the model already loaded."""
    z = np.asarray(latents.z, float)
    axes, clusters = principal_axes(z), assign_by_latent(config, z)
    plan = Plan(config, latents, model, axes, clusters, motions_for(config, model, z), None)
    trajectories(plan, clusters)
    check_neighbours(config, len(z))
    if not assigns_by_image(config):
        return plan
    return replace(plan, posed=posed_particles(config, latents, model))


def some_rows(count: int, most: int, seed: int) -> np.ndarray:
    """At most `most` of `count` rows, drawn with a seed, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def motions_for(config: AnalyzeConfig, model: MixtureDecoder, z: np.ndarray) -> LocalMotions:
    """Localised directions for ``--motion-region``, none without it."""
    if not config.motion_region:
        return LocalMotions.none(z.shape[1])
    inside = region_mask(config.motion_region, model.neutral)
    rows = some_rows(len(z), JACOBIAN_POINTS, config.seed)
    points = np.concatenate([np.zeros((1, z.shape[1])), z[rows]]).astype(np.float32)
    jacobians = [model.jacobian(point) for point in progress(points, len(points), "Localised motion")]
    motions = localised_motions(jacobians, inside, covariance(z))
    each = enumerate(zip(motions.inside_angst, motions.outside_angst), 1)
    log.info("Localised motions, rms inside and outside the region per standard deviation of the particles: "
             "%s.", "; ".join("motion%d %.2f and %.2f Å" % (i, *rms) for i, rms in each))
    if motions.inside_angst[0] < motions.outside_angst[0]:
        log.warning("No direction moves the region more than the rest of the molecule: motion1 is not "
                    "localised.")
    if inside.all():
        log.info("The motion region holds every Gaussian: the motions found are the largest ones, not "
                 "localised ones.")
    return motions


def trajectories(plan: Plan, clusters: Clusters) -> List[Line]:
    """The lines that ``--line`` asks for, between these clusters' centers.

    Raises
    ------
    LatentError
        for an unknown line.
    """
    lines = named_lines(plan, clusters)
    return [lines.line(word) for word in line_words(plan.config.line, plan.latents.dimension)]


def named_lines(plan: Plan, clusters: Clusters) -> NamedLines:
    """The lines that have names."""
    return NamedLines(np.asarray(plan.latents.z, float), plan.axes, clusters.centers, plan.motions.vectors)


# ---------------------------------------------------------------- execute
def execute(plan: Plan, run: RunDir) -> Dict[str, Any]:
    """Read the landscape and write what `rundir.FILES` lists for the stage into `run`, with clusters and
    trajectories; the summary (see `gmmhet analyze --help`).

    Raises
    ------
    LatentError
        before anything is written, when a line ends at a cluster that fits no particle's image best.
    """
    config, model = plan.config, plan.model
    landscape = survey(plan)
    log_clusters(config, landscape.clusters)
    write_embedding(run, landscape)
    write_clusters(run, model, landscape)
    write_directions(run, landscape)
    lines = landscape.trajectories
    for line in progress(lines, len(lines), "Trajectories"):
        folder, points = run(rundir.trajectory(line.name)), line.points(config.points)
        write_trajectory(folder, model, line, points, landscape.latents, config.neighbours)
    figure = landscape_figure(landscape, config.points, LANDSCAPE_NOTE % config.seed)
    figure.savefig(run(rundir.LANDSCAPE), dpi=130)
    summary = summarise(plan, landscape)
    log.info("Landscape: %s", run(rundir.LANDSCAPE))
    return summary


def survey(plan: Plan) -> Landscape:
    """Everything that there is to write and draw; the longest work."""
    latents, clusters = plan.latents, plan.clusters
    plane = embed(plan.config, np.asarray(latents.z, float), plan.axes)
    if plan.posed is not None:
        clusters = assign_by_image(plan.model, latents, plan.posed, clusters.labels, plan.config.seed)
    lines = trajectories(plan, clusters)
    directions = named_lines(plan, clusters).described(lines)
    return Landscape(latents, plan.axes, plane, clusters, plan.motions, lines, directions,
                     changes_along(plan.model, directions))


def log_clusters(config: AnalyzeConfig, clusters: Clusters) -> None:
    """Sizes of the clusters in the log; by image also how certain they are."""
    sizes = ", ".join(str(size) for size in clusters.sizes) or "no"
    log.info("%d clusters of %s points%s.", len(clusters.sizes), sizes,
             "; %d lie between clusters" % clusters.unassigned if clusters.unassigned else "")
    if clusters.population is None or clusters.certainty is None:
        return
    log.info("By image, they hold %s of the particles; a particle's cluster is %.0f %% certain on average.",
             ", ".join("%.1f %%" % (100 * share) for share in clusters.population), 100 * clusters.certainty)
    lost = config.clusters - len(clusters.sizes)
    if lost:
        log.warning("%d of the %d clusters fit no particle's image best, and have vanished: --assign-by "
                    "latent keeps them.",
                    lost, config.clusters)


def summarise(plan: Plan, landscape: Landscape) -> Dict[str, Any]:
    """The summary; its main figures go to the log."""
    config, latents, clusters, motions = plan.config, landscape.latents, landscape.clusters, landscape.motions
    explained = [float(share) for share in landscape.axes.explained]
    motion, amplitude = motion_rms(plan.model, np.asarray(latents.z, float))
    directions = {name: change._asdict() for name, change in landscape.changes.items()}
    for i, (inside, outside) in enumerate(zip(motions.inside_angst, motions.outside_angst), 1):
        directions["motion%d" % i].update(inside_angst=float(inside), outside_angst=float(outside))
    summary = {
        "stage": "analyze", "particles": landscape.n_particles, "latent_points": len(latents),
        "latent_dim": latents.dimension, "explained_variance": explained,
        "clusters": [int(size) for size in clusters.sizes], "unassigned": clusters.unassigned,
        "assigned_by": "latent" if clusters.population is None else "image",
        "motion_rms_angst": motion, "amplitude_rms": amplitude, "directions": directions,
        "trajectories": [line.name for line in landscape.trajectories], "points": config.points,
        "embedding": config.embedding, "seed": config.seed}
    if clusters.population is not None:
        summary.update(populations=[float(share) for share in clusters.population],
                       certainty=clusters.certainty)
    log.info("Decoded motion about the mean model: %.2f Å rms; amplitudes %.1f %%. Variance explained: %s.",
             motion, 100 * amplitude, ", ".join("%.0f %%" % (100 * share) for share in explained))
    return summary
