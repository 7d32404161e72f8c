"""Noise per ring and density scale of every optics group, contrast and mask: what the data say before
training."""
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import check_strength
from gmmhet.engine.gmm.fitting import FitError
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.ctf import ctf_values, wavelength_angst
from gmmhet.engine.imaging.fourier import FourierGrid, soft_disc, transform
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import project_mixture
from gmmhet.engine.io.errors import listing
from gmmhet.engine.likelihood.agreement import Agreement, NoiseEstimate
from gmmhet.engine.likelihood.conformations import Conformations, SingleConformation
from gmmhet.engine.log import log

#: particles looked at: in all, and of each optics group where there are several
SAMPLE, GROUP_SAMPLE = 1024, 256
#: particles looked at where there are several optics groups, in all
LARGEST_SAMPLE = 8192
#: fewest particles from which an optics group's own noise and scale are estimated
FEWEST_IN_GROUP = 50
#: a density scale of fewer standard deviations says nothing
SIGNIFICANT = 5.0


def mask_diameter(particles: Any, neutral: Mixture, resolution_angst: float) -> float:
    """Diameter (Å) of a disc that holds the molecule, its shifts and what the CTF delocalises at the target
    resolution."""
    defocus = np.percentile(np.abs(particles.ctf[:, :2]), 95)
    delocalised = wavelength_angst(float(np.median(particles.ctf[:, 3]))) * defocus / resolution_angst
    shift = 2 * float(np.sqrt(np.mean(np.sum(particles.shift_angst**2, 1))))
    widest = particles.sampling.extent_angst - 12 * particles.pixel_size
    return float(min(2 * (neutral.radius_angst + delocalised + shift), widest))


class ResolutionBand(NamedTuple):
    """Resolutions that count, Å: down to the target, and no coarser than the other (0: no limit)."""

    target_angst: float
    coarsest_angst: float = 0.0


def estimate_noise_and_scale(particles: Any, neutral: Mixture, band: ResolutionBand, diameter_angst: float,
                             seed: int, conformations: "Conformations | None" = None) -> Agreement:
    """The likelihood's Agreement for a set of particles: noise and density scale from a random sample at the
    neutral model.

    Parameters
    ----------
    particles : ParticleSet.
    neutral : Mixture.
    band : ResolutionBand.
    diameter_angst : of the soft mask on the images; 0 takes `mask_diameter`.
    seed : of the sample.
    conformations : Conformations, where more is known of each particle than the neutral model.

    Raises
    ------
    FitError
        when the particles are unrelated to the model, or no ring is left.
    """
    grid = FourierGrid.to_resolution(particles.box, particles.pixel_size, band.target_angst)
    diameter_angst = diameter_angst or mask_diameter(particles, neutral, band.target_angst)
    edge_angst = grid.box * grid.pixel_size
    first_ring = max(1, int(round(edge_angst / band.coarsest_angst))) if band.coarsest_angst > 0 else 1
    rows, group = sample(particles.optics_group, seed)
    last_ring = _last_rings(particles, rows, grid)
    if last_ring.min() < first_ring:
        raise FitError("--min-resolution %g Å leaves no Fourier ring of optics group %d: the target "
                       "resolution is %.3g Å, and its images reach %.3g Å; give a coarser "
                       "--min-resolution" % (
                           band.coarsest_angst, group[np.argmin(last_ring)], band.target_angst,
                           edge_angst / last_ring.min()))
    disc = soft_disc(grid.box, grid.pixel_size, diameter_angst)
    ring = np.arange(grid.m + 2)
    holds = (ring >= first_ring) & (ring <= last_ring[:, None])
    per_image = np.bincount(grid.shell.ravel(), grid.weight.ravel(), grid.m + 2)

    sums = _sample_sums(particles, rows, conformations or SingleConformation(neutral), disc, grid)
    check_strength(particles.ids[rows], np.sqrt(sums[:, 0].sum(1)))
    noise = _by_group(sums, holds, group, per_image, float(np.mean(disc**2)))
    agreement = Agreement(grid, "likelihood", diameter_angst, noise, first_ring)
    _log_estimates(agreement)
    return agreement


