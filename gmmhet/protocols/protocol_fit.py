"""Phase 1: the neutral Gaussian model."""
from typing import Any, ClassVar, Dict, List

from pwem.objects import AtomStructFlex, Volume
from pyworkflow.protocol import Form, params

from gmmhet import convert
from gmmhet.constants import GMM_FOLDER, PROGRAM
from gmmhet.engine import config, rundir
from gmmhet.engine.sampling import Sampling
from gmmhet.protocols.protocol_base import GmmHetProtBase, mark_flex


class GmmHetProtFit(GmmHetProtBase):
    """Fit the neutral Gaussian model to a consensus map, or to the reconstruction of particles with known
    poses.

    The number of Gaussians follows from the target resolution. Outputs: the Gaussians as pseudo-atoms, and
    the map of the Gaussian model.
    """

    _label = "fit Gaussians"
    _config = config.FitConfig
    _fromInputs = ("map", "particles", "atoms", "mask")
    _summaryTexts: ClassVar = {
        "gaussians": "Gaussians: *%d*", "probes": "Of them in weak density: *%d*", "chains": "Chains: *%s*",
        "resolution_angst": "Target resolution: *%.1f Å*",
        "mean_fsc": "Mean FSC with the map up to the target resolution: *%.3f*"}
    _possibleOutputs: ClassVar = {"outputPseudoAtoms": AtomStructFlex, "outputVolume": Volume}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form: Form) -> None:
        form.addParam("inputVolume", params.PointerParam, pointerClass="Volume", allowsNull=True,
                      important=True, label="Consensus map",
                      help="Unsharpened map of the refinement that the particles' poses come from. Give this "
                           "or particles, not both.")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles",
                      pointerCondition="hasAlignmentProj", allowsNull=True,
                      label="Particles (instead of a map)",
                      help="Particles with projection alignment and CTF: they are reconstructed first, and "
                           "the Gaussians are fitted to that map.")
        form.addParam("inputAtoms", params.PointerParam, pointerClass="AtomStruct", allowsNull=True,
                      label="Atomic model (optional)",
                      help="A model fitted into this map. The Gaussians start from its atoms and are "
                           "labelled with chain and residues, so that a training can name them in its "
                           "region, as in chain:A,B/120-240. Density that it does not explain gets Gaussians "
                           "too.")
        self._addMask(form, "inputMask", label="Mask (optional)",
                      help="Gaussians outside the mask are dropped. It must have the box and pixel size of "
                           "the map.")

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings: str) -> None:
        if self.inputVolume.get() is None:
            convert.write_particles(self.inputParticles.get(), self._starFile())

    def createOutputStep(self, settings: str) -> None:
        source = self.inputVolume if self.inputVolume.get() is not None else self.inputParticles
        volume = Volume(location=self.getRunFile(rundir.GMM_MAP))
        volume.setSamplingRate(convert.pixel_size_of(volume.getFileName()))
        volume.setObjComment("Map of the Gaussian model")
        atoms = AtomStructFlex(filename=self.getRunFile(rundir.GMM_CIF), pseudoatoms=True, progName=PROGRAM)
        mark_flex(atoms, self.getRunFolder(), GMM_FOLDER)
        self._defineOutputs(outputPseudoAtoms=atoms, outputVolume=volume)
        for output in (atoms, volume):
            self._defineSourceRelation(source, output)
            if self.inputAtoms.get() is not None:
                self._defineSourceRelation(self.inputAtoms, output)

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self) -> List[str]:
        volume, particles = self.inputVolume.get(), self.inputParticles.get()
        if (volume is None) == (particles is None):
            end = ", not both: clear one of them" if volume is not None else ""
            return ["Give a consensus map or particles%s." % end]
        problems = atoms_problems(self.inputAtoms.get())
        if volume is not None:
            return problems + mask_problems(volume, self.inputMask.get())
        unusable = convert.why_not_writable(particles)
        return problems + ([unusable] if unusable else [])

    def _warnings(self) -> List[str]:
        return convert.doubts(self.inputParticles.get()) if self.inputParticles.get() is not None else []

    def _methods(self) -> List[str]:
        summary = self.getSummary()
        if not summary:
            return []
        number = " of %d Gaussians" % summary["gaussians"] if "gaussians" in summary else ""
        target = "consensus map" if self.inputVolume.get() is not None else "reconstruction of the particles"
        return ["A Gaussian mixture model%s was fitted to the %s with gmmhet [Chen2021]." % (number, target)]

    # ------------------------------------------------------------------ UTILS
    def _inputValues(self) -> Dict[str, Any]:
        atoms = self.inputAtoms.get()
        return {"map": self._mapOf(self.inputVolume, "input_map"),
                "particles": "" if self.inputVolume.get() is not None else self._starFile(),
                "mask": self._mapOf(self.inputMask, "mask"),
                "atoms": atoms.getFileName() if atoms is not None else ""}


def atoms_problems(atoms: Any) -> List[str]:
    """Sentences when an atomic model cannot start a fit."""
    if atoms is not None and atoms.getPseudoAtoms():
        problem = "The atomic model holds pseudo-atoms, which have neither chains nor residues: "
        return [problem + "choose a real one, or clear the field."]
    return []


def mask_problems(volume: Any, mask: Any) -> List[str]:
    """Sentences when a mask has another box or pixel size than a volume."""
    if mask is None:
        return []
    ours, theirs = [Sampling(one.getXDim(), one.getSamplingRate()) for one in (volume, mask)]
    if theirs.agrees(ours):
        return []
    return ["%s: resample the mask to the map's grid." % theirs.difference("The mask", ours, "the map")]
