"""Checkpoints: named groups of arrays and a state, of which a reader finds all of the old or of the new."""
import numpy as np
import pytest
import tensorflow as tf

from gmmhet.engine.model.saved import assign, values_of
from gmmhet.engine.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "checkpoint.npz")


def test_a_checkpoint_brings_back_variables_arrays_and_state(path):
    weights = {"decoder.layer0.kernel": tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3)),
               "optimizer.0": tf.Variable(7, dtype=tf.int64), "seed": tf.Variable([1, 2], dtype=tf.uint32)}
    values = values_of(weights)
    save_checkpoint(path, dict(model=values, poses=dict(sigma=np.array([0.1, 2.0]))),
                    dict(epoch=3, name="Å", gain=0.1))
    groups, state = load_checkpoint(path)
    assert state == dict(epoch=3, name="Å", gain=0.1) and sorted(groups) == ["model", "poses"]
    for variable in weights.values():
        variable.assign(tf.zeros_like(variable))
    assign(weights, groups["model"])
    for name, variable in weights.items():
        np.testing.assert_array_equal(variable.numpy(), values[name])
        assert groups["model"][name].dtype == values[name].dtype
    np.testing.assert_array_equal(groups["poses"]["sigma"], [0.1, 2.0])


def test_arrays_are_known_by_group_and_name_in_whatever_order_they_were_saved(path):
    many = {"array %d" % i: np.array(i) for i in np.random.default_rng(0).permutation(123)}
    save_checkpoint(path, dict(many=many, few={"array 1": np.array(-1), "a/b": np.zeros(0)}), {})
    groups, _ = load_checkpoint(path)
    assert {name: int(value) for name, value in groups["many"].items()} == {
        "array %d" % i: i for i in range(123)}
    assert int(groups["few"]["array 1"]) == -1 and groups["few"]["a/b"].shape == (0,)


def test_a_group_without_arrays_is_not_there_again(path):
    save_checkpoint(path, dict(best={}, model=dict(a=np.ones(2))), dict(best=None))
    groups, state = load_checkpoint(path)
    assert list(groups) == ["model"] and state == dict(best=None)


def test_numbers_come_back_as_they_were_also_where_they_are_none(path):
    history = [dict(epoch=1, training_gain=np.nan, held_out_gain=-0.1 + 1e-16, behind_best=-np.inf)]
    save_checkpoint(path, {}, dict(history=history))
    again, = load_checkpoint(path)[1]["history"]
    assert np.isnan(again.pop("training_gain")) and history[0].pop("training_gain") and again == history[0]


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_no_other_file(path, tmp_path):
    for epoch in (1, 2):
        save_checkpoint(path, dict(a=dict(b=np.zeros(3))), dict(epoch=epoch))
    assert load_checkpoint(path)[1] == dict(epoch=2) and len(list(tmp_path.iterdir())) == 1
