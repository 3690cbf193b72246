"""Latency predicted and measured, as `benchmarks/latency_prediction.py` writes it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from bignas_tf.report.fields import Fields, ReportError, read_csv, read_json
from bignas_tf.search.latency_agreement import WAYS
from bignas_tf.search.results import TABLE_OF


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A child that the latency table never saw.

    Attributes:
        predicted_ms: by the table.
        measured_ms: by way of measuring, as in `WAYS`, one per session.
    """

    predicted_ms: float
    measured_ms: dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class PredictedFor:
    """What the latency that a search limited is of: the files, their threads, the machine."""

    quantization: str
    threads: int
    cpu: str


def read_predicted_for(path: Path) -> PredictedFor | None:
    """Reads what a search's table is of; None without a table of such a machine as this.

    Args:
        path: `weights.json` of the search.

    Raises:
        ReportError: if it is damaged.
    """
    fields = Fields(read_json(path), path) if path.is_file() else None
    if fields is None or TABLE_OF not in fields:
        return None
    about = fields.object(TABLE_OF)
    if "cpu" not in about:  # a phone's, whose times are not in the folder
        return None
    return PredictedFor(about.text("quantization"), about.integer("threads", 1), about.text("cpu"))


def read_predictions(path: Path) -> list[Prediction]:
    """Reads the CSV or the JSON.

    Raises:
        ReportError: if it is missing or damaged, or has no children.
    """
    if not path.is_file():
        raise ReportError(f"{path} is missing; benchmarks/latency_prediction.py writes it")
    if path.suffix == ".csv":
        rows = read_csv(path)
    else:
        listed = Fields(read_json(path), path).items("rows")
        rows = [Fields(row, path, f"row {number}") for number, row in enumerate(listed, start=1)]
    if not rows:
        raise ReportError(f"{path} has no children")
    found = [_prediction(row, path.suffix == ".csv") for row in rows]
    sessions = [{way: len(times) for way, times in each.measured_ms.items()} for each in found]
    for row, counts in zip(rows, sessions, strict=True):
        if counts != sessions[0]:
            raise row.error("a child must have as many times as the first", counts)
    return found


def _prediction(fields: Fields, written: bool) -> Prediction:
    def number(key: str) -> float:
        value = fields.written(key) if written else fields.number(key)
        if value <= 0:
            raise fields.error(f"`{key}` must be above 0", value)
        return value

    measured: dict[str, list[float]] = {}
    for way in WAYS:
        keys = sorted(key for key in fields if re.fullmatch(rf"{way}_[12]_ms", key))
        if not keys:
            raise fields.error(f"`{way}_1_ms` is missing", list(fields))
        measured[way] = [number(key) for key in keys]
    return Prediction(number("predicted_ms"), measured)
