"""What the five protocols share: form from the engine's parameters, one run folder, start and restart of the engine, common texts."""
import json
import os
from typing import ClassVar

import pyworkflow.utils as pwutils
from pwem.objects import ParticleFlex, SetOfParticlesFlex
from pwem.protocols import EMProtocol
from pyworkflow.protocol import params
from pyworkflow.protocol.constants import GPU_LIST, USE_GPU

from gmmhet import convert
from gmmhet.constants import MODEL_FOLDER, PROGRAM
from gmmhet.engine import config, rundir
from gmmhet.plugin import Plugin
from gmmhet.protocols.form import addField, fieldName, fieldValue, wordsOfForm

#: parameters that Scipion sets itself: run folder, restart, threads and GPUs
SET_BY_SCIPION = ("out", "resume", "threads", "gpus")


class GmmHetProtBase(EMProtocol):
    """Base of the protocols; each names its stage and which parameters come from its inputs.

    ``_fromInputs`` are parameters that a pointer or a file made from one fills; ``_notShown`` are parameters left out on purpose.
    """

    _label = None
    _config = None
    _fromInputs = ()
    _notShown = ()
    _sections: ClassVar = {}    # tabs between Input and Advanced: title -> names of parameters
    _canUseGpu = True
    _figures: ClassVar = {}     # lines of the summary: key in summary.json -> text with a place for the value

    # ------------------------------------------------------------------ DEFINE
    def _defineParams(self, form):
        form.addSection("Input")
        if self._canUseGpu:
            form.addHidden(USE_GPU, params.BooleanParam, default=True, label="Use GPU?",
                           help="Yes: the engine uses the GPUs listed, and the CPU when the machine has none. No: the CPU.")
            form.addHidden(GPU_LIST, params.StringParam, default="0", label="GPU ids",
                           help="Ids of the GPUs to use, separated by commas.")
        self._addInputs(form)
        shown = self._shownParameters()
        elsewhere = [name for names in self._sections.values() for name in names]
        for field in shown:
            if not field.metadata["expert"] and field.name != "seed" and field.name not in elsewhere:
                addField(form, self._config, field)
        for title, names in self._sections.items():
            form.addSection(title)
            for field in shown:
                if field.name in names:
                    addField(form, self._config, field)
        form.addSection("Advanced")
        for field in shown:
            if field.metadata["expert"] or field.name == "seed":
                addField(form, self._config, field)
        form.addParallelSection(threads=4, mpi=0)

    def _addInputs(self, form):
        """Add the pointers of the Input tab."""
        raise NotImplementedError

    @classmethod
    def _shownParameters(cls):
        """The engine's parameters that have a form field."""
        hidden = SET_BY_SCIPION + tuple(cls._fromInputs) + tuple(cls._notShown)
        return [field for field in config.parameters(cls._config) if field.name not in hidden]

    @staticmethod
    def _addMask(form, name, help, label="Mask", condition=None):
        options = {"condition": condition} if condition else {}
        form.addParam(name, params.PointerParam, pointerClass="VolumeMask", allowsNull=True, label=label + " (optional)", help=help,
                      **options)

    # ------------------------------------------------------------------ INSERT
    def _insertAllSteps(self):
        settings = self._settings()
        self._insertFunctionStep(self.convertInputStep, settings, needsGPU=False)
        self._insertEngineSteps(settings)
        self._insertFunctionStep(self.createOutputStep, settings, needsGPU=False)

    def _insertEngineSteps(self, settings):
        self._insertFunctionStep(self.runEngineStep, settings, needsGPU=True)

    def _settings(self):
        """All that must cause a re-run when it changes, as text: Scipion compares the arguments of the steps."""
        inputs = {}
        for name, pointer in self.iterInputAttributes():
            given = pointer.get()
            inputs[name] = [pointer.getUniqueId(), given.getSize() if hasattr(given, "getSize") else None]
        return json.dumps({"parameters": self._formValues(), "inputs": inputs}, sort_keys=True)

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings):
        """Write the input for the engine."""
        raise NotImplementedError

    def runEngineStep(self, settings):
        """Run the whole stage."""
        self._runEngine()

    def createOutputStep(self, settings):
        """Register the outputs."""
        raise NotImplementedError

    def _runEngine(self, folder=None, **changes):
        """Run the stage into `folder` with the values of form and inputs, and `changes` to them.

        Continues what a killed run left there; starts afresh when parameters have changed; does nothing when the run is finished.
        """
        cls, folder = self._config, folder or self.getRunFolder()
        request = folder + ".json"
        values = dict(self._formValues(), **dict(self._inputValues(), **changes))
        values.update(out=folder, threads=self.numberOfThreads.get(), gpus="auto" if self.usesGpu() else "none")
        if not _sameRun(rundir.read_json(request), values):
            pwutils.cleanPath(folder)
        elif rundir.is_finished(folder, cls.stage):
            return
        values["resume"] = os.path.exists(os.path.join(folder, rundir.CONFIG))
        with open(request, "w", encoding="utf-8") as file:
            file.write(config.to_json(config.from_dict(cls, values)))
        self.runJob(Plugin.getEngineCommand(self._getTmpPath()), "%s --config %s" % (cls.stage, request), env=self._engineEnviron())

    def _engineEnviron(self):
        environ = Plugin.getEnviron()
        if not self.usesGpu():
            environ["CUDA_VISIBLE_DEVICES"] = ""
        elif not (self.useQueue() and "CUDA_VISIBLE_DEVICES" in environ):     # a queue has chosen already
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in self.getGpuList())
        return environ

    # ------------------------------------------------------------------ INFO
    def _validate(self):
        try:
            given = config.from_dict(self._config, self._formValues())
        except config.ConfigError as error:
            return [str(error)]
        problems = [wordsOfForm(problem, self._config) for problem in config.problems(given)]
        return problems + ([] if self._lacksInput() else self._inputProblems())

    def _lacksInput(self):
        """Whether a pointer that must be given is empty; Scipion says so itself."""
        return any(not param.allowsNull and getattr(self, name).get() is None for name, param in self.getDefinition().iterPointerParams())

    def _inputProblems(self):
        """Sentences about inputs that cannot be used."""
        return []

    def _summary(self):
        return figureLines(self.getSummary(), self._figures) or ["Not finished yet."]

    def _citations(self):
        return ["Chen2021"]

    # ------------------------------------------------------------------ UTILS
    def getRunFolder(self):
        """The engine's run folder, relative to the project."""
        return self._getExtraPath(self._config.stage)

    def getRunFile(self, *names):
        """Path of a file in the run folder."""
        return os.path.join(self.getRunFolder(), *names)

    def getSummary(self):
        """The engine's figures (summary.json); empty before the run has finished."""
        return rundir.read_json(self.getRunFile(rundir.SUMMARY))

    def _formValues(self):
        return {field.name: fieldValue(self, field) for field in self._shownParameters()}

    def _inputValues(self):
        """Values of the parameters that come from inputs."""
        return {}

    def _starFile(self):
        return self._getExtraPath("particles.star")

    def _mapOf(self, pointer, name):
        """File of a pointer's volume for the engine; empty when nothing is given."""
        volume = pointer.get()
        return convert.writeMap(volume, self._getExtraPath(name + ".mrc")) if volume is not None else ""

    def _regionProblems(self, text, mask):
        given = getattr(self, fieldName(text)).get("").strip()
        if given and getattr(self, mask).get() is not None:
            return ["A region is given twice, as text ('%s') and as a mask: clear one of them." % given]
        return []

    def _flexParticles(self, source):
        """An empty output set with everything that `source` says about itself."""
        output = SetOfParticlesFlex.create(self._getPath(), progName=PROGRAM)
        output.copyInfo(source)
        output.setHasCTF(source.hasCTF())
        if source.hasCoordinates():
            output.copyAttributes(source, "_coordsPointer")
        return output

    @staticmethod
    def _flexItem(item, folder):
        """A copy of a particle, with its id, that knows its model."""
        copy = ParticleFlex(progName=PROGRAM)
        copy.copy(item, copyId=True)
        markFlex(copy, folder)
        return copy


