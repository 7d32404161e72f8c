"""Refined orientations: how far the particles have moved, and the gain of agreement."""
from pyworkflow.protocol import Form, params

from gmmhet.engine import rundir
from gmmhet.protocols import GmmHetProtRefine
from gmmhet.viewers.latents import read_arrays
from gmmhet.viewers.poses import draw_pose_changes
from gmmhet.viewers.viewer_base import Buttons, GmmHetViewerBase, Views


class GmmHetViewerRefine(GmmHetViewerBase):
    """Viewer of 'refine orientations'."""

    _label = "viewer of the refined orientations"
    _targets = (GmmHetProtRefine,)

    def _defineParams(self, form: Form) -> None:
        form.addSection("Orientations")
        form.addParam("showChanges", params.LabelParam, label="Changes of angle and shift",
                      help="Changes much smaller than the priors (*Sigma angle*, *Sigma shift*) mean that "
                           "the orientations were good already; changes about as large as the priors, that "
                           "the priors restrict them.")

    def _buttons(self) -> Buttons:
        return {"showChanges": self._showChanges}

    def _showChanges(self) -> Views:
        poses = read_arrays(self.protocol.getRunFile(rundir.POSES))
        plotter, figure = self._plot("changes of the orientations", 13, 4.2)
        draw_pose_changes(figure, poses["angle_change_deg"], poses["shift_change_angst"], poses["gain"])
        return [plotter]
