"""Runs a stage: its parameters in, its run folder out. The work itself is in the stage's own module."""
import contextlib
import importlib
import os
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from gmmhet.engine import config as cfg
from gmmhet.engine import rundir
from gmmhet.engine.batching.devices import find_devices, this_process
from gmmhet.engine.log import buffer_log, log, log_to


def stage_module(stage: str) -> Any:
    """The module that does a stage's work, with `prepare` and `execute`; imported only when asked for."""
    return importlib.import_module("gmmhet.engine.stages." + stage)


def check(config: Any) -> None:
    """Everything that can be said about the parameters alone.

    Raises
    ------
    ConfigError
        with one sentence per problem.
    """
    problems = cfg.missing_parameters(config) + cfg.problems(config) + cfg.missing_files(config)
    if problems:
        raise cfg.ConfigError("\n".join(problems))


def run_stage(config: Any) -> rundir.RunDir:
    """Check, run and record one stage; returns its RunDir.

    A stage is ``prepare(config) -> plan``, which reads, checks and may refuse, and ``execute(plan, run) ->
    summary``, which does the work. Between the two the folder is made: it keeps config.json (repeats the
    run), log.txt and, when the stage has finished, summary.json.
    """
    check(config)
    module = stage_module(config.stage)
    process, processes = this_process() if config.stage == "train" else (0, 1)
    if processes > 1:       # all hosts meet first, so that the others notice when the chief refuses the run
        use_hardware(config)
        find_devices()
    run = rundir.RunDir(config.out, config.resume, is_worker=process > 0)
    if run.is_worker:
        module.execute(module.prepare(config), run)
        return run
    if config.resume:
        goes_further = run.check_same(config)
        if not goes_further and rundir.is_finished(config.out, config.stage):
            log.info("%s already holds a finished '%s' run: nothing to do", config.out, config.stage)
            return run
    if processes == 1:
        use_hardware(config)
    np.random.seed(config.seed)
    buffer_log()
    try:
        plan = module.prepare(config)
        _begin(run, config)
        summary = module.execute(plan, run)
        if summary is not None:
            run.write_summary(summary)
    except ValueError:
        run.withdraw()
        raise
    finally:
        log_to(None)
    return run


def _begin(run: rundir.RunDir, config: Any) -> None:
    """Make the folder of a run whose plan stands, with its log and the parameters that repeat it."""
    run.create()
    log_to(run(rundir.LOG))
    run.reopen()
    with rundir.whole_file(run(rundir.CONFIG)) as file:
        file.write(cfg.to_json(config).encode("utf-8"))
    log.info("gmmhet %s, seed %d, in %s", config.stage, config.seed, os.path.abspath(run.path))


def use_hardware(config: Any) -> None:
    """Threads and GPUs of this process. GPU memory is taken as it is needed.

    TF32 stays off: its 10 bits of mantissa would round the projector's matrix products, and with them the
    agreement, at 1e-3. NumPy's own linear algebra gets one thread: it solves thousands of tiny problems, at
    which threads wait for one another.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if config.gpus == "none":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif config.gpus != "auto":
        os.environ["CUDA_VISIBLE_DEVICES"] = config.gpus
    tf = _tensorflow()
    if config.threads and config.threads != tf.config.threading.get_intra_op_parallelism_threads():
        tf.config.threading.set_intra_op_parallelism_threads(config.threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):      # of a GPU that this process uses already
            tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.keras.utils.set_random_seed(config.seed)
    threadpool_limits(1, "blas")


def _tensorflow() -> Any:
    """TensorFlow, imported and its devices listed without the messages that it writes on machines without a
    GPU."""
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow as tf
            tf.config.list_physical_devices("GPU")
        finally:
            os.dup2(saved, 2)
            os.close(saved)
    return tf
