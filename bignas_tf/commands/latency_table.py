"""Measures single blocks of a space, so that latency can be looked up: --budget=latency_ms:...

A network's latency is the sum of its blocks, scaled to fit a few whole networks that are
measured too. One JSON holds the table; stopped and started again, the command resumes. Needs
the extra `search`, with --files_only it does not.

Examples, on this machine (let nothing else run meanwhile):
  bignas latency-table --space=cifar --output=cifar.json
  bignas latency-table --space=bignas --resolutions=224 --output=bignas224.json

On Android: write the files, measure them with export/benchmark_android.py, read its CSV:
  bignas latency-table --space=cifar --files_only=blocks
  bignas latency-table --from_csv=phones.csv --blocks_dir=blocks --output=phone.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bignas_tf.checks import require, require_choice
from bignas_tf.search.latency import DEVICES

CHOICES = ("device", "serial", "backend", "cores")  # of the columns of an Android CSV
MEASURED = ("space", "classes", "resolutions", "quantization", "blocks", "networks", "seed")


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--space", help="whose blocks are measured")
    parser.add_argument("--classes", type=int, help="of the head, instead of the space's own")
    parser.add_argument("--output", type=Path, help="JSON of the table, to write or to continue")
    parser.add_argument("--resolutions", help="pixels, such as 192,224; default: all of the space")
    parser.add_argument("--quantization", help="of the files (default: float32)")
    parser.add_argument("--threads", type=int, help="default: 1; with --from_csv, of which rows")
    parser.add_argument("--blocks", type=int, help="at most so many, the others are predicted")
    parser.add_argument(
        "--networks",
        type=int,
        help="whole networks to scale the sum to; 0 for none (default: 8)",
    )
    parser.add_argument("--seed", type=int, help="of weights, draws and order (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="start the table anew")
    parser.add_argument("--files_only", type=Path, help="folder to write the files to, untimed")
    parser.add_argument("--from_csv", type=Path, help="of export/benchmark_android.py")
    parser.add_argument("--blocks_dir", type=Path, help="the folder of --files_only")
    for name in CHOICES:
        # `backend` alone is Keras's where other commands have it.
        parser.add_argument(
            f"--{name}", dest=f"csv_{name}", help="of which rows of --from_csv, if it has several"
        )


def main(arguments: Any) -> None:
    """Runs the command."""
    ways = [arguments.files_only is not None, arguments.from_csv is not None]
    require(sum(ways) < 2, "from_csv", "given without `files_only`", str(arguments.from_csv))
    if arguments.files_only is None:
        require(arguments.output is not None, "output", "given", None)
    if arguments.from_csv is not None:
        _from_csv(arguments)
        return
    plan = _plan(arguments)
    if arguments.files_only is not None:
        _write_files(plan, arguments.files_only)
        return
    from bignas_tf.deploy.block_latency.host import measure_table
    from bignas_tf.latency_table.model import require_regression

    require_regression()  # for the summary; missing, it is missed before work
    table = measure_table(plan, arguments.output, overwrite=arguments.overwrite)
    print(table.summary())
    print(f"written to {arguments.output}")


def _plan(arguments: Any) -> Any:
    from bignas_tf.deploy.block_latency.host import TablePlan
    from bignas_tf.spaces import get_space

    require_choice("device", arguments.csv_device or "host", DEVICES)
    require(
        arguments.blocks_dir is None,
        "blocks_dir",
        "given only with `from_csv`",
        str(arguments.blocks_dir),
    )
    for name in CHOICES[1:]:
        value = getattr(arguments, f"csv_{name}")
        require(value is None, name, "given only with `from_csv`", value)
    require(arguments.space is not None, "space", "given", None)
    resolutions = None
    if arguments.resolutions is not None:
        words = arguments.resolutions.split(",")
        numbers = all(word.strip().isdecimal() for word in words)
        require(numbers, "resolutions", "pixels, such as 192,224", arguments.resolutions)
        resolutions = tuple(int(word) for word in words)
    given = {k: getattr(arguments, k) for k in ("quantization", "threads", "networks", "seed")}
    return TablePlan(
        get_space(arguments.space, arguments.classes),
        resolutions=resolutions,
        blocks=arguments.blocks,
        **{name: value for name, value in given.items() if value is not None},
    )


def _write_files(plan: Any, folder: Path) -> None:
    from tqdm import tqdm

    from bignas_tf.deploy.block_latency.files import timed_networks, write_files

    networks = timed_networks(plan.drawn_blocks(), plan.drawn_networks())
    header = {name: value for name, value in plan.header().items() if name != "threads"}
    write_files(folder, networks, header, lambda every: tqdm(every, unit="file", disable=None))
    print(f"{len(networks)} files and index.json written to {folder}")


def _from_csv(arguments: Any) -> None:
    from bignas_tf.deploy.block_latency.android import table_from_csv
    from bignas_tf.files import check_output
    from bignas_tf.latency_table.model import require_regression

    require(arguments.blocks_dir is not None, "blocks_dir", "given with `from_csv`", None)
    for name in MEASURED:
        value = getattr(arguments, name)
        require(value is None, name, "left out with `from_csv`: the files tell it", value)
    check_output(arguments.output, arguments.overwrite)
    wanted = {name: getattr(arguments, f"csv_{name}") for name in CHOICES}
    threads = None if arguments.threads is None else str(arguments.threads)
    require_regression()
    table = table_from_csv(arguments.from_csv, arguments.blocks_dir, **wanted, threads=threads)
    table.write(arguments.output)
    print(table.summary())
    print(f"written to {arguments.output}")
