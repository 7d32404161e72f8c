"""Phase 5: plain reconstructions of the original particles, the evidence for what was found."""
import csv
from typing import ClassVar

from pwem.objects import FSC, SetOfFSCs, SetOfVolumes, Volume
from pyworkflow.protocol import params

from gmmhet import convert
from gmmhet.engine import config, rundir
from gmmhet.protocols.protocol_base import GmmHetProtBase, figureLines, flexFolder

CLASSES = "SetOfClasses"


class GmmHetProtReconstruct(GmmHetProtBase):
    """Reconstruct particles, or each class of a classification, with half maps and their FSC.

    This uses the particles alone, not the Gaussian model: it is the evidence that a conformation is in the data. Outputs: a map with half
    maps for particles, a set of maps for classes, and the FSC curves.
    """

    _label = "reconstruct states"
    _config = config.ReconstructConfig
    _canUseGpu = False
    _fromInputs = ("particles", "ids", "model", "mask")
    _figures: ClassVar = {"particles": "*%d* particles", "resolution_angst": "*%.1f Å* at FSC 0.143 in the mask",
                          "resolution_unmasked_angst": "*%.1f Å* unmasked"}
    _possibleOutputs: ClassVar = {"outputVolume": Volume, "outputVolumes": SetOfVolumes, "outputFSCs": SetOfFSCs}

    # ------------------------------------------------------------------ DEFINE
    def _addInputs(self, form):
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles,SetOfClassesFlex,SetOfClasses3D", important=True,
                      label="Particles or classes",
                      help="Particles, one class, or classes (one reconstruction per class). With trained particles the nearest ones to a "
                           "latent point can be taken: see 'Near'.")
        self._addMask(form, "inputMask", "Soft mask for the FSC of the half maps; none: a soft sphere.")

    # ------------------------------------------------------------------ INSERT
    def _insertEngineSteps(self, settings):
        for number in self._classIds():
            self._insertFunctionStep(self.reconstructStep, number, settings, needsGPU=False)

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings):
        for number in self._classIds():
            convert.writeParticles(self._particlesOf(number), self._starOf(number))

    def reconstructStep(self, number, settings):
        """Reconstruct class `number`, or the whole set (0)."""
        self._runEngine(self.getRunFolder(number), particles=self._starOf(number))

    def _inputValues(self):
        model = flexFolder(self.inputParticles.get(), "train")[0] if self.near.get("").strip() else ""
        return {"model": model, "mask": self._mapOf(self.inputMask, "mask")}

    def createOutputStep(self, settings):
        numbers = self._classIds()
        curves = SetOfFSCs.create(self._getPath())
        volumes = [self._volumeOf(number) for number in numbers]
        for number in numbers:
            for curve in readCurves(self.getRunFile(number, rundir.FSC)):
                if number:
                    curve.setObjLabel("class %d, %s" % (number, curve.getObjLabel()))
                curves.append(curve)
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

    def _volumeOf(self, number):
        path = self.getRunFile(number, rundir.MAP)
        volume = Volume(location=path)
        volume.setSamplingRate(convert.pixelSizeOf(path))
        volume.setHalfMaps([self.getRunFile(number, rundir.HALF1), self.getRunFile(number, rundir.HALF2)])
        volume.setObjLabel("class %d" % number if number else "")
        return volume

    # ------------------------------------------------------------------ INFO
    def _inputProblems(self):
        given = self.inputParticles.get()
        if self._isClasses():
            if not given.getSize():
                return ["The set of classes is empty: choose one that holds classes."]
            if self.near.get("").strip():
                return ["*Near* picks particles by their latent point and needs particles, not classes: clear it, or choose the particles."]
        problems = [convert.whyNotWritable(self._particlesOf(number)) for number in self._classIds()[:1]]
        if self.near.get("").strip() and not self._isClasses():
            problems.append(flexFolder(given, "train")[1])
        return [problem for problem in problems if problem]

    def _warnings(self):
        if not self._isClasses():
            return []
        small = [(item.getObjId(), item.getSize()) for item in self.inputParticles.get() if item.getSize() < 100]
        return ["Class %d has only %d particles: its map will be mostly noise." % found for found in small]

    def _summary(self):
        lines = []
        for number in self._classIds() if self.inputParticles.get() is not None else []:
            found = figureLines(rundir.read_json(self.getRunFile(number, rundir.SUMMARY)), self._figures)
            lines += [("Class %d: " % number if number else "") + ", ".join(found)] if found else []
        return lines or ["Not finished yet."]

    def _methods(self):
        return ["Particles were reconstructed with gmmhet from their alignment alone, in two halves (symmetry %s)." % self.symmetry.get()]

    # ------------------------------------------------------------------ UTILS
    def getRunFolder(self, number=0):
        """Run folder of class `number`, or of the whole set (0)."""
        return self._getExtraPath("reconstruct" if not number else "class_%03d" % number)

    def getRunFile(self, number=0, *names):
        """Path of a file of the run of class `number`."""
        return "/".join([self.getRunFolder(number)] + list(names))

    def _isClasses(self):
        return hasattr(self.inputParticles.get(), "iterClassItems")

    def _classIds(self):
        """Ids of the classes to reconstruct; [0] for a set of particles."""
        return [item.getObjId() for item in self.inputParticles.get()] if self._isClasses() else [0]

    def _particlesOf(self, number):
        given = self.inputParticles.get()
        return given[number] if number else given

    def _starOf(self, number):
        return self.getRunFolder(number) + "_particles.star"


def readCurves(path):
    """The FSC curves of a run: one FSC object per column, labelled with its name."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    frequency = [1.0 / float(row[0]) if float(row[0]) > 0 else 0.0 for row in rows]
    curves = []
    for column, name in enumerate(header[1:], 1):
        curve = FSC(objLabel=name)
        curve.setData(frequency, [float(row[column]) for row in rows])
        curves.append(curve)
    return curves
