"""What a model starts from: the linear answer of the column that leads, and the others closed until they are worth it."""
import csv
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from commands import QUICK, assert_best_epoch_was_kept, gmmhet, simulated, training

from gmmhet.engine import rundir
from gmmhet.engine.config import FIRST_ANGST
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.initialization import linear_start as start
from gmmhet.engine.initialization.gradients import gradient_function
from gmmhet.engine.initialization.linear_start import FADING_OVER_MOTION, explains_most
from gmmhet.engine.initialization.subspace import MOST_COLUMNS, Subspace
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.model.encoder import kept_axes
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model, save_model
from gmmhet.engine.model.settings import NETWORKS
from gmmhet.engine.objective.description_length import LEAST_VARIANCE, told, told_together
from gmmhet.engine.training.column_schedule import WORTH
from gmmhet.engine.training.trainer import Trainer

LIKELIHOOD = SimpleNamespace(is_likelihood=True)


def untrained(pixel_size=6.0, **settings):
    """Networks without training; at less than 6 Å a pixel they see gradients at two resolutions."""
    rng = np.random.default_rng(0)
    neutral = Mixture(rng.normal(0, 20, (30, 3)).astype(np.float32), np.ones(30, np.float32), np.full(30, 5, np.float32))
    grid = FourierGrid.to_resolution(24, pixel_size)
    likelihood = Agreement(grid, "likelihood", 100.0, np.ones(grid.m + 2), 1.0)
    return HeterogeneityModel(neutral, np.ones(30, bool), {
        **NETWORKS["default"], **dict(hidden=[16, 16], columns=["amplitude", "position"], smoothness=15.0, latent_dim=3, latent_noise=0.1,
                                      seed=1, symmetry="c1", particles="p.star", likelihood=likelihood.state()), **settings})


def subspaces(model, *strengths):
    """Random axes of every column at every look, with these strengths first."""
    rng, found = np.random.default_rng(2), []
    sizes = model.deformation.sizes * model.looks
    for size, kept, strength in zip(sizes, kept_axes(model.settings["subspace"], sizes), strengths):
        found.append(Subspace(rng.normal(size=(size, kept)), np.pad(np.array(strength, float), (0, kept - len(strength)))))
    return found


