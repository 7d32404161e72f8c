"""Reconstructions of particles or classes: maps with the FSC of their half maps."""
import os
from typing import List, Tuple

from pyworkflow.protocol import Form, params

from gmmhet.engine import rundir
from gmmhet.engine.resolution import HALF_MAPS
from gmmhet.protocols import GmmHetProtReconstruct
from gmmhet.viewers.drawing import NothingToShow
from gmmhet.viewers.fsc import NAMES, FscCurve, draw_fsc, read_fsc
from gmmhet.viewers.viewer_base import Buttons, GmmHetViewerBase, Views

ALL = "all"


class GmmHetViewerReconstruct(GmmHetViewerBase):
    """Viewer of 'reconstruct states'."""

    _label = "viewer of the reconstructions"
    _targets = (GmmHetProtReconstruct,)

    def _defineParams(self, form: Form) -> None:
        form.addSection("Reconstructions")
        choices = [self._title(number) for number in self._numbers()]
        form.addParam("state", params.EnumParam, choices=([ALL] if len(choices) != 1 else []) + choices,
                      default=0, label="Map", help="One class, or all of them side by side.")
        form.addParam("showFsc", params.LabelParam, label="FSC of the half maps",
                      help="With all classes: the masked curve of each. With one: masked and unmasked.")
        form.addParam("showSlices", params.LabelParam, label="Slices through the maps",
                      help="Central slices with one grey scale, so that classes can be compared.")
        form.addParam("showMap", params.LabelParam, label="Maps in 3D",
                      help="ChimeraX where it is installed, else Xmipp's viewer, else slices.")

    def _buttons(self) -> Buttons:
        return {"showFsc": self._showFsc, "showSlices": lambda: self._sliceViews(self._maps()),
                "showMap": lambda: self._mapViews(self._maps())}

    def _numbers(self) -> List[int]:
        """Numbers of the classes that have a map; [0] for a set of particles."""
        maps = {number: self.protocol.getRunFile(number, rundir.MAP) for number in self.protocol._classIds()}
        return [number for number, path in maps.items() if os.path.exists(path)]

    @staticmethod
    def _title(number: int) -> str:
        return "class %d" % number if number else "particles"

    def _formNumbers(self) -> List[int]:
        """Numbers of the classes that the form names.

        Raises
        ------
        NothingToShow
            before the first map is there.
        """
        numbers = self._numbers()
        if not numbers:
            raise NothingToShow("There is no map yet: it is written when the first reconstruction has "
                                "finished.")
        state = self.getEnumText("state")
        return numbers if state == ALL else [number for number in numbers if self._title(number) == state]

    def _maps(self) -> List[Tuple[str, str]]:
        return [(self._title(number), self.protocol.getRunFile(number, rundir.MAP))
                for number in self._formNumbers()]

    def _showFsc(self) -> Views:
        curves, numbers = [], self._formNumbers()
        for number in numbers:
            frequency, columns = read_fsc(self.protocol.getRunFile(number, rundir.FSC))
            if len(numbers) > 1:
                fsc = columns.get("fsc_masked", next(iter(columns.values())))
                curves.append(FscCurve(self._title(number), frequency, fsc))
            else:
                curves += [FscCurve(NAMES.get(name, name), frequency, fsc)
                           for name, fsc in reversed(list(columns.items()))]
        plotter, figure = self._plot("FSC", 6.5, 4.6)
        draw_fsc(figure.subplots(), curves, HALF_MAPS)
        return [plotter]
