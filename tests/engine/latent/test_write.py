"""The files of a landscape, joined by id."""
import numpy as np
from analytic import SlidingDomains, two_states

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.io.volumes import read_map
from gmmhet.engine.latent.assignment import Clusters
from gmmhet.engine.latent.eigenmotion import LocalMotions
from gmmhet.engine.latent.landscape import Landscape, changes_along
from gmmhet.engine.latent.motion import decode_mixtures
from gmmhet.engine.latent.paths import Line
from gmmhet.engine.latent.reduce import Plane
from gmmhet.engine.latent.write import (
    write_clusters,
    write_directions,
    write_embedding,
    write_ids,
    write_trajectory,
)
from gmmhet.engine.latents import Latents, principal_axes

MODEL = SlidingDomains()
LINE = Line("pc1", np.zeros(3), np.array([1.0, 0, 0]), -2.0, 2.0)


def a_landscape(probability=None):
    latents, rare = two_states(40)
    axes = principal_axes(latents.z)
    clusters = Clusters(np.where(rare, 2, 1), np.array([[-2.0, 0, 0], [2.0, 0, 0]]), probability)
    return Landscape(latents, axes, Plane(axes.coordinates(latents.z), ("", ""), axes, latents.z), clusters,
                     LocalMotions.none(3),
                     [LINE], [LINE], changes_along(MODEL, [LINE]))


def test_lists_of_symmetric_particles_name_the_copy(tmp_path):
    write_ids(tmp_path / "plain.txt", np.array([3, 4]), np.array([0, 0]))
    write_ids(tmp_path / "copies.txt", np.array([3, 3]), np.array([0, 2]))
    assert (tmp_path / "plain.txt").read_text() == "3\n4\n"
    assert (tmp_path / "copies.txt").read_text() == "3 0\n3 2\n"


def test_the_embedding_keeps_the_order_of_the_latent_points_and_probabilities_where_there_are_some(tmp_path):
    run = rundir.RunDir(str(tmp_path))
    for probability in (None, np.full((40, 2), 0.5)):
        landscape = a_landscape(probability)
        write_embedding(run, landscape)
        with np.load(run(rundir.EMBEDDING)) as found:
            assert ("probability" in found) == (probability is not None)
            np.testing.assert_array_equal(found["id"], landscape.latents.ids)
            np.testing.assert_allclose(found["xy"], landscape.plane.xy, rtol=1e-6)
            np.testing.assert_array_equal(found["label"], landscape.clusters.labels)


def test_clusters_list_their_particles_by_rising_id_beside_the_map_at_their_centre(tmp_path):
    landscape, run = a_landscape(), rundir.RunDir(str(tmp_path))
    write_clusters(run, MODEL, landscape)
    for number in (1, 2):
        ids = landscape.latents.ids[landscape.clusters.labels == number]
        assert np.loadtxt(run(rundir.cluster_ids(number)), int).tolist() == sorted(ids)
        mixture, = decode_mixtures(MODEL, landscape.clusters.centers[number - 1:number])
        volume, pixel_size = read_map(run(rundir.cluster_map(number)))
        np.testing.assert_allclose(volume, render(mixture, 24, 5.0), rtol=1e-5)
        assert pixel_size == 5.0


def test_a_trajectory_lists_the_nearest_particles_first_and_the_nearest_copy_of_each(tmp_path):
    once, _ = two_states(40)
    z = np.stack([once.z, once.z + 100], 1)                                                 # [40, copies, 3]
    # of every second particle copy 1 is near
    z[1::2] = z[1::2, ::-1]
    latents = Latents(np.repeat(once.ids, 2), np.tile([0, 1], 40), z.reshape(80, 3))
    folder = str(tmp_path / "trajectory")
    write_trajectory(folder, MODEL, LINE, LINE.points(3), latents, 5)
    order = np.argsort(np.linalg.norm(once.z - LINE.points(3)[0], axis=1))[:5]
    listed = np.loadtxt(tmp_path / "trajectory" / rundir.point(1, "_ids.txt"), int)
    assert listed.tolist() == np.stack([once.ids[order], order % 2], 1).tolist()
    mixture = Mixture.load(tmp_path / "trajectory" / rundir.point(3, ".npz"))
    np.testing.assert_allclose(mixture.centers, MODEL.decode(LINE.points(3)[2:])[0][0], atol=1e-4)


def test_directions_tell_where_each_line_begins_and_ends_and_what_it_does(tmp_path):
    landscape, run = a_landscape(), rundir.RunDir(str(tmp_path))
    write_directions(run, landscape)
    with np.load(run(rundir.DIRECTIONS)) as found:
        assert found["names"].tolist() == ["pc1"] and found["percentiles"].tolist() == [[-2, 2]]
        assert found["vectors"].tolist() == [[1, 0, 0]] and found["origins"].tolist() == [[0, 0, 0]]
        assert (found["motion_rms_angst"][0], found["amplitude_rms"][0]) == landscape.changes["pc1"]
