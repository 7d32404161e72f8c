"""Phase 1: the neutral Gaussian model."""
from typing import ClassVar

from pwem.objects import AtomStructFlex, Volume
from pyworkflow.protocol import params

from gmmhet import convert
from gmmhet.constants import GMM_FOLDER, PROGRAM
from gmmhet.engine import config, rundir
from gmmhet.protocols.protocol_base import GmmHetProtBase, markFlex


class GmmHetProtFit(GmmHetProtBase):
    """Fit the neutral Gaussian model to a consensus map, or straight to posed particles.

    The number of Gaussians follows from the target resolution. Outputs: the Gaussians as pseudo-atoms, and the map that they render to.
    """

    _label = "fit Gaussians"
    _config = config.FitConfig
    _fromInputs = ("map", "particles", "atoms", "mask")
    _figures: ClassVar = {"gaussians": "Gaussians: *%d*", "probes": "Of them in weak density: *%d*",
                          "chains": "Chains: *%s*", "resolution_angst": "Target resolution: *%.1f Å*",
                          "mean_fsc": "Mean FSC with the map up to there: *%.3f*"}
    _possibleOutputs: ClassVar = {"outputPseudoAtoms": AtomStructFlex, "outputVolume": Volume}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form):
        form.addParam("inputVolume", params.PointerParam, pointerClass="Volume", allowsNull=True, important=True, label="Consensus map",
                      help="Map of the refinement that posed the particles, unsharpened. Give this or particles, not both.")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", pointerCondition="hasAlignmentProj",
                      allowsNull=True, label="or particles",
                      help="Particles with projection alignment and CTF: the Gaussians are fitted straight to them. Slower than a map, but "
                           "density that the consensus has smeared out is not lost.")
        form.addParam("inputAtoms", params.PointerParam, pointerClass="AtomStruct", allowsNull=True, label="Atomic model (optional)",
                      help="A model fitted into this map. The Gaussians start from its atoms and remember chains and residues, so that a "
                           "training can name them in its region, as in chain:A,B/120-240. Density that it does not explain gets Gaussians "
                           "too.")
        self._addMask(form, "inputMask", "Gaussians outside the mask are dropped. It must have the size and pixel size of the map.")

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings):
        if self.inputVolume.get() is None:
            convert.writeParticles(self.inputParticles.get(), self._starFile())

    def _inputValues(self):
        particles = "" if self.inputVolume.get() is not None else self._starFile()
        atoms = self.inputAtoms.get()
        return {"map": self._mapOf(self.inputVolume, "input_map"), "particles": particles, "mask": self._mapOf(self.inputMask, "mask"),
                "atoms": atoms.getFileName() if atoms is not None else ""}

    def createOutputStep(self, settings):
        source = self.inputVolume if self.inputVolume.get() is not None else self.inputParticles
        volume = Volume(location=self.getRunFile(rundir.GMM_MAP))
        volume.setSamplingRate(convert.pixelSizeOf(volume.getFileName()))
        volume.setObjComment("Rendered from the Gaussian model")
        atoms = AtomStructFlex(filename=self.getRunFile(rundir.GMM_CIF), pseudoatoms=True, progName=PROGRAM)
        markFlex(atoms, self.getRunFolder(), GMM_FOLDER)
        self._defineOutputs(outputPseudoAtoms=atoms, outputVolume=volume)
        for output in (atoms, volume):
            self._defineSourceRelation(source, output)
            if self.inputAtoms.get() is not None:
                self._defineSourceRelation(self.inputAtoms, output)

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self):
        volume, particles, mask = self.inputVolume.get(), self.inputParticles.get(), self.inputMask.get()
        if (volume is None) == (particles is None):
            return ["Give a consensus map or particles%s." % (", not both: clear one of them" if volume is not None else "")]
        if particles is not None:
            problem = convert.whyNotWritable(particles)
            return atomsProblems(self.inputAtoms.get()) + ([problem] if problem else [])
        return atomsProblems(self.inputAtoms.get()) + sameGridProblems(volume, mask)

    def _warnings(self):
        return convert.doubts(self.inputParticles.get()) if self.inputParticles.get() is not None else []

    def _methods(self):
        summary = self.getSummary()
        if not summary:
            return []
        return ["A Gaussian mixture%s was fitted to %s with gmmhet [Chen2021]." % (
            " of %d components" % summary["gaussians"] if "gaussians" in summary else "",
            "the consensus map" if self.inputVolume.get() is not None else "the particles")]


def atomsProblems(atoms):
    """Sentences when an atomic model cannot start a fit."""
    if atoms is not None and atoms.getPseudoAtoms():
        return ["The atomic model holds pseudo-atoms, which have neither chains nor residues: give a real one, or clear the field."]
    return []


def sameGridProblems(volume, mask):
    """Sentences when a mask has another box or pixel size than a volume."""
    if mask is None:
        return []
    ours, theirs = (volume.getXDim(), volume.getSamplingRate()), (mask.getXDim(), mask.getSamplingRate())
    if ours[0] != theirs[0] or abs(ours[1] - theirs[1]) > 0.001 * ours[1]:
        return ["The mask is %s px of %.4g Å, the map %s px of %.4g Å: resample the mask to the map's grid." % (
            theirs[0], theirs[1], ours[0], ours[1])]
    return []
