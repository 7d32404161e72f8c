"""To which cluster each latent point belongs by its image: where the image leaves z uncertain, z alone lies between clusters."""
import numpy as np
import tensorflow as tf
from scipy.stats import chi2

from gmmhet.engine.batching.batches import by_item, prefetched
from gmmhet.engine.batching.devices import find_devices
from gmmhet.engine.imaging.pose_change import changed
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.log import progress

#: most iterations for the populations, fewer where centers are compared, and the change of any population at which all stand still
ITERATIONS, ROUGHLY, STILL = 1000, 20, 1e-6
#: parts of the way from a cluster's mean to its sharpened center that are tried, and most times that all clusters are gone through
TRIED, ROUNDS = (0.0, 0.25, 0.5, 0.75, 1.0), 4
#: share of the prior that lies farther out than a center may
FARTHEST = 1e-3


def likelihoods(model, items, z, centers, change=None, words="clusters", batch_size=64, amplitudes=None):
    """How well each item's image agrees with the item being at each center.

    The other symmetry copies of a particle, where there are any, are at their own latent points.

    Parameters
    ----------
    model : HeterogeneityModel.
    items : Items, with the model's symmetry.
    z : [n_items, D], latent points of the items.
    centers : [K, D], latent points to compare.
    change : [n, 5], of the particles' poses (see `imaging.pose_change`), or None.
    words : str, for the progress.
    batch_size : int, particles.
    amplitudes : [K, N], in place of those at the centers.

    Returns
    -------
    float64 [n_items, K], log-likelihoods (nats) up to a constant of the item.
    """
    likelihood, copies, clusters, devices = model.likelihood, model.copies, len(centers), find_devices(alone=True)
    decoded = model.decode(centers)
    if amplitudes is not None:
        decoded = decoded[0], np.float32(amplitudes), decoded[2]
    units = model.unit(tuple(tf.constant(part) for part in decoded))

    def compare(images, rotation, shift, ctf, points, change):
        data, transfer = likelihood.observe(images, ctf)
        rotation, shift = changed(rotation, shift, change)
        turned = by_item(tf.einsum("bij,cjk->bcik", rotation, model.turns))
        shifts, transfers, left = (tf.repeat(part, copies, 0) for part in (shift, transfer, data))

        def drawn(centers, amplitudes, widths):
            return transfers * project(place(centers, turned, shifts), amplitudes, widths, likelihood.grid)
        if copies > 1:
            mixture = model.mixture(by_item(points))
            centers, amplitudes, widths = model.assembled(mixture)
            whole = transfer * project(place(centers, rotation, shift), amplitudes, widths, likelihood.grid)
            left += drawn(*model.unit(mixture)) - tf.repeat(whole, copies, 0)
        found = tf.map_fn(lambda unit: likelihood.value(left, drawn(unit[0], unit[1][None] + tf.zeros_like(shifts[:, :1]), unit[2])), units,
                          fn_output_signature=tf.float32)
        return tf.reshape(tf.transpose(found), [-1, copies, clusters]),

    shared, count = devices.compiled(compare), len(items.particles)
    change = np.zeros((count, 5), np.float32) if change is None else np.asarray(change, np.float32)
    batches = prefetched(items, np.arange(count), batch_size, np.asarray(z, np.float32), devices.own)
    parts = [shared(len(chosen), *batch, devices.own(change[chosen], batch_size))[0].numpy()
             for chosen, batch in progress(batches, -(-count // batch_size), words)]
    return np.concatenate(parts).reshape(len(items), -1).astype(np.float64)


def sharpened(z, covariance, labels, prior):
    """The most probable latent point of each cluster, if all its particles had the same.

    Each particle's z is its posterior's mean, drawn towards the prior's, and so is the mean over a cluster. Here the prior counts once for
    the cluster and not once for every particle: posteriors N(z_i, C_i) under the prior N(m, P^-1) come from likelihoods of precision
    ``C_i^-1 - P``. Where images tell next to nothing, that of small errors in C_i would lie anywhere: no center goes farther out than the
    mean over its cluster or all but FARTHEST of the prior.

    Parameters
    ----------
    z : [n, D]; covariance : [n, D, D]; labels : int [n], clusters from 1, 0 for none; prior : m [D], P [D, D].

    Returns
    -------
    [K, D], row 0 for label 1.
    """
    mean, precision = (np.asarray(part, float) for part in prior)

    def length(offset):
        return np.sqrt(offset @ precision @ offset)
    found, far = [], np.sqrt(chi2.ppf(1 - FARTHEST, len(mean)))
    for mine in (labels == k for k in range(1, labels.max() + 1)):
        off = z[mine] - mean
        value, vector = np.linalg.eigh(np.linalg.inv(np.asarray(covariance[mine], float)) - precision)
        told = np.einsum("nij,nj,nkj->nik", vector, np.maximum(value, 0), vector)
        offset = np.linalg.solve(precision + told.sum(0), np.einsum("nij,nj->i", told + precision, off))
        limit = max(far, length(off.mean(0)))
        found.append(mean + offset * min(1.0, limit / max(length(offset), 1e-12)))
    return np.stack(found)


def likeliest(compare, means, sharp):
    """Centers between the clusters' means and their sharpened centers, where the images are most likely.

    `sharpened` goes too far where a latent dimension says little and not evenly. Clusters are gone through in turn: each takes that of the
    TRIED places with which, at the populations that then fit best, all images are most likely.

    Parameters
    ----------
    compare : callable, centers [C, D] to log-likelihoods [n, C] (see `likelihoods`).
    means, sharp : [K, D].

    Returns
    -------
    [K, D]
    """
    number, share = np.arange(len(means)), np.array(TRIED)[:, None, None]
    places = means + share * (sharp - means)
    found = compare(places.reshape(-1, means.shape[1])).reshape(-1, *places.shape[:2])

    def evidence(choice):
        picked = found[:, choice, number]
        return np.mean(mixed(picked, memberships(picked, ROUGHLY)[1]))
    choice = np.full(len(means), len(TRIED) - 1)
    for _ in range(ROUNDS):
        before = choice.copy()
        for k in number:
            choice[k] = np.argmax([evidence(np.where(number == k, tried, choice)) for tried in range(len(TRIED))])
        if np.array_equal(choice, before):
            break
    return places[choice, number]


def two_levels(amplitudes, population):
    """Amplitudes [K, N] of K clusters that hold these shares [K] of the particles, each Gaussian's set to two values.

    A part is either there or not; what lies between is where the landscape has been smoothed, or has followed noise. Of each Gaussian the
    clusters are parted where the two means describe its amplitudes best, by least squares.
    """
    rows = np.argsort(amplitudes, axis=0)
    value, weight = np.take_along_axis(amplitudes, rows, 0), np.asarray(population)[rows]
    total, mass = np.cumsum(weight * value, 0), np.cumsum(weight, 0)
    low, high = total[:-1] / mass[:-1], (total[-1] - total[:-1]) / (mass[-1] - mass[:-1])
    split = np.argmax(mass[:-1] * low**2 + (mass[-1] - mass[:-1]) * high**2, axis=0)[None]
    levels = np.where(np.arange(len(rows))[:, None] <= split, np.take_along_axis(low, split, 0), np.take_along_axis(high, split, 0))
    found = np.empty_like(levels)
    np.put_along_axis(found, rows, levels, 0)
    return found


def mixed(likelihoods, population):
    """Log-likelihood of each item's image with the clusters [n, K] mixed at their populations [K], [n]."""
    most = likelihoods.max(1)
    return most + np.log(np.exp(likelihoods - most[:, None]) @ population)


def memberships(likelihoods, iterations=ITERATIONS):
    """How probable each cluster is for each item, and the clusters' populations: the most likely ones, found by expectation maximisation.

    Parameters
    ----------
    likelihoods : [n, K], log-likelihoods (nats).
    iterations : int, at most.

    Returns
    -------
    probability [n, K], population [K]; each sums to 1.
    """
    share = np.exp(likelihoods - likelihoods.max(1, keepdims=True))
    population = np.full(share.shape[1], 1 / share.shape[1])
    for _ in range(iterations):
        joint = share * population
        probability = joint / joint.sum(1, keepdims=True)
        before, population = population, probability.mean(0)
        if np.abs(population - before).max() < STILL:
            break
    return probability, population
