"""What the commands that work on a run's folder share."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def add_workdir(parser: Any) -> None:
    """Adds --workdir and --data."""
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run")
    parser.add_argument("--data", help="source, if it has moved since the training")


def require_one(arguments: Any) -> None:
    """Requires either --workdir or --model.

    Raises:
        ValueError: if both or neither were given.
    """
    if bool(arguments.workdir) == bool(arguments.model):
        raise ValueError(
            "Either `workdir` or `model` must be given. "
            f"Received: {arguments.workdir}, {arguments.model}"
        )


def load_run(arguments: Any) -> tuple[Any, Any]:
    """The trained supernet of --workdir and its data, split as in training.

    Raises:
        CheckpointError: if there is no checkpoint.
        DataError: if the data are not those of the run.
    """
    from bignas_tf.data import DataError
    from bignas_tf.training.run_data import load_run_data
    from bignas_tf.training.state import load_trained

    if arguments.workdir.is_file():
        raise ValueError(f"`workdir` must be a run's folder. Received: {arguments.workdir}")
    trained = load_trained(arguments.workdir)
    data = load_run_data(trained.recipe, arguments.data or trained.data)
    if data.source.fingerprint != trained.fingerprint:
        raise DataError(
            f"`data` must be the images of the run in {arguments.workdir}, with the same split. "
            f"Received: {data.source.name} with other files or labels"
        )
    return trained, data


@contextlib.contextmanager
def recorded(arguments: Any, seeds: dict[str, int], trained: Any = None) -> Iterator[None]:
    """Writes run.COMMAND.json after the work inside, if that succeeds.

    Args:
        arguments: of the command.
        seeds: what each seed is for -> seed.
        trained: what the command worked on; None for one that loads no checkpoint.
    """
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    yield
    from bignas_tf.deploy.quiet import captured_stderr

    with captured_stderr():  # TensorFlow greets at length
        from bignas_tf.training.logs import run_record, write_record

    recipe = trained.recipe.to_json() if trained else {}
    entry = run_record(["bignas", *sys.argv[1:]], seeds, recipe) | {"started": started}
    if trained:
        entry["checkpoint"] = trained.path.name
    write_record(arguments.workdir / f"run.{arguments.command}.json", entry)


def require_current(children: Sequence[Path], trained: Any) -> None:
    """Requires extracted children to have been cut from these weights, as far as they tell.

    Raises:
        ValueError: naming one that was not.
    """
    from bignas_tf.deploy.model_file import read_sidecar
    from bignas_tf.extract import weights_identity

    weights = weights_identity(trained.supernet.weight_arrays())
    for path in children:
        if read_sidecar(path).get("weights", weights) != weights:
            raise ValueError(
                f"the children must be cut from {trained.path.name}; `bignas extract` does it "
                f"again. Received: {path}, of other weights"
            )


def read_selected(workdir: Path) -> list[dict[str, Any]]:
    """The children that `bignas select` chose.

    Raises:
        FileNotFoundError: if nothing was selected yet.
    """
    from bignas_tf.search import results

    return results.read_selected(workdir / "select")


def child_files(workdir: Path) -> list[Path]:
    """The extracted children of a run, the selected ones first and in their order.

    Raises:
        FileNotFoundError: if there are none.
    """
    selected = (workdir / "select" / "selected").is_dir()
    names = [entry["name"] for entry in read_selected(workdir)] if selected else []
    order = {name: i for i, name in enumerate(names)}
    files = (workdir / "children").glob("*.keras")
    found = sorted(files, key=lambda p: (order.get(p.stem, len(order)), p.stem))
    if not found:
        raise FileNotFoundError(
            f"{workdir / 'children'} has no .keras files; `bignas extract` writes them"
        )
    return found
