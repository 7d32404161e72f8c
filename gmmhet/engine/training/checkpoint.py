"""Checkpoints: everything a killed run needs to go on to the same end, in one npz that is replaced in one step."""
import json

import numpy as np

from gmmhet.engine.io.arrays import write_arrays
from gmmhet.engine.model.saved import assign

CHECKPOINT = "checkpoint.npz"


def save_checkpoint(path, groups, state):
    """Write groups of arrays and a JSON-ready state.

    groups : dict name -> list of arrays or variables.
    """
    arrays = {"%s_%05d" % (name, i): np.asarray(value) for name, values in groups.items() for i, value in enumerate(values)}
    write_arrays(path, state=np.array(json.dumps(state)), **arrays)


def load_checkpoint(path, targets):
    """Set the variables of `targets` (dict name -> list of variables, or None to return the arrays) from a checkpoint.

    Returns
    -------
    state, arrays of the groups whose target is None.
    """
    with np.load(path) as data:
        groups = {name: [data[k] for k in sorted(data.files) if k.startswith(name + "_")] for name in targets}
        state = json.loads(str(data["state"]))
    for name, variables in targets.items():
        if variables is not None:
            assign(variables, groups[name])
    return state, {name: groups[name] for name, variables in targets.items() if variables is None}
