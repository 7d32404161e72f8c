"""Where each particle's image lies: from ``000001@stack.mrcs`` to a file that exists and a number in it."""
import os

import numpy as np
import pandas as pd

from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.io.stacks import stack_shape


def image_places(table):
    """Stacks of a ParticleTable and each particle's place in them.

    Returns
    -------
    stacks : list of absolute paths.
    stack_of : int32 [n], row in `stacks`.
    slice_of : int64 [n], 0-based number in the stack.
    shapes : int64 [len(stacks), 3], number of images and their size (ny, nx).

    Raises
    ------
    ParticleError
        when a name is none, or a stack is missing or unreadable.
    """
    names = table.particles["rlnImageName"].astype(str)
    parts = names.str.rpartition("@")
    single = (parts[1] == "").to_numpy()
    right = (parts[0].str.fullmatch(r"0*[1-9][0-9]{0,9}").to_numpy(bool) | single) & (parts[2] != "").to_numpy()
    if not right.all():
        row = np.flatnonzero(~right)[0]
        raise ParticleError("%s: rlnImageName of particle row %d is '%s', expected the image's number from 1 and its stack, for example "
                            "'000001@stack.mrcs'" % (table.path, row + 1, names.iloc[row]))
    stack_of, stacks = pd.factorize(parts[2].to_numpy(object))
    stacks = find_stacks(table.path, stacks)
    shapes = np.array([stack_shape(path) for path in stacks])
    unnumbered = np.flatnonzero(single & (shapes[stack_of, 0] > 1))
    if len(unnumbered):
        row = unnumbered[0]
        raise ParticleError("%s: rlnImageName of particle row %d is '%s', which does not say which of the stack's %d images is meant: "
                            "expected a number and '@' before it" % (table.path, row + 1, names.iloc[row], shapes[stack_of[row], 0]))
    number = parts[0].where(~single, "1").astype(np.int64).to_numpy()
    return stacks, stack_of.astype(np.int32), number - 1, shapes


def find_stacks(list_path, stacks):
    """Absolute path of every stack that the star or lst file names: searched from its folder, folders above it, then the working directory.

    Raises
    ------
    ParticleError
        counting the stacks that are missing.
    """
    folder = os.path.dirname(os.path.abspath(list_path))
    folders = [folder]
    while os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    folders.append(os.getcwd())
    found = [next((p for p in (os.path.join(f, stack) for f in folders) if os.path.isfile(p)), "") for stack in stacks]
    missing = [stack for stack, path in zip(stacks, found) if not path]
    if missing:
        raise ParticleError("%s: %d of %d image stacks are missing, the first is '%s'; searched %s, each folder above it and the working "
                            "directory %s" % (list_path, len(missing), len(stacks), missing[0], folder, folders[-1]))
    return [os.path.normpath(path) for path in found]
