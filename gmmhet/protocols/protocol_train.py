"""Phase 2: latent points of the particles and the decoder from latent points to Gaussian models."""
import os
from typing import Any, ClassVar, Dict, List

from pwem.objects import ParticleFlex, SetOfParticlesFlex
from pyworkflow.object import CsvList
from pyworkflow.protocol import Form, params

from gmmhet import convert
from gmmhet.constants import AGREEMENT, COPIES, GMM_FOLDER, HELD_OUT, NEUTRAL_AGREEMENT
from gmmhet.engine import config, rundir
from gmmhet.engine.sampling import Sampling
from gmmhet.protocols.protocol_base import GmmHetProtBase, mark_flex, run_folder_of, run_problem

#: about so many particles pass through the networks in one step, so that the project window moves; every step
#: starts the engine anew
PARTICLES_PER_STEP = 50000
#: training on fewer particles gets a warning
FEW_PARTICLES = 1000


class GmmHetProtTrain(GmmHetProtBase):
    """Learn the heterogeneity of particles: a latent point per particle, and a decoder from latent points to
    Gaussian models.

    Output: the particles with their latent points (zFlex). With a symmetry above c1 every particle has one
    latent point per symmetry-related orientation; the particle stays one item, its zFlex is the latent point
    of the first orientation, and those of all orientations, one after the other, are in the attribute
    _gmmCopies. A training that is a further stage on top of an earlier one ('Continue from') gives latent
    points that begin with those of the earlier stages.
    """

    _label = "train heterogeneity"
    _config = config.TrainConfig
    _fromInputs = ("particles", "gmm", "continue_from")
    _withoutField = ("pause_after_epoch", "ids")      # set by the steps; the input set is the subset
    _tabs: ClassVar = {"Controls": ("null", "half_sets")}
    _summaryTexts: ClassVar = {
        "verdict": "%s", "held_out_evidence": "Evidence on held-out particles: *%.3g* nats per particle",
        "motion_rms_angst": "Decoded motion: *%.2f Å* rms", "epochs": "Epochs: *%d*",
        "best_epoch": "Epoch of the final model: *%d*"}
    _possibleOutputs: ClassVar = {"outputParticles": SetOfParticlesFlex}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form: Form) -> None:
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles",
                      pointerCondition="hasAlignmentProj", important=True, label="Particles",
                      help="Particles with projection alignment and CTF. A set that says that its images are "
                           "phase-flipped is treated as such.")
        form.addParam("inputGaussians", params.PointerParam, pointerClass="AtomStructFlex", important=True,
                      label="Neutral model", help="Pseudo-atoms of 'fit Gaussians'.")
        form.addParam("inputContinue", params.PointerParam, pointerClass="SetOfParticlesFlex",
                      allowsNull=True, label="Continue from (optional)",
                      help="Particles of an earlier training to continue from. With the same *Vary*, region "
                           "and *Latent dimensions* its networks are trained further. With others this is a "
                           "further stage: every particle keeps the conformation that the earlier training "
                           "gave it, and what comes on top is learned in latent dimensions of its own. For "
                           "example amplitudes first; then, with the class of particles that have a domain "
                           "as *Particles* and a region around that domain, its motion (*Vary* position).")
        self._addMask(form, "inputRegion", label="Region mask (optional)",
                      help="Only Gaussians inside this mask may vary. Give this or the text field *Region* "
                           "below.")

    # ------------------------------------------------------------------ INSERT
    def _insertEngineSteps(self, settings: str) -> None:
        self._insertFunctionStep(self.prepareStep, settings, needsGPU=True)
        for epoch in self._pauses():
            self._insertFunctionStep(self.trainStep, epoch, settings, needsGPU=True)
        self._insertFunctionStep(self.runEngineStep, settings, needsGPU=True)

    def _pauses(self) -> List[int]:
        """Epochs after which training pauses: after each one for large sets, never for small ones."""
        size = self.inputParticles.get().getSize()
        epochs = max(1, round(PARTICLES_PER_STEP / size))
        form = config.TrainConfig(epochs=self.epochs.get(), batch_size=self.batchSize.get())
        return list(range(epochs, config.with_length(form, size).epochs, epochs))

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings: str) -> None:
        convert.write_particles(self.inputParticles.get(), self._starFile())

    def prepareStep(self, settings: str) -> None:
        """Read particles and neutral model, and compute the encoder's input."""
        self._runEngine(pause_after_epoch=0)

    def trainStep(self, epoch: int, settings: str) -> None:
        """Train until `epoch`; does nothing when training has stopped earlier by itself."""
        self._runEngine(pause_after_epoch=epoch)

    def createOutputStep(self, settings: str) -> None:
        source = self.inputParticles.get()
        latents = convert.read_latents_by_id(self.getRunFolder())
        output = self._flexParticles(source)
        mark_flex(output, self.getRunFolder())
        for item, points in convert.join(source.iterItems(), latents, "latent point"):
            output.append(self._latentItem(item, points))
        self._defineOutputs(outputParticles=output)
        for pointer in (self.inputParticles, self.inputGaussians, self.inputContinue):
            if pointer.get() is not None:
                self._defineSourceRelation(pointer, output)

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self) -> List[str]:
        problems = [convert.why_not_writable(self.inputParticles.get()),
                    run_problem(self.inputGaussians.get(), "fit", GMM_FOLDER)]
        if self.inputContinue.get() is not None:
            problems.append(run_problem(self.inputContinue.get(), "train"))
        problems += self._regionProblems("region", "inputRegion")
        problems += self._gridProblems() + self._varyProblems()
        return [problem for problem in problems if problem]

    def _varyProblems(self) -> List[str]:
        """A sentence when *Vary* names what no Gaussian has."""
        vary = self.vary.get("")
        if all(word in config.VARIABLE_PARAMETERS for word in vary.replace(" ", "").split(",")):
            return []
        return ["*Vary* must name some of %s, separated by commas, got '%s'." % (
            ", ".join(config.VARIABLE_PARAMETERS), vary)]

    def _gridProblems(self) -> List[str]:
        """A sentence when the Gaussians were fitted to a map on another grid than the particles'; on request
        they can be used as they are, in Å."""
        particles, folder = self.inputParticles.get(), run_folder_of(self.inputGaussians.get(), GMM_FOLDER)
        summary = rundir.read_json(os.path.join(folder, rundir.SUMMARY)) if folder else {}
        if self.rescaleMap.get() or "pixel_size" not in summary or not particles.getSize():
            return []
        theirs = Sampling(summary["box"], summary["pixel_size"])
        ours = Sampling(particles.getXDim(), particles.getSamplingRate())
        if ours.agrees(theirs):
            return []
        return ["%s: choose Gaussians fitted on the particles' grid, or set *Allow other sampling* to Yes to "
                "use them as they are, in Å."
                % theirs.difference("The map of the Gaussians", ours, "the particle set")]

    def _warnings(self) -> List[str]:
        particles = self.inputParticles.get()
        if particles is None:
            return []
        few = ["There are only %d particles: heterogeneity learned from fewer than a thousand is rarely real."
               % particles.getSize()]
        return (few if particles.getSize() < FEW_PARTICLES else []) + convert.doubts(particles)

    def _methods(self) -> List[str]:
        summary = self.getSummary()
        if not summary:
            return []
        return ["The heterogeneity of %d particles was learned with gmmhet [Chen2021]: %d latent dimensions, "
                "varying %s, objective '%s'%s." % (
                    self.inputParticles.get().getSize(), self.latentDim.get(), self.vary.get(),
                    self.getEnumText("objective"),
                    ", on top of an earlier training" if "stages" in summary else "")]

    # ------------------------------------------------------------------ UTILS
    def _inputValues(self) -> Dict[str, Any]:
        earlier = self.inputContinue.get()
        values = {"particles": self._starFile(), "gmm": run_folder_of(self.inputGaussians.get(), GMM_FOLDER),
                  "continue_from": run_folder_of(earlier) if earlier is not None else ""}
        if self.inputRegion.get() is not None:
            values["region"] = self._mapOf(self.inputRegion, "region")
        return values

    def _latentItem(self, item: Any, latents: convert.ParticleLatents) -> ParticleFlex:
        """A copy of a particle with its latent points."""
        copy = self._flexItem(item, self.getRunFolder())
        points = [[float(number) for number in z] for z in latents.z]
        copy.setZFlex(points[0])
        if len(points) > 1:
            setattr(copy, COPIES, CsvList(pType=float))
            getattr(copy, COPIES).set([number for point in points for number in point])
        convert.set_scalar(copy, AGREEMENT, latents.agreement)
        convert.set_scalar(copy, NEUTRAL_AGREEMENT, latents.neutral_agreement)
        convert.set_scalar(copy, HELD_OUT, latents.held_out)
        return copy
