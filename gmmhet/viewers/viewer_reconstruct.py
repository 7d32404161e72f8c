"""Reconstructions of particles or classes: maps with the FSC of their half maps."""
import os

from pyworkflow.protocol import params

from gmmhet.engine import rundir
from gmmhet.protocols import GmmHetProtReconstruct
from gmmhet.viewers.drawing import NothingToShow
from gmmhet.viewers.fsc import NAMES, draw_fsc, read_fsc
from gmmhet.viewers.viewer_base import GmmHetViewerBase

THRESHOLD = 0.143   # of the FSC between half maps
ALL = "all"


class GmmHetViewerReconstruct(GmmHetViewerBase):
    """Viewer of 'reconstruct states'."""

    _label = "viewer of the reconstructions"
    _targets = (GmmHetProtReconstruct,)

    def _defineParams(self, form):
        form.addSection("Reconstructions")
        choices = [self._title(number) for number in self._numbers()]
        form.addParam("state", params.EnumParam, choices=([ALL] if len(choices) != 1 else []) + choices, default=0, label="Map",
                      help="One class, or all of them side by side.")
        form.addParam("showFsc", params.LabelParam, label="FSC of the half maps",
                      help="With all classes: the masked curve of each. With one: masked and unmasked.")
        form.addParam("showSlices", params.LabelParam, label="Slices through the maps",
                      help="Central slices with one grey scale, so that differences between classes can be seen.")
        form.addParam("showMap", params.LabelParam, label="Maps in 3D",
                      help="ChimeraX where it is installed, else Xmipp's viewer, else slices.")

    def _pictures(self):
        return {"showFsc": self._showFsc, "showSlices": lambda: self._sliceViews(self._maps()),
                "showMap": lambda: self._mapViews(self._maps())}

    def _numbers(self):
        """Numbers of the reconstructed classes; [0] for a set of particles."""
        return [number for number in self.protocol._classIds() if os.path.exists(self.protocol.getRunFile(number, rundir.MAP))]

    @staticmethod
    def _title(number):
        return "class %d" % number if number else "particles"

    def _chosen(self):
        """Numbers of the classes that the form asks for."""
        numbers = self._numbers()
        if not numbers:
            raise NothingToShow("There is no map yet: it is written when the first reconstruction has finished.")
        chosen = self.getEnumText("state")
        return numbers if chosen == ALL else [number for number in numbers if self._title(number) == chosen]

    def _maps(self):
        return [(self._title(number), self.protocol.getRunFile(number, rundir.MAP)) for number in self._chosen()]

    def _showFsc(self):
        chosen, lines = self._chosen(), []
        for number in chosen:
            frequency, curves = read_fsc(self.protocol.getRunFile(number, rundir.FSC))
            if len(chosen) > 1:
                lines.append((self._title(number), frequency, curves.get("fsc_masked", next(iter(curves.values())))))
            else:
                lines += [(NAMES.get(name, name), frequency, curve) for name, curve in reversed(list(curves.items()))]
        plotter, figure = self._plot("FSC", 6.5, 4.6)
        draw_fsc(figure.subplots(), lines, THRESHOLD)
        return [plotter]
