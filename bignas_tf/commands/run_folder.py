"""What the commands that work on a run's folder share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def add_workdir(parser: Any) -> None:
    """Adds --workdir and --data."""
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run")
    parser.add_argument("--data", help="source, if it has moved since the training")


def load_run(arguments: Any) -> tuple[Any, Any]:
    """The trained supernet of --workdir and its data, split as in training.

    Raises:
        CheckpointError: if there is no checkpoint.
        DataError: if the data are not those of the run.
    """
    from bignas_tf.data import DataError
    from bignas_tf.training.state import load_trained
    from bignas_tf.training.trainer import load_run_data

    trained = load_trained(arguments.workdir)
    data = load_run_data(trained.recipe, arguments.data or trained.data)
    if data.source.fingerprint != trained.fingerprint:
        raise DataError(
            f"`data` must be the images of the run in {arguments.workdir}, with the same split. "
            f"Received: {data.source.name} with other files or labels"
        )
    return trained, data


def record(arguments: Any, seeds: dict[str, int], trained: Any) -> None:
    """Writes run.COMMAND.json: how the command was called, on what."""
    from bignas_tf.training.logs import run_record, write_json

    entry = run_record(["bignas", *sys.argv[1:]], seeds, trained.recipe.to_json())
    entry["checkpoint"] = trained.path.name
    write_json(arguments.workdir / f"run.{arguments.command}.json", entry)


def read_selected(workdir: Path) -> list[dict[str, Any]]:
    """The children that `bignas select` chose.

    Raises:
        FileNotFoundError: if nothing was selected yet.
    """
    path = workdir / "select" / "selected.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; `bignas select` writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def child_files(workdir: Path) -> list[Path]:
    """The extracted children of a run.

    Raises:
        FileNotFoundError: if there are none.
    """
    order = {entry["name"]: i for i, entry in enumerate(read_selected(workdir))}
    found = sorted(
        (workdir / "children").glob("*.keras"), key=lambda p: (order.get(p.stem, 99), p.stem)
    )
    if not found:
        raise FileNotFoundError(
            f"{workdir / 'children'} has no .keras files; `bignas extract` writes them"
        )
    return found
