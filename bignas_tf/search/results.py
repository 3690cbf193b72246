"""What a search writes for people and for the next command: tables and the chosen children.

`points.jsonl` is the record that survives a kill, a line per evaluation; the tables are made
from it anew after each batch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bignas_tf.files import read_json, replacing
from bignas_tf.search.objective import Objective, default_objectives
from bignas_tf.search.pareto import front_of
from bignas_tf.spaces import Space

WEIGHTS, TABLE_OF = "weights.json", "latency"
TRIALS, FRONT, SELECTED, SCREENINGS = "trials.csv", "front.csv", "selected", "screening.csv"
FINISHED = "finished"
_FOR_READERS = ("order", "spec", FINISHED)


def write_results(
    folder: Path,
    space: Space,
    points: Sequence[Mapping[str, Any]],
    selected: Sequence[Mapping[str, Any]],
    screenings: Sequence[Mapping[str, Any]] = (),
    objectives: Sequence[Objective] | None = None,
    finished: bool = True,
) -> None:
    """Writes a search's results, each file whole and only where it changes.

    `trials.csv` has a row per evaluation: `order` from 1, `phase`, `split`, `accuracy`, the
    costs and other metrics, and a column per gene; `front.csv` those rows that no other beats
    in the objectives, by ascending cost; `selected/NAME.json` a chosen child: its entry,
    `order` among the budgets (from 0), `spec`, the network, and whether the search is
    `finished`. A search with a predictor has `screening.csv`, a row per round, as in
    `Screening.reports`.

    Args:
        folder: of the search.
        space: of the children.
        points: evaluations in order, as in `points.jsonl`.
        selected: what `select` returns, or a part of it.
        screenings: what the predictor did in each round.
        objectives: of the search, each of them in every point; None for accuracy and MMACs.
        finished: whether there is nothing left to evaluate.
    """
    trials = [{"order": number, **point} for number, point in enumerate(points, start=1)]
    metrics = dict.fromkeys(name for point in points for name in point)
    labels = ("order", "phase", "split", "accuracy")
    others = [name for name in metrics if name not in (*labels, "genotype")]
    columns = [*labels, *others, *(gene.name for gene in space.genes)]
    best = front_of(trials, default_objectives(()) if objectives is None else objectives)
    _write(folder / TRIALS, table(columns, map(_row, trials)))
    _write(folder / FRONT, table(columns, map(_row, best)))
    (folder / SELECTED).mkdir(exist_ok=True)
    for order, entry in enumerate(selected):
        spec = space.genotype(entry["genotype"]).spec().to_json()
        described = {**entry, "order": order, FINISHED: finished, "spec": spec}
        text = json.dumps(described, indent=2, allow_nan=False)
        _write(folder / SELECTED / f"{entry['name']}.json", f"{text}\n")
    if screenings:
        _write(folder / SCREENINGS, table(list(screenings[0]), screenings))
    current = {f"{entry['name']}.json" for entry in selected}
    for path in (folder / SELECTED).glob("*.json"):
        if path.name not in current:  # chosen under a name that is no longer asked for
            path.unlink()


def read_selected(folder: Path) -> list[dict[str, Any]]:
    """The chosen children as `select` returned them, in the order of their budgets.

    Args:
        folder: of the search.

    Raises:
        FileNotFoundError: if nothing was selected yet.
        ValueError: if a file is no JSON.
    """
    if not (folder / SELECTED).is_dir():
        raise FileNotFoundError(f"{folder / SELECTED} is missing; `bignas select` writes it")
    entries = [read_json(path) for path in (folder / SELECTED).glob("*.json")]
    ordered = sorted(entries, key=lambda entry: entry["order"])
    return [
        {key: value for key, value in entry.items() if key not in _FOR_READERS} for entry in ordered
    ]


def is_unfinished(folder: Path) -> bool:
    """Whether the chosen children are those of a search that has not come to its end.

    Args:
        folder: of the search.
    """
    files = (folder / SELECTED).glob("*.json")
    return any(not read_json(path).get(FINISHED, True) for path in files)  # old ones do not say


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV text with a head; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {**trial, **trial["genotype"]}


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
