"""The trainer: what it learns from and is judged by, which epoch and parameters it keeps, how it goes on."""
import csv

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import tiny_model, tiny_trainer

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.inference.pose_errors import PoseErrors
from gmmhet.engine.likelihood.quadratic import Quadratic
from gmmhet.engine.model.saved import values_of
from gmmhet.engine.training.checkpoint import CHECKPOINT, save_checkpoint
from gmmhet.engine.training.history import history_row
from gmmhet.engine.training.optimizer_step import BoundTerms
from gmmhet.engine.training.trainer import TrainError

AMPLITUDE, POSITION = 0, 1


class StandInStep:
    """In place of `OptimizerStep`: keeps what it is given; 3 nats and a divergence of 1 a particle."""

    learning_rate = 0.001

    def __init__(self):
        self.taken, self.exchanged, self.restarted, self._weight = [], 0, 0, tf.Variable(0.0)

    def __call__(self, kind, count, batch, warmth):
        self.taken.append((kind, count, batch, warmth))
        changes = np.zeros((count, 0)) if batch.pose_change is None else batch.pose_change + 0.01
        return BoundTerms(np.full(count, 3.0), np.ones(count), changes)

    def exchange_averages(self):
        self.exchanged += 1

    def restart_averages(self):
        self.restarted += 1

    def named_weights(self):
        return {"optimizer.0": self._weight}


def stood_in(trainer, gains):
    """A trainer that does not compute: its step is a stand-in, its held-out gains are `gains()`."""
    trainer._step, trainer._held_out_gains = StandInStep(), gains
    return trainer


def judged_once():
    """A model that is judged once an epoch: no consensus is learned, and one draw is taken throughout."""
    return tiny_model(dict(consensus_shift=False, draws=1))


def spread(mean, count=10):
    """Gains of held-out particles with this mean, of which each difference is sure."""
    return np.full(count, float(mean))


# ---- what is learned from

@pytest.fixture
def rows_of_batches(monkeypatch):
    """Rows of the particles of every batch that is read."""
    rows, batch = [], Views.batch

    def counted(self, chosen):
        rows.append(np.asarray(chosen))
        return batch(self, chosen)
    monkeypatch.setattr(Views, "batch", counted)
    return rows


def test_an_epoch_learns_from_every_particle_once_but_never_from_those_held_out(
        small, tmp_path, rows_of_batches):
    trainer = stood_in(tiny_trainer(small, tmp_path), lambda: spread(1.0))
    trainer.epoch()
    rows = np.concatenate(rows_of_batches)
    assert sorted(rows) == list(trainer.data.training_rows) == list(np.flatnonzero(~trainer.data.held_out))
    assert [count for _, count, _, _ in trainer._step.taken] == [16, 14] and trainer.steps_per_epoch == 2
    rows_of_batches.clear()
    trainer.epoch()
    assert sorted(np.concatenate(rows_of_batches)) == sorted(rows)
    assert not np.array_equal(np.concatenate(rows_of_batches), rows)      # in another order


def test_each_particle_counts_alike_in_its_batch_and_the_same_run_gives_the_same_noise(small, tmp_path):
    trainers = [stood_in(tiny_trainer(small, tmp_path, **seed), lambda: spread(1.0))
                for seed in (dict(), dict(), dict(seed=2))]
    for trainer in trainers:
        trainer.epoch()
    batches = [[batch for _, _, batch, _ in trainer._step.taken] for trainer in trainers]
    for batch, count in zip(batches[0], (16, 14)):
        np.testing.assert_allclose(batch.weight, np.full(count, 1 / count))
        assert batch.noise.shape == (count, 1, 2) and batch.pose_change is None
    for first, again, other in zip(*batches):
        np.testing.assert_array_equal(first.noise, again.noise)
        np.testing.assert_array_equal(first.images, again.images)
        assert not np.array_equal(first.noise, other.noise)


@pytest.mark.parametrize("linear,expected", [(False, [0.25, 0.75, 1, 1]), (True, [1, 1, 1, 1])])
def test_the_divergence_comes_in_little_by_little_where_nothing_is_known(small, tmp_path, linear, expected):
    trainer = stood_in(tiny_trainer(small, tmp_path, particles=12, batch_size=12), lambda: spread(1.0))
    trainer.model.state.linear_on.assign(float(linear))
    for _ in range(4):
        trainer.epoch()
    assert [warmth for _, _, _, warmth in trainer._step.taken] == expected


