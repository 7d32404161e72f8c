"""What the five protocols share: the form made from the engine's parameters, one run folder, start and
restart of the engine, and texts.

A protocol file has its methods in the order DEFINE (the form), INSERT (the steps' list), STEPS, INFO (what
Scipion shows of the run) and UTILS.
"""
import json
import os
from typing import Any, ClassVar, Dict, List, Optional, Tuple, Type

import pyworkflow.utils as pwutils
from pwem.objects import ParticleFlex, SetOfParticlesFlex
from pwem.protocols import EMProtocol
from pyworkflow.protocol import Form, params
from pyworkflow.protocol.constants import GPU_LIST, USE_GPU

from gmmhet import convert
from gmmhet.constants import MODEL_FOLDER, PROGRAM
from gmmhet.engine import config, rundir
from gmmhet.plugin import Plugin
from gmmhet.protocols.form import add_field, field_name, field_value, name_fields

#: parameters that Scipion sets itself: run folder, restart, threads and GPUs
SET_BY_SCIPION = ("out", "resume", "threads", "gpus")


class GmmHetProtBase(EMProtocol):
    """Base of the protocols; each names its stage and which parameters come from its inputs.

    ``_fromInputs`` are parameters that an input (a pointer, or a file made from one) sets; ``_withoutField``
    are parameters that the form leaves out on purpose.
    """

    _label: Optional[str] = None
    _config: Type[config.Common] = config.Common
    _fromInputs: Tuple[str, ...] = ()
    _withoutField: Tuple[str, ...] = ()
    #: tabs between Input and Advanced: title -> names of parameters
    _tabs: ClassVar[Dict[str, Tuple[str, ...]]] = {}
    _canUseGpu = True
    #: lines of the summary: key in summary.json -> text with a place for the value
    _summaryTexts: ClassVar[Dict[str, str]] = {}

    # ------------------------------------------------------------------ DEFINE
    def _defineParams(self, form: Form) -> None:
        form.addSection("Input")
        if self._canUseGpu:
            form.addHidden(USE_GPU, params.BooleanParam, default=True, label="Use GPU?",
                           help="Yes: the engine uses the GPUs listed, and the CPU when the machine has "
                                "none. No: the CPU.")
            form.addHidden(GPU_LIST, params.StringParam, default="0", label="GPU ids",
                           help="Ids of the GPUs to use, separated by commas.")
        self._addInputs(form)
        parameters = self._formParameters()
        advanced = [one for one in parameters if one.expert or one.name == "seed"]
        tabs = {title: [one for one in parameters if one.name in names]
                for title, names in self._tabs.items()}
        elsewhere = {one.name for group in (advanced, *tabs.values()) for one in group}
        for parameter in parameters:
            if parameter.name not in elsewhere:
                add_field(form, self._config, parameter)
        for title, group in [*tabs.items(), ("Advanced", advanced)]:
            form.addSection(title)
            for parameter in group:
                add_field(form, self._config, parameter)
        form.addParallelSection(threads=4, mpi=0)

    def _addInputs(self, form: Form) -> None:
        """Add the pointers of the Input tab."""
        raise NotImplementedError

    @classmethod
    def _formParameters(cls) -> List[config.Parameter]:
        """The engine's parameters that have a form field."""
        hidden = SET_BY_SCIPION + cls._fromInputs + cls._withoutField
        return [parameter for parameter in config.parameters(cls._config) if parameter.name not in hidden]

    @staticmethod
    def _addMask(form: Form, name: str, label: str, help: str) -> None:
        form.addParam(name, params.PointerParam, pointerClass="VolumeMask", allowsNull=True, label=label,
                      help=help)

    # ------------------------------------------------------------------ INSERT
    def _insertAllSteps(self) -> None:
        settings = self._settings()
        self._insertFunctionStep(self.convertInputStep, settings, needsGPU=False)
        self._insertEngineSteps(settings)
        self._insertFunctionStep(self.createOutputStep, settings, needsGPU=False)

    def _insertEngineSteps(self, settings: str) -> None:
        self._insertFunctionStep(self.runEngineStep, settings, needsGPU=True)

    def _settings(self) -> str:
        """All that must cause a re-run when it changes, as text: Scipion compares the arguments of the
        steps."""
        inputs = {}
        for name, pointer in self.iterInputAttributes():
            target = pointer.get()
            inputs[name] = [pointer.getUniqueId(), target.getSize() if hasattr(target, "getSize") else None]
        return json.dumps({"parameters": self._formValues(), "inputs": inputs}, sort_keys=True)

    # ------------------------------------------------------------------ STEPS
    def convertInputStep(self, settings: str) -> None:
        """Write the input for the engine."""
        raise NotImplementedError

    def runEngineStep(self, settings: str) -> None:
        """Run the whole stage."""
        self._runEngine()

    def createOutputStep(self, settings: str) -> None:
        """Register the outputs."""
        raise NotImplementedError

    # ------------------------------------------------------------------ INFO
    def _validate(self) -> List[str]:
        try:
            values = config.from_dict(self._config, self._formValues())
        except config.ConfigError as error:
            return [str(error)]
        problems = [name_fields(problem, self._config) for problem in config.problems(values)]
        return problems + ([] if self._lacksInput() else self._inputProblems())

    def _lacksInput(self) -> bool:
        """Whether a pointer that must be set is empty; Scipion says so itself."""
        pointers = self.getDefinition().iterPointerParams()
        return any(not param.allowsNull and getattr(self, name).get() is None for name, param in pointers)

    def _inputProblems(self) -> List[str]:
        """Sentences about inputs that cannot be used."""
        return []

    def _summary(self) -> List[str]:
        return summary_lines(self.getSummary(), self._summaryTexts) or ["Not finished yet."]

    def _citations(self) -> List[str]:
        return ["Chen2021"]

    # ------------------------------------------------------------------ UTILS
    def getRunFolder(self) -> str:
        """The engine's run folder, relative to the project."""
        return self._getExtraPath(self._config.stage)

    def getRunFile(self, *names: str) -> str:
        """Path of a file in the run folder."""
        return os.path.join(self.getRunFolder(), *names)

    def getSummary(self) -> Dict[str, Any]:
        """The engine's summary.json; empty before the run has finished."""
        return rundir.read_json(self.getRunFile(rundir.SUMMARY))

    def _runEngine(self, folder: str = "", **changes: Any) -> None:
        """Run the stage into `folder` with the values of form and inputs, and `changes` to them.

        Continues a run that was killed there; starts anew when parameters have changed; does nothing when the
        run is finished.
        """
        stage, folder = self._config.stage, folder or self.getRunFolder()
        request = folder + ".json"
        values = {**self._formValues(), **self._inputValues(), **changes, "out": folder,
                  "threads": self.numberOfThreads.get(), "gpus": "auto" if self.usesGpu() else "none"}
        if not _is_same_run(rundir.read_json(request), values):
            pwutils.cleanPath(folder)
        elif rundir.is_finished(folder, stage):
            return
        values["resume"] = os.path.exists(os.path.join(folder, rundir.CONFIG))
        with open(request, "w", encoding="utf-8") as file:
            file.write(config.to_json(config.from_dict(self._config, values)))
        self.runJob(Plugin.getEngineCommand(self._getTmpPath()), "%s --config %s" % (stage, request),
                    env=self._engineEnviron())

    def _engineEnviron(self) -> pwutils.Environ:
        """Scipion's environment, with the GPUs that the engine may see."""
        environ = Plugin.getEnviron()
        if not self.usesGpu():
            environ["CUDA_VISIBLE_DEVICES"] = ""
        elif not (self.useQueue() and "CUDA_VISIBLE_DEVICES" in environ):   # else the queue has assigned them
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in self.getGpuList())
        return environ

    def _formValues(self) -> Dict[str, Any]:
        """Values of the parameters that have a form field."""
        return {parameter.name: field_value(self, parameter) for parameter in self._formParameters()}

    def _inputValues(self) -> Dict[str, Any]:
        """Values of the parameters that inputs set."""
        return {}

    def _starFile(self) -> str:
        """The star file of the input particles."""
        return self._getExtraPath("particles.star")

    def _mapOf(self, pointer: Any, name: str) -> str:
        """File of a pointer's volume for the engine; empty when the pointer is."""
        volume = pointer.get()
        return convert.write_map(volume, self._getExtraPath(name + ".mrc")) if volume is not None else ""

    def _regionProblems(self, text: str, mask: str) -> List[str]:
        """A sentence when a region is set twice: in the field of parameter `text` and in the pointer
        `mask`."""
        region = getattr(self, field_name(text)).get("").strip()
        if region and getattr(self, mask).get() is not None:
            return ["A region is given twice, as text ('%s') and as a mask: clear one of them." % region]
        return []

    def _flexParticles(self, source: Any) -> SetOfParticlesFlex:
        """An empty output set with the properties of `source`."""
        output = SetOfParticlesFlex.create(self._getPath(), progName=PROGRAM)
        output.copyInfo(source)
        output.setHasCTF(source.hasCTF())
        if source.hasCoordinates():
            output.copyAttributes(source, "_coordsPointer")
        return output

    @staticmethod
    def _flexItem(item: Any, folder: str) -> ParticleFlex:
        """A copy of a particle, with its id, that names its model."""
        copy = ParticleFlex(progName=PROGRAM)
        copy.copy(item, copyId=True)
        mark_flex(copy, folder)
        return copy


