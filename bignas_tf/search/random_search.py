"""Random search, the baseline of every other strategy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bignas_tf.checks import require_int
from bignas_tf.search.budget import Budget
from bignas_tf.search.round_strategy import RoundStrategy
from bignas_tf.spaces import Genotype, Space

DRAWS = 30
ROUND = 10


class RandomSearch(RoundStrategy):
    """Evaluates random genotypes under each budget in turn.

    A genotype is drawn uniformly. If it is above its budget, random genes of it go to their
    next choice towards the cheapest child's, mostly a smaller one, until it is not. Rejecting
    instead would never end where next to nothing is under the budget.

    It asks in rounds of ten or, with many budgets, as many as there are, each budget as often
    as the others: a round is sorted, as all are, so what was evaluated so far is at any time
    like a smaller random search.

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
        size = max(1, len(budgets)) * max(1, ROUND // max(1, len(budgets)))
        settings = {"evaluations": evaluations, "round": size}
        rounds = math.ceil(evaluations / size)
        super().__init__(space, budgets, seed, rounds=rounds, settings=settings)
        self._evaluations = evaluations
        self._size = size

    def phase_of(self, number: int) -> str:
        return "random"

    def most(self, number: int) -> int:
        return min(self._size, self._evaluations - number * self._size)

    def propose(self, number: int) -> list[Genotype]:
        rng = self.rng(number)
        return self.in_turn(
            self.most(number),
            lambda budget, found: self.first_new(draws(budget, self.cheapest(budget), rng), found),
        )


def draws(budget: Budget, towards: Genotype, rng: np.random.Generator) -> Iterator[Genotype]:
    """Random genotypes under a budget, as many as are tried to find a new one.

    Args:
        budget: limit of what they cost.
        towards: a genotype under it.
        rng: source of randomness.
    """
    space = towards.space
    return (approach(space.draw(rng), towards, budget.allows, rng) for _ in range(DRAWS))


def approach(
    genotype: Genotype,
    towards: Genotype,
    allows: Callable[[Genotype], bool],
    rng: np.random.Generator,
) -> Genotype:
    """Lets random genes take single steps towards another genotype until a limit is met.

    Args:
        genotype: to begin with.
        towards: one that is within the limit, such as the smallest.
        allows: whether a genotype is within the limit.
        rng: says which genes, in which order.

    Returns:
        A canonical genotype within the limit.
    """
    space = genotype.space
    start = space.encode(genotype)
    way = start - space.encode(towards)
    steps = rng.permutation(np.repeat(np.arange(len(way)), np.abs(way)))

    def after(count: int) -> Genotype:
        taken = np.bincount(steps[:count], minlength=len(way))
        return space.canonical(space.decode(start - np.sign(way) * taken))

    # Bisection: counting a network takes milliseconds and there may be fifty steps.
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        if allows(after(middle)):
            high = middle
        else:
            low = middle + 1
    return after(high)
