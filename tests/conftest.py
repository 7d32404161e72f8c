"""Markers' meaning is in pyproject.toml; here: the environment in which Scipion runs, set before anything imports it."""
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import environment

environment.apply(os.path.join(ROOT, "test_out", "scipion"))
