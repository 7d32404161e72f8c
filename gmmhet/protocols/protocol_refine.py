"""Phase 3: orientations and shifts against each particle's own conformation."""
from typing import Any, ClassVar, Dict, List

from pwem.objects import SetOfParticlesFlex
from pyworkflow.protocol import Form, params

from gmmhet import convert
from gmmhet.engine import config, rundir
from gmmhet.protocols.protocol_base import GmmHetProtBase, mark_flex, run_folder_of, run_problem


class GmmHetProtRefine(GmmHetProtBase):
    """Refine each particle's orientation and shift against its own conformation, with the trained networks
    fixed.

    Output: the same particles, ids and latent points, with new alignment.
    """

    _label = "refine orientations"
    _config = config.RefineConfig
    _fromInputs = ("particles", "model")
    _summaryTexts: ClassVar = {
        "angle_change_rms_deg": "Change of the orientations: *%.2f°* rms",
        "shift_change_rms_angst": "Change of the shifts: *%.2f Å* rms",
        "gain": "Mean gain of agreement: *%.3g* nats per particle"}
    _possibleOutputs: ClassVar = {"outputParticles": SetOfParticlesFlex}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form: Form) -> None:
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticlesFlex",
                      important=True, label="Trained particles",
                      help="Particles of 'train heterogeneity', or a subset of them.")

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings: str) -> None:
        convert.write_particles(self.inputParticles.get(), self._starFile())

    def createOutputStep(self, settings: str) -> None:
        source = self.inputParticles.get()
        folder = run_folder_of(source)
        poses = convert.read_poses(self.getRunFile(rundir.STAR))
        output = self._flexParticles(source)
        mark_flex(output, folder)
        for item, pose in convert.join(source.iterItems(), poses, "refined orientation"):
            copy = self._flexItem(item, folder)
            convert.set_alignment(copy, pose, source.getSamplingRate())
            output.append(copy)
        self._defineOutputs(outputParticles=output)
        self._defineTransformRelation(self.inputParticles, output)

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self) -> List[str]:
        particles = self.inputParticles.get()
        problems = [run_problem(particles, "train"), convert.why_not_writable(particles)]
        return [problem for problem in problems if problem]

    def _methods(self) -> List[str]:
        summary = self.getSummary()
        if not summary:
            return []
        sigmas = (summary.get("sigma_angle_deg", self.sigmaAngle.get()),
                  summary.get("sigma_shift_angst", self.sigmaShift.get()))
        if sigmas == (0, 0):
            return ["Orientations and shifts were kept: gmmhet [Chen2021] estimated no errors of them."]
        return ["Orientations and shifts were refined against each particle's own conformation with gmmhet "
                "[Chen2021]; standard deviations of the priors: %.3g° and %.3g Å." % sigmas]

    # ------------------------------------------------------------------ UTILS
    def _inputValues(self) -> Dict[str, Any]:
        return {"particles": self._starFile(), "model": run_folder_of(self.inputParticles.get())}
