"""What a model starts from: the linear answer of the parameter that leads."""
import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from commands import QUICK, assert_best_epoch_was_kept, gmmhet, simulated, summary, training
from untrained import plain_likelihood, settings, untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import BatchFunction, FeaturedViews, Views
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.config import COARSE_ANGST
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.initialization import linear_start
from gmmhet.engine.initialization.gradients import Gradients, compute_gradients
from gmmhet.engine.initialization.linear_start import (
    FADING_OVER_MOTION,
    LinearStart,
    StartInputs,
    initialize_linear,
    leading_parameter,
    take_subspaces,
)
from gmmhet.engine.initialization.subspace import LARGEST_SUBSPACE, Subspace
from gmmhet.engine.likelihood.conformations import SingleConformation
from gmmhet.engine.likelihood.homogeneous import HomogeneousParticles
from gmmhet.engine.model.encoder import kept_axes
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model, values_of
from gmmhet.engine.particles.particle_set import read_particles


def networks(pixel_size=6.0):
    """Networks without training; at less than 6 Å a pixel they see gradients at two resolutions."""
    rng = np.random.default_rng(0)
    neutral = Mixture(rng.normal(0, 20, (30, 3)).astype(np.float32), np.ones(30, np.float32),
                      np.full(30, 5, np.float32))
    return HeterogeneityModel(neutral, np.ones(30, bool), settings(
        ("amplitude", "position"), plain_likelihood(24, pixel_size), network=dict(hidden=(16, 16)),
        smoothness_angst=15.0, latent_dim=3, symmetry="c1", particles="p.star"))


def subspaces(model, *strengths):
    """Random axes of every parameter at every resolution level, with these strengths first."""
    rng, found = np.random.default_rng(2), []
    sizes = model.deformation.sizes * model.resolution_levels
    for size, kept, strength in zip(sizes, kept_axes(model.settings.network.n_axes, sizes), strengths):
        padded = np.pad(np.array(strength, float), (0, kept - len(strength)))
        found.append(Subspace(rng.normal(size=(size, kept)), padded))
    return found


@pytest.mark.parametrize("strengths,leading", [
    (((5.0, 1.0), (2.0, 0.5)), 0), (((1.0,), (3.0, 2.0)), 1), (((0.3,), (1.0, 0.5)), 1),
    (((3.2, 2.0), (3.0, 2.0)), 1),      # alike: motion also looks like fading
    # at 12 Å it is motion
    (((5.0,), (2.0, 1.0), (5.0,), (4.0, 1.0)), 1), (((5.0,), (), (5.0,), (4.0, 1.0)), 3),
    (((5.0, 1.0), (2.0, 0.5), (4.0,), (1.0,)), 0),
    (((5.0, 1.0), (2.0, 0.5), (), ()), 0),      # there it is nothing
])
def test_networks_start_with_the_posterior_of_what_leads_and_with_its_motion(strengths, leading):
    model, rng = networks(pixel_size=6.0 if len(strengths) == 2 else 5.0), np.random.default_rng(1)
    count, sizes = model.encoder.n_gradients, model.deformation.sizes * model.resolution_levels
    model.encoder.mean.assign(rng.normal(size=count))
    model.encoder.deviation.assign(rng.uniform(0.5, 2, count))
    found = subspaces(model, *strengths)
    assert len(found) == len(strengths) and leading_parameter(model, found) == leading
    take_subspaces(model, found, leading)
    moves, outputs = leading % 2 == 1, model.deformation.n_outputs
    kernel = model.encoder.network.variables[-2]
    assert bool(np.any(kernel.numpy())) != moves      # beside a linear decoder the network adds nothing
    kernel.assign(tf.zeros_like(kernel))
    features = rng.normal(size=(7, count)).astype(np.float32)
    mean, log_std = (part.numpy() for part in model.encode(features))
    low, strength = sum(sizes[:leading]), np.array(strengths[leading])
    own = (features - model.encoder.mean.numpy())[:, low:low + sizes[leading]]
    along, used = own @ found[leading].axes, len(strength)
    expected = along[:, :used] * np.sqrt(strength) / (1 + strength)
    np.testing.assert_allclose(mean[:, :used], expected, rtol=1e-3, atol=1e-3)
    variance = np.broadcast_to(1 / (1 + strength), (7, used))
    np.testing.assert_allclose(np.exp(2 * log_std[:, :used]), variance, rtol=1e-4)
    np.testing.assert_allclose(mean[:, used:], 0, atol=1e-5)
    np.testing.assert_allclose(log_std[:, used:], 0, atol=1e-5)
    z, numbers = rng.normal(size=(7, 3)).astype(np.float32), np.zeros((7, outputs))
    if moves:
        numbers[:, sizes[0]:] = z[:, :used] * np.sqrt(strength) @ found[leading].axes[:, :used].T
    np.testing.assert_allclose(model.decoder_outputs(z).numpy(), numbers, rtol=1e-4, atol=1e-4)
    assert model.state.linear == moves
    assert model.state.low_signal == (max(strength) == 1)      # it explains 0.2 nats


