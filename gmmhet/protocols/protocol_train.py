"""Phase 2: latent points of the particles and the decoder that turns them into Gaussian models."""
import os
from typing import ClassVar

from pwem.objects import SetOfParticlesFlex
from pyworkflow.object import CsvList
from pyworkflow.protocol import params

from gmmhet import convert
from gmmhet.constants import AGREEMENT, COPIES, GMM_FOLDER, HELD_OUT, NEUTRAL_AGREEMENT
from gmmhet.engine import config, rundir
from gmmhet.protocols.protocol_base import GmmHetProtBase, flexFolder, markFlex

#: a step of the training shows about so many particles to the networks, so that the project window moves; each step starts the engine anew
PARTICLES_PER_STEP = 50000


class GmmHetProtTrain(GmmHetProtBase):
    """Learn the heterogeneity of particles: one latent point per particle, and a decoder from latent points to Gaussian models.

    Output: the particles with their latent points (zFlex). With a symmetry above c1 every particle has one point per symmetry-related
    orientation; the particle stays one item, its zFlex is the point of the first orientation, and the points of all orientations, one after
    the other, are in the attribute _gmmCopies. A training that is a further stage on top of another one ('Continue from') gives latent
    points that begin with those of the earlier stages.
    """

    _label = "train heterogeneity"
    _config = config.TrainConfig
    _fromInputs = ("particles", "gmm", "continue_from")
    _notShown = ("pause_after_epoch", "ids")      # set by the steps; the input set is the subset
    _sections: ClassVar = {"Controls": ("null", "half_sets")}
    _figures: ClassVar = {"verdict": "%s", "held_out_evidence": "Evidence on held-out particles: *%.3g* nats a particle",
                          "motion_rms_angst": "Decoded motion: *%.2f Å* rms", "epochs": "Epochs: *%d*", "best_epoch": "Epoch kept: *%d*"}
    _possibleOutputs: ClassVar = {"outputParticles": SetOfParticlesFlex}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form):
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", pointerCondition="hasAlignmentProj",
                      important=True, label="Particles",
                      help="Particles with projection alignment and CTF; phase-flipped ones are recognised where the set says so.")
        form.addParam("inputGaussians", params.PointerParam, pointerClass="AtomStructFlex", important=True, label="Neutral model",
                      help="Pseudo-atoms of 'fit Gaussians'.")
        form.addParam("inputContinue", params.PointerParam, pointerClass="SetOfParticlesFlex", allowsNull=True,
                      label="Continue from (optional)",
                      help="Particles of an earlier training to go on from. With the same *Vary*, region and *Latent dim* its networks are "
                           "trained further. With others this is a further stage: every particle keeps the conformation that the earlier "
                           "training gave it, and what comes on top is learnt in latent dimensions of its own. For example amplitudes "
                           "first; then, with the class of particles that have a domain as *Particles* and a region about it, that "
                           "domain's motion (*Vary* position).")
        self._addMask(form, "inputRegion", "Only Gaussians inside this mask may vary. Give this or the text field 'Region' below.",
                      label="Region mask")

    # ------------------------------------------------------------------ INSERT
    def _insertEngineSteps(self, settings):
        self._insertFunctionStep(self.prepareStep, settings, needsGPU=True)
        for epoch in self._pauses():
            self._insertFunctionStep(self.trainStep, epoch, settings, needsGPU=True)
        self._insertFunctionStep(self.runEngineStep, settings, needsGPU=True)

    def _pauses(self):
        """Epochs after which training pauses: after each one for large sets, never for small ones."""
        size = self.inputParticles.get().getSize()
        epochs = max(1, round(PARTICLES_PER_STEP / size))
        length = config.with_length(config.TrainConfig(epochs=self.epochs.get(), batch_size=self.batchSize.get()), size)
        return list(range(epochs, length.epochs, epochs))

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings):
        convert.writeParticles(self.inputParticles.get(), self._starFile())

    def prepareStep(self, settings):
        """Read particles and neutral model, and compute the encoder's input."""
        self._runEngine(pause_after_epoch=0)

    def trainStep(self, epoch, settings):
        """Train until `epoch`; nothing is left to do when training has stopped earlier by itself."""
        self._runEngine(pause_after_epoch=epoch)

    def _inputValues(self):
        earlier = self.inputContinue.get()
        values = {"particles": self._starFile(), "gmm": flexFolder(self.inputGaussians.get(), "fit", GMM_FOLDER)[0],
                  "continue_from": flexFolder(earlier, "train")[0] if earlier is not None else ""}
        if self.inputRegion.get() is not None:
            values["region"] = self._mapOf(self.inputRegion, "region")
        return values

    def createOutputStep(self, settings):
        source = self.inputParticles.get()
        latents = convert.readLatents(self.getRunFile(rundir.LATENTS))
        output = self._flexParticles(source)
        markFlex(output, self.getRunFolder())
        for item, found in convert.join(source.iterItems(), latents, "latent point"):
            output.append(self._latentItem(item, found))
        self._defineOutputs(outputParticles=output)
        for pointer in (self.inputParticles, self.inputGaussians, self.inputContinue):
            if pointer.get() is not None:
                self._defineSourceRelation(pointer, output)

    def _latentItem(self, item, found):
        copy = self._flexItem(item, self.getRunFolder())
        points = [[float(number) for number in point] for point in found["z"]]
        copy.setZFlex(points[0])
        if len(points) > 1:
            setattr(copy, COPIES, CsvList(pType=float))
            getattr(copy, COPIES).set([number for point in points for number in point])
        for name, value in ((AGREEMENT, found["agreement"]), (NEUTRAL_AGREEMENT, found["neutral_agreement"]),
                            (HELD_OUT, found["held_out"])):
            convert.setScalar(copy, name, value)
        return copy

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self):
        problems = [convert.whyNotWritable(self.inputParticles.get()), flexFolder(self.inputGaussians.get(), "fit", GMM_FOLDER)[1]]
        if self.inputContinue.get() is not None:
            problems.append(flexFolder(self.inputContinue.get(), "train")[1])
        problems += self._regionProblems("region", "inputRegion") + self._gridProblems()
        wrong = [word for word in self.vary.get("").replace(" ", "").split(",") if word not in config.COLUMNS]
        if wrong:
            problems.append("*Vary* must name some of %s, separated by commas, got '%s'." % (", ".join(config.COLUMNS), self.vary.get()))
        return [problem for problem in problems if problem]

    def _gridProblems(self):
        """Sentences when the Gaussians were fitted on another grid than the particles'; in Å they can be used as they are, if asked."""
        particles = self.inputParticles.get()
        fitted = rundir.read_json(os.path.join(flexFolder(self.inputGaussians.get(), "fit", GMM_FOLDER)[0], rundir.SUMMARY))
        if self.rescaleMap.get() or "pixel_size" not in fitted or not particles.getSize():
            return []
        ours, theirs = (particles.getXDim(), particles.getSamplingRate()), (fitted["box"], fitted["pixel_size"])
        if ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= 1e-3 * ours[1]:
            return []
        return ["The Gaussians were fitted to a map of %d px of %.4g Å, the particles have %d px of %.4g Å: choose Gaussians fitted on the "
                "particles' grid, or set *Rescale map* to Yes to use them as they are, in Å." % (*theirs, *ours)]

    def _warnings(self):
        particles = self.inputParticles.get()
        if particles is None:
            return []
        few = ["There are only %d particles: heterogeneity learnt from fewer than a thousand is rarely real." % particles.getSize()]
        return (few if particles.getSize() < 1000 else []) + convert.doubts(particles)

    def _methods(self):
        if not self.getSummary():
            return []
        return ["The heterogeneity of %d particles was learnt with gmmhet [Chen2021]: "
                "%d latent dimensions, %s varying, objective '%s'%s." % (
            self.inputParticles.get().getSize(), self.latentDim.get(), self.vary.get(), self.getEnumText("objective"),
            ", on top of an earlier training" if "stages" in self.getSummary() else "")]
