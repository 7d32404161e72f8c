"""Training: its evidence page, its curves, the gain of each particle, and the latent points."""
from typing import Any, List, Optional

import numpy as np
from matplotlib.figure import Figure
from pyworkflow.protocol import Form, params

from gmmhet.engine import rundir
from gmmhet.engine.latents import Latents
from gmmhet.protocols import GmmHetProtTrain
from gmmhet.viewers.latents import (
    CATEGORIES,
    CLUSTER,
    axis_names,
    axis_values,
    colour_names,
    colour_values,
    draw_latents,
    read_latents,
)
from gmmhet.viewers.training import draw_gains, draw_history, read_history
from gmmhet.viewers.viewer_base import Buttons, GmmHetViewerBase, Views


class GmmHetViewerTrain(GmmHetViewerBase):
    """Viewer of 'train heterogeneity'; the training curves can be opened while the training runs."""

    _label = "viewer of the training"
    _targets = (GmmHetProtTrain,)

    def _defineParams(self, form: Form) -> None:
        form.addSection("Training")
        form.addParam("showEvidence", params.LabelParam, label="Evidence page",
                      help="Whether the heterogeneity is real, on one page: the verdict, the evidence on "
                           "held-out particles, how well the latent points predict viewing direction and "
                           "defocus, and the controls that were run (null, half sets).")
        form.addParam("showHistory", params.LabelParam, label="Training curves",
                      help="Gain of agreement over the neutral model by epoch. The networks are never "
                           "trained on held-out particles: where their curve falls while the other rises, "
                           "the networks overfit noise. A held-out curve that never leaves zero means that "
                           "no heterogeneity was found.")
        form.addParam("showGains", params.LabelParam, label="Gain of each particle",
                      help="Agreement of each particle with its own conformation minus its agreement with "
                           "the neutral model.")
        add_scatter_fields(form, axis_names(self.protocol.latentDim.get()), colour_names(has_clusters=False))

    def _buttons(self) -> Buttons:
        return {"showEvidence": self._showEvidence, "showHistory": self._showHistory,
                "showGains": self._showGains, "showLatents": self._showLatents}

    def _showEvidence(self) -> Views:
        return self._pageView("evidence", self.protocol.getRunFile(rundir.EVIDENCE))

    def _showHistory(self) -> Views:
        history = read_history(self.protocol.getRunFile(rundir.HISTORY))
        plotter, figure = self._plot("training curves", 7, 4.6)
        unit = "FRC" if self.protocol.getEnumText("objective") == "frc" else "nats"
        summary = self.protocol.getSummary()
        draw_history(figure.subplots(), history, unit, summary.get("best_epoch"),
                     summary.get("held_out_gain"))
        return [plotter]

    def _showGains(self) -> Views:
        latents = read_latents(self.protocol.getRunFolder())
        plotter, figure = self._plot("gain of each particle", 7, 4.6)
        gain = latents.agreement - latents.neutral_agreement
        draw_gains(figure.subplots(), gain, latents.held_out.astype(bool), "nats")
        return [plotter]

    def _showLatents(self) -> Views:
        latents = read_latents(self.protocol.getRunFolder())
        plotter, figure = self._plot("latent points", 8, 5.8)
        draw_scatter(self, figure, latents, self.protocol._starFile())
        return [plotter]


def add_scatter_fields(form: Form, axes: List[str], colours: List[str]) -> None:
    """Form fields of a scatter plot: two axes, a colour and the button."""
    form.addParam("xAxis", params.EnumParam, choices=axes, default=0, label="Horizontal axis",
                  help="PC: principal component of the latent points; z: latent coordinate.")
    form.addParam("yAxis", params.EnumParam, choices=axes, default=min(1, len(axes) - 1),
                  label="Vertical axis",
                  help="PC: principal component of the latent points; z: latent coordinate.")
    form.addParam("colourBy", params.EnumParam, choices=colours, default=0, label="Colour by",
                  help="A clear trend with defocus or tilt angle is a warning: the conformation should not "
                       "depend on how a particle was imaged.")
    form.addParam("showLatents", params.LabelParam, label="Latent points",
                  help="One point per particle (per symmetry copy above c1).")


def draw_scatter(viewer: Any, figure: Figure, latents: Latents, star: str, xy: Optional[np.ndarray] = None,
                 clusters: Optional[np.ndarray] = None) -> None:
    """Draw the scatter plot with the axes and the colour that a viewer's form names.

    Parameters
    ----------
    viewer : ProtocolViewer with the fields of `add_scatter_fields`.
    figure : matplotlib Figure
    latents : Latents
    star : str, star file of the particles.
    xy : [n, 2] or None, embedding.
    clusters : [n] int or None.
    """
    x, x_label = axis_values(viewer.getEnumText("xAxis"), latents.z, xy)
    y, y_label = axis_values(viewer.getEnumText("yAxis"), latents.z, xy)
    name = viewer.getEnumText("colourBy")
    values, label = (clusters, name) if name == CLUSTER else colour_values(name, latents, star)
    draw_latents(figure, x, y, values, (x_label, y_label, label), name in CATEGORIES)
