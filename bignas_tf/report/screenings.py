"""How well a search's predictor did, as `select/screening.csv` tells it."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from bignas_tf.report.fields import Fields, ReportError


@dataclasses.dataclass(frozen=True)
class Screened:
    """A round of a search with a predictor.

    Attributes:
        phase: of the search.
        candidates: that the predictor could choose from.
        evaluated: of them.
        chose: whether it was good enough to choose.
        tau: Kendall's, -1 to 1, cross-validated over the results before the round.
        fresh_tau: between predictions and results of the round; None if those are not there.
    """

    phase: str
    candidates: int
    evaluated: int
    chose: bool
    tau: float
    fresh_tau: float | None


def read_screenings(path: Path) -> list[Screened]:
    """Reads the rounds; none if there is no file.

    Raises:
        ReportError: if it is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as text:
            rows = csv.DictReader(text)
            return [_screened(Fields(row, path, f"line {rows.line_num}")) for row in rows]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is not CSV: {error}") from error


def _screened(fields: Fields) -> Screened:
    """One row, whose values are all strings."""

    def number(key: str, low: float, high: float = float("inf")) -> float:
        text = fields.text(key)
        try:
            value = float(text)
        except ValueError:
            raise fields.error(f"`{key}` must be a number", text) from None
        return Fields({key: value}, fields.file, fields.where).number(key, low, high)

    chose = fields.text("screened")
    if chose not in ("True", "False"):
        raise fields.error("`screened` must be True or False", chose)
    return Screened(
        phase=fields.text("phase"),
        candidates=int(number("candidates", 0)),
        evaluated=int(number("evaluated", 0)),
        chose=chose == "True",
        tau=number("tau", -1, 1),
        fresh_tau=number("fresh_tau", -1, 1) if fields.text("fresh_tau") else None,
    )
