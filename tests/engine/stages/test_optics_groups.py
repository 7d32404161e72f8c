"""The stages on a set of three optics groups: other cameras' sampling and scale, one of black contrast."""
import numpy as np
import pytest
import starfile
from commands import QUICK, gmmhet, latents, summary
from mixed_set import AMPLITUDES, CENTERS, WIDTHS, write_mixed

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.imaging.fsc import fsc_curve
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.particles.particle_set import read_particles

SAMPLINGS, COUNTS = ((45, 3.0), (64, 2.0), (34, 4.0)), (100, 60, 50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """particles.star, the model fitted to the true map (fit/), and a model trained on the particles without
    the coarsest rings (train/)."""
    folder = tmp_path_factory.mktemp("groups")
    write_mixed(folder, COUNTS, SAMPLINGS, noise=3.0, factors=(1.0, -2.0, 5.0))
    truth = Mixture(*(np.float32(part) for part in (CENTERS, AMPLITUDES, WIDTHS)))
    write_map(str(folder / "map.mrc"), render(truth, 45, 3.0), 3.0)
    assert gmmhet("fit", "--out", folder / "fit", "--map", folder / "map.mrc", "--n-gaussians", 30,
                  "--steps", 60, "--resolution", 9) == 0
    flags = [word for name, value in QUICK.items() for word in ("--" + name.replace("_", "-"), value)]
    assert gmmhet("train", "--out", folder / "train", "--particles", folder / "particles.star",
                  "--gmm", folder / "fit", "--min-resolution", 60, *flags) == 0
    return folder


def test_training_tells_the_scale_of_every_group_and_the_contrast(folder):
    found, log = summary(folder / "train"), (folder / "train" / rundir.LOG).read_text()
    assert found["contrast"] == "white"
    assert [found["scale_of_optics_group"][group] for group in "123"] == pytest.approx([1, 2, 5], rel=0.1)
    assert found["contrast_of_optics_group"] == {"1": "white", "2": "black", "3": "white"}
    assert "the contrast of optics group 2 is opposite to the others'" in log


def test_the_model_keeps_the_groups_and_the_lowest_resolution(folder):
    likelihood = load_model(str(folder / "train")).likelihood
    assert likelihood.groups == (1, 2, 3) and likelihood.first_ring == round(135 / 60)
    assert likelihood.scale[2] < 0
    assert not likelihood.noise_power[:, :2].any()


def test_every_group_agrees_with_the_neutral_model(folder):
    for group in np.split(latents(folder / "train").neutral_agreement, np.cumsum(COUNTS)[:2]):
        assert group.mean() > 0


def test_poses_of_one_group_are_refined_at_the_model_s_sampling_and_written_with_its_own(folder, tmp_path):
    some = read_particles(str(folder / "particles.star")).select(np.arange(100, 130))
    some.write_star(str(tmp_path / "some.star"))
    assert read_particles(str(tmp_path / "some.star")).box == 64
    assert gmmhet("refine", "--out", tmp_path / "out", "--particles", tmp_path / "some.star",
                  "--model", folder / "train", "--steps", 2) == 0
    tables = starfile.read(tmp_path / "out" / rundir.STAR)
    assert set(tables["particles"].rlnOpticsGroup) == {2}
    assert list(tables["optics"].rlnImagePixelSize) == [3, 2, 4]
    assert summary(tmp_path / "out")["shift_change_rms_angst"] < 3


def test_a_reconstruction_of_groups_of_one_contrast_has_the_common_sampling(folder, tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join(str(i) for i in [*range(1, 101), *range(161, 211)]))
    assert gmmhet("reconstruct", "--out", tmp_path / "out", "--particles", folder / "particles.star",
                  "--ids", tmp_path / "ids.txt") == 0
    volume, pixel_size = read_map(str(tmp_path / "out" / rundir.MAP))
    assert (len(volume), pixel_size) == (45, 3.0)
    assert fsc_curve(volume, read_map(str(folder / "map.mrc"))[0])[:7].min() > 0.9


def test_with_the_model_groups_of_opposite_contrast_add_up_instead_of_cancelling(folder, tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join(str(i) for i in range(1, 161)))
    agreement = {}
    for name, flags in (("with", ["--model", folder / "train"]), ("without", [])):
        assert gmmhet("reconstruct", "--out", tmp_path / name, "--particles", folder / "particles.star",
                      "--ids", tmp_path / "ids.txt", *flags) == 0
        paths = tmp_path / name / rundir.MAP, folder / "map.mrc"
        agreement[name] = fsc_curve(*(read_map(str(path))[0] for path in paths))[1:7]
    assert agreement["with"].min() > 0.9 and agreement["without"].max() < 0.5
