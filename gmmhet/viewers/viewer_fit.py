"""The neutral Gaussian model: its FSC with the map, and where its Gaussians are."""
from pyworkflow.protocol import Form, params

from gmmhet.engine import rundir
from gmmhet.engine.resolution import KNOWN_MAP
from gmmhet.protocols import GmmHetProtFit
from gmmhet.viewers.drawing import require_file
from gmmhet.viewers.fsc import FscCurve, draw_fsc, read_fsc
from gmmhet.viewers.latents import read_arrays
from gmmhet.viewers.maps import draw_views, read_map
from gmmhet.viewers.viewer_base import Buttons, GmmHetViewerBase, Views


class GmmHetViewerFit(GmmHetViewerBase):
    """Viewer of 'fit Gaussians'."""

    _label = "viewer of the Gaussian model"
    _targets = (GmmHetProtFit,)

    def _defineParams(self, form: Form) -> None:
        form.addSection("Neutral model")
        form.addParam("showFsc", params.LabelParam, label="FSC of model and map",
                      help="The fit is good when the curve stays near 1 up to the target resolution.")
        form.addParam("showGaussians", params.LabelParam, label="Gaussians over projections of their map",
                      help="Every dot is the centre of a Gaussian. Density without dots is not modelled, and "
                           "its motion cannot be found.")
        form.addParam("showMap", params.LabelParam, label="Map and Gaussians in 3D",
                      help="ChimeraX where it is installed, else Xmipp's viewer, else slices.")

    def _buttons(self) -> Buttons:
        return {"showFsc": self._showFsc, "showGaussians": self._showGaussians, "showMap": self._showMap}

    def _showFsc(self) -> Views:
        frequency, columns = read_fsc(self.protocol.getRunFile(rundir.FSC))
        plotter, figure = self._plot("FSC", 6.5, 4.6)
        curves = [FscCurve("Gaussian model and map", frequency, fsc) for fsc in columns.values()]
        draw_fsc(figure.subplots(), curves, KNOWN_MAP, self.protocol.getSummary().get("resolution_angst"))
        return [plotter]

    def _showGaussians(self) -> Views:
        density = read_map(self.protocol.getRunFile(rundir.GMM_MAP))
        centers = read_arrays(self.protocol.getRunFile(rundir.GMM))["centers"]
        plotter, figure = self._plot("Gaussians", 12, 4.6)
        figure.suptitle("%d Gaussians" % len(centers))
        draw_views(figure, density, centers)
        return [plotter]

    def _showMap(self) -> Views:
        path = require_file(self.protocol.getRunFile(rundir.GMM_MAP))
        return self._mapViews([("map of the Gaussian model", path)], self.protocol.getRunFile(rundir.SHOW))
