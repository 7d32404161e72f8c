"""Checkpoints: everything a killed run needs to go on to the same end, in one npz that is replaced in one
step."""
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gmmhet.engine.io.arrays import write_arrays

CHECKPOINT = "checkpoint.npz"
#: between the name of a group and that of an array in it
SEPARATOR = "/"

Groups = Mapping[str, Mapping[str, np.ndarray]]


def save_checkpoint(path: str, groups: Groups, state: dict[str, Any]) -> None:
    """Write groups of named arrays and a JSON-ready state."""
    arrays = {group + SEPARATOR + name: np.asarray(values) for group, named in groups.items()
              for name, values in named.items()}
    write_arrays(path, state=np.array(json.dumps(state)), **arrays)


def load_checkpoint(path: str) -> "tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]":
    """What `save_checkpoint` wrote: groups that held any array, and the state."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as data:
        for key in data.files:
            if SEPARATOR in key:
                group, name = key.split(SEPARATOR, 1)
                groups.setdefault(group, {})[name] = data[key]
        return groups, json.loads(str(data["state"]))
