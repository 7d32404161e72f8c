"""The files in which a landscape is left: ids, maps, models, trajectories, directions."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import render, write_cif_models
from gmmhet.engine.io.chimerax import series_commands, write_script
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.latent.motion import decoded, write_bild
from gmmhet.engine.latent.paths import nearest_particles


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
