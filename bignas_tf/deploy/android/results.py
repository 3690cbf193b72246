"""The CSV of a sweep over devices."""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from bignas_tf.files import check_output, replacing

# What tells one measurement from another.
KEY = (
    "device", "serial", "build", "tool_sha256", "file_sha256",
    "backend", "threads", "cores", "warmup", "runs_asked",
)  # fmt: skip
COLUMNS = (
    "file", "backend", "threads", "cores", "status", "median_ms", "avg_ms", "std_ms", "min_ms",
    "max_ms", "p5_ms", "p95_ms", "init_ms", "first_ms", "warmup_ms", "peak_memory_mb", "runs",
    "delegated", "delegated_nodes", "nodes", "partitions", "device", "soc", "android", "abi",
    "governor", "thermal_before", "thermal_after", "celsius_before", "celsius_after", "cooled",
    "thermal_reference", "celsius_reference",
    "warmup", "runs_asked", "profile", "date", "serial", "build", "tool_sha256", "file_sha256",
    "file_bytes", "message",
)  # fmt: skip

Row = Mapping[str, str]


def key_of(row: Row) -> tuple[str, ...]:
    """The columns of `KEY`."""
    return tuple(row[name] for name in KEY)


class Results:
    """Rows of a CSV, on the disk after each; for several threads.

    Args:
        path: the CSV; rows of an earlier sweep are kept.
        measured_again: statuses whose rows count as missing.

    Raises:
        ValueError: if it is there but no such CSV.
        OSError: if it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], measured_again: Collection[str] = ()) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, ...], Row] = {}
        self._again = frozenset(measured_again)
        check_output(self.path, overwrite=True)
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = csv.DictReader(file, strict=True)
                if tuple(rows.fieldnames or ()) != COLUMNS:
                    raise ValueError("other columns")
                for row in rows:
                    if None in row or None in row.values():
                        raise ValueError(f"line {rows.line_num} has another length")
                    self._rows[key_of(row)] = row
        except (csv.Error, UnicodeDecodeError, ValueError) as error:
            raise ValueError(
                f"`csv` must be new or of an earlier sweep ({error}). Received: {self.path}"
            ) from error

    def has(self, key: tuple[str, ...]) -> bool:
        """Whether a measurement is there."""
        with self._lock:
            return key in self._rows and self._rows[key]["status"] not in self._again

    def row(self, key: tuple[str, ...]) -> Row:
        """A measurement that is there."""
        with self._lock:
            return self._rows[key]

    def first(self, **wanted: str) -> Row | None:
        """The first row with these values, or None.

        Args:
            **wanted: columns and their values.
        """
        with self._lock:
            rows = self._rows.values()
            return next((row for row in rows if wanted.items() <= row.items()), None)

    def add(self, row: Row) -> None:
        """Adds or replaces a row and writes the file.

        Args:
            row: the columns, all of them.

        Raises:
            OSError: if the file cannot be written.
        """
        text = io.StringIO()
        with self._lock:
            self._rows[key_of(row)] = row
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows.values())
            with replacing(self.path) as temporary:
                temporary.write_text(text.getvalue(), encoding="utf-8")
