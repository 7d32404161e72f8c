import numpy as np
import pytest
import starfile
from mixed_set import AMPLITUDES, CENTERS, WIDTHS, write_mixed
from relion_images import (
    BOX,
    HAS_RELION,
    NO_RELION,
    PIXEL_SIZE,
    blobs,
    density,
    project,
    projection,
    random_ctf,
    run,
)

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fsc import fsc_curve, masked_fsc_curve, soft_sphere
from gmmhet.engine.imaging.pose import random_rotations, symmetry_matrices
from gmmhet.engine.io.volumes import read_map
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.reconstruction.backprojection import (
    Accumulator,
    ReconstructionSettings,
    accumulate,
    backproject,
)

FLAT_CTF = np.array([0, 0, 0, 300, 0, 1, 0, 0, 1.0])      # asin(1): the CTF is 1 everywhere
needs_relion = pytest.mark.skipif(not HAS_RELION, reason=NO_RELION)


def analytic_particles(folder, n, ctf, seed=0, symmetry="c1"):
    """Particles of the phantom computed by formula."""
    rng = np.random.default_rng(seed)
    centers, amplitudes, widths = blobs()
    if symmetry != "c1":
        matrices = symmetry_matrices(symmetry)
        centers = np.concatenate([centers @ s.T for s in matrices])
        amplitudes, widths = np.tile(amplitudes, len(matrices)), np.tile(widths, len(matrices))
    rotation, shift = random_rotations(n, rng), rng.normal(size=(n, 2)) * 4
    images = np.stack([projection(a, t, centers, amplitudes, widths) for a, t in zip(rotation, shift)])
    write_particles(str(folder / "p.star"), str(folder / "p.mrcs"), [images],
                    ParticleMetadata(rotation, shift, ctf), PIXEL_SIZE)
    return read_particles(str(folder / "p.star")), density(centers, amplitudes, widths)