def test_one_draw_is_taken_until_all_parameters_vary_then_several_of_low_signal_at_once(small, tmp_path):
    trainer = stood_in(tiny_trainer(small, tmp_path, particles=12, batch_size=12, epochs=6, patience=6),
                       lambda: spread(1.0))
    for _ in range(6):
        trainer.epoch()
    kinds, noise = zip(*[(kind, batch.noise.shape) for kind, _, batch, _ in trainer._step.taken])
    assert trainer.schedule.all_open == 3
    assert [kind.several_draws for kind in kinds] == [False] * 3 + [True] * 3
    assert noise[2:4] == ((9, 1, 2), (9, 1, 4, 3))
    assert not any(kind.coarse or kind.with_poses for kind in kinds)
    low = stood_in(tiny_trainer(small, tmp_path, particles=12), lambda: spread(1.0))
    low.model.state.low_signal = True
    low.epoch()
    assert low._step.taken[0][0].several_draws


def test_networks_without_a_posterior_take_one_draw_throughout(small, tmp_path):
    model = tiny_model(dict(variational=False))
    trainer = stood_in(tiny_trainer(small, tmp_path, model, epochs=2), lambda: spread(1))
    for _ in range(2):
        trainer.epoch()
    assert not any(kind.several_draws for kind, _, _, _ in trainer._step.taken)


# ---- what is kept

def test_the_history_holds_means_over_the_particles_and_a_checkpoint_is_written(small, tmp_path):
    trainer = stood_in(tiny_trainer(small, tmp_path), lambda: spread(1.25))
    trainer.data.neutral[:] = 0.5
    trainer.epoch()
    row, = trainer.history
    assert list(row.values())[:4] == [1, 2.5, 1.25, 1.0]      # 3 nats, of which 0.5 are the neutral model's
    with open(trainer.run(rundir.HISTORY), newline="") as file:
        assert [float(r["held_out_gain"]) for r in csv.DictReader(file)] == [1.25]
    assert (tmp_path / rundir.WORK / CHECKPOINT).exists()
    assert trainer._step.exchanged == 2      # judged by the averages, learning goes on with the weights


def test_the_best_epoch_s_weights_are_kept_and_restored(small, tmp_path):
    means = iter([1.0, 3.0, 2.0, 0.5])
    trainer = tiny_trainer(small, tmp_path, judged_once(), epochs=4)
    stood_in(trainer, lambda: spread(next(means)))
    kernel = trainer.model.trainable[0]
    for epoch in range(1, 5):
        kernel.assign(tf.fill(kernel.shape, float(epoch)))
        trainer.epoch()
    assert trainer.finished and trainer.stopping.best["epoch"] == 2
    trainer.restore_best()
    np.testing.assert_array_equal(kernel, np.full(kernel.shape, 2.0))


def test_the_start_is_kept_where_no_epoch_is_better(small, tmp_path):
    means = iter([1.0, 0.5, 0.9])
    trainer = tiny_trainer(small, tmp_path, judged_once(), epochs=2)
    stood_in(trainer, lambda: spread(next(means)))
    before = values_of(trainer.model.named_weights())
    trainer.measure_start()
    for _ in range(2):
        trainer.model.trainable[0].assign_add(tf.ones_like(trainer.model.trainable[0]))
        trainer.epoch()
    assert trainer.stopping.best == dict(epoch=0, held_out_gain=1.0)
    trainer.restore_best()
    for name, value in values_of(trainer.model.named_weights()).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("done,best,finished", [
    (60, 55, False), (64, 55, False), (65, 55, True), (59, 3, False), (60, 3, True), (100, 99, True)])
def test_training_ends_at_its_last_epoch_or_when_it_got_no_better_for_as_long_as_patience(
        small, tmp_path, done, best, finished):
    trainer = tiny_trainer(small, tmp_path, epochs=100, patience=10)      # patience counts from epoch 50 on
    trainer.history, trainer.stopping.best = [{}] * done, dict(epoch=best, held_out_gain=1.0)
    assert trainer.finished == finished


def test_the_best_networks_are_measured_again_by_the_bound_of_what_follows(small, tmp_path):
    trainer, kinds = tiny_trainer(small, tmp_path, epochs=4, patience=4), []

    def gains():
        kinds.append(trainer._kind.several_draws)
        return spread(2.0 if kinds[-1] else 1.0)
    stood_in(trainer, gains)
    for _ in range(3):
        trainer.epoch()
    assert [row["held_out_gain"] for row in trainer.history] == [1.0, 1.0, 2.0]
    assert trainer.history[2]["behind_best"] == 0      # of 2.0, to which the second epoch came as well


# ---- which parameters vary

def led_by_positions(small, tmp_path, gain_of, **config):
    """A trainer whose positions lead; its held-out gain is a function of the gate of the amplitudes."""
    trainer = tiny_trainer(small, tmp_path, judged_once(), particles=12,
                           **{**dict(epochs=10, patience=10), **config})
    gate = trainer.model.state.gates

    def gains():
        return spread(gain_of(float(gate[AMPLITUDE])), 3)
    trainer.begin(POSITION, None)
    return stood_in(trainer, gains)


