"""What a sweep writes down: results.csv, and sweep.json of each run."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bignas_tf.checks import require
from bignas_tf.files import read_json, replacing, write_json

RESULTS = "results.csv"
FINISHED = "finished"
COLUMNS = (
    "variant", "seed", "child", "top1", "top1_low", "top1_high", "test_images",
    "held_out_top1", "mmacs", "params_m", "resolution", "genotype", "steps", "train_seconds",
    "backend", "device", "overrides", "recipe", "data", "finished", "status",
)  # fmt: skip
Row = dict[str, Any]
# Student's t of 95 % for 1, 2, ... degrees of freedom; beyond, the last is a little too wide.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


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


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the mean of two or more values."""
    factor = _T[min(len(values) - 1, len(_T)) - 1]
    spread = factor * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.mean(values)
    return mean - spread, mean + spread


def summary(rows: Sequence[Row]) -> list[str]:
    """A table of mean accuracies over seeds by variant and child; then a line per divergence."""
    found: dict[tuple[str, str], list[float]] = {}
    diverged = []
    for row in rows:
        if row["status"] == FINISHED:
            found.setdefault((row["variant"], row["child"]), []).append(float(row["top1"]))
        else:
            diverged.append(f"{row['variant']} of seed {row['seed']} {row['status']}")
    table = [("variant", "child", "seeds", "top1", "95 % over seeds")]
    for (variant, child), values in found.items():
        interval = ""
        if len(values) > 1:
            low, high = t_interval(values)  # of two seeds it may well be wider than 0 to 100 %
            interval = f"{max(low, 0):.2%} to {min(high, 1):.2%}"
        mean = f"{statistics.mean(values):.2%}"
        table.append((variant, child, str(len(values)), mean, interval))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    return lines + diverged
