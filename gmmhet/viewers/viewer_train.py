"""Training: its curves, the gain of each particle, and the latent points."""
from pyworkflow.protocol import params

from gmmhet.engine import rundir
from gmmhet.protocols import GmmHetProtTrain
from gmmhet.viewers import latents as looks
from gmmhet.viewers.training import draw_gains, draw_history, read_history
from gmmhet.viewers.viewer_base import GmmHetViewerBase


class GmmHetViewerTrain(GmmHetViewerBase):
    """Viewer of 'train heterogeneity'; its curves can be looked at while the training runs."""

    _label = "viewer of the training"
    _targets = (GmmHetProtTrain,)

    def _defineParams(self, form):
        form.addSection("Training")
        form.addParam("showEvidence", params.LabelParam, label="Evidence page",
                      help="Whether the heterogeneity is real, on one page: the verdict, the evidence on held-out particles, what the "
                           "latent points know of viewing direction and defocus, and the controls that were run (null, half sets).")
        form.addParam("showHistory", params.LabelParam, label="Training curves",
                      help="Gain over the neutral model by epoch. Held-out particles were never learned from: where their curve turns down "
                           "while the other rises, the networks learn noise. A held-out curve that never leaves zero means no "
                           "heterogeneity was found.")
        form.addParam("showGains", params.LabelParam, label="Gain of each particle",
                      help="Agreement of each particle with its own model above its agreement with the neutral model.")
        addScatter(form, looks.axis_names(self.protocol.latentDim.get()), looks.colour_names(has_clusters=False))

    def _pictures(self):
        return {"showEvidence": self._showEvidence, "showHistory": self._showHistory, "showGains": self._showGains,
                "showLatents": self._showLatents}

    def _unit(self):
        return "FRC" if self.protocol.getEnumText("objective") == "frc" else "nats"

    def _showEvidence(self):
        return self._pageView("evidence", self.protocol.getRunFile(rundir.EVIDENCE))

    def _showHistory(self):
        history = read_history(self.protocol.getRunFile(rundir.HISTORY))
        plotter, figure = self._plot("training curves", 7, 4.6)
        found = self.protocol.getSummary()
        draw_history(figure.subplots(), history, self._unit(), found.get("best_epoch"), found.get("held_out_gain"))
        return [plotter]

    def _showGains(self):
        found = looks.read_arrays(self.protocol.getRunFile(rundir.LATENTS))
        plotter, figure = self._plot("gain of each particle", 7, 4.6)
        draw_gains(figure.subplots(), found["agreement"] - found["neutral_agreement"], found["held_out"].astype(bool), "nats")
        return [plotter]

    def _showLatents(self):
        found = looks.read_arrays(self.protocol.getRunFile(rundir.LATENTS))
        plotter, figure = self._plot("latent points", 8, 5.8)
        drawChosen(self, figure, found, self.protocol._starFile())
        return [plotter]


def addScatter(form, axes, colours):
    """Form fields of a scatter: two axes, a colour and the button."""
    form.addParam("xAxis", params.EnumParam, choices=axes, default=0, label="Across", help="What is drawn across.")
    form.addParam("yAxis", params.EnumParam, choices=axes, default=min(1, len(axes) - 1), label="Upwards", help="What is drawn upwards.")
    form.addParam("colourBy", params.EnumParam, choices=colours, default=0, label="Colour",
                  help="A clear trend with defocus or tilt angle is a warning: the latent points should know nothing of how a particle was "
                       "seen.")
    form.addParam("showLatents", params.LabelParam, label="Latent points", help="One point per particle (per symmetry copy above c1).")


def drawChosen(viewer, figure, found, star, xy=None, clusters=None):
    """Draw the scatter that a viewer's form asks for.

    Parameters
    ----------
    viewer : ProtocolViewer with the fields of `addScatter`.
    figure : matplotlib Figure
    found : dict of the arrays of latents.npz.
    star : str, star file of the particles.
    xy : [n, 2] or None, embedding.
    clusters : [n] int or None.
    """
    x, xLabel = looks.axis_values(viewer.getEnumText("xAxis"), found["z"], xy)
    y, yLabel = looks.axis_values(viewer.getEnumText("yAxis"), found["z"], xy)
    name = viewer.getEnumText("colourBy")
    values, label = (clusters, name) if name == looks.CLUSTER else looks.colour_values(name, found, star)
    looks.draw_latents(figure, x, y, values, (xLabel, yLabel, label), name in looks.CLASSES)
