"""``gmmhet STAGE --flags`` and ``gmmhet STAGE --config run.json``."""
import argparse
import json
import os
import re
import sys

import gmmhet
from gmmhet.engine import config as cfg
from gmmhet.engine import rundir

FULL_DISK = "no room is left to write into --out %s (%s): make room and run %s again, with --resume"


def parser():
    """The argument parser, made from the parameters in `gmmhet.engine.config`."""
    top = argparse.ArgumentParser(prog="gmmhet", description="Gaussian-mixture heterogeneity analysis of cryo-EM particles.")
    top.add_argument("--version", action="version", version=gmmhet.__version__)
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name, cls in cfg.STAGES.items():
        sub = stages.add_parser(name, help=cls.summary, description=cls.summary, argument_default=argparse.SUPPRESS)
        sub.add_argument("--config", metavar="RUN.JSON", help="Parameters from a JSON file; flags given beside it win.")
        groups = {False: sub.add_argument_group("parameters"), True: sub.add_argument_group("advanced parameters")}
        for field in cfg.parameters(cls):
            _add(groups[field.metadata["expert"]], field)
    return top


def _add(group, field):
    """One flag of one parameter."""
    m, default = field.metadata, field.default
    text = m["help"].replace("%", "%%")
    if isinstance(default, bool):
        group.add_argument(cfg.flag(field.name), action=argparse.BooleanOptionalAction, help=text)
        return
    shown = " (default: %s%s)" % (default, " " + m["unit"] if m["unit"] else "") if default != "" else " (required)" if m["needed"] else ""
    group.add_argument(cfg.flag(field.name), type=type(default), choices=m["choices"], help=text + shown.replace("%", "%%"),
                       metavar=None if m["choices"] else {int: "INT", float: "FLOAT", str: "TEXT"}[type(default)])


def read_config(arguments):
    """The stage's parameters from parsed arguments.

    Raises
    ------
    ConfigError
        when the JSON cannot be read or names unknown parameters.
    """
    values = dict(vars(arguments))
    cls, path = cfg.STAGES[values.pop("stage")], values.pop("config", None)
    if path is None:
        return cfg.from_dict(cls, values)
    try:
        with open(path, encoding="utf-8") as f:
            stored = json.load(f)
    except (OSError, ValueError) as error:
        raise cfg.ConfigError("--config %s cannot be read as JSON: %s" % (path, error)) from None
    if not isinstance(stored, dict):
        raise cfg.ConfigError("--config %s must hold one JSON object of parameters, got %s" % (path, type(stored).__name__))
    return cfg.from_dict(cls, {**stored, **values})


def joined(arguments):
    """Arguments in which a value that starts like a negative number, such as ``-0.5,1``, is tied to its flag: it is no flag itself."""
    found: list[str] = []
    for word in arguments:
        if found and re.match(r"--[a-z-]+$", found[-1]) and re.match(r"-[\d.]", word):
            found[-1] += "=" + word
        else:
            found.append(word)
    return found


def main(arguments=None):
    """Run one stage; returns the exit status: 0, 1 when the stage failed, 2 when the input cannot be used, 130 when interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        parser().print_help(sys.stderr)
        return 2
    try:
        config = read_config(parser().parse_args(joined(arguments)))
        from gmmhet.engine.stages.runner import run_stage
        run_stage(config)
    except KeyboardInterrupt:
        print("interrupted; --resume continues the run", file=sys.stderr)
        return 130
    except ValueError as error:
        print("error: %s" % error, file=sys.stderr)
        if os.environ.get("GMMHET_TRACEBACK"):
            raise
        return 2
    except (RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in rundir.FULL:
            error = OSError(FULL_DISK % (config.out, error.strerror, config.stage))
        print("error: %s" % error, file=sys.stderr)
        if os.environ.get("GMMHET_TRACEBACK"):
            raise
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
