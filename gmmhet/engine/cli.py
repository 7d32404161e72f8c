"""``gmmhet STAGE --flags`` and ``gmmhet STAGE --config run.json``."""
import argparse
import json
import os
import re
import sys
from typing import Any, Dict, List, Optional, Sequence

import gmmhet
from gmmhet.engine import config as cfg
from gmmhet.engine import rundir

DISK_FULL = "no room is left to write into --out %s (%s): make room and run %s again, with --resume"
#: exit statuses
FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def parser() -> argparse.ArgumentParser:
    """The argument parser, made from the parameters in `gmmhet.engine.config`."""
    top = argparse.ArgumentParser(
        prog="gmmhet", description="Gaussian-mixture heterogeneity analysis of cryo-EM particles.")
    top.add_argument("--version", action="version", version=gmmhet.__version__)
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name, cls in cfg.STAGES.items():
        sub = stages.add_parser(name, help=cls.summary, description=cls.summary,
                                argument_default=argparse.SUPPRESS)
        sub.add_argument("--config", metavar="RUN.JSON",
                         help="Parameters from a JSON file; flags given beside it win.")
        usual, advanced = (sub.add_argument_group(title) for title in ("parameters", "advanced parameters"))
        for parameter in cfg.parameters(cls):
            _add_flag(advanced if parameter.expert else usual, parameter)
    return top


def _add_flag(group: Any, parameter: cfg.Parameter) -> None:
    """Add the flag of one parameter to a group of argparse."""
    text, default = parameter.help.replace("%", "%%"), parameter.default
    if parameter.kind is bool:
        group.add_argument(parameter.flag, action=argparse.BooleanOptionalAction, help=text)
        return
    note = " (required)" if parameter.required else ""
    if default != "":
        note = " (default: %s%s)" % (default, " " + parameter.units if parameter.units else "")
    placeholder = {int: "INT", float: "FLOAT", str: "TEXT"}[parameter.kind]
    group.add_argument(parameter.flag, type=parameter.kind, choices=parameter.choices, help=text + note,
                       metavar=None if parameter.choices else placeholder)


def read_config(arguments: argparse.Namespace) -> cfg.Common:
    """The stage's parameters from parsed arguments.

    Raises
    ------
    ConfigError
        when the JSON cannot be read or names unknown parameters.
    """
    values: Dict[str, Any] = dict(vars(arguments))
    cls, path = cfg.STAGES[values.pop("stage")], values.pop("config", None)
    if path is None:
        return cfg.from_dict(cls, values)
    try:
        with open(path, encoding="utf-8") as f:
            stored = json.load(f)
    except (OSError, ValueError) as error:
        raise cfg.ConfigError("--config %s cannot be read as JSON: %s" % (path, error)) from None
    if not isinstance(stored, dict):
        raise cfg.ConfigError("--config %s must hold one JSON object of parameters, got %s" % (
            path, type(stored).__name__))
    return cfg.from_dict(cls, {**stored, **values})


def attach_negative_values(arguments: Sequence[str]) -> List[str]:
    """Arguments in which a value that starts like a negative number, such as ``-0.5,1``, is tied to its flag
    by '=': argparse would take it for a flag."""
    words: List[str] = []
    for word in arguments:
        if words and re.match(r"--[a-z-]+$", words[-1]) and re.match(r"-[\d.]", word):
            words[-1] += "=" + word
        else:
            words.append(word)
    return words


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one stage.

    Returns
    -------
    int, the exit status: 0, 1 when the stage failed, 2 when the input cannot be used, 130 when interrupted.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        parser().print_help(sys.stderr)
        return REFUSED
    config = None
    try:
        config = read_config(parser().parse_args(attach_negative_values(arguments)))
        from gmmhet.engine.stages.runner import run_stage
        run_stage(config)
    except KeyboardInterrupt:
        print("interrupted; --resume continues the run", file=sys.stderr)
        return INTERRUPTED
    except ValueError as error:
        _report(error)
        return REFUSED
    except (RuntimeError, OSError) as error:
        if config is not None and isinstance(error, OSError) and error.errno in rundir.DISK_FULL:
            error = OSError(DISK_FULL % (config.out, error.strerror, config.stage))
        _report(error)
        return FAILED
    return 0


def _report(error: Exception) -> None:
    """Print an error's sentence; with GMMHET_TRACEBACK in the environment raise it again, to show its
    traceback."""
    print("error: %s" % error, file=sys.stderr)
    if os.environ.get("GMMHET_TRACEBACK"):
        raise error


if __name__ == "__main__":
    sys.exit(main())
