"""What the data say before training: noise per ring and density scale of every optics group, contrast, mask."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import check_strength
from gmmhet.engine.gmm.fitting import FitError
from gmmhet.engine.imaging.ctf import ctf_values, wavelength_angst
from gmmhet.engine.imaging.fourier import FourierGrid, soft_disc, transform
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.io.errors import listing
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.log import log

#: particles looked at: in all, of each optics group where there are several, and in all then
SAMPLE, GROUP_SAMPLE, MOST = 1024, 256, 8192
#: fewest particles from which an optics group's own noise and scale are estimated
FEWEST = 50
#: a density scale of fewer standard deviations says nothing
SIGNIFICANT = 5.0


def mask_diameter(particles, neutral, resolution_angst):
    """Diameter (Å) of a disc that holds the molecule, its shifts and what the CTF delocalises at the target resolution."""
    defocus = np.percentile(np.abs(particles.ctf[:, :2]), 95)
    spread = wavelength_angst(float(np.median(particles.ctf[:, 3]))) * defocus / resolution_angst
    shift = 2 * float(np.sqrt(np.mean(np.sum(particles.shift_angst**2, 1))))
    widest = particles.sampling.extent_angst - 12 * particles.pixel_size
    return float(min(2 * (neutral.radius_angst + spread + shift), widest))


def calibrate(particles, neutral, resolution_angst, diameter_angst, seed, coarsest_angst=0.0, conformations=None):
    """The likelihood's Agreement for a set of particles: noise and scale from a random sample at the neutral model.

    Parameters
    ----------
    particles : ParticleSet.
    neutral : Mixture.
    resolution_angst : float, target resolution.
    diameter_angst : float, of the mask; 0 takes `mask_diameter`.
    seed : int
    coarsest_angst : float, rings coarser than this count for nothing; 0 keeps all.
    conformations : callable, rows [B] to their mixtures (centers, amplitudes, widths), where more is known than the neutral model.

    Raises
    ------
    FitError
        when the particles are unrelated to the model, or no ring is left.
    """
    grid = FourierGrid.to_resolution(particles.box, particles.pixel_size, resolution_angst)
    diameter_angst = diameter_angst or mask_diameter(particles, neutral, resolution_angst)
    first_ring = max(1, int(round(grid.box * grid.pixel_size / coarsest_angst))) if coarsest_angst > 0 else 1
    rows, group = sample(particles.ctf[:, 10], seed)
    last_ring = _last_rings(particles, rows, grid)
    if last_ring.min() < first_ring:
        raise FitError("--min-resolution %g Å leaves no Fourier ring of optics group %d: the target resolution is %.3g Å, and its images "
                       "reach %.3g Å; give a coarser --min-resolution" % (
                           coarsest_angst, group[np.argmin(last_ring)], resolution_angst, grid.box * grid.pixel_size / last_ring.min()))
    disc = soft_disc(grid.box, grid.pixel_size, diameter_angst)
    same = tuple(tf.constant(part) for part in (neutral.centers, neutral.amplitudes, neutral.widths))
    mixtures = conformations or (lambda _: same)
    ring = np.arange(grid.m + 2)
    holds = (ring >= first_ring) & (ring <= last_ring[:, None])
    per_image = np.bincount(grid.shell.ravel(), grid.weight.ravel(), grid.m + 2)

    sums = _sums(particles, rows, mixtures, disc, grid)
    check_strength(particles.ids[rows], np.sqrt(sums[:, 0].sum(1)))
    noise, scale, groups = _by_group(sums, holds, group, per_image, float(np.mean(disc**2)))
    found = Agreement(grid, "likelihood", diameter_angst, noise, scale, groups, first_ring)
    _say(found)
    return found


def sample(group, seed):
    """Rows of a random sample (rising) that holds enough of every optics group, and their groups; group : [n], of each particle."""
    numbers, row = np.unique(group, return_inverse=True)
    most = SAMPLE if len(numbers) == 1 else max(SAMPLE // len(numbers), min(GROUP_SAMPLE, MOST // len(numbers)))
    order = np.random.default_rng([seed, 7]).permutation(len(group))
    chosen = np.sort(np.concatenate([order[row.reshape(-1)[order] == g][:most] for g in range(len(numbers))]))
    return chosen, group[chosen].astype(int)


def _last_rings(particles, rows, grid):
    """Last ring that holds data, of every particle of the rows [n]."""
    finest = particles.finest_frequency(rows)
    if finest is None:
        return np.full(len(rows), grid.m)
    return np.minimum(finest * grid.box * grid.pixel_size + 1e-6, grid.m).astype(int)


def _sums(particles, rows, conformations, disc, grid, batch_size=64):
    """`ring_sums` of the rows, [n, 3, m+2]."""
    found = []
    for i in range(0, len(rows), batch_size):
        part = rows[i:i + batch_size]
        data = transform(particles.read(part) * disc, grid)
        centers, amplitudes, widths = conformations(part)
        xy = place(centers, tf.constant(particles.rotation[part]), tf.constant(particles.shift_angst[part]))
        model = project(xy, amplitudes, widths, grid) * ctf_values(particles.ctf[part], grid.kx, grid.ky)[:, None]
        found.append(ring_sums(data, model, grid))
    return np.concatenate(found)


def _by_group(sums, holds, group, per_image, masked_share):
    """Noise power [1 + G, m+2], scale [1 + G] and the groups' numbers; no groups where all particles are alike.

    Parameters
    ----------
    sums : [n, 3, m+2]; holds : bool [n, m+2], rings with data; group : int [n]; per_image : [m+2], values in a ring.

    Raises
    ------
    FitError
        when the scale of all particles is within its error.
    """
    def estimate(chosen):
        held = holds[chosen]
        return estimate_noise(np.sum(sums[chosen] * held[:, None], 0), held.sum(0) * per_image, masked_share, held.any(0))

    noise, scale, error = estimate(np.arange(len(group)))
    if abs(scale) < SIGNIFICANT * error:
        raise FitError("the particles do not agree with the neutral model, neither as they are nor inverted (density scale %.3g, error "
                       "%.3g): is it the model of these particles, with their origin, handedness and orientations?" % (scale, error))
    numbers = np.unique(group)
    if len(numbers) == 1:
        return noise, scale, ()
    rows, scales = [noise], [scale]
    for number in numbers:
        chosen = np.flatnonzero(group == number)
        own = estimate(chosen) if len(chosen) >= FEWEST else (noise * holds[chosen[0]], scale, 0.0)
        rows.append(own[0])
        scales.append(own[1] if abs(own[1]) >= SIGNIFICANT * own[2] else scale)
    return np.stack(rows), np.array(scales), tuple(numbers.tolist())


def _say(found):
    """Log what was found; black contrast aloud."""
    power = found.noise_power[0][found.noise_power[0] > 0]
    log.info("mask %.0f Å, density scale %.4g, noise power %.4g (low) to %.4g (high resolution)", found.mask_diameter_angst, found.scale[0],
             power[0], power[-1])
    if found.groups:
        log.info("density scale by optics group: %s", listing(("%d: %.4g" % pair for pair in zip(found.groups, found.scale[1:])), 20))
    if found.contrast == "black":
        log.warning("the particles' contrast is black: they agree with the inverted map (density scale %.3g). They are used inverted",
                    found.scale[0])
    odd = [g for g, s in zip(found.groups, found.scale[1:]) if s * found.scale[0] < 0]
    if odd:
        log.warning("the contrast of optics group %s is opposite to the others'. Training, and all that is given its --model, use each "
                    "group with its own; 'fit --particles', and 'reconstruct' without --model, take images as they are: give them groups "
                    "of one contrast", listing(odd))


def ring_sums(data, model, grid):
    """Sums over each ring of ``|D|^2``, ``Re D M*`` and ``|M|^2``: all that the data say about noise and scale.

    Parameters
    ----------
    data, model : arrays [B, 2, 2m+1, m+1], transforms of masked images, and their CTF-multiplied projections.

    Returns
    -------
    float64 [B, 3, m+2].
    """
    rings = (grid.shell.reshape(-1, 1) == np.arange(grid.m + 2)) * grid.weight.reshape(-1, 1).astype(np.float64)
    data, model = np.asarray(data, np.float64), np.asarray(model, np.float64)
    products = [np.sum(a * b, axis=1).reshape(len(data), -1) for a, b in ((data, data), (data, model), (model, model))]
    return np.stack(products, axis=1) @ rings


def estimate_noise(sums, count, masked_share, used):
    """Noise power per ring and amplitude scale.

    Parameters
    ----------
    sums : array [3, m+2], `ring_sums` added up over particles.
    count : array [m+2], how many values each ring's sums are of.
    masked_share : float, mean square of the mask: masked white noise has this share of its power, and as many independent values.
    used : bool array [m+2], rings that hold data.

    Returns
    -------
    power [m+2] (0 where not used), scale, its standard deviation.

    Raises
    ------
    ValueError
        when a ring that is used holds nothing.
    """
    dd, dm, mm = (part[used] / count[used] for part in sums)
    scale, power = 0.0, dd
    for _ in range(4):
        power = dd - scale * (2 * dm - scale * mm)
        if not np.all(power > 0):
            raise ValueError("the particles hold no signal and no noise in some Fourier ring: are the images constant?")
        information = np.sum(count[used] * mm / power)
        scale = np.sum(count[used] * dm / power) / information
    found = np.zeros(len(used))
    found[used] = power / masked_share
    return found, float(scale), float(np.sqrt(1 / information))
