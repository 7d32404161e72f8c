"""How near a result comes to the truth of a `systems.System`: oracle, motion of the decoded Gaussians, FSC
inside the moving region."""
import numpy as np
import tensorflow as tf
from scipy.special import logsumexp
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, transform
from gmmhet.engine.imaging.fsc import masked_fsc_curve
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.latent.cluster import kmeans_labels
from gmmhet.engine.log import progress
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.reconstruction.backprojection import ReconstructionSettings, backproject
from gmmhet.engine.simulate.physics import plain_r2, rigid_rotations
from gmmhet.engine.simulate.scores import information, rank_correlation

#: state whose map is compared, for sets without a moving domain, and where a domain stands in it, as a share
#: of its largest angle
SHOWN_STATE, SHOWN_SHARE = 3, 0.6
#: share of the particles that show a state
NEAR_SHARE = 0.1
#: neighbours in z that tell a particle's state
NEIGHBOURS = 25


def likelihoods(system, particles, points=25, batch_size=32, resolution_angst=0.0):
    """How likely every coordinate of the system's grid, and single models, are for every particle, whose
    noise is white with variance 1.

    The same as in `gmmhet.engine.simulate.oracle.posterior`, all rings below Nyquist (or up to a resolution)
    and no mask, but made from the images of the components of which all grid points are sums, which is what
    two movers or a large molecule need.

    Returns
    -------
    coordinates [G, 1 + movers], log p(image, coordinate) [n, G], and log p(image) of the mean density of all
    particles and of those of each state [n, 1 + states]; but for a constant of the image.
    """
    coordinates, prior = system.grid(points)
    parts, uses = system.components(coordinates)
    state = np.arange(len(system.states))[:, None] == coordinates[:, 0]
    shares = np.concatenate([prior[None], prior * state / (state @ prior)[:, None]])
    held = tf.constant(np.concatenate([uses, shares @ uses]).astype(np.float32))
    grid = FourierGrid.to_resolution(particles.box, particles.pixel_size, resolution_angst)
    root_weight, values = tf.constant(np.sqrt(grid.weight)), 2 * grid.shape[0] * grid.shape[1]

    @tf.function(reduce_retracing=True, autograph=False)
    def log_likelihoods(images, rotation, shift, ctf):
        data, transfer = root_weight * transform(images,
                                                 grid), root_weight * ctf_values(ctf, grid.kx,
                                                                                 grid.ky)[:, None]
        drawn = tf.stack([tf.reshape(transfer * system.project(m, Pose(rotation, shift), grid),
                                     [-1, values]) for m in parts], 1)
        cross, gram = tf.einsum("bpk,bk->bp", drawn,
                                tf.reshape(data, [-1, values])), tf.matmul(drawn, drawn, transpose_b=True)
        return tf.matmul(cross, held,
                         transpose_b=True) - 0.5 * tf.reduce_sum(tf.einsum("gp,bpq->bgq", held, gram) * held,
                                                                 2)

    chunks = []
    for start in progress(range(0, len(particles), batch_size), -(-len(particles) // batch_size), "oracle"):
        rows = np.arange(start, min(start + batch_size, len(particles)))
        chunks.append(log_likelihoods(particles.read(rows), particles.rotation[rows],
                                      particles.shift_angst[rows], particles.ctf[rows]))
    found = np.concatenate(chunks).astype(np.float64)
    return coordinates, found[:, :len(coordinates)] + np.log(prior), found[:, len(coordinates):]


def evidence(system, coordinates, log_p, single, state):
    """By how much the system explains particles better than one density does, nats [n, 2]: than the mean of
    all, and, the state [n] of each being known, than the mean of its state. Arrays as of `likelihoods`."""
    own = logsumexp(np.where(coordinates[:, 0] == state[:, None], log_p, -np.inf), axis=1)
    own -= np.log([s.population for s in system.states])[state]
    return np.stack([logsumexp(log_p, axis=1) - single[:, 0], own - single[np.arange(len(state)), 1 + state]],
                    1)


def estimates(system, coordinates, p):
    """The oracle's answer: most probable state [n], and posterior mean of each mover's angle where the mover
    is there, [n, movers]."""
    number = coordinates[:, 0].astype(int)
    state = np.argmax(np.stack([p[:, number == s].sum(1) for s in range(len(system.states))], 1), axis=1)
    angles = []
    for j, mover in enumerate(system.movers):
        there = np.array([not s.absent[mover.members].any() for s in system.states])[number]
        angles.append(p[:, there] @ coordinates[there, 1 + j] / np.maximum(p[:, there].sum(1), 1e-12))
    return dict(state=state, angles=np.stack(angles, 1) if angles else np.zeros((len(p), 0)))


def true_displacements(mover, points, angles_deg):
    """Displacement of points [P, 3] of a mover at angles [n], [n, P, 3] Å."""
    moved = mover.turned(np.tile(points, (len(angles_deg), 1)), np.repeat(angles_deg, len(points)))
    return moved.reshape(len(angles_deg), len(points), 3) - points


def decoded_motion(model, z, system, movers, truth, batch_size=256):
    """Angles that the decoded Gaussians show, with no regression, and how far each Gaussian is from where it
    should be.

    Everything is seen from what does not move. The error leaves out each Gaussian's mean over the particles:
    the neutral model's own.

    Parameters
    ----------
    z : [n, D]; movers : numbers (from 0) of the movers to look at; truth : [n, len(movers)], true angles.

    Returns
    -------
    angles [n, len(movers)] in degrees, rms coordinate error [len(movers)] and rms true displacement
    [len(movers)], both in Å.
    """
    neutral, owner = model.neutral, system.owners(model.neutral.centers)
    rest, mine = owner == 0, [(owner == j + 1) & model.free for j in movers]
    weights = [neutral.amplitudes[m] / neutral.amplitudes[m].sum() for m in mine]
    angles, sums = [], [np.zeros((2, 2, m.sum(), 3)) for m in mine]   # (error, truth) x (sum, sum of squares)
    for i in range(0, len(z), batch_size):
        centers, amplitudes, _ = model.decode(z[i:i + batch_size])
        turn = rigid_rotations(neutral.centers[rest], centers[:, rest], amplitudes[:, rest]).as_matrix()
        share = amplitudes[:, rest] / amplitudes[:, rest].sum(1, keepdims=True)
        middle = np.einsum("np,npi->ni", share, centers[:, rest])[:, None]
        seen = np.einsum("nji,npj->npi", turn, centers - middle) + (share @ neutral.centers[rest])[:, None]
        found = []
        for k, j in enumerate(movers):
            own = neutral.centers[mine[k]]
            found.append(np.degrees(rigid_rotations(own, seen[:, mine[k]],
                                                    amplitudes[:, mine[k]]).as_rotvec()
                                    @ system.movers[j].axis))
            wanted = true_displacements(system.movers[j], own, truth[i:i + batch_size, k])
            for row, values in enumerate((seen[:, mine[k]] - own - wanted, wanted)):
                sums[k][row] += values.sum(0), (values**2).sum(0)
        angles.append(np.stack(found, 1))
    spread = [np.sqrt(np.einsum("rpi,p->r", s[:, 1] / len(z) - (s[:, 0] / len(z)) ** 2, w))
              for s, w in zip(sums, weights)]
    return np.concatenate(angles), np.array([s[0] for s in spread]), np.array([s[1] for s in spread])


def oracle_error(system, movers, truth, estimate):
    """Coordinate error (Å, rms) of the movers' atoms when they are turned by the oracle's angles,
    [len(movers)]."""
    found = []
    for k, j in enumerate(movers):
        mover = system.movers[j]
        points, weight = system.points(j)
        off = true_displacements(mover, points,
                                 estimate[:, k]) - true_displacements(mover, points, truth[:, k])
        found.append(np.sqrt(np.average(off.var(0).sum(-1), weights=weight)))
    return np.array(found)


def amplitude_spread(model, z, most=2000):
    """Root mean square change of the free amplitudes over the particles, as a fraction of their mean."""
    chosen = z[np.linspace(0, len(z) - 1, min(most, len(z))).astype(int)]
    amplitudes = np.concatenate([model.decode(chosen[i:i + 200])[1][:, model.free]
                                 for i in range(0, len(chosen), 200)])
    return float(np.sqrt(np.mean(amplitudes.var(0))) / amplitudes.mean())


def end_bias(decoded, truth, chosen_by):
    """Mean decoded minus mean true angle in the tenth of the particles at either end of `chosen_by` [n], rms
    over the two ends, degrees."""
    order = np.argsort(chosen_by)
    ends = order[:max(len(order) // 10, 1)], order[-max(len(order) // 10, 1):]
    return float(np.sqrt(np.mean([np.mean(decoded[e] - truth[e]) ** 2 for e in ends])))


def mean_fsc(volume, truth, mask):
    """Mean FSC inside the mask over the shells up to three pixels."""
    return float(masked_fsc_curve(volume, truth, mask)[1:len(truth) // 3 + 1].mean())


def rms(values):
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


# What follows takes a case (system, true coordinates and the oracle's estimates; ids are row numbers from 1)
# and a run (model and latents).

def items(case, run):
    """Latent points of a run with their truth: rows of the set [n], copy [n], z [n, D]; ids are row numbers
    from 1."""
    return run["latents"].ids - 1, run["latents"].copy, run["latents"].z


def free_unit(model, system):
    """The mover (from 0) that the free Gaussians stand for most."""
    owner = system.owners(model.neutral.centers)
    return int(np.argmax([model.neutral.amplitudes[(owner == j + 1) & model.free].sum()
                          for j in range(len(system.movers))]))


def units_of_copies(system, free):
    """The mover (from 0) that each symmetry copy of a particle has in the place of the free one, [copies]."""
    middle = np.stack([system.points(j)[0].mean(0) for j in range(len(system.movers))])
    return np.argmin(np.linalg.norm((symmetry_matrices(system.symmetry) @ middle[free])[:, None] - middle,
                                    axis=2), axis=1)


def aligned(case, run):
    """Movers to look at, and per item the set's row, z, true and the oracle's angles [n, len(movers)].

    Under symmetry these are the angles of the unit that a copy's orientation brings to the place of the free
    one.
    """
    row, copy, z = items(case, run)
    true, oracle = case.coordinates[:, 1:], case.oracle["angles"]
    if case.system.symmetry == "c1":
        return list(range(len(case.system.movers))), row, z, true[row], oracle[row]
    free = free_unit(run["model"], case.system)
    unit = units_of_copies(case.system, free)[copy]
    return [free], row, z, true[row, unit][:, None], oracle[row, unit][:, None]


def motion_scores(case, run):
    """Scores of a set whose domains move; also the decoded angles [n, movers]."""
    movers, row, z, true, oracle = aligned(case, run)
    if case.system.name == "mixed":    # the subset may hold particles without the domain, which have no angle
        there = np.array([bool(s.moves) for s in case.system.states])[case.coordinates[row, 0].astype(int)]
        row, z, true, oracle = row[there], z[there], true[there], oracle[there]
    angles, error, still = decoded_motion(run["model"], z, case.system, movers, true)
    columns = range(len(movers))
    found = dict(
        info=[np.mean([information(v, true[:, k]) for k in columns]) for v in (z, oracle)],
        angle_r2=[np.mean([plain_r2(v[:, k], true[:, k]) for k in columns]) for v in (angles, oracle)],
        angle_rms_deg=[rms(v - true) for v in (angles, oracle)],
        end_bias_deg=[np.mean([end_bias(v[:, k], true[:, k], by[:, k]) for k in columns]) for v, by in (
            (angles, angles), (angles, true), (oracle, true))],
        coordinate_error_angst=[rms(error), rms(oracle_error(case.system, movers, true, oracle)), rms(still)])
    if len(movers) == 1:
        found["rank"] = [rank_correlation(v, true[:, 0]) for v in (z, oracle)]
    if case.system.symmetry != "c1":
        count = len(case.system.movers)
        place = units_of_copies(case.system, movers[0])[items(case, run)[1]]
        state, away = (
            case.coordinates[:, 0],
            1 - run["landscape"]["probability"][:, 0],
        )  # the largest cluster is that of rest

        def right(values):
            table = np.zeros((len(state), count))
            table[row, place] = values
            return np.mean(np.argmax(table, 1) == state)
        found["unit"] = [right(away), np.mean(case.oracle["state"] == state)]
        found["unit_by_z"] = [right(np.abs(angles[:, 0] - angles[:, 0].mean())), found["unit"][1]]
    return found, angles


def evidence_scores(case, run, of_state):
    """Evidence over a single model on the particles that a run held out, ours and the oracle's (see
    `evidence`); None where a set was simulated without.

    of_state : bool, whether the run is of particles of which the earlier stages have found the state.
    """
    if case.oracle.get("evidence") is None:
        return None
    row = np.unique(items(case, run)[0][run["latents"].held_out])
    return [run["summary"]["held_out_evidence"], float(np.mean(case.oracle["evidence"][row, int(of_state)]))]


def state_scores(case, run):
    """Adjusted Rand index of as many clusters as states, by image and by z; also the clusters by image."""
    row, _, z = items(case, run)
    label, state = run["landscape"]["label"] - 1, case.coordinates[row, 0].astype(int)
    by_z = kmeans_labels(z, len(case.system.states), 1)
    oracle = case.oracle["state"][row]
    found = [adjusted_rand_score(state, v) for v in (label, by_z, oracle)]
    return dict(ari=[found[0], found[2]], ari_by_z=[found[1], found[2]],
                neighbours=[neighbour_accuracy(z, state), float(np.mean(oracle == state))]), label


def neighbour_accuracy(z, state):
    """Share of the particles [n] whose state is that of most of their 25 neighbours in z [n, D], of which the
    neighbours are from the other random half."""
    order = np.random.default_rng(0).permutation(len(z))
    halves = order[::2], order[1::2]
    model = KNeighborsClassifier(min(NEIGHBOURS, len(halves[1])))
    return float(np.mean([model.fit(z[fit], state[fit]).score(z[test], state[test])
                          for fit, test in (halves, halves[::-1])]))


def own_motion(model, ends, inside):
    """Share of the squared displacement between the latent points [2, D], by mass, of the Gaussians `inside`
    [N]."""
    first, last = model.decode(np.float32(ends))[0]
    energy = model.neutral.amplitudes * np.sum((last - first) ** 2, 1)
    return float(energy[inside].sum() / energy.sum())


def region_fsc(case, star, run, shown):
    """FSC inside the moving region with the true map of one state: consensus, particles near it in z,
    particles truly nearest.

    Parameters
    ----------
    shown : decoded angles [n, movers] or cluster labels [n] of the run's items.
    """
    system, particles = case.system, read_particles(star)
    row, copy, z = items(case, run)
    count = max(int(NEAR_SHARE * len(particles)), 50)
    if system.movers:
        movers, row, z, true, _ = aligned(case, run)
        there = ~np.isin(case.coordinates[row, 0],
                         [s for s, state in enumerate(system.states) if not state.moves])
        row, copy, z, true = row[there], copy[there], z[there], true[there]
        wanted = np.array([SHOWN_SHARE * system.movers[j].angle_deg for j in movers])
        coordinate = np.zeros(1 + len(system.movers))
        coordinate[1 + np.array(movers)] = wanted
        middle = z[np.argsort(np.linalg.norm(shown - wanted, axis=1))[:max(count // 10, 5)]].mean(0)
        truly = np.argsort(np.linalg.norm(true - wanted, axis=1))[:count]
    else:
        coordinate, state = np.array([SHOWN_STATE]), case.coordinates[row, 0].astype(int)
        cluster = np.argmax([np.sum(state[shown == k] == SHOWN_STATE) / np.sqrt(max(np.sum(shown == k), 1))
                             for k in range(len(system.states))])
        middle, truly = z[shown == cluster].mean(0), np.flatnonzero(state == SHOWN_STATE)[:count]
    near = np.argsort(np.linalg.norm(z - middle, axis=1))[:count]
    turn = symmetry_matrices(system.symmetry)
    at = particles.with_poses(particles.rotation.astype(float), particles.shift_angst)

    def of(chosen):
        part = at.select(row[chosen])
        return backproject(part.with_poses(part.rotation.astype(float) @ turn[copy[chosen]],
                                           part.shift_angst), np.arange(len(chosen)))
    grid = particles.box, particles.pixel_size
    truth, mask = system.true_map(coordinate, *grid), system.region_mask(*grid)
    consensus = backproject(particles, np.arange(len(particles)), ReconstructionSettings(system.symmetry))
    return [mean_fsc(volume, truth, mask) for volume in (consensus, of(near), of(truly))]


def spurious(null, runs, name):
    """How much the null set varies: dict with the unit, its figure and the real set's."""
    by_amplitude = name == "assembly"
    figure = (
        (lambda r: amplitude_spread(r["model"], r["latents"].z))
        if by_amplitude
        else (lambda r: r["summary"]["motion_rms_angst"])
    )
    return dict(of="amplitude" if by_amplitude else "Å", null=figure(null[-1]), real=figure(runs[-1]))