def gates_after_every_epoch(trainer, epochs):
    gates = []
    for _ in range(epochs):
        trainer.epoch()
        gates.append([float(gate) for gate in trainer.model.state.gates])
    return gates


def test_the_others_come_in_little_by_little_and_stay_where_they_are_worth_it(small, tmp_path):
    trainer = led_by_positions(small, tmp_path, lambda gate: 1.0 + gate)
    gates = gates_after_every_epoch(trainer, 6)
    assert [position for _, position in gates] == [1.0] * 6
    assert [amplitude for amplitude, _ in gates] == [0, 0, 0, 0.25, 1, 1]
    assert trainer.leading is None and trainer.stopping.best["epoch"] == 6
    assert trainer.model.active_parameters == ["amplitude", "position"]


def test_parameters_that_add_little_are_closed_again_for_good(small, tmp_path):
    trainer = led_by_positions(small, tmp_path, lambda gate: 1.0 + 0.04 * gate)
    gates = gates_after_every_epoch(trainer, 7)
    assert [amplitude for amplitude, _ in gates] == [0, 0, 0, 0.25, 0, 0, 0]
    assert trainer.leading is None and trainer.model.active_parameters == ["position"]
    assert trainer._step.restarted == 0      # the networks go on from where they are


def test_where_the_first_part_was_better_its_networks_are_taken_back(small, tmp_path):
    done = []
    trainer = led_by_positions(small, tmp_path, lambda gate: 1.0 if len(done) < 3 else 0.5)
    kernel = trainer.model.trainable[0]
    for number in range(1, 6):
        kernel.assign(tf.fill(kernel.shape, float(number)))
        trainer.epoch()
        done.append(number)
    np.testing.assert_array_equal(kernel, np.full(kernel.shape, 3.0))
    assert trainer._step.restarted == 1 and trainer.model.active_parameters == ["position"]


def test_epochs_in_which_the_others_come_in_are_not_judged(small, tmp_path):
    trainer = led_by_positions(small, tmp_path, lambda gate: 9.0 if 0 < gate < 1 else 1.0)
    gates_after_every_epoch(trainer, 4)
    assert trainer.history[3]["held_out_gain"] == 9.0 and trainer.stopping.best["epoch"] == 3


@pytest.mark.parametrize("worth,on", [(0.5, True), (-0.5, False)])
def test_the_learned_consensus_counts_only_where_held_out_particles_are_surely_better_with_it(
        small, tmp_path, worth, on):
    trainer = tiny_trainer(small, tmp_path)
    state = trainer.model.state
    stood_in(trainer, lambda: spread(1.0 + worth * float(state.consensus_shift_on)))
    trainer.epoch()
    assert float(state.consensus_shift_on) == on
    assert trainer.history[0]["held_out_gain"] == 1.0 + max(worth, 0)


# ---- poses

def poses_of(particles, held_out, size=3.0):
    """Poses that are uncertain: derivatives of the log-likelihood as errors of this size (nats) make them."""
    rng = np.random.default_rng(0)
    curvature = np.tile(np.diag([4000.0] * 3 + [1.0] * 2), (particles, 1, 1))
    slope = rng.normal(size=(particles, 5)) * size * np.sqrt(np.diagonal(curvature, axis1=1, axis2=2))
    return PoseErrors(Quadratic(np.float32(slope), np.float32(curvature)), 6.0, np.flatnonzero(~held_out), 1)


def test_uncertain_poses_come_with_every_batch_and_take_what_its_step_found(small, tmp_path):
    poses = poses_of(40, tiny_trainer(small, tmp_path).data.held_out)
    assert poses.uncertain
    trainer = stood_in(tiny_trainer(small, tmp_path, poses=poses, epochs=20), lambda: spread(1.0))
    before, learned = poses.change.copy(), trainer.data.training_rows
    trainer.epoch()
    kind, count, batch, _ = trainer._step.taken[0]
    assert kind.with_poses and batch.pose_change.shape == (count, 5)
    assert batch.pose_response.shape == (count, 5, 5)
    np.testing.assert_allclose(poses.change[learned], before[learned] + 0.01, atol=1e-6)
    held_out = trainer.data.held_out      # whose poses the stand-in of the gains leaves alone
    np.testing.assert_array_equal(poses.change[held_out], before[held_out])
    expected = np.mean(3.0 - poses.log_volume(learned))      # the bound is over all poses
    assert trainer.history[0]["training_gain"] == pytest.approx(expected)


