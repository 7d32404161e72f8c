"""Arrays in files that are replaced in one step."""
import io

import numpy as np

from gmmhet.engine.rundir import whole_file


def write_arrays(path, *unnamed, **named):
    """Write an npz in one step."""
    packed = io.BytesIO()
    np.savez(packed, *unnamed, **named)
    with whole_file(path) as f:
        f.write(packed.getbuffer())
