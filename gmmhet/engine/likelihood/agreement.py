"""Agreement between an image and a model's projection, per particle (docs/method.md, likelihood)."""
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.config import COARSE_ANGST
from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, soft_disc, transform

#: keeps the correlation of an empty ring finite; far below the power of images and maps on any scale in use
TINY = 1e-20


class NoiseEstimate(NamedTuple):
    """Noise and density scale of the images, of all particles and of each optics group.

    Attributes
    ----------
    power : [m+2] or [1 + G, m+2], noise variance per ring of the unmasked transform: the first row is that of
        all particles, the others are those of `groups`. A ring of power 0 holds no data.
    scale : number or [1 + G], image density over model density; negative where the contrast is black.
    groups : [G], optics group numbers; any other takes the first row.
    """

    power: Any
    scale: Any
    groups: Sequence[int] = ()


class Agreement:
    """How an image is observed, and how well a projection agrees with what was observed.

    likelihood : images divided by the noise's standard deviation per ring; projections multiplied by scale *
        CTF over the same. The value is the log-likelihood up to a constant of the image, ``sum_k w_k
        Re(conj(T M) (D - T M / 2))``, in nats: 0 for an empty model.
    frc : images phase-flipped (multiplied by the CTF's sign, which is 1 where they are flipped already) and
        white, projections plain. The value is the mean over rings of the Fourier ring correlation (paper,
        Methods).

    Noise and scale belong to an optics group. A ring of power 0 holds no data: it counts for nothing.

    Parameters
    ----------
    grid : FourierGrid.
    objective : 'likelihood' or 'frc'.
    mask_diameter_angst : float, soft circular mask on the images.
    noise : NoiseEstimate.
    first_ring : int, rings below it count for nothing.

    Raises
    ------
    ValueError
        when the noise does not have a row for all particles and one for each group.
    """

    def __init__(self, grid: FourierGrid, objective: str, mask_diameter_angst: float, noise: NoiseEstimate,
                 first_ring: int = 1) -> None:
        self.grid, self.objective, self.mask_diameter_angst = grid, objective, float(mask_diameter_angst)
        self.noise_power = np.atleast_2d(np.asarray(noise.power, float))
        self.scale = np.atleast_1d(np.asarray(noise.scale, float))
        self.groups, self.first_ring = tuple(int(g) for g in noise.groups), int(first_ring)
        if not len(self.noise_power) == len(self.scale) == 1 + len(self.groups):
            raise ValueError("noise_power and scale must have a row for all particles and one for each of "
                             "the %d optics groups, got %d and "
                             "%d" % (len(self.groups), len(self.noise_power), len(self.scale)))
        self._disc = tf.constant(soft_disc(grid.box, grid.pixel_size, mask_diameter_angst))
        holds = (self.noise_power > 0) & (np.arange(grid.m + 2) >= self.first_ring)
        whitening = holds / np.sqrt(np.where(holds, self.noise_power, 1.0))
        on_data = (whitening if self.is_likelihood
                   else holds * np.sign(self.scale)[:, None]).astype(np.float32)
        self._on_data = tf.constant(on_data if self.groups else on_data[0][grid.shell])
        self._weight = tf.constant(grid.weight)
        rings = (grid.shell[..., None] == np.arange(self.first_ring, grid.m + 1)) * grid.weight[..., None]
        self._rings = tf.constant(rings.reshape(-1, rings.shape[-1]).astype(np.float32))

    @property
    def noise(self) -> NoiseEstimate:
        """Noise and density scale."""
        return NoiseEstimate(self.noise_power, self.scale, self.groups)

    def _on_particles(self, optics_group: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """What data are multiplied by (broadcasts to [B, 1, 2m+1, m+1]) and the scale (to [B, 1, 1, 1]), by
        optics group [B]."""
        if not self.groups:
            return self._on_data, float(self.scale[0])
        listed = tf.cast(tf.equal(optics_group[:, None], tf.cast(self.groups, optics_group.dtype)),
                         tf.float32)
        row = tf.argmax(tf.concat([tf.fill([tf.shape(optics_group)[0], 1], 0.5), listed], 1), 1)
        scale = tf.gather(tf.constant(self.scale, tf.float32), row)
        return tf.gather(tf.gather(self._on_data, row), self.grid.shell,
                         axis=1)[:, None], scale[:, None, None, None]

    def observe(self, images: tf.Tensor, ctf: tf.Tensor,
                optics_group: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Data D and transfer T of raw images.

        Parameters
        ----------
        images : [B, L, L]; ctf : [B, 9 or 10], CTF parameters; optics_group : int [B].

        Returns
        -------
        D [B, 2, 2m+1, m+1], T [B, 1, 2m+1, m+1]
        """
        ctf = tf.convert_to_tensor(ctf, tf.float32)
        factor, scale = self._on_particles(tf.convert_to_tensor(optics_group))
        data = transform(images * self._disc, self.grid) * factor
        transfer = ctf_values(ctf, self.grid.kx, self.grid.ky)[:, None]
        if not self.is_likelihood:
            return data * tf.sign(transfer), tf.ones_like(transfer)
        return data, transfer * (scale * factor)

    def value(self, data: tf.Tensor, model: tf.Tensor) -> tf.Tensor:
        """Agreement [B] of data with T-multiplied projections, both [B, 2, 2m+1, m+1]; larger is better."""
        if not self.is_likelihood:
            cross, power, data_power = (self._ring_sums(a)
                                        for a in (model * data, model * model, data * data))
            return tf.reduce_mean(cross * tf.math.rsqrt(power + TINY) * tf.math.rsqrt(data_power + TINY), -1)
        return tf.reduce_sum(self._weight * model * (data - 0.5 * model), (1, 2, 3))

    def _ring_sums(self, values: tf.Tensor) -> tf.Tensor:
        """[B, 2, 2m+1, m+1] to sums per ring from the first to the last [B, m + 1 - first_ring]."""
        return tf.matmul(tf.reshape(tf.reduce_sum(values, 1), [tf.shape(values)[0], -1]), self._rings)

    def by(self, objective: str) -> "Agreement":
        """The same images and noise by 'likelihood' or 'frc'."""
        return self if objective == self.objective else Agreement.from_state(dict(self.state(),
                                                                                  objective=objective))

    def to_resolution(self, resolution_angst: float) -> "Agreement":
        """The same by no ring finer than a resolution (Å); by all where nothing would be left of an optics
        group."""
        grid = FourierGrid.to_resolution(self.grid.box, self.grid.pixel_size, resolution_angst)
        if grid.m >= self.grid.m or not np.all(np.any(self.noise_power[:, self.first_ring:grid.m + 1] > 0,
                                                      1)):
            return self
        power = self.noise_power[:, :grid.m + 2] * (np.arange(grid.m + 2) <= grid.m)
        return Agreement(grid, self.objective, self.mask_diameter_angst, self.noise._replace(power=power),
                         self.first_ring)

    @functools.cached_property
    def coarse(self) -> "Agreement":
        """The same by no ring finer than COARSE_ANGST, which training starts from; by all where less than an
        octave would be left."""
        coarse = self.to_resolution(COARSE_ANGST)
        return coarse if coarse.grid.m >= 2 * self.first_ring else self

    @property
    def is_likelihood(self) -> bool:
        """Whether the value is a log-likelihood, in nats: what evidence and the decoder's description length
        are weighed with."""
        return self.objective == "likelihood"

    @property
    def contrast(self) -> str:
        """'white' or 'black': the sign of the particles' density."""
        return _contrast(self.scale[0])

    def figures(self) -> dict[str, Any]:
        """Density scale and contrast for a summary."""
        figures: dict[str, Any] = dict(scale=abs(float(self.scale[0])), contrast=self.contrast)
        if self.groups:
            by_group = [(str(group), float(scale)) for group, scale in zip(self.groups, self.scale[1:])]
            figures["scale_of_optics_group"] = {group: abs(scale) for group, scale in by_group}
            figures["contrast_of_optics_group"] = {group: _contrast(scale) for group, scale in by_group}
        return figures

    def state(self) -> dict[str, Any]:
        """What `from_state` needs, JSON-ready."""
        return dict(box=self.grid.box, pixel_size=self.grid.pixel_size, m=self.grid.m,
                    objective=self.objective, mask_diameter_angst=self.mask_diameter_angst,
                    noise_power=self.noise_power.tolist(), scale=self.scale.tolist(),
                    groups=list(self.groups), first_ring=self.first_ring)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Agreement":
        """The agreement that `state` describes; also of models saved when there was one noise power and scale
        for all particles."""
        grid = FourierGrid(state["box"], state["pixel_size"], state["m"])
        noise = NoiseEstimate(state["noise_power"], state["scale"], state.get("groups", ()))
        return cls(grid, state["objective"], state["mask_diameter_angst"], noise, state.get("first_ring", 1))


def _contrast(scale: float) -> str:
    return "white" if scale > 0 else "black"
