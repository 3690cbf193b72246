"""Random search, the baseline of every other strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bignas_tf.checks import require_int
from bignas_tf.search.budget import Budget
from bignas_tf.search.strategy import RoundStrategy
from bignas_tf.spaces import Genotype, Space

REPEATS = 100


class RandomSearch(RoundStrategy):
    """Evaluates random genotypes under each budget in turn.

    A genotype is drawn uniformly; while it is above its budget a random gene of it goes
    down to its next smaller choice. Rejecting instead would never end where next to
    nothing is under the budget.

    Args:
        space: to search in.
        budgets: each of them feasible.
        seed: int, 0 or more.
        evaluations: in all; fewer where a space or a budget has no more to offer.

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
        repeats = 0
        while len(found) < self._evaluations and repeats < REPEATS:
            budget = self.budgets[(len(found) + repeats) % len(self.budgets)]
            genotype = self.space.canonical(self._lowered(self.space.draw(rng), budget, rng))
            if genotype in found or self.known(genotype):
                repeats += 1
            else:
                repeats = 0
                found[genotype] = None
        return list(found)

    def _lowered(self, genotype: Genotype, budget: Budget, rng: np.random.Generator) -> Genotype:
        """The genotype, brought under the budget; at the latest the smallest is."""
        positions = self.space.encode(genotype)
        while not budget.allows(self.space.decode(positions)):
            positions[rng.choice(np.flatnonzero(positions))] -= 1
        return self.space.decode(positions)