def test_where_poses_turn_out_to_be_exact_the_overall_motion_is_motion(small, tmp_path):
    held_out = tiny_trainer(small, tmp_path).data.held_out
    for size, stays in ((3.0, True), (0.0, False)):
        model = tiny_model(removes_rigid_motion=True)
        trainer = tiny_trainer(small, tmp_path, model, poses_of(40, held_out, size))
        trainer.keep_rigid_motion_of_exact_poses()
        assert trainer.model.state.removes_rigid_motion == stays
        assert model.settings.removes_rigid_motion      # what was asked for


# ---- going on

def test_a_trainer_that_resumes_stands_where_the_other_one_stood(small, tmp_path):
    rng, held_out = np.random.default_rng(0), tiny_trainer(small, tmp_path).data.held_out
    models = [tiny_model(removes_rigid_motion=True) for _ in range(2)]
    first, second = (tiny_trainer(small, tmp_path, model, poses_of(40, held_out)) for model in models)
    assert not first.resume() and first.history == []
    first.begin(POSITION, None)
    first.history = [history_row(number, *rng.normal(size=5)) for number in (1, 2)]
    first.stopping.start(rng.normal(size=10))
    first.best_weights = values_of(first.model.named_weights())
    for named in (first.model.named_weights(), first._step.named_weights()):
        for variable in named.values():
            variable.assign(tf.cast(rng.integers(1, 100, variable.shape), variable.dtype))
    first.model.state.low_signal = True
    first.data.poses.change[:] = rng.normal(size=(40, 5))
    first.data.poses.set_sigma(np.array([0.02, 0.0]))
    first._save_checkpoint()
    assert second.resume()
    assert (second.history, second.leading) == (first.history, POSITION)
    assert second.stopping.best == first.stopping.best
    np.testing.assert_array_equal(second.stopping.peak, first.stopping.peak)
    np.testing.assert_array_equal(second.data.poses.change, first.data.poses.change)
    np.testing.assert_array_equal(second.data.poses.sigma, first.data.poses.sigma)
    assert second.model.state.to_json() == first.model.state.to_json()
    for ours, theirs in ((second.model, first.model), (second._step, first._step)):
        for name, value in values_of(ours.named_weights()).items():
            np.testing.assert_array_equal(value, theirs.named_weights()[name].numpy(), err_msg=name)
    for name, value in first.best_weights.items():
        np.testing.assert_array_equal(second.best_weights[name], value)
    second.restore_best()
    assert np.any(second.model.trainable[0].numpy() != first.model.trainable[0].numpy())


def test_a_trainer_whose_poses_were_exact_resumes_with_its_overall_motion(small, tmp_path):
    held_out = tiny_trainer(small, tmp_path).data.held_out
    models = [tiny_model(removes_rigid_motion=True) for _ in range(2)]
    first, second = (tiny_trainer(small, tmp_path, model, poses_of(40, held_out)) for model in models)
    first.history = [history_row(1, *np.zeros(5))]
    first.data.poses.set_sigma(np.zeros(2))
    first.keep_rigid_motion_of_exact_poses()
    first._save_checkpoint()
    assert second.model.state.removes_rigid_motion and second.resume()
    assert not second.data.poses.uncertain and not second.model.state.removes_rigid_motion


def test_a_trainer_that_has_not_judged_an_epoch_resumes_without_a_best_one(small, tmp_path):
    first = led_by_positions(small, tmp_path, lambda gate: 1.0)
    first.history = [history_row(number, *np.zeros(5)) for number in (1, 2, 3)]
    first.epoch()      # in which the others come in
    assert first.best_weights is None
    second = led_by_positions(small, tmp_path, lambda gate: 1.0)
    assert second.resume() and second.best_weights is None and second.stopping.best is None
    second.restore_best()      # leaves what there is


def test_hosts_that_see_different_checkpoints_are_stopped(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Devices, "ask", lambda self, number: np.array([number, number + 1]))
    message = "the hosts do not see the same checkpoint: --out .* must lie on a disk"
    with pytest.raises(TrainError, match=message):
        tiny_trainer(small, tmp_path).resume()


def test_a_checkpoint_of_another_version_is_refused_with_what_to_do(small, tmp_path):
    trainer = tiny_trainer(small, tmp_path)
    save_checkpoint(trainer.run(rundir.WORK, CHECKPOINT), {}, dict(history=[], best=None))
    with pytest.raises(TrainError, match="is a checkpoint of an older version of gmmhet.*into another --out"):
        trainer.resume()


def test_an_agreement_that_is_not_finite_names_epoch_and_particles(small, tmp_path):
    trainer = stood_in(tiny_trainer(small, tmp_path), lambda: spread(1.0))
    message = "the agreement became NaN in epoch 4 at particles 4, 8: look at these images"
    with pytest.raises(TrainError, match=message):
        trainer._check_finite(np.array([1.0, np.nan]), np.array([3, 7]), 4)
