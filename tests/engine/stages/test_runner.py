"""Stages one after another in one process."""
import os

import tensorflow as tf

from gmmhet.engine.config import FitConfig
from gmmhet.engine.stages.runner import use_hardware


def test_a_gpu_that_the_process_uses_already_is_taken_as_it_is(monkeypatch):
    """What TensorFlow does there was seen on a real one: a stage after other work on the GPU ended with this error."""
    asked = []

    def refuse(gpu, _):
        asked.append(gpu)
        raise RuntimeError("Physical devices cannot be modified after being initialized")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    use_hardware(FitConfig())
    assert asked == ["a GPU"]


def test_gpus_are_hidden_where_none_is_asked_for(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    use_hardware(FitConfig(gpus="none"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
