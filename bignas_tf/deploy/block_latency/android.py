"""Latency tables of Android devices, from what `export/benchmark_android.py` measured."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from bignas_tf.checks import require
from bignas_tf.deploy.android.output import TIMED
from bignas_tf.deploy.android.results import COLUMNS
from bignas_tf.deploy.block_latency.files import BLOCK, NETWORK, OVERHEAD, read_index
from bignas_tf.latency_table import BlockTime, LatencyTable, NetworkTime
from bignas_tf.spec import NetworkSpec

# What a CSV may hold several of, and a table has one of: chosen by the caller,
CHOICES = ("device", "serial", "backend", "threads", "cores")
# or the same in the latest measurement of every file.
THROUGHOUT = ("build", "tool_sha256")
STATISTICS = {"median_ms": "median", "avg_ms": "mean"}
CONDITIONS = ("device", "soc", "android", "abi", "build", "governor", "tool_sha256")


def table_from_csv(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    **wanted: str | None,
) -> LatencyTable:
    """Makes a table of the measured files of a folder.

    Args:
        path: CSV of `export/benchmark_android.py`; rows of other files, and of failed
            measurements, count for nothing. Of a file that was measured again the latest does.
        folder: of `write_files`, whose index says what each file is.
        **wanted: which rows, where the CSV has several devices or configurations: values of
            the columns `CHOICES`, None for any.

    Raises:
        OSError: if one of them cannot be read.
        ValueError: if it is no such CSV, the rows are of several devices, configurations,
            builds of Android or tools, there are none of the overhead and of blocks, or a time
            is 0.
    """
    unknown = sorted(set(wanted) - set(CHOICES))
    require(not unknown, "wanted", f"among {', '.join(CHOICES)}", unknown)
    index = read_index(Path(folder))
    files = {row["sha256"]: row for row in index["files"]}
    rows = [row for row in _rows(Path(path)) if row["file_sha256"] in files]
    rows = [row for row in rows if row["status"] in TIMED and (row["median_ms"] or row["avg_ms"])]
    rows = [row for row in rows if all(v is None or row[k] == v for k, v in wanted.items())]
    for name in CHOICES:
        found = sorted({row[name] for row in rows})
        allowed = f"given, one of {', '.join(found)}"
        require(len(found) <= 1, name, allowed, wanted.get(name))
    rows = list({row["file_sha256"]: row for row in sorted(rows, key=itemgetter("date"))}.values())
    for name in THROUGHOUT:
        found = sorted({row[name] for row in rows})
        require(len(found) <= 1, "csv", f"with every file measured with one `{name}`", found)
    # All by the same figure: tools that print no median print the mean.
    column = "median_ms" if all(row["median_ms"] for row in rows) else "avg_ms"
    measured = {row["file_sha256"]: _milliseconds(row, column) for row in rows}
    _check_fine(files, measured, column)
    by_kind = {
        kind: [row for sha, row in files.items() if row["kind"] == kind and sha in measured]
        for kind in (OVERHEAD, BLOCK, NETWORK)
    }
    for kind in (OVERHEAD, BLOCK):
        require(bool(by_kind[kind]), "csv", f"with measured files of kind '{kind}'", str(path))
    (overhead,) = by_kind[OVERHEAD]
    return LatencyTable(
        {**index["header"], **_header(rows, column)},
        measured[overhead["sha256"]],
        {row["key"]: BlockTime(row["label"], *_time(row, measured)) for row in by_kind[BLOCK]},
        [NetworkTime(*_time(row, measured)) for row in by_kind[NETWORK]],
    )


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            require(
                tuple(rows.fieldnames or ()) == COLUMNS,
                "csv", "one of export/benchmark_android.py", str(path),
            )  # fmt: skip
            return list(rows)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"`csv` must be readable ({error}). Received: {path}") from error


def _milliseconds(row: Mapping[str, str], column: str) -> float:
    try:
        found = float(row[column])
    except ValueError:
        found = math.nan
    require(0 <= found < math.inf, "csv", f"with milliseconds in `{column}`", row[column])
    return found


def _check_fine(
    files: Mapping[str, Mapping[str, Any]], measured: Mapping[str, float], column: str
) -> None:
    zero = [
        files[s]["file"] for s, ms in measured.items() if ms == 0 and files[s]["kind"] != OVERHEAD
    ]
    allowed = (
        f"of a tool that prints more decimals, with every `{column}` above 0: hundredths of a "
        "millisecond are too coarse for the blocks of a small network"
    )
    require(not zero, "csv", allowed, f"0 ms for {len(zero)} files, such as {zero[:1]}")


def _header(rows: list[dict[str, str]], column: str) -> dict[str, Any]:
    first = rows[0]
    dates = sorted(row["date"] for row in rows)
    conditions = {name: first[name] for name in (*CONDITIONS, "backend", "cores")}
    return {
        "device": first["device"],
        "threads": int(first["threads"]),
        "clock": "time",
        "statistic": STATISTICS[column],
        "conditions": {**conditions, "date": f"{dates[0]} to {dates[-1]}"},
    }


def _time(row: Mapping[str, Any], measured: Mapping[str, float]) -> tuple[NetworkSpec, float]:
    return NetworkSpec.from_json(row["spec"]), measured[row["sha256"]]
