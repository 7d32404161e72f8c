"""The files in which a landscape is left: embedding, ids, maps, models, trajectories, directions."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import Mixture, MixtureDecoder, Path, render, write_cif_models
from gmmhet.engine.io.chimerax import series_commands, write_script
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.latent.landscape import Landscape
from gmmhet.engine.latent.motion import decode_mixtures, write_bild
from gmmhet.engine.latent.paths import Line
from gmmhet.engine.latents import Latents
from gmmhet.engine.rundir import RunDir


def write_ids(path: Path, ids: np.ndarray, copies: np.ndarray) -> None:
    """One particle id per line; of symmetric particles the id and its symmetry copy (from 0), as `reconstruct
    --ids` reads them."""
    np.savetxt(path, np.stack([ids, copies], axis=1) if np.any(copies) else ids, fmt="%d")


def write_embedding(run: RunDir, landscape: Landscape) -> None:
    """embedding.npz: id, copy, xy [n, 2] and label of each latent point, `explained` variance of each
    principal axis, centers [K, D]; where clusters are by image the probability of each [n, K]."""
    latents, clusters = landscape.latents, landscape.clusters
    by_image = {} if clusters.probability is None else dict(probability=np.float32(clusters.probability))
    np.savez(run(rundir.EMBEDDING), id=latents.ids, copy=latents.copy, xy=np.float32(landscape.plane.xy),
             label=clusters.labels, explained=landscape.axes.explained, centers=clusters.centers, **by_image)


def write_clusters(run: RunDir, model: MixtureDecoder, landscape: Landscape) -> None:
    """Of each cluster: the ids of its particles, and the decoded map at its centre."""
    latents, clusters = landscape.latents, landscape.clusters
    for number in range(1, len(clusters.centers) + 1):
        rows = np.flatnonzero(clusters.labels == number)
        rows = rows[np.lexsort((latents.copy[rows], latents.ids[rows]))]
        write_ids(run(rundir.cluster_ids(number)), latents.ids[rows], latents.copy[rows])
        mixture, = decode_mixtures(model, clusters.centers[number - 1:number])
        _write_map(run(rundir.cluster_map(number)), model, mixture)


def _write_map(path: str, model: MixtureDecoder, mixture: Mixture) -> None:
    write_map(path, render(mixture, model.box, model.pixel_size), model.pixel_size)


def write_trajectory(folder: str, model: MixtureDecoder, line: Line, points: np.ndarray, latents: Latents,
                     neighbours: int) -> None:
    """Folder of one trajectory: model, map and nearest particles of each of its points [P, D]; arrows,
    multi-model mmCIF and ChimeraX script."""
    os.makedirs(folder, exist_ok=True)

    def path(name: str) -> str:
        return os.path.join(folder, name)
    mixtures = decode_mixtures(model, points)
    np.savetxt(path("z.txt"), points, fmt="%.6f")
    for i, (point, mixture) in enumerate(zip(points, mixtures), 1):
        mixture.save(path(rundir.point(i, ".npz")), z=point)
        _write_map(path(rundir.point(i, ".mrc")), model, mixture)
        rows = latents.nearest(point, neighbours)
        write_ids(path(rundir.point(i, "_ids.txt")), latents.ids[rows], latents.copy[rows])
    arrows, models = path("motion.bild"), path("motion.cif")
    write_bild(arrows, mixtures[0].centers, mixtures[-1].centers, line.name)
    write_cif_models(models, mixtures, "trajectory")
    maps = [path(rundir.point(i, ".mrc")) for i in range(1, len(points) + 1)]
    write_script(path(rundir.SHOW), series_commands(maps, model.box, model.pixel_size, models, arrows))


def write_directions(run: RunDir, landscape: Landscape) -> None:
    """directions.npz: names, vectors [K, D] (unit), origins [K, D], percentiles [K, 2] (where each line
    begins and ends along its vector), motion_rms_angst and amplitude_rms [K] (between the two ends)."""
    lines = landscape.directions
    changes = [landscape.changes[line.name] for line in lines]
    np.savez(run(rundir.DIRECTIONS),
             names=np.array([line.name for line in lines]),
             vectors=np.array([line.vector for line in lines]),
             origins=np.array([line.origin for line in lines]),
             percentiles=np.array([(line.low, line.high) for line in lines]),
             motion_rms_angst=np.array([change.motion_rms_angst for change in changes]),
             amplitude_rms=np.array([change.amplitude_rms for change in changes]))
