"""The start of a training: the encoder's view of the gradients, and encoder and decoder set to the answer of
probabilistic PCA (see `initialization.subspace`)."""
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_array

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import BatchFunction, FeaturedViews, Views, prefetched
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.config import COARSE_ANGST
from gmmhet.engine.initialization.gradients import Gradients, column_statistics
from gmmhet.engine.initialization.subspace import (
    LARGEST_SUBSPACE,
    Covariances,
    Subspace,
    find_subspace,
    group_sums,
    streamed_covariances,
)
from gmmhet.engine.io.arrays import write_arrays
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.likelihood.conformations import Conformations
from gmmhet.engine.likelihood.homogeneous import HomogeneousParticles, PosePosterior
from gmmhet.engine.log import log, progress
from gmmhet.engine.model.deformation import Deformation
from gmmhet.engine.model.encoder import LOG_STD_OFFSET, kept_axes
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.rigid_modes import RigidModes, rigid_modes

#: homogeneous images per column of the features, and their least and largest number
NULLS_PER_COLUMN, FEWEST_NULLS, MOST_NULLS = 16, 4096, 16384
#: what lies between the seeds of two sets of homogeneous images
SEED_STEP = 100003
#: the rigid modes, in the folder WORK of a run
MODES = "modes.npz"
#: amplitudes lead where they explain so many times what other parameters do: to first order, motion looks
#: like fading here and there too
FADING_OVER_MOTION = 1.5
#: motion that explains less is of low signal (nats a particle, to first order)
LOW_SIGNAL = 0.3
#: rows of features, and images, taken at once
CHUNK, BATCH_SIZE = 512, 64


@dataclass(frozen=True)
class StartInputs:
    """What the linear start is found from.

    Attributes
    ----------
    inputs : FeaturedViews; training_rows : int [m], the particles that are learned from.
    z_earlier : float32 [n_views, n_earlier].
    conformations : Conformations before this training.
    poses : PosePosterior, or None where poses are exact.
    agreement : Agreement of the objective.
    devices : Devices; run : RunDir, which keeps the rigid modes; seed : int.
    """

    inputs: FeaturedViews
    training_rows: np.ndarray
    z_earlier: np.ndarray
    conformations: Conformations
    poses: "PosePosterior | None"
    agreement: Agreement
    devices: Devices
    run: Any
    seed: int


class LinearStart(NamedTuple):
    """What `initialize_linear` leaves beside the model's weights.

    Attributes
    ----------
    leading : int, number of the parameter that leads and is the first to vary; None where none does, and all
        vary from the start.
    rigid_modes : RigidModes by which small motion is described, or None.
    """

    leading: "int | None"
    rigid_modes: "RigidModes | None"


def initialize_linear(model: HeterogeneityModel, start: StartInputs) -> LinearStart:
    """Give a model its feature statistics and, where its encoder is given axes, its linear start."""
    views, features = start.inputs
    mean, deviation = column_statistics(features, views.of(start.training_rows).ravel())
    model.encoder.mean.assign(mean)
    model.encoder.deviation.assign(deviation)
    if not model.encoder.n_axes:
        return LinearStart(None, None)
    subspaces, modes = _find_subspaces(model, start)
    leading = leading_parameter(model, subspaces)
    take_subspaces(model, subspaces, leading)
    if not model.small_motion:
        modes = None
    if modes is not None and start.devices.is_chief:
        _save_modes(start.run, modes)
    parameters = len(model.deformation.parameters)
    return LinearStart(leading % parameters if leading is not None and parameters > 1 else None, modes)


def leading_parameter(model: HeterogeneityModel, subspaces: list[Subspace]) -> "int | None":
    """Number of the subspace that leads; None where none explains anything.

    It is of the parameter that explains most at the coarsest resolution level at which any does, amplitudes
    only where FADING_OVER_MOTION as much as another: to first order, a motion that goes further than the
    resolution looks like fading. Of this parameter's levels the finest that explains anything leads.

    Parameters
    ----------
    model : HeterogeneityModel.
    subspaces : one for each of its parameters, and as many more for every further resolution level.
    """
    parameters = model.deformation.parameters
    evidence = np.reshape([subspace.evidence(model.n_stage) for subspace in subspaces],
                          (model.resolution_levels, len(parameters)))
    if not evidence.any():
        return None
    coarsest = evidence[np.flatnonzero(evidence.any(1))[-1]]
    handicap = [FADING_OVER_MOTION if name == "amplitude" else 1.0 for name in parameters]
    number = int(np.argmax(coarsest / handicap))
    return int(np.argmax(evidence[:, number] > 0)) * len(parameters) + number


