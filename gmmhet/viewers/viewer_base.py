"""What the viewers of all protocols share: a window with one button per figure, and messages where there is
nothing to show."""
import importlib.util
import os
from typing import Any, Callable, Dict, List, Tuple, Type

from matplotlib.figure import Figure
from pwem.objects import Volume
from pwem.protocols import EMProtocol
from pwem.viewers import EmPlotter
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer, View

from gmmhet import convert
from gmmhet.viewers import chimerax
from gmmhet.viewers.drawing import NothingToShow, require_file
from gmmhet.viewers.maps import draw_slices, read_map

#: width of a page that the engine has drawn, inches
PAGE_WIDTH = 12.5

Views = List[View]
#: name of the field of a button -> function that returns what the button opens
Buttons = Dict[str, Callable[[], Views]]


class GmmHetViewerBase(ProtocolViewer):
    """Base of the viewers; each names its protocol, its form and what its buttons open (`_buttons`)."""

    _environments = (DESKTOP_TKINTER,)
    _targets: Tuple[Type[EMProtocol], ...] = ()

    def _buttons(self) -> Buttons:
        """What each button opens; the functions may raise `NothingToShow`."""
        raise NotImplementedError

    def _getVisualizeDict(self) -> Dict[str, Callable[..., Views]]:
        return {name: self._orMessage(make) for name, make in self._buttons().items()}

    def _orMessage(self, make: Callable[[], Views]) -> Callable[..., Views]:
        """A function that returns the views of `make`, or a message when there is nothing to show."""
        def views(paramName: Any = None) -> Views:
            try:
                return make()
            except NothingToShow as nothing:
                return [self.infoMessage(str(nothing), "Nothing to show")]
        return views

    def _plot(self, title: str, width: float, height: float) -> Tuple[EmPlotter, Figure]:
        """An empty figure (size in inches) in a window of its own: the view and its matplotlib Figure."""
        plotter = EmPlotter(windowTitle="%s: %s" % (self.protocol.getRunName(), title),
                            figsize=(width, height))
        plotter.tightLayoutOn = False
        plotter.getFigure().set_layout_engine("constrained")
        return plotter, plotter.getFigure()

    def _pageView(self, title: str, path: str) -> Views:
        """A page that the engine has drawn, in a window of its own."""
        from matplotlib.image import imread
        page = imread(require_file(path))
        plotter, figure = self._plot(title, PAGE_WIDTH, PAGE_WIDTH * page.shape[0] / page.shape[1])
        axes = figure.subplots()
        axes.imshow(page)
        axes.set_axis_off()
        return [plotter]

    def _mapViews(self, maps: List[Tuple[str, str]], script: str = "") -> Views:
        """Maps in ChimeraX where it is installed, else in Xmipp's viewer where that is, else as slices.

        Parameters
        ----------
        maps : list of (title, path).
        script : str, ChimeraX script of the engine, used instead of the maps alone where it exists.
        """
        if chimerax.is_installed():
            if os.path.exists(script):
                return [chimerax.view(script)]
            return [chimerax.map_view([path for _, path in maps],
                                      self.protocol._getExtraPath("show_maps.cxc"))]
        if importlib.util.find_spec("xmipp3") is not None:
            return self._xmippViews([path for _, path in maps])
        return self._sliceViews(maps)

    def _xmippViews(self, paths: List[str]) -> Views:
        from pwem.viewers import DataViewer
        views = []
        for path in paths:
            volume = Volume(location=path)
            volume.setSamplingRate(convert.pixel_size_of(path))
            volume.setObjId(self.protocol.getObjId())
            views += DataViewer(project=self.getProject(), protocol=self.protocol)._visualize(volume)
        return views

    def _sliceViews(self, maps: List[Tuple[str, str]]) -> Views:
        """Central slices of maps (title, path) in one figure."""
        plotter, figure = self._plot("slices", max(4.0, 2.4 * len(maps)), 7.2)
        draw_slices(figure, [(title, read_map(path)) for title, path in maps])
        return [plotter]
