"""The `bignas` command: train once, slice any child, ship TFLite."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from absl import app
from absl.flags import argparse_flags

from bignas_tf import __version__
from bignas_tf.backend import choose_backend, tune_tensorflow
from bignas_tf.deploy.script import BAD_INPUT, FAILED, INTERRUPTED, stop

NEED_KERAS = (
    "train",
    "select",
    "extract",
    "evaluate",
    "finetune",
    "convert",
    "sweep",
    "latency-table",
)
COMMANDS = (
    "train", "select", "extract", "evaluate", "convert", "benchmark", "report", "finetune",
    "show", "latency-table", "sweep",
)  # fmt: skip

_EPILOG = """end to end:
  bignas train --recipe=digits --workdir=runs/digits
  bignas select --workdir=runs/digits --budget=mmacs:0.2,0.4,0.8,1.6 --names=s,m,l,xl
  bignas extract --workdir=runs/digits
  bignas evaluate --workdir=runs/digits
  bignas convert --workdir=runs/digits
  bignas benchmark --workdir=runs/digits
  bignas report --workdir=runs/digits

All of it goes to the run's folder, --workdir: checkpoints/, select/, children/, *.tflite with a
JSON each, evaluation.json, benchmark.csv, report.html.
`bignas COMMAND --help` says what a command needs and writes.
"""


def _parser() -> argparse_flags.ArgumentParser:
    formatter = argparse_flags.argparse.RawDescriptionHelpFormatter
    parser = argparse_flags.ArgumentParser(
        prog="bignas",
        description="Train one big supernet, slice any child out of it, ship it as TFLite.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=f"bignas_tf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"bignas_tf.commands.{name.replace('-', '_')}")
        summary, _, description = (module.__doc__ or "").partition("\n")
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}\n{description}",
            formatter_class=formatter,
            inherited_absl_flags=None,
        )
        module.add_arguments(sub)
        sub.set_defaults(main=module.main)
    return parser


def _parse(argv: list[str]) -> Any:
    return _parser().parse_args(argv[1:])


def _main(arguments: Any) -> None:
    """Runs a command; a user's mistake ends in one line and exit code 2."""
    try:
        backend = getattr(arguments, "backend", "tensorflow")
        if arguments.command in NEED_KERAS:
            choose_backend(backend)
        if arguments.command in NEED_KERAS and backend == "tensorflow":
            _load_tensorflow()
        status = arguments.main(arguments)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("BIGNAS_DEBUG"):
            raise
        stop(error, BAD_INPUT)
    except (RuntimeError, ArithmeticError, MemoryError) as error:
        if os.environ.get("BIGNAS_DEBUG"):
            raise
        stop(error, FAILED)
    except KeyboardInterrupt:
        stop("interrupted", INTERRUPTED)
    sys.exit(status or 0)


def _load_tensorflow() -> None:
    """Loads it without its greeting, which would drown what a command has to say."""
    from bignas_tf.deploy.quiet import captured_stderr

    with captured_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()


def run() -> None:
    """Entry point of the console script."""
    tune_tensorflow()
    app.run(_main, flags_parser=_parse)


if __name__ == "__main__":
    run()