def take_subspaces(model: HeterogeneityModel, subspaces: list[Subspace], leading: "int | None") -> None:
    """Start a model, whose feature statistics are set, from the linear answer to its features.

    The encoder sees the features along the axes of every subspace, scaled to what part of each axis is no
    noise, and begins with the linear answer of the one that leads. Where that is of positions, so does the
    decoder, and the networks at first add nothing; amplitudes have levels, between which a line passes.
    Motion that explains less than LOW_SIGNAL nats a particle is marked so, for the trainer; it alone sharpens
    what it moves, where it is small (see `HeterogeneityModel.small_motion`).

    Parameters
    ----------
    model : HeterogeneityModel.
    subspaces : as in `leading_parameter`.
    leading : number of the subspace that leads, or None.
    """
    encoder, sizes = model.encoder, model.deformation.sizes
    assert encoder.axes is not None and encoder.linear is not None
    deviation = encoder.deviation.numpy()
    axes, linear = np.zeros(encoder.axes.shape), np.zeros(encoder.linear.shape)
    row = column = 0
    for number, (subspace, size) in enumerate(zip(subspaces, sizes * model.resolution_levels)):
        scale, kept = subspace.scale, len(subspace.strength)
        axes[row:row + size, column:column + kept] = subspace.axes * deviation[row:row + size, None] * scale
        if number == leading:
            count = min(subspace.significant, model.n_stage)
            first, strength = np.arange(count), subspace.strength[:count]
            linear[column + first, first] = np.sqrt(strength) / (1 + strength) / scale[:count]
            _start_widths(model, strength)
            if model.decoder.linear is not None and model.deformation.parameters[number
                                                                                 % len(sizes)] == "position":
                _start_decoder(model, subspace, row % model.deformation.n_outputs, count)
        row, column = row + size, column + kept
    encoder.axes.assign(axes)
    encoder.linear.assign(linear)
    model.state.sharpens = model.state.sharpens and model.small_motion


def _start_widths(model: HeterogeneityModel, strength: np.ndarray) -> None:
    """Let the encoder's posterior begin as wide as the linear answer's, along axes of this strength
    [count]."""
    bias = np.zeros(2 * model.n_stage)
    bias[model.n_stage:] = LOG_STD_OFFSET
    bias[model.n_stage + np.arange(len(strength))] -= 0.5 * np.log1p(strength)
    model.encoder.network.variables[-1].assign(bias)


def _start_decoder(model: HeterogeneityModel, subspace: Subspace, first_output: int, count: int) -> None:
    """Let the decoder begin with the linear answer, from this output on, and the encoder's network add
    nothing to it."""
    kernel, size = model.encoder.network.variables[-2], len(subspace.axes)
    kernel.assign(tf.zeros_like(kernel))
    modes = (subspace.axes[:, :count] * np.sqrt(subspace.strength[:count])).T
    decoder: Any = model.decoder
    decoder.linear[:count, first_output:first_output + size].assign(modes)
    model.state.linear_on.assign(1.0)
    model.state.low_signal = subspace.evidence(model.n_stage) < LOW_SIGNAL


def load_rigid_modes(model: HeterogeneityModel, start: StartInputs) -> "RigidModes | None":
    """The rigid modes that a run which goes on describes its decoder by: as `initialize_linear` left them, or
    anew; None without."""
    path, devices = start.run(rundir.WORK, MODES), start.devices
    if not (model.small_motion and model.deformation.rigid_parts.members):
        return None
    if devices.ask(devices.is_chief and os.path.exists(path))[0]:
        with np.load(path) as data:
            return RigidModes(data["modes"], data["reader"], data["owner"])
    deformation = model.deformation
    number, groupings = deformation.parameters.index("position"), deformation.anchor_groups(LARGEST_SUBSPACE)
    nulls = [covariances[number]
             for covariances in _homogeneous(model, start, groupings * model.resolution_levels)]
    modes = _ungrouped(_rigid_modes(deformation, nulls, groupings[number]), groupings[number])
    if devices.is_chief:
        _save_modes(start.run, modes)
    return modes


def _rigid_modes(deformation: Deformation, nulls: Sequence[np.ndarray], grouping: csr_array) -> RigidModes:
    """Rigid modes of parts where noise alone has these covariances, which are the Fisher information of the
    grouped outputs."""
    weights = deformation.weights["position"].numpy()[deformation.free].astype(float) @ grouping[::3, ::3]
    centers = deformation.centers.numpy()[deformation.free].astype(float)
    return rigid_modes(0.5 * (nulls[0] + nulls[1]), weights, centers, deformation.rigid_parts.members)


