"""What a sweep writes down: results.csv, and sweep.json of each run."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bignas_tf.checks import from_json, require
from bignas_tf.files import read_json, replacing, write_json
from bignas_tf.intervals import t_interval
from bignas_tf.search.search_options import SearchOptions

RESULTS = "results.csv"
FINISHED = "finished"
COLUMNS = (
    "variant", "seed", "child", "top1", "top1_low", "top1_high",
    "top1_uncalibrated", "test_images", "held_out_top1", "mmacs", "params_m", "resolution",
    "genotype", "steps", "train_seconds", "backend", "device", "overrides", "recipe",
    "data", "finished", "status",
)  # fmt: skip
Row = dict[str, Any]


class RunFile:
    """sweep.json of a run: its settings, and how long the training to its checkpoints took.

    Args:
        folder: of the run.
    """

    NAME = "sweep.json"

    def __init__(self, folder: Path):
        self.path = folder / self.NAME
        known = read_json(self.path) if self.path.is_file() else {}
        self.settings: dict[str, Any] | None = known.get("settings")
        if self.settings and self.settings["select"]:  # with newer options
            options = from_json(SearchOptions, self.settings["select"], "`select`")
            self.settings["select"] = dataclasses.asdict(options)
        self._seconds: list[tuple[int, float]] = [(k, v) for k, v in known.get("seconds", [])]

    def begin(self, settings: dict[str, Any]) -> None:
        """Writes the settings down, before anything is made with them."""
        self.settings = settings
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def seconds_until(self, step: int) -> float:
        """Seconds of training to the last known checkpoint up to `step`."""
        return max((seconds for at, seconds in self._seconds if at <= step), default=0.0)

    def note(self, step: int, seconds: float) -> None:
        """Says how long the training to a checkpoint took; later ones are void."""
        self._seconds = [*(pair for pair in self._seconds if pair[0] < step), (step, seconds)]
        self._write()

    def _write(self) -> None:
        # Of the checkpoints before these none is kept.
        content = {"settings": self.settings, "seconds": self._seconds[-8:]}
        write_json(self.path, content)


class Results:
    """The rows of results.csv, replaced whole with every run.

    Args:
        path: the file, read if it exists.
        order: names of the planned runs; rows of others stay behind theirs.

    Raises:
        ValueError: for a file with other columns.
    """

    def __init__(self, path: Path, order: Sequence[str]):
        self.path = path
        self._order = list(order)
        self._rows: dict[str, list[Row]] = {}
        if not path.exists():
            return
        with path.open(encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text)
            columns = reader.fieldnames or ()
            require(tuple(columns) == COLUMNS, str(path), f"a CSV of {', '.join(COLUMNS)}", columns)
            for row in reader:
                self._rows.setdefault(f"{row['variant']}-seed{row['seed']}", []).append(row)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def add(self, name: str, rows: list[Row]) -> None:
        """Adds the rows of a run and writes the file."""
        self._rows[name] = rows
        others = [name for name in self._rows if name not in self._order]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for name in (*self._order, *others):
            writer.writerows(self._rows.get(name, ()))
        with replacing(self.path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")

    def planned(self) -> list[Row]:
        """Rows of the planned runs that are done, in their order."""
        return [row for name in self._order for row in self._rows.get(name, ())]


def summary(rows: Sequence[Row]) -> list[str]:
    """A table of mean accuracies over seeds by variant and child; then a line per divergence.

    The last columns compare with the same child of the first variant, seed by seed.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    diverged = []
    for row in rows:
        if row["status"] == FINISHED:
            seeds = found.setdefault((row["variant"], row["child"]), {})
            seeds[int(row["seed"])] = float(row["top1"])
        else:
            diverged.append(f"{row['variant']} of seed {row['seed']} {row['status']}")
    first = rows[0]["variant"] if rows else ""
    table: list[tuple[str, ...]] = [
        ("variant", "child", "seeds", "top1", "95 % over seeds", f"against {first}", "95 %")
    ]
    for (variant, child), seeds in found.items():
        against = found.get((first, child), {}) if variant != first else {}
        differences = [top1 - against[seed] for seed, top1 in seeds.items() if seed in against]
        cells = [*_mean_and_interval(list(seeds.values())), *_points(differences)]
        table.append((variant, child, str(len(seeds)), *cells))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    return lines + diverged


def _mean_and_interval(values: Sequence[float]) -> tuple[str, str]:
    interval = ""
    if len(values) > 1:
        low, high = t_interval(values)  # of two seeds it may well be wider than 0 to 100 %
        interval = f"{max(low, 0):.2%} to {min(high, 1):.2%}"
    return f"{statistics.mean(values):.2%}", interval


def _points(differences: Sequence[float]) -> tuple[str, str]:
    """Mean difference and its interval, in percentage points."""
    if not differences:
        return "", ""
    interval = ""
    if len(differences) > 1:
        low, high = t_interval(differences)
        interval = f"{100 * low:+.2f} to {100 * high:+.2f}"
    return f"{100 * statistics.mean(differences):+.2f}", interval
