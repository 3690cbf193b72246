"""Times TFLite files on this machine, each in its own process, taking turns.

Rounds continue until the median of every file is known to --spread (half the width of its 95 %
interval), for --seconds at most; files that are not are named. --profile times operators.
A file that crashes or hangs is left out, named at the end, and the exit status is 1.

For a run: all .tflite files of its folder; writes benchmark.csv there. Let nothing else
run meanwhile.

Examples:
  bignas benchmark --workdir=runs/cifar10 --threads=1
  bignas benchmark --model=s.tflite,m.tflite --csv=latency.csv --spread=0.01
  bignas benchmark --model=s.tflite --profile=profiles
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from bignas_tf.commands.run_folder import recorded, require_one
from bignas_tf.deploy.latency.process import LIMIT


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", type=Path, help="folder of the run")
    parser.add_argument(
        "--model",
        help=".tflite files separated by commas, instead; a zoo name is converted to float32",
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="of the interpreter (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup",
        type=int,
        default=5,
        help="untimed runs before each round (default: %(default)s)",
    )
    parser.add_argument(
        "--runs", type=int, default=20, help="timed runs per round (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, help="turns of each file, instead of --spread")
    parser.add_argument(
        "--spread", type=float, default=0.02, help="of the median, relative (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="limit with --spread (default: %(default)s)"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        help="seconds of a file's loading or one turn (default: %(default)s)",
    )
    parser.add_argument("--profile", type=Path, help="folder for a CSV of each file's operators")
    parser.add_argument("--csv", type=Path, help="file to write, with --model")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --csv")


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf.deploy.latency.profile import profile_outputs
    from bignas_tf.files import check_output

    require_one(arguments)
    output = arguments.csv
    if arguments.workdir:
        if output is not None:
            raise ValueError(f"`csv` must be given with `model`. Received: {output}")
        output = arguments.workdir / "benchmark.csv"
        paths = [str(path) for path in sorted(arguments.workdir.glob("*.tflite"))]
        if not paths:
            raise FileNotFoundError(
                f"{arguments.workdir} has no .tflite files; `bignas convert` writes them"
            )
    else:
        paths = arguments.model.split(",")
    if output:
        check_output(output, overwrite=arguments.overwrite or bool(arguments.workdir))
    if arguments.profile:
        profile_outputs(paths, arguments.profile)
    with contextlib.ExitStack() as stack:
        if arguments.workdir:
            stack.enter_context(recorded(arguments, {}))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        _time([_file(path, Path(folder)) for path in paths], paths, output, arguments)


def _file(path: str, folder: Path) -> str:
    """A file to time: a model of the zoo is converted first."""
    from bignas_tf.deploy.model_file import convert_model, preset_of

    if Path(path).exists() or not preset_of(path):
        return path
    print(f"converting {path}")
    return str(convert_model(path, folder / f"{path.lower()}.tflite").path)


def _time(files: list[str], names: list[str], output: Path | None, arguments: Any) -> None:
    """Times files and tells of them by `names`."""
    from bignas_tf.deploy.latency.host import (
        TimingError,
        host_conditions,
        measure,
        table,
        write_csv,
    )
    from bignas_tf.deploy.latency.profile import write_profiles

    failure = None
    conditions = host_conditions()  # before the measurement, which is load too
    try:
        found = measure(
            files,
            threads=arguments.threads,
            warmup=arguments.warmup,
            runs=arguments.runs,
            rounds=1 if arguments.rounds is None else arguments.rounds,
            spread=arguments.spread if arguments.rounds is None else None,
            seconds=arguments.seconds,
            limit=arguments.limit,
        )
    except TimingError as error:
        if not error.latencies:
            raise
        found, failure = error.latencies, error
    called = dict(zip(files, names, strict=True))
    latencies = [dataclasses.replace(latency, path=called[latency.path]) for latency in found]
    print(table(latencies))
    if output:
        write_csv(latencies, output, conditions, overwrite=True)  # allowed before the measurement
        print(f"written to {output}")
    if arguments.profile:
        timed = [latency.path for latency in found]
        for text in write_profiles(timed, arguments.profile, threads=arguments.threads):
            print(text)
    if failure:
        raise failure