def _ungrouped(modes: RigidModes, grouping: csr_array) -> RigidModes:
    """Rigid modes of the single outputs, of which `grouping` says which were taken together; the dual modes
    take means."""
    single = grouping @ modes.modes, grouping @ (modes.dual_modes / grouping.sum(0)[:, None])
    return RigidModes(single[0].astype(np.float32), single[1].astype(np.float32), modes.owner)


def _save_modes(run: Any, modes: RigidModes) -> None:
    write_arrays(run(rundir.WORK, MODES), modes=modes.modes, reader=modes.dual_modes, owner=modes.owner)


def _find_subspaces(model: HeterogeneityModel,
                    start: StartInputs) -> "tuple[list[Subspace], RigidModes | None]":
    """The subspace of every parameter at every resolution level, of the particles that are learned from
    against homogeneous images; and the rigid modes of parts by all rings, None where none move."""
    deformation, subspaces, by_all_rings = model.deformation, [], None
    parameters, ends = deformation.parameters, deformation.rigid_parts.ends
    groupings = deformation.anchor_groups(LARGEST_SUBSPACE) * model.resolution_levels
    halves, nulls = _halves(model, start, groupings), _homogeneous(model, start, groupings)
    for number, kept in enumerate(kept_axes(model.settings.network.n_axes,
                                            deformation.sizes * model.resolution_levels)):
        covariances = Covariances([half[number] for half in halves], [null[number] for null in nulls])
        name, modes = parameters[number % len(parameters)], None
        if ends and name == "position":
            modes = _rigid_modes(deformation, covariances.nulls, groupings[number])
            if number < len(parameters):
                by_all_rings = _ungrouped(modes, groupings[number])
        size = len(covariances.nulls[0])
        subspaces.append(find_subspace(covariances, min(kept, size), model.n_stage, modes,
                                       ends).expanded(groupings[number]))
        log.info("to first order%s, %s explains %.3g nats a particle (%d axes above the noise)",
                 "" if number < len(parameters) else " at %.3g Å" % COARSE_ANGST, name,
                 subspaces[-1].evidence(model.n_stage), subspaces[-1].significant)
    return subspaces, by_all_rings


def _halves(model: HeterogeneityModel, start: StartInputs,
            groupings: list[csr_array]) -> list[list[np.ndarray]]:
    """Covariances of the gradients of each parameter, by groups of its outputs, of two random halves of the
    particles that are learned from."""
    views, features = start.inputs
    order = np.random.default_rng([start.seed, 18]).permutation(start.training_rows)
    halves = [np.sort(views.of(half).ravel()) for half in (order[::2], order[1::2])]
    sizes, gradients = [grouping.shape[1] for grouping in groupings], model.encoder.n_gradients
    return [streamed_covariances((group_sums(features[rows[i:i + CHUNK]][:, :gradients], groupings)
                                  for i in range(0, len(rows), CHUNK)), sizes) for rows in halves]


def _homogeneous(model: HeterogeneityModel, start: StartInputs,
                 groupings: list[csr_array]) -> list[list[np.ndarray]]:
    """The same of two independent sets of homogeneous images, at the particles' own poses and CTF."""
    particles, symmetry, devices = start.inputs.views.particles, model.settings.symmetry, start.devices
    gradients, columns = BatchFunction(Gradients(model, start.agreement), devices), model.encoder.n_gradients
    wanted = int(np.clip(NULLS_PER_COLUMN * model.deformation.n_outputs, FEWEST_NULLS,
                         MOST_NULLS)) // 2 // model.copies
    whole, rest = divmod(wanted, len(particles))
    batches = whole * -(-len(particles) // BATCH_SIZE) - (-rest // BATCH_SIZE)
    homogeneous = HomogeneousParticles(particles, start.conformations, model.likelihood, start.seed,
                                       start.poses)

    def simulated(number: int) -> Iterator[np.ndarray]:
        left = wanted
        while left > 0:
            seed = (start.seed + SEED_STEP * number) % 2**31
            order = np.sort(np.random.default_rng([seed, 19]).permutation(len(particles))[:left])
            views = Views(homogeneous.with_seed(seed), symmetry)
            for rows, batch in prefetched(views, order, BATCH_SIZE, devices, z=start.z_earlier):
                features = gradients(len(rows), batch).features
                yield group_sums(features.reshape(-1, features.shape[-1])[:, :columns], groupings)
            number, left = number + 2, left - len(order)
    sizes = [grouping.shape[1] for grouping in groupings]
    return [streamed_covariances(progress(simulated(number), batches,
                                          "homogeneous images, set %d of 2" % number), sizes)
            for number in (1, 2)]
