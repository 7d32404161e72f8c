"""The conformational landscape: its page, its latent points with a choice of axes and colours, and the motion
along its trajectories."""
import numpy as np
from pyworkflow.protocol import Form, params

from gmmhet.engine import rundir
from gmmhet.protocols import GmmHetProtAnalyze
from gmmhet.viewers import chimerax, trajectories
from gmmhet.viewers.drawing import NothingToShow, require_file
from gmmhet.viewers.latents import axis_names, colour_names, read_arrays, read_latents, star_of
from gmmhet.viewers.maps import read_map
from gmmhet.viewers.viewer_base import Buttons, GmmHetViewerBase, Views
from gmmhet.viewers.viewer_train import add_scatter_fields, draw_scatter


class GmmHetViewerAnalyze(GmmHetViewerBase):
    """Viewer of 'analyze landscape'."""

    _label = "viewer of the landscape"
    _targets = (GmmHetProtAnalyze,)

    def _defineParams(self, form: Form) -> None:
        summary = self.protocol.getSummary()
        form.addSection("Landscape")
        form.addParam("showPage", params.LabelParam, label="Landscape page",
                      help="Density of the particles, clusters, trajectories, explained variance and decoded "
                           "motion on one page.")
        axes = axis_names(summary.get("latent_dim", 0), summary.get("embedding", "embedding").upper())
        add_scatter_fields(form, axes, colour_names(has_clusters=True))
        form.addParam("showClusters", params.LabelParam, label="Maps of the clusters",
                      help="The decoded map at the centre of each cluster: a model, not evidence. "
                           "Reconstruct the classes for evidence.")
        form.addSection("Trajectories")
        names = trajectories.trajectory_names(self.protocol.getRunFolder()) or ["none"]
        form.addParam("trajectory", params.EnumParam, choices=names, default=0, label="Trajectory",
                      help="The trajectories of *Trajectories* in the protocol's form.")
        form.addParam("showArrows", params.LabelParam, label="Displacement of the Gaussians",
                      help="Arrows from the trajectory's first to its last point over three projections of "
                           "the first map.")
        form.addParam("showSeries", params.LabelParam, label="Maps along the trajectory",
                      help="A projection of every map, and its difference from the first.")
        form.addParam("showMovie", params.LabelParam, label="Movie with arrows in ChimeraX",
                      help="Plays the maps with the Gaussians' arrows. Without ChimeraX the arrows are drawn "
                           "here instead.")
        form.addParam("showDirections", params.LabelParam, label="Motion along every direction",
                      help="How much the model changes from one end of each latent direction to the other.")

    def _buttons(self) -> Buttons:
        return {"showPage": self._showPage, "showLatents": self._showLatents,
                "showClusters": self._showClusters, "showArrows": self._showArrows,
                "showSeries": self._showSeries, "showMovie": self._showMovie,
                "showDirections": self._showDirections}

    # ------------------------------------------------------------------ landscape
    def _trainFolder(self) -> str:
        """Run folder of the training whose landscape this is."""
        return rundir.read_json(require_file(self.protocol.getRunFile(rundir.CONFIG))).get("model", "")

    def _showPage(self) -> Views:
        return self._pageView("landscape", self.protocol.getRunFile(rundir.LANDSCAPE))

    def _showLatents(self) -> Views:
        embedding = read_arrays(self.protocol.getRunFile(rundir.EMBEDDING))
        folder = self._trainFolder()
        latents = read_latents(folder)
        if not np.array_equal(latents.ids, embedding["id"]):
            raise NothingToShow("The training in '%s' was repeated after this analysis: run the analysis "
                                "again." % folder)
        plotter, figure = self._plot("latent points", 8, 5.8)
        draw_scatter(self, figure, latents, star_of(folder), embedding["xy"], embedding["label"])
        return [plotter]

    def _showClusters(self) -> Views:
        sizes = self.protocol.getSummary().get("clusters", [])
        maps = [("cluster %d (%d points)" % (label, size),
                 self.protocol.getRunFile(rundir.cluster_map(label)))
                for label, size in enumerate(sizes, 1)]
        if not maps:
            raise NothingToShow("There are no clusters: the run has not finished, or found none by density.")
        return self._mapViews([(title, require_file(path)) for title, path in maps])

    # ------------------------------------------------------------------ trajectories
    def _trajectoryName(self) -> str:
        """Name of the trajectory that the form names."""
        names = trajectories.trajectory_names(self.protocol.getRunFolder())
        if not names:
            raise NothingToShow("There are no trajectories yet: they are written when the run has finished.")
        return names[self.trajectory.get()]

    def _showArrows(self) -> Views:
        folder, name = self.protocol.getRunFolder(), self._trajectoryName()
        plotter, figure = self._plot("displacements along " + name, 13.5, 4.6)
        figure.suptitle("%s: displacement of the Gaussians from the first to the last point" % name)
        density = read_map(trajectories.point_files(folder, name, ".mrc")[0])
        trajectories.draw_displacements(figure, density, *trajectories.end_centers(folder, name))
        return [plotter]

    def _showSeries(self) -> Views:
        name = self._trajectoryName()
        maps = trajectories.point_files(self.protocol.getRunFolder(), name, ".mrc")
        plotter, figure = self._plot("maps along " + name, max(5.0, 1.9 * len(maps)), 4.4)
        trajectories.draw_series(figure, maps, ["%s, point %d" % (name, i) for i in range(1, len(maps) + 1)])
        return [plotter]

    def _showMovie(self) -> Views:
        if not chimerax.is_installed():
            text = chimerax.INSTALL + " The arrows are drawn in the other window."
            return [*self._showArrows(), self.infoMessage(text, "No ChimeraX")]
        script = self.protocol.getRunFile(rundir.trajectory(self._trajectoryName()), rundir.SHOW)
        return [chimerax.view(require_file(script))]

    def _showDirections(self) -> Views:
        directions = self.protocol.getSummary().get("directions", {})
        if not directions:
            raise NothingToShow("There are no directions yet: they are written when the run has finished.")
        plotter, figure = self._plot("motion along directions", 7.5, 1.5 + 0.36 * len(directions))
        trajectories.draw_directions(figure.subplots(), directions)
        return [plotter]
