"""Constrained evolution: the best under each budget are mutated and crossed."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence

import numpy as np

from bignas_tf.checks import require_int
from bignas_tf.search.budget import Budget
from bignas_tf.search.random_search import DRAWS, draws
from bignas_tf.search.round_strategy import RoundStrategy
from bignas_tf.spaces import Genotype, Space

MUTATION_PROBABILITY = 0.1


class Evolution(RoundStrategy):
    """Evolves the most accurate children under each budget.

    The scheme is that of single-path one-shot search, for each budget by itself: a random
    population first, then rounds in which the best children so far are parents, half of the
    new ones mutations of one of them (every gene with probability 0.1), half crossovers of
    two. A child above its budget is thrown away before it is evaluated; where 30 tries give
    nothing new, a random one takes its place. Unlike there, no network is evaluated twice,
    and what is evaluated for one budget counts for all.

    Args:
        space: to search in.
        budgets: each of them feasible; they share evaluations and rounds equally.
        seed: int, 0 or more; equal seeds propose the same after the same results.
        evaluations: in all.
        population: evaluations of each round, all budgets together.
        parents: how many of the best under a budget have children.

    Raises:
        ValueError: for an infeasible budget or a bad number.

    Reference:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
        ECCV 2020, algorithm 1.
    """

    name = "evolution"

    def __init__(
        self,
        space: Space,
        budgets: Sequence[Budget],
        seed: int = 0,
        evaluations: int = 100,
        population: int = 20,
        parents: int = 10,
    ) -> None:
        require_int("evaluations", evaluations, low=len(budgets))
        require_int("population", population, low=len(budgets))
        require_int("parents", parents)
        settings = {"evaluations": evaluations, "population": population, "parents": parents}
        rounds = math.ceil(evaluations / population)
        super().__init__(space, budgets, seed, rounds=rounds, settings=settings)
        self._evaluations = evaluations
        self._population = population
        self._parents = parents

    def phase_of(self, number: int) -> str:
        return f"generation{number}"

    def most(self, number: int) -> int:
        return min(self._population, self._evaluations - number * self._population)

    def propose(self, number: int) -> list[Genotype]:
        rng = self.rng(number)
        parents = {budget: self.ranked(budget)[: self._parents] for budget in self.budgets}

        def draw(budget: Budget, found: Container[Genotype]) -> Genotype | None:
            bred = self._bred(parents[budget], rng) if number else iter(())
            new = self.first_new(filter(budget.allows, bred), found)
            return new or self.first_new(draws(budget, self.cheapest(budget), rng), found)

        return self.in_turn(self.most(number), draw)

    def _bred(self, parents: list[Genotype], rng: np.random.Generator) -> Iterator[Genotype]:
        elastic = any(len(gene.choices) > 1 for gene in self.space.genes)
        for _ in range(DRAWS if parents and elastic else 0):
            a, b = (parents[int(rng.integers(len(parents)))] for _ in range(2))
            if rng.random() < 0.5:
                yield self.space.mutate(a, rng, MUTATION_PROBABILITY)
            else:
                yield self.space.crossover(a, b, rng)
