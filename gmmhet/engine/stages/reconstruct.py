"""The `reconstruct` stage: a map of a subset of the particles, its half maps and their FSC."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.imaging.fsc import fsc_curve, masked_fsc_curve, resolution_at, soft_sphere, write_fsc_csv
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.log import log
from gmmhet.engine.reconstruction.backprojection import accumulate, use_threads
from gmmhet.engine.reconstruction.contrast import map_contrast, whitening_signs
from gmmhet.engine.reconstruction.selection import ReconstructError, read_subset

THRESHOLD = 0.143


def reconstruct_subset(config, run):
    """Reconstruct the particles that the flags choose and write what `rundir.FILES` lists for the stage.

    Maps have the particles' common pixel size and box, that of most of them where optics groups differ. With a model, images of black
    contrast are used inverted, by optics group, as training did, so that maps are white like the model; without one images are used as
    they are.

    Parameters
    ----------
    config : ReconstructConfig
    run : RunDir, made when every check has passed.

    Returns
    -------
    summary : dict, also written as summary.json.

    Raises
    ------
    ReconstructError, ParticleError, MapError
        when the flags, the particles or the mask cannot be used.
    """
    symmetry_matrices(config.symmetry)
    particles, words = read_subset(config)
    particles, halves_from = with_halves(particles, config.seed)
    mask = fsc_mask(config.mask, particles.box, particles.pixel_size)
    run.create()
    use_threads(config.threads)
    log.info("Reconstructing %s: %d particles, box %d px, %g Å/px, symmetry %s. Half sets: %s.", words, len(particles), particles.box,
             particles.pixel_size, config.symmetry, halves_from)
    trained = rundir.read_json(os.path.join(config.model, rundir.SUMMARY)) if config.model else {}
    half1, half2, whole = _maps(particles, config, whitening_signs(particles.ctf[:, 10], trained))
    contrast = trained.get("contrast") or _contrast(whole)
    for name, volume in ((rundir.MAP, whole), (rundir.HALF1, half1), (rundir.HALF2, half2)):
        write_map(run(name), volume, particles.pixel_size)
    particles.write_star(run(rundir.STAR))
    curves = {"fsc_unmasked": fsc_curve(half1, half2), "fsc_masked": masked_fsc_curve(half1, half2, mask)}
    write_fsc_csv(run(rundir.FSC), particles.box, particles.pixel_size, **curves)
    summary = dict(_summary(config, particles, words, halves_from, curves), contrast=contrast)
    run.write_summary(summary)
    log.info("Resolution at FSC %g: %s masked, %s unmasked.", THRESHOLD, _said(summary["resolution_angst"]),
             _said(summary["resolution_unmasked_angst"]))
    return summary


def with_halves(particles, seed):
    """Particles with a half set each: the star file's where it has them, else drawn by `seed`.

    Returns
    -------
    particles : ParticleSet
    words : str, where the half sets come from.

    Raises
    ------
    ReconstructError
        when a half set would be empty.
    """
    unknown = np.flatnonzero(particles.half == 0)
    words = "rlnRandomSubset of the star file"
    if len(unknown):
        half = particles.half.copy()
        half[unknown] = np.random.default_rng(seed).permutation(len(unknown)) % 2 + 1
        particles = particles.with_half(half)
        words = "drawn at random with seed %d" % seed
        if len(unknown) < len(particles):
            words = "rlnRandomSubset, and for %d particles without it %s" % (len(unknown), words)
    counts = [int(np.sum(particles.half == half)) for half in (1, 2)]
    if 0 in counts:
        raise ReconstructError("half set %d of the subset has no particles (the other has %d): half maps need particles in both; "
                               "choose a larger subset" % (1 + counts.index(0), max(counts)))
    return particles, words


def fsc_mask(path, box, pixel_size):
    """The mask for the FSC [L, L, L]: the map at `path`, or a soft sphere.

    Raises
    ------
    ReconstructError
        when the mask does not have the particles' box and pixel size, or its values leave 0 to 1.
    """
    if not path:
        return soft_sphere(box)
    mask, mask_pixel_size = read_map(path)
    if len(mask) != box or abs(mask_pixel_size - pixel_size) > 1e-3 * pixel_size:
        raise ReconstructError("--mask %s has box %d px and %g Å/px, but the particles have box %d px and %g Å/px: rescale the mask" % (
            path, len(mask), mask_pixel_size, box, pixel_size))
    if mask.min() < -1e-3 or mask.max() > 1.001 or not mask.any():
        raise ReconstructError("--mask %s must have values from 0 to 1 and not only 0, got %g to %g" % (path, mask.min(), mask.max()))
    return mask


def _maps(particles, config, signs):
    """The two half maps and the map of all, of images times their signs [n]; two sets of sums are in memory at most."""
    def sums_of(half):
        rows = np.flatnonzero(particles.half == half)
        return accumulate(particles, rows, config.symmetry, config.padding, label="Half map %d" % half, factor=signs)

    first = sums_of(1)
    half1 = first.map()
    second = sums_of(2)
    half2 = second.map()
    first.merge(second)
    return half1, half2, first.map()


def _contrast(volume):
    """The particles' contrast as their map shows it; black contrast is said aloud."""
    contrast = map_contrast(volume)
    if contrast == "black":
        log.warning("the map's density is negative: the particles' contrast is black. 'train' uses such particles inverted, but a map for "
                    "'fit' must be white: invert it (relion_image_handler --i map.mrc --o white.mrc --multiply_constant -1)")
    return contrast


def _summary(config, particles, words, halves_from, curves):
    """Figures of the run; a resolution is None where the curve is below the threshold from the first shell on."""
    resolution = {name: resolution_at(curve, THRESHOLD, particles.box, particles.pixel_size) for name, curve in curves.items()}
    known = {name: round(value, 3) if np.isfinite(value) else None for name, value in resolution.items()}
    return {
        "stage": "reconstruct", "particles": len(particles),
        "half1": int(np.sum(particles.half == 1)), "half2": int(np.sum(particles.half == 2)),
        "chosen": words, "half_sets": halves_from, "symmetry": config.symmetry,
        "box": particles.box, "pixel_size": particles.pixel_size, "fsc_threshold": THRESHOLD,
        "resolution_angst": known["fsc_masked"], "resolution_unmasked_angst": known["fsc_unmasked"],
        "fsc_mask": config.mask or "soft sphere", "seed": config.seed}


def _said(resolution):
    return "none" if resolution is None else "%.2f Å" % resolution
