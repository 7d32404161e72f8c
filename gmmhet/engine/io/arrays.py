"""Arrays in .npz files that are replaced in one step."""
import io

import numpy as np
from numpy.typing import ArrayLike

from gmmhet.engine.rundir import whole_file


def write_arrays(path: str, *unnamed: ArrayLike, **named: ArrayLike) -> None:
    """Write arrays into the .npz file `path`, which takes the place of an older one in one step."""
    packed = io.BytesIO()
    np.savez(packed, *unnamed, **named)
    with whole_file(path) as file:
        file.write(packed.getbuffer())