def sample(group: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a random sample (rising) that holds enough of every optics group, and their groups; group :
    [n], of each particle."""
    numbers, row = np.unique(group, return_inverse=True)
    most = SAMPLE if len(numbers) == 1 else max(SAMPLE // len(numbers),
                                                min(GROUP_SAMPLE, LARGEST_SAMPLE // len(numbers)))
    order = np.random.default_rng([seed, 7]).permutation(len(group))
    chosen = np.sort(np.concatenate([order[row.reshape(-1)[order] == g][:most] for g in range(len(numbers))]))
    return chosen, group[chosen].astype(int)


def _last_rings(particles: Any, rows: np.ndarray, grid: FourierGrid) -> np.ndarray:
    """Last ring that holds data, of every particle of the rows [n]."""
    finest = particles.finest_frequency(rows)
    if finest is None:
        return np.full(len(rows), grid.m)
    return np.minimum(finest * grid.box * grid.pixel_size + 1e-6, grid.m).astype(int)


def _sample_sums(particles: Any, rows: np.ndarray, conformations: Conformations, disc: np.ndarray,
                 grid: FourierGrid) -> np.ndarray:
    """`ring_sums` of the particles of the rows, [n, 3, m+2]."""
    chunks = []
    for i in range(0, len(rows), 64):
        chunk = rows[i:i + 64]
        data = transform(particles.read(chunk) * disc, grid)
        pose = Pose(tf.constant(particles.rotation[chunk]), tf.constant(particles.shift_angst[chunk]))
        transfer = ctf_values(particles.ctf[chunk], grid.kx, grid.ky)[:, None]
        model = project_mixture(conformations.at(chunk), pose, grid) * transfer
        chunks.append(ring_sums(data, model, grid))
    return np.concatenate(chunks)


def _by_group(sums: np.ndarray, holds: np.ndarray, group: np.ndarray, per_image: np.ndarray,
              masked_share: float) -> NoiseEstimate:
    """Noise power and scale of all particles, and of each optics group where there are several.

    Parameters
    ----------
    sums : [n, 3, m+2]; holds : bool [n, m+2], rings with data; group : int [n]; per_image : [m+2], values in
        a ring.

    Raises
    ------
    FitError
        when the scale of all particles is within its error.
    """
    def estimate(chosen: np.ndarray) -> tuple[np.ndarray, float, float]:
        held = holds[chosen]
        total = np.sum(sums[chosen] * held[:, None], 0)
        return estimate_noise(total, held.sum(0) * per_image, masked_share, held.any(0))

    power, scale, error = estimate(np.arange(len(group)))
    if abs(scale) < SIGNIFICANT * error:
        raise FitError("the particles do not agree with the neutral model, neither as they are nor inverted "
                       "(density scale %.3g, error %.3g): is it the model of these particles, with their "
                       "origin, handedness and orientations?" % (scale, error))
    numbers = np.unique(group)
    if len(numbers) == 1:
        return NoiseEstimate(power, scale)
    powers, scales = [power], [scale]
    for number in numbers:
        chosen = np.flatnonzero(group == number)
        own = estimate(chosen) if len(chosen) >= FEWEST_IN_GROUP else (power * holds[chosen[0]], scale, 0.0)
        powers.append(own[0])
        scales.append(own[1] if abs(own[1]) >= SIGNIFICANT * own[2] else scale)
    return NoiseEstimate(np.stack(powers), np.array(scales), tuple(numbers.tolist()))


def _log_estimates(agreement: Agreement) -> None:
    """Log what was estimated; black contrast aloud."""
    power, scale = agreement.noise_power[0][agreement.noise_power[0] > 0], agreement.scale[0]
    log.info("mask %.0f Å, density scale %.4g, noise power %.4g (low) to %.4g (high resolution)",
             agreement.mask_diameter_angst, scale, power[0], power[-1])
    by_group = list(zip(agreement.groups, agreement.scale[1:]))
    if by_group:
        log.info("density scale by optics group: %s", listing(("%d: %.4g" % pair for pair in by_group), 20))
    if agreement.contrast == "black":
        log.warning("the particles' contrast is black: they agree with the inverted map (density scale "
                    "%.3g). They are used inverted",
                    scale)
    opposite = [number for number, own in by_group if own * scale < 0]
    if opposite:
        log.warning("the contrast of optics group %s is opposite to the others'. Training, and all that is "
                    "given its --model, use each group with its own; 'fit --particles', and 'reconstruct' "
                    "without --model, take images as they are: give them groups of one "
                    "contrast", listing(opposite))


def ring_sums(data: Any, model: Any, grid: FourierGrid) -> np.ndarray:
    """Sums over each ring of ``|D|^2``, ``Re D M*`` and ``|M|^2``: all that the data say about noise and
    scale.

    Parameters
    ----------
    data, model : arrays [B, 2, 2m+1, m+1], transforms of masked images, and their CTF-multiplied projections.

    Returns
    -------
    float64 [B, 3, m+2].
    """
    rings = (grid.shell.reshape(-1, 1) == np.arange(grid.m + 2)) * grid.weight.reshape(-1,
                                                                                       1).astype(np.float64)
    data, model = np.asarray(data, np.float64), np.asarray(model, np.float64)
    pairs = (data, data), (data, model), (model, model)
    products = [np.sum(a * b, axis=1).reshape(len(data), -1) for a, b in pairs]
    return np.stack(products, axis=1) @ rings


def estimate_noise(
        sums: np.ndarray, count: np.ndarray, masked_share: float,
        used: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Noise power per ring and density scale, by turns the most likely one at the other.

    Parameters
    ----------
    sums : array [3, m+2], `ring_sums` added up over particles.
    count : array [m+2], how many values each ring's sums are of.
    masked_share : mean square of the mask: masked white noise has this share of its power.
    used : bool array [m+2], rings that hold data.

    Returns
    -------
    power [m+2] (0 where not used), scale, and the scale's standard deviation, as if all values were
    independent.

    Raises
    ------
    ValueError
        when a ring that is used holds nothing.
    """
    dd, dm, mm = (products[used] / count[used] for products in sums)
    scale, power = 0.0, dd
    for _ in range(4):
        power = dd - scale * (2 * dm - scale * mm)
        if not np.all(power > 0):
            raise ValueError("the particles hold no signal and no noise in some Fourier ring: are the "
                             "images constant?")
        information = np.sum(count[used] * mm / power)
        scale = np.sum(count[used] * dm / power) / information
    unmasked = np.zeros(len(used))
    unmasked[used] = power / masked_share
    return unmasked, float(scale), float(np.sqrt(1 / information))