def test_motion_of_low_signal_is_sharpened_and_other_motion_is_not():
    for strength, pixel_size, sharpens in ((1.0, 6.0, True), (5.0, 6.0, False), (1.0, 4.0, False)):
        model = networks(pixel_size)
        take_subspaces(model, subspaces(model, *model.resolution_levels * [(), (strength, 0.5)]), 1)
        assert model.state.sharpens == sharpens and model.state.low_signal == (strength < 5)


def test_without_anything_above_the_noise_nothing_leads():
    model = networks()
    found = subspaces(model, (0.1,), (0.05,))
    assert leading_parameter(model, found) is None
    take_subspaces(model, found, None)
    assert not np.any(model.encoder.linear.numpy()) and not model.state.linear
    assert np.any(model.encoder.network.variables[-2].numpy())      # by itself nothing would ever begin


def test_motion_that_goes_further_than_the_resolution_is_not_taken_for_fading(tmp_path, monkeypatch):
    monkeypatch.setattr(linear_start, "FEWEST_NULLS", 1024)
    monkeypatch.setattr(linear_start, "NULLS_PER_COLUMN", 4)
    data = ["--n", 300, "--box", 48, "--pixel-size", 2.5, "--snr", 0.2, "--seed", 3, "--angle", 90]
    assert gmmhet("simulate", "--kind", "hinge", "--out", tmp_path / "set", *data) == 0
    assert gmmhet("fit", "--map", tmp_path / "set" / "map.mrc", "--out", tmp_path / "fit",
                  "--n-gaussians", 250, "--resolution", 5.1, "--steps", 150) == 0
    flags = training(tmp_path, pose_errors="none", epochs=10)
    for finest in (5.0, COARSE_ANGST):
        monkeypatch.setattr("gmmhet.engine.likelihood.agreement.COARSE_ANGST", finest)
        out = tmp_path / ("to%g" % finest)
        assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 0) == 0
        log = (out / rundir.LOG).read_text()
        explained = {tuple(name): float(nats) for *name, nats
                     in re.findall(r"first order( at 12 Å)?, (\w+) explains (\S+) nats", log)}
        assert explained["", "amplitude"] > FADING_OVER_MOTION * explained["", "position"]
        # only motion has a gain before training
        assert (len(explained) == 4) == ("before training: gain" in log) == (finest == COARSE_ANGST)
    assert explained[" at 12 Å", "amplitude"] < FADING_OVER_MOTION * explained[" at 12 Å", "position"]
    # the part in which it leads is learned at that resolution, and has no gain at the target's
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 4, "--resume") == 0
    with open(out / rundir.HISTORY, newline="") as file:
        gains = [float(row["training_gain"]) for row in csv.DictReader(file)]
    assert np.isnan(gains[:3]).all() and len(gains) == 4 and gains[3] > 0
    log = (out / rundir.LOG).read_text()
    assert "epoch 3, learned at 12 Å: gain over neutral " in log and "epoch 4: gain over neutral " in log
    # networks that are trained further see what they saw, whatever the resolution
    for levels, (before, now) in ((1, (14, 6)), (2, (6, 14))):
        first, further = tmp_path / ("first%d" % levels), tmp_path / ("further%d" % levels)
        quick = training(tmp_path, pose_errors="none", epochs=1, latent_steps=0)
        assert gmmhet("train", "--out", first, *quick, "--resolution", before) == 0
        assert gmmhet("train", "--out", further, *quick, "--resolution", now, "--continue-from", first) == 0
        assert [load_model(str(run)).resolution_levels for run in (first, further)] == [levels] * 2


