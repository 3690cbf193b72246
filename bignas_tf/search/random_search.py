"""Random search, the baseline of every other strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bignas_tf.checks import require_int
from bignas_tf.search.budget import Budget
from bignas_tf.search.strategy import RoundStrategy
from bignas_tf.spaces import Genotype, Space

DRAWS = 30


class RandomSearch(RoundStrategy):
    """Evaluates random genotypes under each budget in turn.

    A genotype is drawn uniformly. If it is above its budget, random genes of it go down to
    their next smaller choice, one step after the other, until it is not. Rejecting instead
    would never end where next to nothing is under the budget.

    Args:
        space: to search in.
        budgets: each of them feasible.
        seed: int, 0 or more.
        evaluations: in all, shared equally; a budget under which 30 draws in a row give
            nothing new leaves its share to the others.

    Raises:
        ValueError: for an infeasible budget or a bad number.
    """

    name = "random_search"

    def __init__(
        self, space: Space, budgets: Sequence[Budget], seed: int = 0, evaluations: int = 100
    ) -> None:
        require_int("evaluations", evaluations, low=len(budgets))
        settings = {"evaluations": evaluations}
        super().__init__(space, budgets, seed, rounds=1, settings=settings)
        self._evaluations = evaluations

    def phase_of(self, number: int) -> str:
        return "random"

    def most(self, number: int) -> int:
        return self._evaluations

    def propose(self, number: int) -> list[Genotype]:
        found: dict[Genotype, None] = {}
        rng = self.rng(number)
        budgets = list(self.budgets)
        while budgets and len(found) < self._evaluations:
            budget = budgets[len(found) % len(budgets)]
            draws = (self._draw(budget, rng) for _ in range(DRAWS))
            new = next((g for g in draws if g not in found and not self.known(g)), None)
            if new is None:
                budgets.remove(budget)
            else:
                found[new] = None
        return list(found)

    def _draw(self, budget: Budget, rng: np.random.Generator) -> Genotype:
        """A genotype under the budget; at the latest the smallest is."""
        start = self.space.encode(self.space.draw(rng))
        steps = rng.permutation(np.repeat(np.arange(len(start)), start))

        def after(count: int) -> Genotype:
            down = np.bincount(steps[:count], minlength=len(start))
            return self.space.canonical(self.space.decode(start - down))

        # Bisection: counting a network takes milliseconds and there may be fifty steps.
        low, high = 0, len(steps)
        while low < high:
            middle = (low + high) // 2
            if budget.allows(after(middle)):
                high = middle
            else:
                low = middle + 1
        return after(high)
