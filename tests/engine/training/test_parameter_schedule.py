"""When which parameters vary, without TensorFlow."""
import numpy as np
import pytest
from commands import loaded_by

from gmmhet.engine.training.parameter_schedule import (
    ALL_SHARE,
    ALONE_SHARE,
    WORTH,
    ParameterSchedule,
    worth_it,
)


def test_the_schedule_is_there_without_tensorflow():
    assert "tensorflow" not in loaded_by("gmmhet.engine.training.parameter_schedule")


@pytest.mark.parametrize("epochs,alone,all_open", [
    (1, 0, 1), (2, 0, 1), (3, 0, 2), (6, 1, 3), (15, 4, 8), (40, 12, 20), (100, 30, 50)])
def test_the_leading_parameter_is_alone_for_a_third_and_all_vary_from_the_middle_on(epochs, alone, all_open):
    schedule = ParameterSchedule(epochs)
    assert (schedule.alone, schedule.all_open) == (alone, all_open)


@pytest.mark.parametrize("epochs", [1, 2, 3, 6, 15, 40, 1000])
def test_the_gates_of_the_others_are_closed_then_open_and_never_close_again(epochs):
    schedule = ParameterSchedule(epochs)
    numbers = np.arange(1, epochs + 1)
    shares = np.array([schedule.share(number) for number in numbers])
    assert np.all(shares[numbers <= schedule.alone] == 0)
    assert np.all(shares[numbers >= schedule.all_open] == 1)
    assert np.all(np.diff(shares) >= 0)
    between = (shares > 0) & (shares < 1)
    np.testing.assert_array_equal(between, [schedule.is_opening(number) for number in numbers])
    assert schedule.share(0) == 0      # the start is judged by the leading parameter alone


def test_the_gates_open_by_the_square_of_the_time_since_they_began_to():
    schedule = ParameterSchedule(100)
    assert [schedule.share(number) for number in (35, 40, 45)] == pytest.approx([1 / 16, 1 / 4, 9 / 16])


@pytest.mark.parametrize("epochs", [1, 2, 7, 50])
def test_what_is_worth_it_is_decided_from_the_first_epoch_in_which_all_vary(epochs):
    schedule = ParameterSchedule(epochs)
    decides = [schedule.decides(number) for number in range(1, epochs + 1)]
    assert decides.index(True) + 1 == schedule.all_open and all(decides[schedule.all_open - 1:])
    assert not any(schedule.is_opening(number) for number in range(schedule.all_open, epochs + 1))


def test_parameters_are_worth_it_that_add_a_twentieth_to_the_gain_without_them():
    assert WORTH == 0.05 and (ALONE_SHARE, ALL_SHARE) == (0.3, 0.5)
    assert worth_it(2.1, 2.0) and not worth_it(2.09, 2.0)
    assert worth_it(0.0, 0.0) and not worth_it(-0.001, 0.0)
    assert worth_it(-0.95, -1.0) and not worth_it(-0.96, -1.0)      # of the size of a gain that is none


def test_a_schedule_cannot_be_changed():
    with pytest.raises(AttributeError):
        ParameterSchedule(10).epochs = 20
