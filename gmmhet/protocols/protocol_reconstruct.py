"""Phase 5: plain reconstructions of the original particles, the evidence for a conformation."""
from typing import Any, ClassVar, Dict, List

from pwem.objects import FSC, SetOfFSCs, SetOfVolumes, Volume
from pyworkflow.protocol import Form, params

from gmmhet import convert
from gmmhet.engine import config, rundir
from gmmhet.engine.resolution import read_fsc_csv
from gmmhet.protocols.protocol_base import GmmHetProtBase, run_folder_of, run_problem, summary_lines

#: classes of fewer particles get a warning
FEW_PARTICLES = 100


class GmmHetProtReconstruct(GmmHetProtBase):
    """Reconstruct particles, or each class of a classification, with half maps and their FSC.

    This uses the particles alone, not the Gaussian model: it is the evidence that a conformation is in the
    data. Outputs: a map with half maps for particles, a set of maps for classes, and the FSC curves.
    """

    _label = "reconstruct states"
    _config = config.ReconstructConfig
    _canUseGpu = False
    _fromInputs = ("particles", "ids", "model", "mask")
    _summaryTexts: ClassVar = {
        "particles": "*%d* particles", "resolution_angst": "*%.1f Å* (FSC 0.143, masked)",
        "resolution_unmasked_angst": "*%.1f Å* unmasked"}
    _possibleOutputs: ClassVar = {"outputVolume": Volume, "outputVolumes": SetOfVolumes,
                                  "outputFSCs": SetOfFSCs}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form: Form) -> None:
        form.addParam("inputParticles", params.PointerParam, important=True, label="Particles or classes",
                      pointerClass="SetOfParticles,SetOfClassesFlex,SetOfClasses3D",
                      help="Particles, one class, or classes (one reconstruction per class). With trained "
                           "particles the nearest ones to a latent point can be reconstructed: see *Near "
                           "latent point*.")
        self._addMask(form, "inputMask", label="Mask (optional)",
                      help="Soft mask for the FSC of the half maps; none: a soft sphere.")

    # ------------------------------------------------------------------ INSERT
    def _insertEngineSteps(self, settings: str) -> None:
        for number in self._classIds():
            self._insertFunctionStep(self.reconstructStep, number, settings, needsGPU=False)

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings: str) -> None:
        for number in self._classIds():
            convert.write_particles(self._particlesOf(number), self._starOf(number))

    def reconstructStep(self, number: int, settings: str) -> None:
        """Reconstruct class `number`, or the whole set (0)."""
        self._runEngine(self.getRunFolder(number), particles=self._starOf(number))

    def createOutputStep(self, settings: str) -> None:
        numbers = self._classIds()
        curves = SetOfFSCs.create(self._getPath())
        for number in numbers:
            for curve in read_curves(self.getRunFile(number, rundir.FSC)):
                if number:
                    curve.setObjLabel("class %d, %s" % (number, curve.getObjLabel()))
                curves.append(curve)
        volumes = [self._volumeOf(number) for number in numbers]
        outputs = {"outputVolume": volumes[0]}
        if self._isClasses():
            outputs = {"outputVolumes": SetOfVolumes.create(self._getPath())}
            outputs["outputVolumes"].setSamplingRate(volumes[0].getSamplingRate())
            for number, volume in zip(numbers, volumes):
                volume.setObjId(number)
                volume.setClassId(number)
                outputs["outputVolumes"].append(volume)
        self._defineOutputs(outputFSCs=curves, **outputs)
        for output in list(outputs.values()) + [curves]:
            self._defineSourceRelation(self.inputParticles, output)

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self) -> List[str]:
        source, near = self.inputParticles.get(), self.near.get("").strip()
        if self._isClasses():
            if not source.getSize():
                return ["The set of classes is empty: choose one that holds classes."]
            if near:
                return ["*Near latent point* selects particles: clear it, or choose particles."]
        problems = [convert.why_not_writable(self._particlesOf(number)) for number in self._classIds()[:1]]
        if near:
            problems.append(run_problem(source, "train"))
        return [problem for problem in problems if problem]

    def _warnings(self) -> List[str]:
        if not self._isClasses():
            return []
        sizes = [(item.getObjId(), item.getSize()) for item in self.inputParticles.get()]
        return ["Class %d has only %d particles: its map will be mostly noise." % (number, size)
                for number, size in sizes if size < FEW_PARTICLES]

    def _summary(self) -> List[str]:
        lines = []
        for number in self._classIds() if self.inputParticles.get() is not None else []:
            summary = rundir.read_json(self.getRunFile(number, rundir.SUMMARY))
            text = ", ".join(summary_lines(summary, self._summaryTexts))
            lines += [("Class %d: " % number if number else "") + text] if text else []
        return lines or ["Not finished yet."]

    def _methods(self) -> List[str]:
        return ["Particles were reconstructed with gmmhet in their given orientations, without any model, in "
                "two halves (symmetry %s)." % self.symmetry.get()]

    # ------------------------------------------------------------------ UTILS
    def getRunFolder(self, number: int = 0) -> str:
        """Run folder of class `number`, or of the whole set (0)."""
        return self._getExtraPath("reconstruct" if not number else "class_%03d" % number)

    def getRunFile(self, number: int = 0, *names: str) -> str:
        """Path of a file of the run of class `number`."""
        return "/".join([self.getRunFolder(number), *names])

    def _inputValues(self) -> Dict[str, Any]:
        near = self.near.get("").strip()
        return {"model": run_folder_of(self.inputParticles.get()) if near else "",
                "mask": self._mapOf(self.inputMask, "mask")}

    def _isClasses(self) -> bool:
        return hasattr(self.inputParticles.get(), "iterClassItems")

    def _classIds(self) -> List[int]:
        """Ids of the classes to reconstruct; [0] for a set of particles."""
        return [item.getObjId() for item in self.inputParticles.get()] if self._isClasses() else [0]

    def _particlesOf(self, number: int) -> Any:
        source = self.inputParticles.get()
        return source[number] if number else source

    def _starOf(self, number: int) -> str:
        return self.getRunFolder(number) + "_particles.star"

    def _volumeOf(self, number: int) -> Volume:
        path = self.getRunFile(number, rundir.MAP)
        volume = Volume(location=path)
        volume.setSamplingRate(convert.pixel_size_of(path))
        volume.setHalfMaps([self.getRunFile(number, rundir.HALF1), self.getRunFile(number, rundir.HALF2)])
        volume.setObjLabel("class %d" % number if number else "")
        return volume


def read_curves(path: str) -> List[FSC]:
    """The FSC curves of a run: one FSC object per column of its fsc.csv, labelled with the column's name."""
    frequency, columns = read_fsc_csv(path)
    curves = []
    for name, values in columns.items():
        curve = FSC(objLabel=name)
        curve.setData(frequency.tolist(), values.tolist())
        curves.append(curve)
    return curves
