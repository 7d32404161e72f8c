"""Simulated sets and runs shared by the engine's tests: made once a session, tiny, always read-only."""
import pytest
from commands import QUICK, gmmhet, simulated, training


@pytest.fixture(scope="session")
def hinge(tmp_path_factory):
    """1,000 particles of a hinge: set/ and fit/."""
    return simulated(tmp_path_factory.mktemp("hinge"), "hinge", 1000, 0.2)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """120 particles of a hinge, for runs whose quality does not matter: set/ and fit/."""
    return simulated(tmp_path_factory.mktemp("small"), "hinge", 120, 0.2)


@pytest.fixture(scope="session")
def hinge_run(hinge):
    """A model trained on `hinge` with the default settings, at most 15 epochs: the run's folder."""
    assert gmmhet("train", "--out", hinge / "train", *training(hinge, epochs=15)) == 0
    return hinge / "train"


@pytest.fixture(scope="session")
def small_run(small):
    """A model trained on `small` for two epochs: the run's folder."""
    assert gmmhet("train", "--out", small / "train", *training(small, **QUICK)) == 0
    return small / "train"


@pytest.fixture(scope="session")
def paused_run(small):
    """The same training, paused after its first epoch: the run's folder, of which a copy can be resumed."""
    flags = [*training(small, **QUICK), "--pause-after-epoch", 1]
    assert gmmhet("train", "--out", small / "paused", *flags) == 0
    return small / "paused"