def test_a_map_from_analytic_projections_has_the_phantoms_density_on_an_absolute_scale(tmp_path):
    particles, volume = analytic_particles(tmp_path, 300, np.tile(FLAT_CTF, (300, 1)))
    # an image is an integral over Å, a map's projection a sum over px
    found = backproject(particles, np.arange(300)) / PIXEL_SIZE
    assert fsc_curve(found, volume)[:BOX // 2].min() > 0.98
    assert np.sum(found * volume) / np.sum(volume**2) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_gridding_is_corrected_at_every_padding(tmp_path, padding):
    particles, volume = analytic_particles(tmp_path, 300, np.tile(FLAT_CTF, (300, 1)))
    found = backproject(particles, np.arange(300), ReconstructionSettings(padding=padding)) / PIXEL_SIZE
    core = soft_sphere(BOX, 9, 3)
    assert np.sum(found * volume * core) / np.sum(volume**2 * core) == pytest.approx(1, abs=0.03)
    assert fsc_curve(found, volume)[:10].min() > (0.9 if padding == 1 else 0.99)


def test_symmetry_makes_the_map_of_all_units_from_few_views(tmp_path):
    particles, volume = analytic_particles(tmp_path, 60, np.tile(FLAT_CTF, (60, 1)), symmetry="d2")
    with_symmetry = fsc_curve(backproject(particles, np.arange(60), ReconstructionSettings("d2")),
                              volume)[4:14].mean()
    without = fsc_curve(backproject(particles, np.arange(60)), volume)[4:14].mean()
    assert with_symmetry > 0.99 and with_symmetry > without


def test_a_particle_turned_to_its_symmetry_copy_shows_the_turned_map(tmp_path):
    particles, _ = analytic_particles(tmp_path, 200, np.tile(FLAT_CTF, (200, 1)))
    turn = symmetry_matrices("c2")[1]
    turned = particles.with_poses(particles.rotation @ turn, particles.shift_angst)
    centers, amplitudes, widths = blobs()      # A S c' = A c, so c' = S^T c
    assert fsc_curve(backproject(turned, np.arange(200)),
                     density(centers @ turn, amplitudes, widths))[:12].min() > 0.98


def test_resolution_limit_leaves_nothing_beyond_it(tmp_path):
    particles, volume = analytic_particles(tmp_path, 100, np.tile(FLAT_CTF, (100, 1)))
    found = backproject(particles, np.arange(100), ReconstructionSettings(max_resolution_angst=16.0))
    power = np.abs(np.fft.fftn(found)) ** 2
    k = np.fft.fftfreq(BOX, 1 / BOX)
    shell = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    assert power[shell > 10].sum() < 1e-3 * power[shell <= 8].sum()
    assert fsc_curve(found, volume)[:8].min() > 0.97


def test_batches_give_the_same_sums_as_one_batch(tmp_path):
    particles, _ = analytic_particles(tmp_path, 20, random_ctf(20, np.random.default_rng(1)))
    one, many = (accumulate(particles, np.arange(20), ReconstructionSettings(batch_size=size)).map()
                 for size in (20, 3))
    np.testing.assert_allclose(one, many, atol=1e-5 * np.abs(one).max())


def test_merged_half_sums_are_the_sums_of_all(tmp_path):
    particles, _ = analytic_particles(tmp_path, 20, random_ctf(20, np.random.default_rng(1)))
    first, second = accumulate(particles, np.arange(8)), accumulate(particles, np.arange(8, 20))
    first.merge(second)
    whole = backproject(particles, np.arange(20))
    np.testing.assert_allclose(first.map(), whole, atol=1e-5 * np.abs(whole).max())


def test_half_maps_of_pure_noise_do_not_correlate():
    rng, maps = np.random.default_rng(3), []
    for _ in range(2):
        sums = Accumulator(BOX, PIXEL_SIZE)
        sums.add(rng.normal(size=(200, BOX, BOX)), random_rotations(200, rng), rng.normal(size=(200, 2)),
                 random_ctf(200, rng))
        maps.append(sums.map())
    fsc = fsc_curve(*maps)
    assert abs(fsc[3:].mean()) < 0.03 and np.abs(fsc[4:]).max() < 0.2


def with_flags(ctf, flipped):
    """CTF parameters [n, 11] of particles that are phase-flipped or not."""
    return np.concatenate([ctf, np.tile([flipped, 1], (len(ctf), 1))], axis=1)


def test_phase_flipped_particles_give_the_map_of_the_particles_as_they_were():
    rng, grid = np.random.default_rng(0), np.fft.fftfreq(BOX, PIXEL_SIZE)
    rotation, ctf = random_rotations(40, rng), random_ctf(40, rng)
    transfer = np.asarray(ctf_values(ctf, grid[None, :BOX // 2 + 1], grid[:, None]))
    plain = np.fft.rfft2(np.stack([projection(a, np.zeros(2), *blobs()) for a in rotation]))
    maps = []
    for multiplied, flag in ((transfer, 0), (np.abs(transfer), 1), (np.abs(transfer), 0)):
        sums = Accumulator(BOX, PIXEL_SIZE)
        sums.add(np.fft.irfft2(plain * multiplied, (BOX, BOX)), rotation, np.zeros((40, 2)),
                 with_flags(ctf, flag))
        maps.append(sums.map())
    assert fsc_curve(maps[0], maps[1])[1:12].min() > 0.98
    assert fsc_curve(maps[0], maps[2])[1:12].min() < 0.8       # flipped images whose flag is forgotten


SAMPLINGS = ((64, 2.0), (45, 3.0), (34, 4.0))


def test_a_set_of_three_samplings_gives_the_density_at_the_common_one_on_an_absolute_scale(tmp_path):
    path, _, _ = write_mixed(tmp_path, (70, 100, 80), SAMPLINGS)
    found = backproject(read_particles(path), np.arange(250)) / 3.0
    volume = density(CENTERS, AMPLITUDES, WIDTHS, 45, 3.0)
    assert found.shape == (45, 45, 45) and fsc_curve(found, volume)[:14].min() > 0.98
    assert np.sum(found * volume) / np.sum(volume**2) == pytest.approx(1, abs=0.02)


def test_images_sampled_too_coarsely_do_not_weaken_the_finest_shells(tmp_path):
    path, _, _ = write_mixed(tmp_path, (60, 50), ((45, 3.0), (20, 6.75)))
    particles = read_particles(path)
    k = np.fft.fftfreq(45, 1 / 45)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2))
    power = [np.sum(np.abs(np.fft.fftn(m))[(shell >= 12) & (shell <= 16)] ** 2) for m in (
        backproject(particles, np.arange(60)), backproject(particles, np.arange(110)))]
    assert power[1] == pytest.approx(power[0], rel=0.05)


@needs_relion
@pytest.mark.relion
class TestAgainstRelion:
    def test_phase_flipped_particles_are_reconstructed_as_relion_does(self, tmp_path):
        _, volume = project(tmp_path, 300, applies_ctf=True)
        run(tmp_path, "relion_project", "--i", "phantom.mrc", "--ang", "asked.star", "--o", "flipped",
            "--angpix", PIXEL_SIZE, "--ctf",
            "--ctf_phase_flip")
        tables = starfile.read(tmp_path / "flipped.star")
        tables["optics"]["rlnCtfDataArePhaseFlipped"] = 1
        starfile.write(tables, tmp_path / "marked.star", float_format=None)
        particles = read_particles(str(tmp_path / "marked.star"))
        ours = backproject(particles, np.arange(300))
        run(tmp_path, "relion_reconstruct", "--i", "marked.star", "--o", "relion.mrc", "--ctf",
            "--ctf_phase_flipped")
        theirs, _ = read_map(str(tmp_path / "relion.mrc"))
        core = soft_sphere(BOX, 12, 4)
        assert masked_fsc_curve(ours, theirs, core)[:15].min() > 0.98
        assert masked_fsc_curve(ours, volume, core)[:15].min() > 0.98
        assert np.sum(ours * volume * core) / np.sum(volume**2 * core) == pytest.approx(1, abs=0.05)

    def test_relions_projections_lie_where_our_conventions_put_them(self, tmp_path):
        particles, _ = project(tmp_path, 6, applies_ctf=False)
        ours = [projection(a, t, *blobs()) for a,
                t in zip(particles.rotation.astype(float), particles.shift_angst.astype(float))]
        for image, formula in zip(particles.read(np.arange(6)), ours):
            assert np.corrcoef(image.ravel(), formula.ravel())[0, 1] > 0.999

    def test_relions_ctf_is_our_ctf_with_its_sign_and_astigmatism(self, tmp_path):
        particles, _ = project(tmp_path, 6, applies_ctf=True)
        ky, kx = np.fft.fftfreq(BOX, PIXEL_SIZE)[:, None], np.fft.rfftfreq(BOX, PIXEL_SIZE)[None, :]
        transfer = np.asarray(ctf_values(particles.ctf, kx, ky))
        for i, image in enumerate(particles.read(np.arange(6))):
            plain = projection(particles.rotation[i].astype(float), particles.shift_angst[i].astype(float),
                               *blobs())
            formula = np.fft.irfft2(np.fft.rfft2(plain) * transfer[i], (BOX, BOX))
            assert np.corrcoef(image.ravel(), formula.ravel())[0, 1] > 0.999

    def test_our_map_agrees_with_relion_reconstruct_and_with_the_handed_phantom(self, tmp_path):
        particles, volume = project(tmp_path, 300, applies_ctf=True)
        ours = backproject(particles, np.arange(300))
        run(tmp_path, "relion_reconstruct", "--i", "proj.star", "--o", "relion.mrc", "--ctf")
        theirs, _ = read_map(str(tmp_path / "relion.mrc"))
        core = soft_sphere(BOX, 12, 4)
        assert masked_fsc_curve(ours, theirs, core)[:15].min() > 0.98
        assert masked_fsc_curve(ours, volume, core)[:15].min() > 0.98
        assert fsc_curve(ours, volume[:, :, ::-1])[4:10].mean() < 0.5
        assert np.sum(ours * volume * core) / np.sum(volume**2 * core) == pytest.approx(1, abs=0.05)

    @pytest.mark.parametrize("group", ["c3", "d2"])
    def test_symmetry_axes_are_relions(self, tmp_path, group):
        particles, _ = project(tmp_path, 80, applies_ctf=False)
        flat = np.tile(np.float32(FLAT_CTF), (80, 1))
        particles.ctf = flat
        ours = backproject(particles, np.arange(80), ReconstructionSettings(group))
        run(tmp_path, "relion_reconstruct", "--i", "proj.star", "--o", "relion.mrc", "--sym", group)
        theirs, _ = read_map(str(tmp_path / "relion.mrc"))
        assert masked_fsc_curve(ours, theirs, soft_sphere(BOX, 12, 4))[:14].min() > 0.98

    def test_a_relion_30_star_is_read_as_relion_reads_it(self, tmp_path):
        project(tmp_path, 150, applies_ctf=True)
        new = starfile.read(tmp_path / "proj.star")["particles"].drop(columns=["rlnOpticsGroup"])
        old = new.assign(rlnVoltage=300.0, rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1,
                         rlnDetectorPixelSize=20.0,
                         rlnMagnification=50000.0, rlnOriginX=new.rlnOriginXAngst / 4,
                         rlnOriginY=new.rlnOriginYAngst / 4)
        starfile.write({"": old.drop(columns=["rlnOriginXAngst", "rlnOriginYAngst"])}, tmp_path / "old.star")
        run(tmp_path, "relion_reconstruct", "--i", "old.star", "--o", "relion.mrc", "--ctf")
        theirs, pixel_size = read_map(str(tmp_path / "relion.mrc"))
        read = read_particles(str(tmp_path / "old.star"))
        assert read.pixel_size == pytest.approx(pixel_size) == pytest.approx(4.0)
        assert masked_fsc_curve(backproject(read, np.arange(150)), theirs,
                                soft_sphere(BOX, 12, 4))[:14].min() > 0.97

    def test_a_star_with_poses_changed_here_reconstructs_the_same_in_relion(self, tmp_path):
        particles, volume = project(tmp_path, 150, applies_ctf=True)
        wrong = particles.with_poses(particles.rotation[::-1], particles.shift_angst + 7)
        right = wrong.with_poses(particles.rotation, particles.shift_angst)
        (tmp_path / "out").mkdir()
        right.write_star(str(tmp_path / "out" / "right.star"))
        run(tmp_path, "relion_reconstruct", "--i", "out/right.star", "--o", "relion.mrc", "--ctf")
        theirs, _ = read_map(str(tmp_path / "relion.mrc"))
        assert masked_fsc_curve(theirs, volume, soft_sphere(BOX, 12, 4))[:14].min() > 0.97
