"""Screening: of many candidates only those are evaluated that a predictor finds best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bignas_tf.checks import require, require_int
from bignas_tf.search.budget import Budget
from bignas_tf.search.predictor import FEWEST, AccuracyPredictor, kendall_tau
from bignas_tf.spaces import Genotype, Space


def least_tau(results: int) -> float:
    """Kendall's tau below which a predictor is taken for one of chance.

    One standard deviation of the tau of two unrelated orders.

    Args:
        results: that are ordered, 2 or more.

    Reference:
        Kendall, "A New Measure of Rank Correlation", Biometrika 30, 1938.
    """
    return math.sqrt(2 * (2 * results + 5) / (9 * results * (results - 1)))


class Screening:
    """Chooses among the candidates of each round, and keeps account of how well.

    A round proposes several times as many candidates as it evaluates. The predictor learns
    from all results so far; for each budget in turn the best candidate by its prediction is
    kept. A predictor that ranks the genotypes it did not see hardly better than chance
    (`least_tau`), or that has fewer than 10 results to learn from, chooses nothing: the
    round is the one of the search without screening.

    Args:
        space: of the search.
        budgets: of the search; the best under each are looked for.
        seed: int, 0 or more.
        times: how many times as many candidates as evaluations, at least 2.

    Attributes:
        times: as given.
        reports: one per round that had candidates to choose from: `phase`, `results` that
            the predictor learned from, cross-validated `tau`, `candidates`, `evaluated`,
            `screened` (whether the predictor chose), and `fresh_tau`: Kendall's tau between
            its predictions for what was evaluated and the accuracies, which it had not
            seen; None until they are known. `fresh_tau` is of the predicted best only,
            which are closer together, and so lower than `tau`.

    Raises:
        ValueError: for a bad number or no budgets.
        ModuleNotFoundError: without scikit-learn.
    """

    def __init__(self, space: Space, budgets: Sequence[Budget], seed: int, times: int) -> None:
        require_int("screen", times, low=2)
        require(len(budgets) > 0, "budgets", "at least one, to screen for", budgets)
        self.times = times
        self.reports: list[dict[str, Any]] = []
        self._space = space
        self._budgets = budgets
        self._predictor = AccuracyPredictor(space, seed)
        self._predicted: dict[Genotype, float] = {}  # of the round that is evaluated

    def choose(
        self,
        phase: str,
        propose: Callable[[int], Sequence[Genotype]],
        results: Mapping[Genotype, float],
    ) -> list[Genotype]:
        """The genotypes of a round that are evaluated.

        Args:
            phase: name of the round.
            propose: what the search proposes for the round, given the number of the draw:
                0 is that of the search without screening.
            results: accuracies so far.

        Returns:
            As many as the search without screening evaluates.
        """
        first = list(propose(0))
        if len(results) < FEWEST or not first:
            return first
        drawn = [genotype for draw in range(1, self.times) for genotype in propose(draw)]
        candidates = list(dict.fromkeys([*first, *drawn]))
        if len(candidates) == len(first):  # a grid: every draw of it is the same
            return first
        tau = self._predictor.fit(list(results), list(results.values()))
        predicted = dict(zip(candidates, self._predictor.predict(candidates), strict=True))
        screened = tau >= least_tau(len(results))
        kept = self._best(predicted, len(first)) if screened else first
        self._predicted = {genotype: predicted[genotype] for genotype in kept}
        self.reports.append(
            {
                "phase": phase,
                "results": len(results),
                "tau": tau,
                "candidates": len(candidates),
                "evaluated": len(kept),
                "screened": screened,
                "fresh_tau": None,
            }
        )
        return kept

    def settle(self, results: Mapping[Genotype, float]) -> None:
        """Compares the predictions for a round with its results, once they are all there."""
        if self._predicted:
            fresh = [results[genotype] for genotype in self._predicted]
            self.reports[-1]["fresh_tau"] = kendall_tau(list(self._predicted.values()), fresh)
            self._predicted = {}

    def state(self) -> dict[str, Any]:
        """All that a later process needs, as plain JSON."""
        predicted = [[list(g.values), value] for g, value in self._predicted.items()]
        return {"reports": [dict(report) for report in self.reports], "predicted": predicted}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a state."""
        self.reports = [dict(report) for report in state["reports"]]
        self._predicted = {self._space.genotype(v): value for v, value in state["predicted"]}

    def _best(self, predicted: Mapping[Genotype, float], count: int) -> list[Genotype]:
        """The predicted best of every budget, the budgets in turn."""
        ranked = [
            sorted(
                filter(budget.allows, predicted),
                key=lambda g: (not budget.uses_enough(g), -predicted[g], g.values),
            )
            for budget in self._budgets
        ]
        kept: dict[Genotype, None] = {}
        queues = [iter(order) for order in ranked]
        while queues and len(kept) < count:
            for queue in list(queues):
                new = next((genotype for genotype in queue if genotype not in kept), None)
                if new is None:
                    queues.remove(queue)
                elif len(kept) < count:
                    kept[new] = None
        return list(kept)


def sentence(report: Mapping[str, Any]) -> str:
    """A round's report in words."""
    chosen = (
        f"{report['evaluated']} of {report['candidates']} candidates chosen"
        if report["screened"]
        else f"no better than chance, {report['evaluated']} candidates not screened"
    )
    fresh = report["fresh_tau"]
    later = "" if fresh is None else f"; tau {fresh:.2f} on those"
    return (
        f"{report['phase']}: predictor of {report['results']} results, Kendall tau "
        f"{report['tau']:.2f} on held-out genotypes; {chosen}{later}"
    )
