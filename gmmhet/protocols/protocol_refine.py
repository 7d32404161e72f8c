"""Phase 3: orientations and shifts against each particle's own conformation."""
from typing import ClassVar

from pwem.objects import SetOfParticlesFlex
from pyworkflow.protocol import params

from gmmhet import convert
from gmmhet.engine import config, rundir
from gmmhet.protocols.protocol_base import GmmHetProtBase, flexFolder, markFlex


class GmmHetProtRefine(GmmHetProtBase):
    """Refine each particle's orientation and shift against its own conformation, with the trained networks fixed.

    Output: the same particles, ids and latent points, with new alignment.
    """

    _label = "refine orientations"
    _config = config.RefineConfig
    _fromInputs = ("particles", "model")
    _figures: ClassVar = {"angle_change_rms_deg": "Orientations changed by *%.2f°* rms", "shift_change_rms_angst": "Shifts changed by "
                          "*%.2f Å* rms", "gain": "Agreement rose by *%.3g* nats a particle"}
    _possibleOutputs: ClassVar = {"outputParticles": SetOfParticlesFlex}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form):
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticlesFlex", important=True, label="Trained particles",
                      help="Particles of 'train heterogeneity', or a subset of them.")

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings):
        convert.writeParticles(self.inputParticles.get(), self._starFile())

    def _inputValues(self):
        return {"particles": self._starFile(), "model": flexFolder(self.inputParticles.get(), "train")[0]}

    def createOutputStep(self, settings):
        source, folder = self.inputParticles.get(), self._inputValues()["model"]
        alignment = convert.readAlignment(self.getRunFile(rundir.STAR))
        output = self._flexParticles(source)
        markFlex(output, folder)
        for item, values in convert.join(source.iterItems(), alignment, "refined orientation"):
            copy = self._flexItem(item, folder)
            convert.setAlignment(copy, values, source.getSamplingRate())
            output.append(copy)
        self._defineOutputs(outputParticles=output)
        self._defineTransformRelation(self.inputParticles, output)

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self):
        particles = self.inputParticles.get()
        problems = [flexFolder(particles, "train")[1], convert.whyNotWritable(particles)]
        return [problem for problem in problems if problem]

    def _methods(self):
        found = self.getSummary()
        if not found:
            return []
        sigma = found.get("sigma_angle_deg", self.sigmaAngle.get()), found.get("sigma_shift_angst", self.sigmaShift.get())
        if sigma == (0, 0):
            return ["Training with gmmhet [Chen2021] found no errors of orientations and shifts that the images show: they were kept."]
        return ["Orientations and shifts were refined against each particle's own conformation with gmmhet [Chen2021], with priors of "
                "%.3g° and %.3g Å." % sigma]
