"""What the data say before training: noise per ring, density scale, mask."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.ctf import ctf_values, wavelength_angst
from gmmhet.engine.imaging.fourier import FourierGrid, soft_disc, transform
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.log import log
from gmmhet.engine.losses.agreement import Agreement, estimate_noise
from gmmhet.engine.training.neutral import FitError

SAMPLE = 1024


def mask_diameter(particles, neutral, resolution_angst):
    """Diameter (Å) of a disc that holds the molecule, its shifts and what the CTF delocalises at the target resolution."""
    defocus = np.percentile(np.abs(particles.ctf[:, :2]), 95)
    spread = wavelength_angst(float(np.median(particles.ctf[:, 3]))) * defocus / resolution_angst
    shift = 2 * float(np.sqrt(np.mean(np.sum(particles.shift_angst**2, 1))))
    widest = (particles.box - 12) * particles.pixel_size
    return float(min(2 * (neutral.radius_angst + spread + shift), widest))


def calibrate(particles, neutral, resolution_angst, diameter_angst, seed):
    """The likelihood's Agreement for a set of particles: noise and scale from a random sample at the neutral model.

    Raises
    ------
    FitError
        when the particles' density is opposite to the model's (contrast inverted), or unrelated to it.
    """
    grid = FourierGrid.to_resolution(particles.box, particles.pixel_size, resolution_angst)
    diameter_angst = diameter_angst or mask_diameter(particles, neutral, resolution_angst)
    disc = soft_disc(grid.box, grid.pixel_size, diameter_angst)
    rows = np.sort(np.random.default_rng([seed, 7]).permutation(len(particles))[:SAMPLE])
    data, model = [], []
    for i in range(0, len(rows), 64):
        part = rows[i:i + 64]
        data.append(transform(particles.read(part) * disc, grid).numpy())
        xy = place(tf.constant(neutral.centers), tf.constant(particles.rotation[part]), tf.constant(particles.shift_angst[part]))
        image = project(xy, tf.constant(neutral.amplitudes), tf.constant(neutral.widths), grid)
        model.append((image * ctf_values(particles.ctf[part], grid.kx, grid.ky)[:, None]).numpy())
    power, scale = estimate_noise(np.concatenate(data), np.concatenate(model), grid, float(np.mean(disc**2)))
    if scale <= 0:
        raise FitError("the particles agree with the inverted map (density scale %.3g): their contrast must be white (density positive). "
                       "Invert the particles or the map" % scale)
    log.info("mask %.0f Å, density scale %.4g, noise power %.4g (low) to %.4g (high resolution)", diameter_angst, scale, power[1], power[-1])
    return Agreement(grid, "likelihood", diameter_angst, power, scale)
