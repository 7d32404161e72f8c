"""The simulate stage: what it leaves, and that it can be repeated."""
import json

import numpy as np
import pytest
from commands import gmmhet

from gmmhet.engine import rundir
from gmmhet.engine.io.volumes import read_map
from gmmhet.engine.particles.particle_set import read_particles


@pytest.mark.parametrize("kind,score",
                         [("hinge", "r2"), ("assembly", "adjusted_rand_index"), ("c3", "r2"), ("d2", "r2"),
                          ("null", None)])
def test_a_set_is_written_with_its_truth_by_id_and_an_oracle_that_beats_noise(tmp_path, kind, score):
    assert gmmhet("simulate", "--out", tmp_path / "set", "--kind", kind, "--n", 200, "--box", 33,
                  "--pixel-size", 6, "--snr", 0.3,
                  "--seed", 5) == 0
    assert rundir.missing_run(str(tmp_path / "set"), "simulate") == ""
    particles = read_particles(str(tmp_path / "set" / rundir.STAR))
    volume, pixel_size = read_map(str(tmp_path / "set" / rundir.MAP))
    oracle = json.load(open(tmp_path / "set" / rundir.ORACLE))
    with np.load(tmp_path / "set" / rundir.TRUTH) as truth:
        np.testing.assert_array_equal(truth["id"], particles.ids)
        np.testing.assert_allclose(truth["rotation"], particles.rotation, atol=1e-5)
        np.testing.assert_allclose(truth["shift_angst"], particles.shift_angst, atol=1e-4)
        names = {name[5:] for name in truth.files if name.startswith("true_")}
    assert (len(particles), particles.box, volume.shape, pixel_size) == (200, 33, (33, 33, 33), 6.0)
    assert np.bincount(particles.half).tolist() == [0, 100, 100]
    assert names == {"hinge": {"angle"}, "assembly": {"state"}, "c3": {"unit_angles", "unit"},
                     "d2": {"unit_angles", "unit"},
                     "null": set()}[kind]
    assert oracle["kind"] == kind and (score is None or oracle[score] > 0.3)