def markFlex(obj, folder, attribute=MODEL_FOLDER):
    """Write program and run folder (relative to the project) into an object's FlexInfo."""
    obj.getFlexInfo().setProgName(PROGRAM)
    obj.getFlexInfo().setAttr(attribute, str(folder))


def flexFolder(obj, stage, attribute=MODEL_FOLDER):
    """The run folder that an object's FlexInfo names.

    Returns
    -------
    folder : str, empty when there is a problem.
    problem : str, a sentence, empty when the folder holds a finished run of `stage`.
    """
    info = obj.getFlexInfo() if hasattr(obj, "getFlexInfo") else None
    if info is None or info.getProgName() != PROGRAM or not hasattr(info, attribute):
        return "", "The input was not made by the '%s' protocol of gmmhet (program '%s'): choose an output of that protocol." % (
            stage, info.getProgName() if info is not None else "none")
    folder = info.getAttr(attribute)
    problem = rundir.missing_run(folder, stage)
    return ("", "The input names a run that cannot be read: %s. Run that protocol again." % problem) if problem else (folder, "")


def _sameRun(before, values):
    """Whether a request repeats an earlier one, apart from what does not change the result."""
    return all(before.get(key, value) == value for key, value in values.items() if key not in rundir.MAY_DIFFER)


def figureLines(summary, texts):
    """The figures of a summary as lines of text; figures that the run does not have are left out."""
    return [text % (", ".join(str(one) for one in summary[key]) if isinstance(summary[key], list) else summary[key])
            for key, text in texts.items() if summary.get(key) is not None]