def test_where_parts_come_and_go_amplitudes_explain_more_than_positions_and_stay(tmp_path):
    folder, run = simulated(tmp_path, "assembly", 1200, 0.2), tmp_path / "train"
    assert gmmhet("train", "--out", run, *training(folder, epochs=10, latent_steps=1)) == 0
    found, log = summary(run), (run / rundir.LOG).read_text()
    assert found["varies"][0] == "amplitude" and found["verdict"].startswith("Heterogeneity supported")
    assert "before training" not in log
    assert_best_epoch_was_kept(run, 10)
    amplitude, position = (float(re.search("to first order, %s explains ([^ ]+)" % name, log)[1])
                           for name in ("amplitude", "position"))
    assert found["motion_rms_angst"] < 1.0 and amplitude > position


def test_the_start_is_not_computed_again_when_a_run_is_resumed(small, tmp_path):
    flags, out = training(small, **QUICK), tmp_path / "out"
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 1) == 0
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert (out / rundir.LOG).read_text().count("to first order, position explains") == 1


def test_many_anchors_begin_with_the_linear_answer_of_neighbouring_ones_together(hinge, tmp_path,
                                                                                 monkeypatch):
    explained = []
    for largest in (LARGEST_SUBSPACE, 48):
        monkeypatch.setattr(linear_start, "LARGEST_SUBSPACE", largest)
        out = tmp_path / str(largest)
        flags = training(hinge, vary="position", epochs=10, pause_after_epoch=0)
        assert gmmhet("train", "--out", out, *flags) == 0
        log = (out / rundir.LOG).read_text()
        explained.append(float(re.search(r"position explains (\S+) nats", log)[1]))
        assert float(re.search(r"before training: gain over neutral (\S+) ", log)[1]) > 0
    assert explained[1] == pytest.approx(explained[0], rel=0.3)


def test_networks_without_axes_are_given_the_statistics_of_the_features_alone():
    model = untrained(network=dict(n_axes=0))
    features = np.random.default_rng(0).normal(3, 2, (50, model.encoder.n_features)).astype(np.float32)
    learned = np.arange(0, 50, 2)
    inputs = FeaturedViews(SimpleNamespace(of=lambda rows: rows[:, None]), features)
    start = StartInputs(inputs, learned, np.zeros((50, 0)), None, None, model.likelihood, Devices(), None, 1)
    before = values_of(model.named_weights())
    assert initialize_linear(model, start) == LinearStart(None, None)
    np.testing.assert_allclose(model.encoder.mean, features[learned].mean(0), rtol=1e-4)
    np.testing.assert_allclose(model.encoder.deviation, features[learned].std(0), rtol=1e-4)
    changed = [name for name, values in values_of(model.named_weights()).items()
               if np.any(values != before[name])]
    assert changed == ["encoder.mean", "encoder.deviation"]


def test_of_a_few_images_of_one_conformation_nothing_leads_and_the_start_is_the_same_again(small, tmp_path):
    model = untrained(amplitude=30.0)
    real = read_particles(str(small / "set" / rundir.STAR)).select(np.arange(40))
    alike = HomogeneousParticles(real, SingleConformation(model.neutral), model.likelihood, 7)
    views, agreement = Views(alike), model.likelihood
    gradients = BatchFunction(Gradients(model, agreement), Devices())
    known = compute_gradients(str(tmp_path / "g.npy"), views, np.zeros((40, 0), np.float32), gradients,
                              Devices())
    start = StartInputs(FeaturedViews(views, known.features), np.arange(40), np.zeros((40, 0), np.float32),
                        SingleConformation(model.neutral), None, agreement, Devices(), None, 1)
    first = initialize_linear(model, start)
    axes = model.encoder.axes.numpy()
    assert first == LinearStart(None, None) and np.any(axes) and not np.any(model.encoder.linear)
    initialize_linear(model, start)
    np.testing.assert_allclose(model.encoder.axes, axes, atol=1e-4 * np.abs(axes).max())
