"""What the viewers of all protocols share: a window with one button per picture, and messages where there is nothing to show."""
import importlib.util
import os

from pwem.objects import Volume
from pwem.viewers import EmPlotter
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from gmmhet import convert
from gmmhet.viewers import chimerax
from gmmhet.viewers.drawing import NothingToShow
from gmmhet.viewers.maps import draw_slices, read_map


class GmmHetViewerBase(ProtocolViewer):
    """Base of the viewers; each names its protocol, its form and its pictures (`_pictures`)."""

    _environments = (DESKTOP_TKINTER,)
    _targets = ()

    def _pictures(self):
        """dict of the name of a form field to the function that returns its views; the function may raise `NothingToShow`."""
        raise NotImplementedError

    def _getVisualizeDict(self):
        return {name: self._orMessage(make) for name, make in self._pictures().items()}

    def _orMessage(self, make):
        """A function that returns the views of `make`, or a message when there is nothing to show."""
        def views(paramName=None):
            try:
                return make()
            except NothingToShow as nothing:
                return [self.infoMessage(str(nothing), "Nothing to show")]
        return views

    def _plot(self, title, width, height):
        """An empty figure in a window of its own: the view and its matplotlib Figure."""
        plotter = EmPlotter(windowTitle="%s: %s" % (self.protocol.getRunName(), title), figsize=(width, height))
        plotter.tightLayoutOn = False
        plotter.getFigure().set_layout_engine("constrained")
        return plotter, plotter.getFigure()

    def _pageView(self, title, path):
        """A page that the engine has drawn, in a window of its own."""
        from matplotlib.image import imread
        page = imread(needed(path))
        plotter, figure = self._plot(title, 12.5, 12.5 * page.shape[0] / page.shape[1])
        axes = figure.subplots()
        axes.imshow(page)
        axes.set_axis_off()
        return [plotter]

    def _mapViews(self, maps, script=""):
        """Maps in ChimeraX where it is installed, else in Xmipp's viewer where that is, else as slices.

        Parameters
        ----------
        maps : list of (title, path).
        script : str, what the engine wrote for ChimeraX, shown instead of the maps alone where it exists.
        """
        if chimerax.is_installed():
            if os.path.exists(script):
                return [chimerax.view(script)]
            return [chimerax.map_view([path for _, path in maps], self.protocol._getExtraPath("show_maps.cxc"))]
        if importlib.util.find_spec("xmipp3") is not None:
            return self._xmippViews([path for _, path in maps])
        return self._sliceViews(maps)

    def _xmippViews(self, paths):
        from pwem.viewers import DataViewer
        views = []
        for path in paths:
            volume = Volume(location=path)
            volume.setSamplingRate(convert.pixelSizeOf(path))
            volume.setObjId(self.protocol.getObjId())
            views += DataViewer(project=self.getProject(), protocol=self.protocol)._visualize(volume)
        return views

    def _sliceViews(self, maps):
        """Central slices of maps, as our own picture."""
        plotter, figure = self._plot("slices", max(4.0, 2.4 * len(maps)), 7.2)
        draw_slices(figure, [(title,) + read_map(path) for title, path in maps])
        return [plotter]


def needed(path):
    """`path`, if it is there.

    Raises
    ------
    NothingToShow
    """
    if not os.path.exists(path):
        raise NothingToShow("There is no %s yet: it is written when the run has finished." % path)
    return path