@pytest.mark.parametrize("strengths,leading", [
    (((5.0, 1.0), (2.0, 0.5)), 0), (((1.0,), (3.0, 2.0)), 1), (((0.3,), (1.0, 0.5)), 1),
    (((3.2, 2.0), (3.0, 2.0)), 1),      # alike: motion also looks like fading
    (((5.0,), (2.0, 1.0), (5.0,), (4.0, 1.0)), 1), (((5.0,), (), (5.0,), (4.0, 1.0)), 3),      # at 12 Å it is motion
    (((5.0, 1.0), (2.0, 0.5), (4.0,), (1.0,)), 0),
    (((5.0, 1.0), (2.0, 0.5), (), ()), 0),      # there it is nothing
])
def test_the_encoder_starts_with_the_posterior_of_the_column_that_explains_most_and_the_decoder_if_it_moves(strengths, leading):
    model = untrained(pixel_size=6.0 if len(strengths) == 2 else 5.0)
    rng = np.random.default_rng(1)
    count, size = model.gradients, model.deformation.sizes * model.looks
    model.feature_mean.assign(rng.normal(size=count))
    model.feature_deviation.assign(rng.uniform(0.5, 2, count))
    found = subspaces(model, *strengths)
    assert len(found) == len(strengths) and explains_most(model, found) == leading
    model.begin_in(found, leading)
    moves, outputs = leading % 2 == 1, model.deformation.outputs
    assert bool(np.any(model.encoder.variables[-2].numpy())) != moves      # beside a linear decoder the network adds nothing
    model.encoder.variables[-2].assign(tf.zeros_like(model.encoder.variables[-2]))
    features = rng.normal(size=(7, count)).astype(np.float32)
    mean, log_std = (part.numpy() for part in model.encode(features))
    low = sum(size[:leading])
    along = (features - model.feature_mean.numpy())[:, low:low + size[leading]] @ found[leading].axes
    used = len(strengths[leading])
    strength = np.array(strengths[leading])
    np.testing.assert_allclose(mean[:, :used], along[:, :used] * np.sqrt(strength) / (1 + strength), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.exp(2 * log_std[:, :used]), np.broadcast_to(1 / (1 + strength), (7, used)), rtol=1e-4)
    np.testing.assert_allclose(mean[:, used:], 0, atol=1e-5)
    np.testing.assert_allclose(log_std[:, used:], 0, atol=1e-5)
    own = rng.normal(size=(7, 3)).astype(np.float32)
    expected = np.zeros((7, outputs))
    if moves:
        expected[:, size[0]:] = own[:, :used] * np.sqrt(strength) @ found[leading].axes[:, :used].T
    np.testing.assert_allclose(model.changes(own).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert model.linear == moves
    assert model.begins_faint == (max(strength) == 1)      # it explains 0.2 nats


def test_a_finer_training_sees_the_gradient_of_all_rings_and_of_those_up_to_the_first_resolution():
    rng, model = np.random.default_rng(3), untrained(pixel_size=4.0)
    ctf = np.tile(np.float32([15000, 15000, 0, 300, 2.7, 0.1, 0, 0, 1, 0, 0]), (2, 1))
    batch = [tf.constant(part, tf.float32) for part in (rng.normal(size=(2, 24, 24)), [np.eye(3)] * 2, np.zeros((2, 2)), ctf,
                                                        np.zeros((2, 1, 0)))]
    both, value, *_ = gradient_function(model.likelihood, model)(*batch)
    alone, outputs = untrained(pixel_size=4.0, looks=1), model.deformation.outputs
    assert (model.looks, alone.looks, both.shape[2]) == (2, 1, 2 * outputs)
    for part, agreement in ((both[..., :outputs], model.likelihood), (both[..., outputs:], model.likelihood.coarse)):
        found, of_alone, *_ = gradient_function(agreement, alone)(*batch)
        np.testing.assert_allclose(part, found, rtol=1e-3, atol=1e-3 * np.abs(found).max())
        if agreement is model.likelihood:
            np.testing.assert_allclose(value, of_alone, rtol=1e-5)
        else:
            assert agreement.grid.m < model.likelihood.grid.m and np.any(both[..., :outputs] != found)


def test_motion_that_goes_further_than_the_resolution_is_not_taken_for_fading(tmp_path, monkeypatch):
    monkeypatch.setattr("gmmhet.engine.initialization.linear_start.FEWEST", 1024)
    monkeypatch.setattr("gmmhet.engine.initialization.linear_start.PER_COLUMN", 4)
    data = ["--n", 300, "--box", 48, "--pixel-size", 2.5, "--snr", 0.2, "--seed", 3, "--angle", 90]
    assert gmmhet("simulate", "--kind", "hinge", "--out", tmp_path / "set", *data) == 0
    assert gmmhet("fit", "--map", tmp_path / "set" / "map.mrc", "--out", tmp_path / "fit", "--n-gaussians", 250, "--resolution", 5.1,
                  "--steps", 150) == 0
    for finest in (5.0, FIRST_ANGST):
        monkeypatch.setattr("gmmhet.engine.likelihood.agreement.FIRST_ANGST", finest)
        out = tmp_path / ("to%g" % finest)
        assert gmmhet("train", "--out", out, *training(tmp_path, pause_after_epoch=0, epochs=10)) == 0
        text = (out / rundir.LOG).read_text()
        explained = {tuple(name): float(value) for *name, value in re.findall(r"first order( at 12 Å)?, (\w+) explains (\S+) nats", text)}
        assert explained["", "amplitude"] > FADING_OVER_MOTION * explained["", "position"]
        assert (len(explained) == 4) == ("before training: gain" in text) == (finest == FIRST_ANGST)      # only motion has such
    assert explained[" at 12 Å", "amplitude"] < FADING_OVER_MOTION * explained[" at 12 Å", "position"]
    # the part in which it leads is learned at that resolution, and has no gain at the target's
    assert gmmhet("train", "--out", out, *training(tmp_path, pause_after_epoch=4, epochs=10), "--resume") == 0
    with open(out / rundir.HISTORY, newline="") as file:
        gains = [float(row["training_gain"]) for row in csv.DictReader(file)]
    assert np.isnan(gains[:3]).all() and len(gains) == 4 and gains[3] > 0
    text = (out / rundir.LOG).read_text()
    assert "epoch 3, learned at 12 Å: gain over neutral " in text and "epoch 4: gain over neutral " in text
    # networks that are trained further see what they saw, whatever the resolution
    for looks, (before, now) in ((1, (14, 6)), (2, (6, 14))):
        first, further = tmp_path / ("first%d" % looks), tmp_path / ("further%d" % looks)
        quick = training(tmp_path, epochs=1, latent_steps=0)
        assert gmmhet("train", "--out", first, *quick, "--resolution", before) == 0
        assert gmmhet("train", "--out", further, *quick, "--resolution", now, "--continue-from", first) == 0
        assert load_model(str(first)).looks == load_model(str(further)).looks == looks


@pytest.mark.parametrize("faint", [False, True])
def test_several_draws_are_taken_in_the_second_part_and_of_faint_motion_from_the_start(faint):
    trainer = object.__new__(Trainer)
    trainer.model, trainer.bound, trainer.config = untrained(), SimpleNamespace(by_several=True), SimpleNamespace(epochs=10)
    trainer.model.begin_in(subspaces(trainer.model, (0.0,), (1.0, 0.5) if faint else (6.0, 5.0)), 1)
    taken = []
    for done in (0, 4, 5, 9):
        trainer.history = [None] * done
        taken.append(trainer._several)
    assert taken == ([True] * 4 if faint else [False, False, True, True])


@pytest.mark.parametrize("epoch,gains,kept", [
    (0, [0.35, 0.2, 0.5, 0.3], False),      # better than the start on average, but by luck
    (0, [0.35, 0.3, 0.4, 0.38], True),
    (0, [0.1, 0.0, 0.2, 0.1], False),
    (2, [0.35, 0.2, 0.5, 0.3], True),       # of epochs the later
    (2, [0.1, 0.3, 0.3, 0.35], True),       # worse, but by luck
    (2, [0.1, 0.0, 0.2, 0.1], False),
])
def test_an_epoch_is_kept_where_it_is_surely_better_than_the_start_or_no_epoch_was_surely_better(epoch, gains, kept):
    trainer, peak = object.__new__(Trainer), np.array([0.3, 0.25, 0.35, 0.3])
    trainer.peak, trainer.best = peak, dict(epoch=epoch, held_out_gain=peak.mean())
    gains = np.array(gains)
    assert trainer._judge(gains) == kept
    assert np.array_equal(trainer.peak, gains if kept and gains.mean() > peak.mean() else peak)


def test_many_epochs_each_a_little_worse_are_compared_with_the_best_of_them():
    trainer, best = object.__new__(Trainer), np.array([0.3, 0.25, 0.35, 0.3])
    trainer.peak, trainer.best, kept = best, dict(epoch=1, held_out_gain=best.mean()), []
    for step in range(1, 5):
        kept.append(trainer._judge(best + step * np.array([-0.1, 0.06, -0.1, 0.02]) - 0.02 * step ** 2))
        trainer.best = dict(epoch=step + 1, held_out_gain=0.0)
    assert kept == [True, True, False, False]


def test_the_start_counts_as_the_best_until_an_epoch_is_better():
    trainer = object.__new__(Trainer)
    trainer.model, trainer.leading, trainer.config = untrained(), 1, SimpleNamespace(epochs=10)
    trainer._held_out_gains = lambda: np.array([0.2, 0.4])
    trainer.measure_start()
    assert trainer.best == dict(epoch=0, held_out_gain=pytest.approx(0.3)) and trainer.model.varying == ["position"]
    trainer.model.trainable[0].assign_add(tf.ones_like(trainer.model.trainable[0]))
    trainer.restore_best()
    np.testing.assert_array_equal(trainer.model.trainable[0].numpy(), untrained().trainable[0].numpy())


def test_without_anything_above_the_noise_nothing_leads():
    model = untrained()
    found = subspaces(model, (0.1,), (0.05,))
    assert explains_most(model, found) is None
    model.begin_in(found, None)
    assert not np.any(model.straight.numpy())
    assert not model.linear and np.any(model.encoder.variables[-2].numpy())      # by itself nothing would ever begin


@pytest.mark.parametrize("closed,opened,alone,varying,earlier", [
    (2.0, 2.0 * (1 + WORTH) + 0.01, 1.9, ["amplitude", "position"], False),      # worth it
    (2.0, 2.0 * (1 + WORTH) - 0.01, 1.9, ["amplitude"], False),                  # better, but by too little
    (1.5, 2.0, 1.99, ["amplitude"], True),      # the leading column alone did as well before the others came in
])
def test_columns_stay_open_only_where_held_out_particles_gain_by_them(closed, opened, alone, varying, earlier):
    trainer = object.__new__(Trainer)
    trainer.model, trainer.leading, trainer.config = untrained(), 0, SimpleNamespace(epochs=10)
    trainer.model.open_beside(0, 0.0)
    trainer.best, trainer.best_weights = dict(held_out_gain=alone), [v.numpy() for v in trainer.model.variables]
    kernel = trainer.model.trainable[0]
    kernel.assign_add(tf.ones_like(kernel))
    trainer._trained, trainer._averages = trainer.model.trainable, [tf.Variable(v) for v in trainer.model.trainable]
    gains = iter([closed, opened])
    trainer._with_or_without_base = lambda: np.full(3, next(gains))
    trainer._close_columns(4)
    assert trainer.leading == 0      # not yet
    trainer._close_columns(5)
    assert trainer.model.varying == varying and trainer.leading is None
    for _ in range(2):      # both the averages and the weights themselves
        assert np.allclose(kernel.numpy(), trainer.best_weights[0]) == earlier
        trainer._exchange()


def test_a_base_that_follows_noise_does_not_count_against_columns():
    trainer = object.__new__(Trainer)
    trainer.model, trainer.leading, trainer.config, trainer.best = untrained(), 1, SimpleNamespace(epochs=10), None
    trainer.agreement = LIKELIHOOD
    trainer.model.base.assign(tf.ones_like(trainer.model.base))

    def held_out_gains():
        opened, based = len(trainer.model.varying) > 1, float(trainer.model.based)
        return 2 + 0.5 * opened - 0.6 * based + np.array([0.0, 0.1, -0.1])
    trainer._held_out_gains = held_out_gains
    trainer._close_columns(5)
    assert trainer.model.varying == ["amplitude", "position"]


@pytest.mark.parametrize("more,kept", [([0.1, 0.1, 0.1, 0.2], True), ([0.3, -0.3, 0.3, -0.1], False), ([-0.1, -0.1, -0.2, -0.1], False)])
def test_the_base_counts_where_held_out_particles_are_surely_better_with_it(more, kept):
    trainer, alone = object.__new__(Trainer), np.array([1.0, 2.0, 3.0, 4.0])
    trainer.model, trainer.leading, trainer.agreement = untrained(unblurred=False), None, LIKELIHOOD
    trainer.config = SimpleNamespace(epochs=10)
    trainer.model.base.assign(tf.ones_like(trainer.model.base))
    trainer._held_out_gains = lambda: alone + np.array(more) * np.any(trainer.model.own_base.numpy())
    np.testing.assert_array_equal(trainer._with_or_without_base(), alone + np.array(more) * kept)
    assert np.any(trainer.model.own_base.numpy()) == kept and np.all(trainer.model.base.numpy() == 1)
    trainer.model.open_beside(0, 0.0)      # where nothing moves there is nothing to ask
    assert np.array_equal(trainer._with_or_without_base(), alone) and bool(trainer.model.based.numpy()) == kept
    trainer.model.open_beside(0, 1.0)
    trainer._open(2)      # while learning it counts
    assert np.all(trainer.model.own_base.numpy() == 1)
    trainer.agreement = SimpleNamespace(is_likelihood=False)      # without a likelihood it is not learned, and not asked for
    trainer._held_out_gains = lambda: alone + trainer.model.based.numpy()
    assert np.array_equal(trainer._with_or_without_base(), alone + 1)


def test_averages_of_the_weights_are_over_all_steps_and_then_over_an_epoch_s_length():
    trainer, value = object.__new__(Trainer), tf.Variable([0.0])
    trainer._trained, trainer._averages, trainer.steps_per_epoch = [value], [tf.Variable([100.0])], 4
    averages = []
    for step in range(1, 7):
        trainer.optimizer = SimpleNamespace(iterations=tf.constant(step))
        value.assign([float(step)])
        trainer._average()
        averages.append(float(trainer._averages[0][0]))
    np.testing.assert_allclose(averages, [1, 1.5, 2, 2.5, 2.5 + 2.5 / 4, 3.125 + 2.875 / 4])
    trainer._exchange()
    assert float(value[0]) == averages[-1] and float(trainer._averages[0][0]) == 6


def test_the_best_of_the_first_part_is_measured_again_by_the_bound_of_the_second():
    trainer = object.__new__(Trainer)
    trainer.model = untrained()
    kernel = trainer.model.trainable[0]
    before = kernel.numpy()
    trainer.best, trainer.best_weights = dict(epoch=3, held_out_gain=1.0), [v.numpy() for v in trainer.model.variables]
    kernel.assign_add(tf.ones_like(kernel))

    def gain():
        assert np.array_equal(kernel.numpy(), before)
        return np.array([1.0, 2.0])
    trainer._held_out_gains = gain
    trainer._measure_best_again()
    assert trainer.best == dict(epoch=3, held_out_gain=1.5) and np.array_equal(kernel.numpy(), before + 1)
    np.testing.assert_array_equal(trainer.peak, [1.0, 2.0])


def test_what_the_outputs_take_to_describe_grows_with_what_they_say_and_with_what_is_known_of_them():
    model = untrained()
    points = tf.constant(np.random.default_rng(6).normal(size=(50, 3)), tf.float32)
    assert float(model.description(points, 1000)) == 0.0
    kernel = [v for v in model.decoder.trainable_variables if len(v.shape) == 2][-1]
    kernel.assign(np.random.default_rng(3).normal(size=kernel.shape))
    model.feature_deviation.assign(2 * tf.ones_like(model.feature_deviation))
    square, first = np.mean(model.changes(points).numpy() ** 2, 0), model.deformation.sizes[0]
    between = 3 * np.sum(np.log1p(1000 * 4 * model.deformation.scatter(model.changes(points)).numpy()))
    assert between > 0
    amplitudes, positions = 0.5 * (np.sum(np.log1p(4000 * square[:first])) + between), 0.5 * shared(
        4000 * square[first:].reshape(-1, 3), model.deformation.motions)
    assert float(model.description(points, 1000)) == pytest.approx(amplitudes + positions, rel=1e-5)
    model.open_beside(0, 0.0)      # what is closed says nothing
    assert float(model.description(points, 1000)) == pytest.approx(amplitudes, rel=1e-5)
    model.open_beside(1, 0.0)
    assert float(model.description(points, 1000)) == pytest.approx(positions, rel=1e-5)
    model.base.assign(np.random.default_rng(4).normal(size=(30, 4)))
    held = 0.5 * float(model.deformation.unlike(model.base, model.changes(points)))
    assert held > 0 and float(model.description(points, 1000)) == pytest.approx(positions + held, rel=1e-5)


def test_what_parts_do_as_a_whole_is_told_before_what_is_left():
    """A turn of the whole takes six numbers, whatever it is of; without the parts, three of every anchor."""
    model = untrained(columns=["position"], smoothness=10.0)
    deformation, points = model.deformation, tf.constant(np.random.default_rng(6).normal(size=(400, 3)), tf.float32)
    model.feature_deviation.assign(tf.ones_like(model.feature_deviation))
    modes = deformation.rigid_modes(np.eye(deformation.outputs), *deformation.merged(MOST_COLUMNS))
    model.led.assign(1.0)
    cost = []
    for rigid in (True, False):
        u = modes[0][:, 2] if rigid else np.random.default_rng(1).normal(size=deformation.outputs)
        model.ahead.assign(np.pad(0.3 * u[None] / np.linalg.norm(u), ((0, 2), (0, 0))))
        model.modes = None
        cost.append([float(model.description(points, 1000))])
        model.modes = modes[0].astype(np.float32), modes[1].astype(np.float32), modes[2]
        cost[-1].append(float(model.description(points, 1000)))
    square = float(np.mean((np.sqrt(1.1) * 0.3 * points.numpy()[:, 0]) ** 2))
    assert cost[0][1] == pytest.approx(3 * float(told(tf.constant(1000 * square / 6))), rel=0.02)
    assert cost[0][1] < 0.4 * cost[0][0] and cost[1][1] == pytest.approx(cost[1][0], rel=0.3)


def test_the_mixture_of_a_faint_motion_is_narrower_by_what_the_motion_blurs():
    model = untrained(columns=["position"], smoothness=10.0, at_rest=False)
    rng = np.random.default_rng(7)
    model.begin_in(subspaces(model, (1.0, 0.5)), 0)      # faint
    model.ahead.assign(0.1 * rng.normal(size=model.ahead.shape))
    z = tf.constant(rng.normal(size=(20000, 3)), tf.float32)
    neutral = model.neutral
    centers, _, widths = model.decode(z)
    blur = centers.var(0).sum(1) / 3
    assert 0.2 < blur.mean() < 3
    np.testing.assert_allclose(widths[0] ** 2 + blur, neutral.widths**2, rtol=0.01)      # so on average it looks like the neutral one
    model.pace = np.stack([np.tile(np.linspace(-1, 1, 11), (3, 1)), np.tile(np.linspace(-3, 3, 11), (3, 1))]).astype(np.float32)
    np.testing.assert_array_equal(model.decode(z[:5])[2], widths[:5])      # whatever the scales of z are
    # it is for faint motion alone, and not where that may go further than the resolution
    for strength, settings in ((1.0, dict(unblurred=False)), (5.0, {}), (1.0, dict(pixel_size=4.0))):
        model = untrained(columns=["position"], smoothness=10.0, at_rest=False, **settings)
        model.begin_in(subspaces(model, *2 * [(strength, 0.5)]), 0)
        assert model.begins_faint == (strength < 5) and not model.settings["unblurred"]
        assert model.begins_near == (strength < 5 and model.looks == 1)
        assert np.ptp(model.decode(z[:20])[0], 0).max() > 0.1 and np.all(model.decode(z[:1])[2] == model.neutral.widths)


def shared(squares, members):
    """What outputs take whose variance each group shares, by searching for the variance: squares [M, C], members [M, K]."""
    variance = np.geomspace(1e-6, 1e6, 100001)
    means = members.T @ squares.mean(1) / members.sum(0)
    return squares.shape[1] * sum(size * (np.min(3 * x / variance + np.log1p(variance)) - np.log1p(0.5 * LEAST_VARIANCE))
                                  for x, size in zip(means, members.sum(0)))


def test_noise_costs_more_than_it_is_worth_and_what_is_surely_there_hardly_more_when_it_grows():
    x = tf.constant([0.01, 0.2, 0.9, 2.5])
    assert np.all(told(x).numpy() > x.numpy())       # half of x is what a fit to noise gains
    with tf.GradientTape() as tape:
        x = tf.Variable(100.0)
        cost = told(x)
    assert 0 < float(tape.gradient(cost, x)) < 0.011


def test_what_moves_together_takes_less_than_the_same_here_and_there():
    members = np.repeat(np.eye(2), 5, 0).astype(np.float32)
    together, spread = np.repeat([[4.0], [0.0]], 5, 0), np.tile([[4.0], [0.0]], (5, 1))
    cost = [float(told_together(tf.constant(np.repeat(part, 3, 1), tf.float32), members)) for part in (together, spread)]
    assert cost[0] < 0.8 * cost[1]


@pytest.mark.parametrize("settings", [dict(columns=["amplitude"]), dict(base=False, ahead=False)], ids=["nothing moves", "the paper's"])
def test_only_where_positions_vary_are_the_base_and_a_linear_part_of_the_decoder_learned(settings):
    model = untrained(**settings)
    assert model.base is None and model.ahead is None and len(model.trainable) == len(untrained().trainable) - 2
    assert not model.linear and not model.begins_faint


@pytest.mark.parametrize("columns,leading,expected", [(["amplitude"], None, 0.0), (["position"], None, 1.0),
                                                      (["amplitude", "position"], 0, 0.25), (["amplitude", "position"], 1, 1.0)])
def test_amplitudes_are_paid_for_as_far_as_positions_may_vary(columns, leading, expected):
    model = untrained(columns=columns)
    if leading is not None:
        model.open_beside(leading, 0.25)
    assert float(model.open_motion) == expected


def test_a_closed_column_is_exactly_neutral_and_is_saved_so(tmp_path):
    model = untrained()
    kernel = [v for v in model.decoder.trainable_variables if len(v.shape) == 2][-1]
    kernel.assign(np.random.default_rng(3).normal(size=kernel.shape))
    z = np.random.default_rng(4).normal(size=(5, 3))
    for share, varying in ((0.0, ["amplitude"]), (1.0, ["amplitude", "position"])):
        model.open_beside(0, share)
        save_model(model, str(tmp_path / str(share)))
        (tmp_path / str(share)).rename(tmp_path / "model")
        loaded = load_model(str(tmp_path))
        (tmp_path / "model").rename(tmp_path / str(share))
        centers, amplitudes, _ = loaded.decode(z)
        assert model.varying == loaded.varying == varying
        assert np.array_equal(centers, np.broadcast_to(model.neutral.centers, centers.shape)) == (share == 0)
        assert np.abs(amplitudes - model.neutral.amplitudes).max() > 0.01


def test_where_parts_come_and_go_amplitudes_explain_more_than_positions_and_stay(tmp_path):
    folder = simulated(tmp_path, "assembly", 1200, 0.2)
    assert gmmhet("train", "--out", folder / "train", *training(folder, epochs=10, latent_steps=1)) == 0
    found, told = json.load(open(folder / "train" / rundir.SUMMARY)), (folder / "train" / rundir.LOG).read_text()
    assert found["varies"][0] == "amplitude" and found["verdict"].startswith("Heterogeneity supported") and "before training" not in told
    assert_best_epoch_was_kept(folder / "train", 10)
    amplitude, position = (float(re.search("to first order, %s explains ([^ ]+)" % name, told)[1]) for name in ("amplitude", "position"))
    assert found["motion_rms_angst"] < 1.0 and amplitude > position


def test_the_start_is_not_computed_again_when_a_run_is_resumed(small, tmp_path):
    flags, out = training(small, **QUICK), tmp_path / "out"
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 1) == 0
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert (out / rundir.LOG).read_text().count("to first order, position explains") == 1


def test_a_molecule_of_many_anchors_begins_with_the_linear_answer_of_neighbouring_ones_together(hinge, tmp_path, monkeypatch):
    explained = []
    for most in (MOST_COLUMNS, 48):
        monkeypatch.setattr(start, "MOST_COLUMNS", most)
        out = tmp_path / str(most)
        assert gmmhet("train", "--out", out, *training(hinge, vary="position", epochs=10, pause_after_epoch=0)) == 0
        said = (out / rundir.LOG).read_text()
        explained.append(float(re.search(r"position explains (\S+) nats", said)[1]))
        assert float(re.search(r"before training: gain over neutral (\S+) ", said)[1]) > 0
    assert explained[1] == pytest.approx(explained[0], rel=0.3)


def test_the_paper_s_networks_see_the_standardised_gradients(small, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "out", *training(small, **QUICK, preset="paper")) == 0
    model = load_model(str(tmp_path / "out"))
    assert model.kept == 0 and model.encoder.input_shape[1] == model.deformation.outputs
