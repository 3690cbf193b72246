"""How well a search's predictor did, as `select/screening.csv` tells it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bignas_tf.report.fields import Fields, read_csv


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
    return [_screened(row) for row in read_csv(path)]


def _screened(fields: Fields) -> Screened:
    chose = fields.text("screened")
    if chose not in ("True", "False"):
        raise fields.error("`screened` must be True or False", chose)
    return Screened(
        phase=fields.text("phase"),
        candidates=int(fields.written("candidates", 0)),
        evaluated=int(fields.written("evaluated", 0)),
        chose=chose == "True",
        tau=fields.written("tau", -1, 1),
        fresh_tau=fields.written("fresh_tau", -1, 1) if fields.given("fresh_tau") else None,
    )
