"""The search among the children of a trained run, in the run's folder.

Importing this loads no Keras: commands read their arguments without it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_tf.files import only_writer, read_json, write_json
from bignas_tf.latency_table import LatencyTable
from bignas_tf.search.evaluator import Evaluator, Points
from bignas_tf.search.latency import latency_from
from bignas_tf.search.results import TABLE_OF, WEIGHTS
from bignas_tf.search.search_options import SearchOptions
from bignas_tf.search.select import POINTS, Search, lock_of, select_alone
from bignas_tf.spaces import Space

if TYPE_CHECKING:
    from bignas_tf.data import Split
    from bignas_tf.search.chief import Chief
    from bignas_tf.training.run_data import RunData
    from bignas_tf.training.state import Trained

CONDITIONS = "conditions"
SPLIT = "held-out training"
STATE_EVERY = 8  # results of workers


def search_run(
    trained: Trained,
    data: RunData,
    options: SearchOptions,
    workdir: Path,
    *,
    overwrite: bool = False,
    evaluator: Evaluator | None = None,
    chief: Chief | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Searches the children of a run on its held-out images, or goes on with its search.

    Args:
        trained: the run, loaded.
        data: its images, split as in training.
        options: what to search for.
        workdir: folder of the run, whose `select` gets the search.
        overwrite: whether a search that is there is given up.
        evaluator: on the held-out images; None for a new one.
        chief: of the workers that evaluate instead, which `evaluate_for_chief` makes; None
            evaluates here.
        conditions: what the last digits of an accuracy depend on, such as threads, as plain
            JSON; where they are not those that the search began with it says so.

    Returns:
        What `select` does.

    Raises:
        ValueError: if nothing is held out, for a search of other weights, options or latency
            table, or for a table that cannot tell every latency.
        FolderInUse: if another process searches there.
    """
    with only_writer(workdir, "searched", lock_of(workdir / "select")):
        return _search_alone(
            trained, data, options, workdir, overwrite, evaluator, chief, conditions
        )


def _search_alone(
    trained: Trained,
    data: RunData,
    options: SearchOptions,
    workdir: Path,
    overwrite: bool,
    evaluator: Evaluator | None,
    chief: Chief | None,
    conditions: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    space, folder = trained.supernet.space, workdir / "select"
    options.require_packages()
    # Before a table is measured, which takes long.
    options.check_counted(space)
    held_out = _held_out(trained, data)
    table = options.open_table(space, workdir)
    with latency_from(table):
        given: dict[str, Any] = {
            "budgets": options.budgets(),
            "strategy": options.new_strategy(space),
            "names": options.children(),
            "folder": folder,
        }
        identity = _identity(trained)
        if chief is not None:
            run = functools.partial(_run_workers, chief, space, json.dumps(identity), **given)
        else:
            if evaluator is None:
                evaluator = _evaluator(trained, data, held_out)
            run = functools.partial(select_alone, space, evaluator, **given)
        searched = identity | ({"latency_table": table.digest} if table else {})
        about = _about(table) if table else {}
        with _search_folder(folder, searched, about, conditions, overwrite):
            return run()


def _run_workers(
    chief: Chief, space: Space, name: str, folder: Path, **given: Any
) -> list[dict[str, Any]]:
    points = Points(space, SPLIT, folder / POINTS)
    search = Search(points, folder=folder, write_every=STATE_EVERY, **given)
    return chief.run(search, name)


def evaluate_for_chief(trained: Trained, data: RunData) -> None:
    """Evaluates children of a run for the chief of its search until nothing is left.

    Raises:
        ValueError: if nothing is held out, or without KerasTuner's environment variables.
    """
    from bignas_tf.search.worker import work

    evaluator = _evaluator(trained, data, _held_out(trained, data))
    work(trained.supernet.space, evaluator, json.dumps(_identity(trained)))


def _held_out(trained: Trained, data: RunData) -> Split:
    if data.held_out is None:
        raise ValueError(
            "`held_out` of the recipe must be positive for a selection. Received: "
            f"{trained.recipe.held_out}"
        )
    return data.held_out


def _evaluator(trained: Trained, data: RunData, held_out: Split) -> Evaluator:
    from bignas_tf.masked_evaluation import child_evaluator

    return child_evaluator(trained.supernet, data.calibration, held_out, SPLIT)


def _identity(trained: Trained) -> dict[str, Any]:
    from bignas_tf.extract import weights_identity

    # Retraining gives the same name again: it is for people.
    checksum = weights_identity(trained.supernet.weight_arrays())
    return {"checkpoint": trained.path.name, "crc32": checksum}


def _about(table: LatencyTable) -> dict[str, Any]:
    """What the latency is of, for readers of the folder."""
    header = table.header
    known = {name: header.get(name) for name in ("quantization", "threads", "device")}
    return {TABLE_OF: {**known, "cpu": header.get("conditions", {}).get("cpu")}}


def _check_weights(folder: Path, identity: dict[str, Any]) -> None:
    """Refuses to mix accuracies of other weights into a search."""
    if not (folder / POINTS).exists():
        return
    known = folder / WEIGHTS
    searched = read_json(known) if known.is_file() else None
    if searched is not None:
        for name in (CONDITIONS, TABLE_OF):
            searched.pop(name, None)
    if searched != identity:
        raise ValueError(
            f"The search in {folder} was made with another checkpoint or latency table; "
            f"--overwrite starts anew. Received: {identity}, was: {searched or 'unknown'}"
        )


def _conditions(folder: Path, now: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a search began under; says what has changed since."""
    known = folder / WEIGHTS
    began = read_json(known).get(CONDITIONS) if (folder / POINTS).exists() else None
    if began is None:
        return {} if now is None else {CONDITIONS: dict(now)}
    both = {name: (was, (now or {}).get(name)) for name, was in began.items()}
    changed = [
        f"{name} {was}, now {new}"
        for name, (was, new) in both.items()
        if None not in (was, new) and was != new
    ]
    if changed:
        print(
            f"The search was begun with {'; '.join(changed)}: the last digits of its "
            "accuracies may differ"
        )
    return {CONDITIONS: began}


@contextlib.contextmanager
def _search_folder(
    folder: Path,
    identity: dict[str, Any],
    about: dict[str, Any],
    conditions: Mapping[str, Any] | None,
    overwrite: bool,
) -> Iterator[None]:
    """Prepares the folder; an older search is given up only for one that has a result."""
    old = folder.with_name(f"{folder.name}.old")
    _settle(folder, old)  # of a process that was killed
    if overwrite and folder.exists():
        os.rename(folder, old)
    _check_weights(folder, identity)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / WEIGHTS, identity | about | _conditions(folder, conditions))
        yield
    finally:
        _settle(folder, old)


def _settle(folder: Path, old: Path) -> None:
    """Deletes the search set aside, or puts it back where the new one has no result."""
    if not old.exists():
        return
    points = folder / POINTS
    if points.exists() and points.stat().st_size:
        shutil.rmtree(old)
        return
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(old, folder)
