"""Form fields made from the engine's parameters, so that label, help, default and range are defined once
(`gmmhet.engine.config`)."""
import re
from typing import Any, Type

from pyworkflow.protocol import Form, Protocol, params
from pyworkflow.protocol.constants import LEVEL_ADVANCED, LEVEL_NORMAL

from gmmhet.engine import config

#: fields of every form that stand for a flag of the command line
SCIPION_FIELDS = {"--resume": "*Run mode* Continue", "--threads": "*Threads*", "--gpus": "*GPU ids*"}
_KINDS = {bool: params.BooleanParam, int: params.IntParam, float: params.FloatParam, str: params.StringParam}


def field_name(name: str) -> str:
    """``latent_dim`` -> ``latentDim``, the name of the form field."""
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def plain_label(parameter: config.Parameter) -> str:
    """Label of a parameter's form field, without its unit."""
    return parameter.label or parameter.name.replace("_", " ").capitalize()


def field_label(parameter: config.Parameter) -> str:
    """Label of a parameter's form field, with its unit."""
    label = plain_label(parameter)
    return "%s (%s)" % (label, parameter.units) if parameter.units else label


def name_fields(text: str, cls: Type[config.Common]) -> str:
    """A help text or message of the stage `cls` with labels of form fields in place of flags
    (``--latent-dim``)."""
    stages = [*config.STAGES.values(), cls]     # a flag of several stages means that of this one
    labels = {parameter.flag: "*%s*" % plain_label(parameter)
              for stage in stages for parameter in config.parameters(stage)}
    labels.update(SCIPION_FIELDS)
    return re.sub(r"--[a-z][a-z-]*", lambda match: labels.get(match.group(), match.group()), text)


def add_field(form: Form, cls: Type[config.Common], parameter: config.Parameter) -> None:
    """Add the form field of one parameter of the stage `cls`."""
    options = {"label": field_label(parameter), "help": name_fields(parameter.help, cls),
               "expertLevel": LEVEL_ADVANCED if parameter.expert else LEVEL_NORMAL,
               "default": parameter.default}
    kind = params.PathParam if parameter.path else _KINDS[parameter.kind]
    if parameter.choices:
        kind = params.EnumParam
        options.update(choices=list(parameter.choices), default=parameter.choices.index(parameter.default))
    form.addParam(field_name(parameter.name), kind, **options)


def field_value(protocol: Protocol, parameter: config.Parameter) -> Any:
    """The value of a parameter in a protocol's form, in the type that the engine expects."""
    value = getattr(protocol, field_name(parameter.name)).get()
    if parameter.choices:
        return parameter.choices[value]
    if value is None:
        return parameter.default
    return value.strip() if isinstance(value, str) else parameter.kind(value)
