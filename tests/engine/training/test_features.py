"""Features: what an image says of the base to first order, against differences."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import untrained

from gmmhet.engine import rundir
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.training.batches import Items
from gmmhet.engine.training.devices import Devices
from gmmhet.engine.training.features import base_information


@pytest.mark.parametrize("symmetry", ["c1", "c2"])
def test_the_information_on_the_base_is_the_mean_square_of_the_gradient_by_it(small, symmetry):
    model = untrained(symmetry=symmetry)
    particles = read_particles(str(small / "set" / rundir.STAR)).select(np.arange(5))
    found = base_information(Items(particles, symmetry), np.arange(5), np.zeros((5 * model.copies, 0), np.float32), model.likelihood, model,
                             Devices(), batch_size=3)
    images, rotation, shift, ctf = (tf.constant(part) for part in (
        particles.read(np.arange(5)), particles.rotation, particles.shift_angst, particles.ctf))
    data, transfer = model.likelihood.observe(images, ctf)

    def value(base):
        u = tf.zeros([5 * model.copies, model.deformation.outputs])
        centers, amplitudes, widths = model.assembled(model.deformation.apply(u, at_rest=False, base=tf.constant(np.float32(base))))
        drawn = project(place(centers, rotation, shift), amplitudes, widths, model.likelihood.grid)
        return model.likelihood.value(data, transfer * drawn).numpy().astype(float)
    free = np.flatnonzero(model.free)
    assert np.all(found[~model.free] == 0)
    for gaussian, column in ((free[0], 0), (free[3], 2), (free[5], 3)):
        step = np.zeros((len(model.neutral), 4))
        step[gaussian, column] = 0.02
        expected = np.mean(((value(step) - value(-step)) / 0.04) ** 2) / model.copies
        assert found[gaussian, column] == pytest.approx(expected, rel=0.05)
