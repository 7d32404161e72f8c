"""Decoder for the interactive landscape tools of other programs, which load this file by its path and call
the class below.

Their server runs in the engine's environment, where this package need not be installed: it is found beside
this file.
"""
import importlib.util
import os
import sys
from typing import Any

import numpy as np


def make_importable() -> None:
    """Let ``import gmmhet`` find the package that holds this file, and nothing else of the folder that it
    lies in."""
    if "gmmhet" in sys.modules:
        return
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    spec = importlib.util.spec_from_file_location("gmmhet", os.path.join(package, "__init__.py"),
                                                  submodule_search_locations=[package])
    assert spec is not None and spec.loader is not None
    sys.modules["gmmhet"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["gmmhet"])


class HeterogeneityProgramInterface:
    """Maps of latent points, as ``annotate_space`` asks for them.

    Parameters
    ----------
    _path_template : str, for example ``folder/decoded_map_class_{:02d}.mrc``; point i (from 1) is written to
        ``.format(i)``.
    _program_loading_params : dict with ``modelFolder``, a train run's folder, and perhaps ``gpu_id``.
    """

    def __init__(self, _path_template: str, _program_loading_params: Any):
        self.path_template = _path_template
        self.model = self.prepare_heterogeneity_program(**_program_loading_params)

    def prepare_heterogeneity_program(self, **kwargs: Any) -> Any:
        """The trained model."""
        os.environ["CUDA_VISIBLE_DEVICES"] = str(kwargs.get("gpu_id", ""))
        make_importable()
        from gmmhet.engine.model.saved import load_model
        return load_model(kwargs["modelFolder"])

    def decode_state_from_latent(self, latent: np.ndarray) -> None:
        """Write the map of each latent point, [n, D] or [D]."""
        from gmmhet.engine.gmm.mixture import render
        from gmmhet.engine.io.volumes import write_map
        from gmmhet.engine.latent.motion import decode_mixtures
        box, pixel_size = self.model.box, self.model.pixel_size
        for number, mixture in enumerate(decode_mixtures(self.model, np.atleast_2d(latent)), 1):
            write_map(self.path_template.format(number), render(mixture, box, pixel_size), pixel_size)
