"""Which epoch is kept and when training stops, on gains that are given, without TensorFlow."""
import numpy as np
import pytest
from commands import loaded_by
from scipy.linalg import hadamard

from gmmhet.engine.training.early_stopping import SURE, EarlyStopping, standard_errors, surely

#: of the held-out particles: what differs between them and is the same in every epoch
PARTICLES = np.random.default_rng(0).normal(0, 2, 128)
#: and what differs from epoch to epoch, so that the mean of their differences has a standard error of 0.1
EPOCHS = 0.8 * hadamard(128)[1:]


def gains(mean, number=0):
    """Gains [128] with this mean, of an epoch; number 0 is the start."""
    return PARTICLES - PARTICLES.mean() + mean + EPOCHS[number]


def judged(*means, start=None):
    """A training after epochs with these mean gains, and which of them counted."""
    stopping = EarlyStopping(patience=3)
    if start is not None:
        stopping.start(gains(start))
    counted = [number for number, mean in enumerate(means, 1)
               if stopping.judge(dict(epoch=number, held_out_gain=mean), gains(mean, number))]
    return stopping, counted


def test_early_stopping_is_there_without_tensorflow():
    assert "tensorflow" not in loaded_by("gmmhet.engine.training.early_stopping")


def test_standard_errors_are_of_the_mean_and_above_two_a_difference_is_sure():
    noise = EPOCHS[1] / 0.8
    for mean, errors in ((0.3, 3.0), (0.1, 1.0), (-0.3, -3.0)):
        differences = np.sqrt(128) / 10 * noise + mean
        assert standard_errors(differences) == pytest.approx(errors)
        assert surely(differences) == (errors > SURE)
    assert not surely(np.zeros(5)) and surely(np.full(5, 1e-3)) and not surely(np.full(5, -1e-3))
    assert surely(np.array([20.0]))      # of a single held-out particle
    assert SURE == 2.0


def test_particles_are_compared_one_by_one_so_that_what_they_differ_by_does_not_count():
    stopping, _ = judged(1.0)
    assert np.std(gains(0.5)) > 1.5      # of the mean of one epoch alone, the standard error is much larger
    assert stopping.behind(gains(0.5, 2)) == pytest.approx(5.0)
    assert stopping.behind(gains(1.2, 2)) == pytest.approx(-2.0)


def test_nothing_is_behind_before_an_epoch_was_judged_and_its_first_one_counts():
    stopping = EarlyStopping(3)
    assert stopping.best is None and stopping.best_gain == -np.inf and stopping.behind(gains(0.0)) == 0
    assert not stopping.out_of_patience(1000, 0)
    assert stopping.judge(dict(epoch=1, held_out_gain=-5.0), gains(-5.0))
    assert stopping.best == dict(epoch=1, held_out_gain=-5.0) and stopping.best_gain == -5


def test_a_later_epoch_counts_unless_an_earlier_one_was_surely_better():
    stopping, counted = judged(1.0, 0.9, 0.95, 0.7, 0.85)
    assert counted == [1, 2, 3, 5] and stopping.best["epoch"] == 5
    assert stopping.peak.mean() == pytest.approx(1.0)      # the best of all: nothing creeps away from it


def test_an_epoch_counts_against_the_start_only_when_it_is_surely_better():
    _, counted = judged(0.15, 0.19, start=0.0)
    assert counted == []
    stopping, counted = judged(0.15, 0.3, 0.25, start=0.0)
    assert counted == [2, 3] and stopping.best["epoch"] == 3


def test_of_a_training_that_gains_nothing_the_start_is_kept():
    stopping, counted = judged(-0.5, 0.05, -0.1, start=0.0)
    assert counted == [] and stopping.best == dict(epoch=0, held_out_gain=pytest.approx(0.0))
    assert stopping.best_gain == pytest.approx(0.0)


def test_measured_by_a_tighter_bound_the_best_epoch_is_harder_to_beat():
    stopping, _ = judged(1.0)
    row = stopping.best
    stopping.measured_again(gains(2.0, 1))
    assert stopping.best == dict(epoch=1, held_out_gain=pytest.approx(2.0)) and row["held_out_gain"] == 1.0
    assert not stopping.judge(dict(epoch=2, held_out_gain=1.5), gains(1.5, 2))
    assert stopping.judge(dict(epoch=3, held_out_gain=1.9), gains(1.9, 3)) and stopping.best["epoch"] == 3


@pytest.mark.parametrize("done,best,stops", [
    (60, 55, False), (64, 55, False), (65, 55, True), (59, 3, False), (60, 3, True)])
def test_patience_counts_from_the_best_epoch_and_not_before_all_parameters_vary(done, best, stops):
    stopping = EarlyStopping(patience=10, best=dict(epoch=best, held_out_gain=1.0))
    assert stopping.out_of_patience(done, not_before=50) == stops
