"""Refined orientations: how far the particles have moved, and what it brought."""
from pyworkflow.protocol import params

from gmmhet.engine import rundir
from gmmhet.protocols import GmmHetProtRefine
from gmmhet.viewers.latents import read_arrays
from gmmhet.viewers.poses import draw_pose_changes
from gmmhet.viewers.viewer_base import GmmHetViewerBase


class GmmHetViewerRefine(GmmHetViewerBase):
    """Viewer of 'refine orientations'."""

    _label = "viewer of the refined orientations"
    _targets = (GmmHetProtRefine,)

    def _defineParams(self, form):
        form.addSection("Orientations")
        form.addParam("showChanges", params.LabelParam, label="Changes of angle and shift",
                      help="Changes much smaller than the priors ('Sigma angle', 'Sigma shift') mean that the orientations were good "
                           "already; changes near the priors, that these hold them back.")

    def _pictures(self):
        return {"showChanges": self._showChanges}

    def _showChanges(self):
        found = read_arrays(self.protocol.getRunFile(rundir.POSES))
        plotter, figure = self._plot("changes of the orientations", 13, 4.2)
        draw_pose_changes(figure, found["angle_change_deg"], found["shift_change_angst"], found["gain"])
        return [plotter]
