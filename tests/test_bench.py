import importlib.util
import os

import numpy as np
import pytest
import tensorflow as tf

from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.projection import project

BENCH = os.path.join(os.path.dirname(__file__), os.pardir, "bench")


def load(name):
    """A module of bench/, which is no package."""
    spec = importlib.util.spec_from_file_location("bench_" + name, os.path.join(BENCH, name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_dense_formula_that_speed_is_compared_with_is_the_same_projection():
    speed, grid, rng = load("speed"), FourierGrid.to_resolution(24, 1.0), np.random.default_rng(0)
    mixture = speed.molecule(40, 24, rng)
    xy = tf.constant(mixture.centers[None, :, :2])
    np.testing.assert_allclose(speed.dense(xy, mixture.amplitudes, mixture.widths, grid),
                               project(xy, mixture.amplitudes, mixture.widths, grid), atol=1e-5)


@pytest.mark.parametrize("what, method", [("bare", ""), ("project", "dense"), ("project", "local"), ("step", "dense"), ("step", "local")])
def test_every_row_of_the_speed_table_is_measured(what, method):
    row = load("speed").measure(dict(gaussians=30, box=24, batch=3, seconds=0.0, dense_memory=1.0, what=what, method=method))
    assert row["cpu"] > 0 and row["wall"] > 0 and row["batch"] == 3
