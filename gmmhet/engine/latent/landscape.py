"""The landscape of a trained model: its latent points with their axes, plane, clusters and lines, and what
the lines do."""
from dataclasses import dataclass
from typing import Dict, List, NamedTuple

import numpy as np

from gmmhet.engine.gmm.mixture import MixtureDecoder
from gmmhet.engine.latent.assignment import Clusters
from gmmhet.engine.latent.eigenmotion import LocalMotions
from gmmhet.engine.latent.motion import decode_mixtures, relative_amplitude_change, rms_displacement
from gmmhet.engine.latent.paths import Line
from gmmhet.engine.latent.reduce import Plane
from gmmhet.engine.latents import Latents, PrincipalAxes


class LineChange(NamedTuple):
    """What a line does to the model from end to end: rms motion in Å, rms amplitude change relative to the
    amplitudes."""

    motion_rms_angst: float
    amplitude_rms: float


@dataclass(frozen=True)
class Landscape:
    """Everything that is written and drawn of a landscape.

    Attributes
    ----------
    latents : Latents, n points of D dimensions.
    axes : PrincipalAxes of the points.
    plane : Plane, in which the points are drawn.
    clusters : Clusters of the points.
    motions : LocalMotions, none without a region.
    trajectories : the lines that are asked for.
    directions : every line that is described: those, all principal axes and all localised motions.
    changes : of each direction by name, from end to end.
    """

    latents: Latents
    axes: PrincipalAxes
    plane: Plane
    clusters: Clusters
    motions: LocalMotions
    trajectories: List[Line]
    directions: List[Line]
    changes: Dict[str, LineChange]

    @property
    def n_particles(self) -> int:
        """Different particles."""
        return len(np.unique(self.latents.ids))

    def paths(self, points: int) -> Dict[str, np.ndarray]:
        """Places [points, 2] of each trajectory in the plane, by name."""
        return {line.name: self.plane.place(line.points(points)) for line in self.trajectories}


def changes_along(model: MixtureDecoder, lines: List[Line]) -> Dict[str, LineChange]:
    """What each line does to the model from end to end, by the line's name."""
    ends = decode_mixtures(model, np.concatenate([line.points(2) for line in lines]))
    return {line.name: LineChange(rms_displacement(start, end), relative_amplitude_change(start, end))
            for line, start, end in zip(lines, ends[::2], ends[1::2])}
