"""Saved models: settings as JSON, weights as npz, never pickled."""
import json
import os

import numpy as np

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.rundir import MODEL

SETTINGS, WEIGHTS, NEUTRAL, EARLIER, PACE = "model.json", "weights.npz", "neutral.npz", "earlier", "pace.npz"


def save_model(model, folder):
    """Write settings, neutral mixture and weights into a folder, and the earlier stages into a folder inside."""
    os.makedirs(folder, exist_ok=True)
    model.neutral.save(os.path.join(folder, NEUTRAL), free=model.bodies)
    np.savez(os.path.join(folder, WEIGHTS), *[v.numpy() for v in model.variables])
    with open(os.path.join(folder, SETTINGS), "w", encoding="utf-8") as f:
        json.dump(model.settings, f, indent=2)
    scales = os.path.join(folder, PACE)
    if model.pace is not None:
        np.savez(scales, pace=model.pace)
    elif os.path.exists(scales):
        os.remove(scales)
    if model.earlier:
        save_model(model.earlier, os.path.join(folder, EARLIER))


def load_weights(model, folder):
    """Take the weights of another model of the same shape."""
    with np.load(os.path.join(folder, WEIGHTS)) as data:
        assign(model.variables, [data[name] for name in data.files])
    model.pace = None
    if os.path.exists(os.path.join(folder, PACE)):
        with np.load(os.path.join(folder, PACE)) as data:
            model.pace = data["pace"]


def assign(variables, values):
    """Set variables to values.

    Raises
    ------
    ValueError
        when their number or shapes differ.
    """
    made = "it was made with other settings, or by another version of gmmhet; train again"
    if len(variables) != len(values):
        raise ValueError("the saved model has %d arrays, expected %d: %s" % (len(values), len(variables), made))
    for variable, value in zip(variables, values):
        if tuple(variable.shape) != value.shape:
            raise ValueError("the saved model holds an array of shape %s, expected %s: %s" % (value.shape, tuple(variable.shape), made))
        variable.assign(value)


def load_model(folder):
    """The model of a train run: `folder` is the run's folder."""
    return _load(os.path.join(folder, MODEL))


def _load(folder):
    earlier = os.path.join(folder, EARLIER)
    with open(os.path.join(folder, SETTINGS), encoding="utf-8") as f:
        settings = json.load(f)
    path = os.path.join(folder, NEUTRAL)
    with np.load(path) as data:
        free = data["free"]
    model = HeterogeneityModel(Mixture.load(path), free, settings, _load(earlier) if os.path.isdir(earlier) else None)
    load_weights(model, folder)
    return model