def mark_flex(obj: Any, folder: str, attribute: str = MODEL_FOLDER) -> None:
    """Write program and run folder (relative to the project) into an object's FlexInfo."""
    obj.getFlexInfo().setProgName(PROGRAM)
    obj.getFlexInfo().setAttr(attribute, str(folder))


def run_folder_of(obj: Any, attribute: str = MODEL_FOLDER) -> str:
    """The run folder that an object's FlexInfo names; empty where it names none."""
    info = obj.getFlexInfo() if hasattr(obj, "getFlexInfo") else None
    ours = info is not None and info.getProgName() == PROGRAM and hasattr(info, attribute)
    return info.getAttr(attribute) if ours else ""


def run_problem(obj: Any, stage: str, attribute: str = MODEL_FOLDER) -> str:
    """A sentence when an object's FlexInfo names no finished run of `stage`, else an empty string."""
    folder = run_folder_of(obj, attribute)
    if not folder:
        program = obj.getFlexInfo().getProgName() if hasattr(obj, "getFlexInfo") else "none"
        return ("The input was not made by the '%s' protocol of gmmhet (program '%s'): choose an output of "
                "that protocol." % (stage, program))
    problem = rundir.missing_run(folder, stage)
    if problem:
        return "The input names a run that cannot be read: %s. Run that protocol again." % problem
    return ""


def _is_same_run(before: Dict[str, Any], values: Dict[str, Any]) -> bool:
    """Whether a request repeats an earlier one, apart from what does not change the result."""
    return all(before.get(key, value) == value for key, value in values.items()
               if key not in rundir.MAY_DIFFER)


def summary_lines(summary: Dict[str, Any], texts: Dict[str, str]) -> List[str]:
    """The values of a summary as lines of text; those that the run does not have are left out."""
    values = {key: summary[key] for key in texts if summary.get(key) is not None}
    return [texts[key] % (", ".join(str(one) for one in value) if isinstance(value, list) else value)
            for key, value in values.items()]
