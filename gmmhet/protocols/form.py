"""Form fields made from the engine's parameters, so that label, help, default and range are defined once (`gmmhet.engine.config`)."""
import dataclasses
import re

from pyworkflow.protocol import params
from pyworkflow.protocol.constants import LEVEL_ADVANCED, LEVEL_NORMAL

from gmmhet.engine import config


def fieldName(name):
    """``latent_dim`` -> ``latentDim``, the name of the form field."""
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def fieldLabel(field):
    """Label of a parameter's form field, with its unit."""
    label = field.metadata["label"] or field.name.replace("_", " ").capitalize()
    return "%s (%s)" % (label, field.metadata["unit"]) if field.metadata["unit"] else label


def wordsOfForm(text, cls):
    """A help text or message with flags of the command line (``--latent-dim``) replaced by the labels of the form."""
    labels = {config.flag(f.name): "*%s*" % (f.metadata["label"] or f.name.replace("_", " ").capitalize())
              for f in dataclasses.fields(cls)}
    return re.sub(r"--[a-z][a-z-]*", lambda found: labels.get(found.group(), found.group()), text)


def addField(form, cls, field):
    """Add the form field of one parameter of the stage `cls`."""
    meta, default = field.metadata, field.default
    options = {"label": fieldLabel(field), "help": wordsOfForm(meta["help"], cls),
               "expertLevel": LEVEL_ADVANCED if meta["expert"] else LEVEL_NORMAL}
    if meta["choices"]:
        kind = params.EnumParam
        options.update(choices=list(meta["choices"]), default=meta["choices"].index(default))
    else:
        kind = {bool: params.BooleanParam, int: params.IntParam, float: params.FloatParam, str: params.StringParam}[type(default)]
        if kind is params.StringParam and meta["path"]:
            kind = params.PathParam
        options["default"] = default
    form.addParam(fieldName(field.name), kind, **options)


def fieldValue(protocol, field):
    """The value of a parameter as the form has it, in the type that the engine expects."""
    value = getattr(protocol, fieldName(field.name)).get()
    if field.metadata["choices"]:
        return field.metadata["choices"][value]
    if value is None:
        return field.default
    return value.strip() if isinstance(value, str) else type(field.default)(value)
