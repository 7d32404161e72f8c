"""Our images beside RELION's of the same map, orientations, shifts and CTF."""
import shutil
import subprocess

import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.imaging.ctf import CTF_COLUMNS, ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, inverse_transform, transform
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles

pytestmark = [pytest.mark.relion,
              pytest.mark.skipif(not shutil.which("relion_project"),
                                 reason="relion_project is not installed (Debian package relion)")]
BOX, PIXEL, N = 48, 4.0, 6


def handed_mixture():
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 14, (30, 3))
    centers[:, 0] += 0.4 * np.abs(centers[:, 1])                            # no symmetry and no mirror plane
    return Mixture(np.float32(centers), np.float32(rng.uniform(50, 150, 30)),
                   np.float32(rng.uniform(5, 8, 30)))


@pytest.fixture(scope="module", params=["plain", "ctf", "phase-flipped"])
def both(request, tmp_path_factory):
    """RELION's images and ours, [N, L, L] each, and the set read from RELION's star."""
    folder, rng = tmp_path_factory.mktemp("relion"), np.random.default_rng(1)
    write_map(str(folder / "map.mrc"), render(handed_mixture(), BOX, PIXEL), PIXEL)
    u = rng.uniform(9000, 20000, N)
    ctf = np.stack([u, u - rng.uniform(500, 4000, N), rng.uniform(0, 180, N), np.full(N, 300),
                    np.full(N, 2.7), np.full(N, 0.1),
                    rng.uniform(0, 90, N), np.zeros(N), np.ones(N)], 1)
    write_particles(str(folder / "asked.star"), str(folder / "empty.mrcs"), [np.zeros((N, BOX, BOX))],
                    ParticleMetadata(random_rotations(N, rng), rng.normal(0, 6, (N, 2)), ctf), PIXEL)
    command = ["relion_project", "--i", "map.mrc", "--ang", "asked.star", "--o", "made", "--angpix",
               str(PIXEL)]
    flags = {"plain": [], "ctf": ["--ctf"], "phase-flipped": ["--ctf", "--ctf_phase_flip"]}[request.param]
    done = subprocess.run(command + flags, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    particles, mixture = read_particles(str(folder / "made.star")), handed_mixture()
    grid = FourierGrid.to_resolution(BOX, PIXEL)
    ours = project(place(tf.constant(mixture.centers), tf.constant(particles.rotation),
                         tf.constant(particles.shift_angst)),
                   tf.constant(mixture.amplitudes), tf.constant(mixture.widths), grid)
    if request.param != "plain":
        ctf = particles.ctf.copy()
        ctf[:, CTF_COLUMNS.index("phase_flipped")] = request.param == "phase-flipped"
        ours = ours * ctf_values(ctf, grid.kx, grid.ky)[:, None]
    return particles.read(np.arange(N)), inverse_transform(ours, grid).numpy()


def test_images_correlate_with_relions_above_0_999_at_the_given_angles_and_shifts(both):
    for theirs, ours in zip(*both):
        assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.999


def test_images_have_relions_scale_within_two_percent(both):
    for theirs, ours in zip(*both):
        assert np.sum(theirs * ours) / np.sum(ours * ours) == pytest.approx(1, abs=0.02)


def test_ring_correlation_with_relions_images_stays_above_0_99_to_12_angstrom(both):
    grid = FourierGrid.to_resolution(BOX, PIXEL, 12.0)
    theirs, ours = (np.asarray(transform(images, grid)) for images in both)
    for a, b in zip(theirs, ours):
        assert reference.frc(a[0] + 1j * a[1], b[0] + 1j * b[1]) > 0.99


def test_a_mirrored_or_oppositely_shifted_image_is_not_relions(both):
    theirs, ours = both
    assert np.corrcoef(theirs.ravel(), ours[:, ::-1].ravel())[0, 1] < 0.9
    assert np.corrcoef(theirs.ravel(), ours[:, :, ::-1].ravel())[0, 1] < 0.9
