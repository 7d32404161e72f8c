"""Markers' meaning is in pyproject.toml; here: the environment in which Scipion runs, set before anything
imports it, a folder for each of several processes that share the tests."""
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
for threads in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS") if WORKER else ():     # they share the cores
    os.environ.setdefault(threads, str(max(1, len(os.sched_getaffinity(0)) // WORKERS)))

import environment

environment.apply(os.path.join(ROOT, "test_out", "scipion" + WORKER))

#: files that take minutes come first, the longest before the others: processes that share the tests take a
#: file at a time, and the last should be short
LONGEST = ("stages/test_train", "validation/test_controls", "training/test_continuation",
           "batching/test_devices", "stages/test_reliability", "inference/test_pose_errors",
           "scipion/test_chain", "tests/test_bench", "engine/test_docs_commands", "scipion/test_gui",
           "engine/test_guard", "scipion/test_python38")


def pytest_collection_modifyitems(items):
    """Long files first (`make test` keeps this order: --no-loadscope-reorder)."""
    def place(item):
        path = str(item.path)
        return next((i for i, name in enumerate(LONGEST) if path.endswith(name + ".py")), len(LONGEST))
    items.sort(key=place)
