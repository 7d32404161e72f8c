"""Simulated sets and runs shared by the engine's tests: tiny, always read-only, made once for all processes
that share the tests."""
import fcntl
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import tensorflow as tf
from commands import QUICK, gmmhet, simulated, training

# rewriting graphs would take a third of every short training in this process
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """For `with made_once(name) as (folder, is_new)`: a folder that all processes share, which whoever comes
    first fills while the others wait."""
    root = Path(tmp_path_factory.getbasetemp())
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    @contextmanager
    def folder(name):
        done = root / (name + ".done")
        with open(root / (name + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield root / name, not done.exists()
            done.touch()
    return folder


@pytest.fixture(scope="session")
def hinge(made_once):
    """1,000 particles of a hinge: set/ and fit/."""
    with made_once("hinge") as (folder, is_new):
        return simulated(folder, "hinge", 1000, 0.2) if is_new else folder


@pytest.fixture(scope="session")
def small(made_once):
    """120 particles of a hinge, for runs whose quality does not matter: set/ and fit/."""
    with made_once("small") as (folder, is_new):
        return simulated(folder, "hinge", 120, 0.2) if is_new else folder


@pytest.fixture(scope="session")
def hinge_run(hinge, made_once):
    """A model trained on `hinge` with the default settings, at most 15 epochs: the run's folder."""
    with made_once("hinge_run") as (folder, is_new):
        assert not is_new or gmmhet("train", "--out", folder, *training(hinge, epochs=15)) == 0
    return folder


@pytest.fixture(scope="session")
def small_run(small, made_once):
    """A model trained on `small` for two epochs: the run's folder."""
    with made_once("small_run") as (folder, is_new):
        assert not is_new or gmmhet("train", "--out", folder, *training(small, **QUICK)) == 0
    return folder


@pytest.fixture(scope="session")
def paused_run(small, made_once):
    """The same training, paused after its first epoch: the run's folder, of which a copy can be resumed."""
    with made_once("paused_run") as (folder, is_new):
        flags = [*training(small, **QUICK), "--pause-after-epoch", 1]
        assert not is_new or gmmhet("train", "--out", folder, *flags) == 0
    return folder
