"""One function per stage: its parameters in, its run folder out. The work itself lives in each stage's own package."""
import contextlib
import os

import numpy as np
from threadpoolctl import threadpool_limits

from gmmhet.engine import config as cfg
from gmmhet.engine import rundir
from gmmhet.engine.batching.devices import find_devices, this_process
from gmmhet.engine.log import hold, log, log_to


def body(stage):
    """The function ``(config, run)`` that does a stage's work; imported only when asked for."""
    if stage in ("simulate", "score"):
        from gmmhet.engine.stages import score, simulate
        return {"simulate": simulate.simulate, "score": score.score}[stage]
    if stage == "fit":
        from gmmhet.engine.stages.fit import fit
        return fit
    if stage == "train":
        from gmmhet.engine.stages.train import train
        return train
    if stage == "refine":
        from gmmhet.engine.stages.refine import refine_stage
        return refine_stage
    if stage == "analyze":
        from gmmhet.engine.stages.analyze import analyze
        return analyze
    if stage == "decode":
        from gmmhet.engine.stages.decode import decode
        return decode
    from gmmhet.engine.stages.reconstruct import reconstruct_subset
    return reconstruct_subset


def check(config):
    """Everything that can be said about the parameters alone.

    Raises
    ------
    ConfigError
        with one sentence per problem.
    """
    found = cfg.lacking(config) + cfg.problems(config) + cfg.missing_files(config)
    if found:
        raise cfg.ConfigError("\n".join(found))


def run_stage(config):
    """Check, run and record one stage; returns its RunDir.

    The folder keeps config.json (repeats the run), log.txt and, when the stage has finished, summary.json.
    """
    check(config)
    process, processes = this_process() if config.stage == "train" else (0, 1)
    if processes > 1:       # all hosts meet first, so that the others notice when the chief refuses the run
        use_hardware(config)
        find_devices()
    run = rundir.RunDir(config.out, config.resume, joins=process > 0)
    if run.joins:
        body(config.stage)(config, run)
        return run
    if config.resume:
        goes_further = run.check_same(config)
        if not goes_further and rundir.is_finished(config.out, config.stage):
            log.info("%s already holds a finished '%s' run: nothing to do", config.out, config.stage)
            return run
    if processes == 1:
        use_hardware(config)
    np.random.seed(config.seed)
    run.begin = lambda: _record(run, config)
    hold()
    try:
        body(config.stage)(config, run)
    except ValueError:
        run.release()
        raise
    finally:
        log_to(None)
    return run


def _record(run, config):
    """Called when the stage's own checks have passed and its folder is made."""
    log_to(run(rundir.LOG))
    run.reopen()
    with rundir.whole_file(run(rundir.CONFIG)) as f:
        f.write(cfg.to_json(config).encode("utf-8"))
    log.info("gmmhet %s, seed %d, in %s", config.stage, config.seed, os.path.abspath(run.path))


def use_hardware(config):
    """Threads and GPUs of this process. GPU memory is taken as it is needed.

    TF32 stays off: its 10 bits of mantissa would round the projector's matrix products, and with them the agreement, at 1e-3. NumPy's own
    linear algebra gets one thread: it solves thousands of tiny problems, at which threads wait for one another.
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


def _tensorflow():
    """TensorFlow, imported and its devices listed without the messages that it writes on machines without a GPU."""
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
