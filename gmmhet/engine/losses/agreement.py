"""Agreement between an image and a model's projection, per particle (METHOD.md section 2)."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import soft_disc, transform

#: keeps the correlation of an empty ring finite; far below the power of images and maps on any scale in use
TINY = 1e-20


class Agreement:
    """How an image is observed, and how well a projection agrees with what was observed.

    likelihood : images divided by the noise's standard deviation per ring; projections multiplied by scale * CTF over the same.
        The value is the log-likelihood up to a constant of the image, ``sum_k w_k Re(conj(T M) (D - T M / 2))``, in nats: 0 for an
        empty model.
    frc : images phase-flipped (multiplied by the CTF's sign), projections plain. The value is the mean over rings of the Fourier
        ring correlation (paper, Methods).

    Parameters
    ----------
    grid : FourierGrid.
    objective : 'likelihood' or 'frc'.
    mask_diameter_angst : float, soft circular mask on the images.
    noise_power : array [m+2], noise variance per ring of the unmasked transform.
    scale : float, image density over model density.
    """

    def __init__(self, grid, objective, mask_diameter_angst, noise_power, scale):
        self.grid, self.objective = grid, objective
        self.mask_diameter_angst, self.noise_power, self.scale = float(mask_diameter_angst), np.asarray(noise_power), float(scale)
        self._disc = tf.constant(soft_disc(grid.box, grid.pixel_size, mask_diameter_angst))
        self._whitening = tf.constant((1.0 / np.sqrt(self.noise_power))[grid.shell].astype(np.float32))
        self._weight = tf.constant(grid.weight)
        rings = (grid.shell[..., None] == np.arange(1, grid.m + 1)) * grid.weight[..., None]
        self._rings = tf.constant(rings.reshape(-1, grid.m).astype(np.float32))

    def observe(self, images, ctf):
        """Data D [B, 2, 2m+1, m+1] and transfer T [B, 1, 2m+1, m+1] of raw images [B, L, L] with CTF parameters [B, 9]."""
        data = transform(images * self._disc, self.grid)
        ctf = ctf_values(ctf, self.grid.kx, self.grid.ky)[:, None]
        if self.objective == "frc":
            return data * tf.sign(ctf), tf.ones_like(ctf)
        return data * self._whitening, ctf * (self.scale * self._whitening)

    def value(self, data, model):
        """Agreement [B] of data with T-multiplied projections, both [B, 2, 2m+1, m+1]; larger is better."""
        if self.objective == "frc":
            cross, own, other = (self._ring_sums(a) for a in (model * data, model * model, data * data))
            return tf.reduce_mean(cross * tf.math.rsqrt(own + TINY) * tf.math.rsqrt(other + TINY), -1)
        return tf.reduce_sum(self._weight * model * (data - 0.5 * model), (1, 2, 3))

    def _ring_sums(self, values):
        """[B, 2, 2m+1, m+1] to sums per ring [B, m]."""
        return tf.matmul(tf.reshape(tf.reduce_sum(values, 1), [tf.shape(values)[0], -1]), self._rings)

    def state(self):
        """What `from_state` needs, JSON-ready."""
        return dict(box=self.grid.box, pixel_size=self.grid.pixel_size, m=self.grid.m, objective=self.objective,
                    mask_diameter_angst=self.mask_diameter_angst, noise_power=[float(v) for v in self.noise_power], scale=self.scale)

    @classmethod
    def from_state(cls, state):
        """The agreement that `state` describes."""
        from gmmhet.engine.imaging.fourier import FourierGrid
        grid = FourierGrid(state["box"], state["pixel_size"], state["m"])
        return cls(grid, state["objective"], state["mask_diameter_angst"], state["noise_power"], state["scale"])


def estimate_noise(data, model, grid, masked_share):
    """Noise power per ring and amplitude scale from images and their CTF-multiplied projections.

    Parameters
    ----------
    data, model : arrays [n, 2, 2m+1, m+1]; data are transforms of masked images.
    masked_share : float, mean square of the mask: masked white noise has this share of its power, and as many independent values.

    Returns
    -------
    power [m+2] (ring 0 and those past m copy their neighbours), scale.
    """
    shell = grid.shell.ravel()
    used = (grid.weight > 0).ravel()
    weight = grid.weight.ravel() * used
    count = np.maximum(np.bincount(shell, weight, grid.m + 2), 1e-9) * len(data)
    scale, power = 0.0, None
    for _ in range(4):
        residual = np.sum((data - scale * model) ** 2, axis=(0, 1)).ravel()
        power = np.bincount(shell, residual * weight, grid.m + 2) / count
        power[0], power[-1] = power[1], power[grid.m]
        if not np.all(power > 0):
            raise ValueError("the particles hold no signal and no noise in some Fourier ring: are the images constant?")
        inverse = weight / power[shell]
        cross = np.sum(np.sum(data * model, axis=(0, 1)).ravel() * inverse)
        scale = cross / np.sum(np.sum(model * model, axis=(0, 1)).ravel() * inverse)
    return power / masked_share, float(scale)
