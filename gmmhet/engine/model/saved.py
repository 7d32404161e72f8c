"""Saved models: settings and state as JSON, weights by name as npz, never pickled. Models of format 1 are
read too."""
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.latent_scale import LatentScale
from gmmhet.engine.model.settings import ModelSettings
from gmmhet.engine.rundir import MODEL

#: what this version writes; 1 had weights without names and settings under other names
FORMAT = 2
SETTINGS, WEIGHTS, NEUTRAL, EARLIER = "model.json", "weights.npz", "neutral.npz", "earlier"
#: arrays of the latent scale among the weights
SCALE_SOURCE, SCALE_TARGET = "latent_scale.source", "latent_scale.target"
#: the latent scale of format 1, a file of its own
SCALE_OF_FORMAT_1 = "pace.npz"
#: names of settings in format 1
SETTINGS_OF_FORMAT_1 = {"columns": "parameters", "smoothness": "smoothness_angst",
                        "at_rest": "removes_rigid_motion"}
NETWORK_OF_FORMAT_1 = {"subspace": "n_axes", "ahead": "linear_decoder", "description": "description_weight",
                       "looks": "resolution_levels", "base": "consensus_shift", "unblurred": "sharpens",
                       "averaged": "averages_weights"}
#: what a model of format 1 was where it did not say
MISSING_IN_FORMAT_1 = dict(n_axes=0, linear_decoder=False, amplitude_share=1.0, description_weight=0.0,
                           draws=1, resolution_levels=1, consensus_shift=False, averages_weights=False,
                           sharpens=False)


class SavedModelError(ValueError):
    """A saved model cannot be read; the message says why and what to do."""


def save_model(model: HeterogeneityModel, folder: str) -> None:
    """Write settings, neutral mixture and weights into a folder, and the earlier stages into a folder
    inside."""
    os.makedirs(folder, exist_ok=True)
    model.neutral.save(os.path.join(folder, NEUTRAL), free=model.body)
    arrays = {name: variable.numpy() for name, variable in model.named_weights().items()}
    if model.latent_scale is not None:
        arrays.update({SCALE_SOURCE: model.latent_scale.source, SCALE_TARGET: model.latent_scale.target})
    np.savez(os.path.join(folder, WEIGHTS), **arrays)
    with open(os.path.join(folder, SETTINGS), "w", encoding="utf-8") as file:
        json.dump(dict(format=FORMAT, settings=model.settings.to_json(), state=model.state.to_json()), file,
                  indent=2)
    if model.earlier:
        save_model(model.earlier, os.path.join(folder, EARLIER))


def load_model(run_folder: str) -> HeterogeneityModel:
    """The model of a train run.

    Raises
    ------
    SavedModelError
        when it was made by a version that this one does not read.
    """
    return _load(os.path.join(run_folder, MODEL))


def _load(folder: str) -> HeterogeneityModel:
    earlier, path = os.path.join(folder, EARLIER), os.path.join(folder, NEUTRAL)
    with np.load(path) as data:
        body = data["free"]
    model = HeterogeneityModel(Mixture.load(path), body, _read_settings(folder),
                               _load(earlier) if os.path.isdir(earlier) else None)
    load_weights(model, folder)
    return model


def _read_json(folder: str) -> dict[str, Any]:
    with open(os.path.join(folder, SETTINGS), encoding="utf-8") as file:
        values: dict[str, Any] = json.load(file)
    if values.get("format", 1) > FORMAT:
        raise SavedModelError("the model in %s is of format %s, of a newer version of gmmhet than this one "
                              "(which reads up to %d): "
                              "open it with that version" % (folder, values["format"], FORMAT))
    return values


def _read_settings(folder: str) -> ModelSettings:
    values = _read_json(folder)
    if "format" in values:
        return ModelSettings.from_json(values["settings"])
    network = dict(MISSING_IN_FORMAT_1)
    own: dict[str, Any] = {}
    known = set(ModelSettings.__dataclass_fields__) - {"network"}
    for name, value in values.items():
        renamed = SETTINGS_OF_FORMAT_1.get(name, name)
        if renamed in known:
            own[renamed] = value
        else:
            network[NETWORK_OF_FORMAT_1.get(name, name)] = value
    return ModelSettings.from_json(dict(own, network=network))


def load_weights(model: HeterogeneityModel, folder: str) -> None:
    """Take the weights, the state and the latent scale of another model of the same shape.

    Raises
    ------
    SavedModelError
        when its weights do not fit.
    """
    values = _read_json(folder)
    with np.load(os.path.join(folder, WEIGHTS)) as data:
        arrays = {name: data[name] for name in data.files}
    model.latent_scale = None
    if "format" not in values:
        _load_format_1(model, folder, list(arrays.values()))
        return
    if SCALE_SOURCE in arrays:
        model.latent_scale = LatentScale(arrays.pop(SCALE_SOURCE), arrays.pop(SCALE_TARGET))
    assign(model.named_weights(), arrays)
    model.state.load_json(values["state"])


def _load_format_1(model: HeterogeneityModel, folder: str, arrays: list[np.ndarray]) -> None:
    """Weights in the order of format 1, whose settings held what training found out."""
    encoder, state = model.encoder, model.state
    low_signal = tf.Variable(0.0)
    variables = [*encoder.network.variables, *model.decoder.network.variables, encoder.mean,
                 encoder.deviation]
    if encoder.n_axes:
        variables += [encoder.axes, encoder.linear]
        if model.decoder.linear is not None:
            variables += [model.decoder.linear, state.linear_on, low_signal]
        variables.append(state.gates)
    if model.consensus_shift is not None:
        variables += [model.consensus_shift, state.consensus_shift_on]
    assign(_numbered(variables), _numbered(arrays))
    state.low_signal = bool(low_signal.numpy())
    scale = os.path.join(folder, SCALE_OF_FORMAT_1)
    if os.path.exists(scale):
        with np.load(scale) as data:
            model.latent_scale = LatentScale(*data["pace"])


def _numbered(values: list[Any]) -> dict[str, Any]:
    return {"array %d" % i: value for i, value in enumerate(values)}


def values_of(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The values of named variables."""
    return {name: variable.numpy() for name, variable in variables.items()}


def assign(variables: Mapping[str, Any], values: Mapping[Any, np.ndarray]) -> None:
    """Set named variables to values.

    Raises
    ------
    SavedModelError
        when names or shapes differ.
    """
    advice = "it was made with other settings, or by another version of gmmhet; train again"
    if len(variables) != len(values):
        raise SavedModelError("the saved model has %d arrays, expected %d: %s"
                              % (len(values), len(variables), advice))
    for name, variable in variables.items():
        if name not in values:
            raise SavedModelError("the saved model lacks the array %s: %s" % (name, advice))
        if tuple(variable.shape) != values[name].shape:
            raise SavedModelError("the saved model holds %s of shape %s, expected %s: %s" % (
                name, values[name].shape, tuple(variable.shape), advice))
        variable.assign(values[name])
