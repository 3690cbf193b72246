"""Coarse-to-fine selection: skeletons over a grid first, then variations of the best."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from bignas_tf.checks import require_int
from bignas_tf.search.budget import Budget
from bignas_tf.search.round_strategy import RoundStrategy
from bignas_tf.spaces import Gene, Genotype, Space

DEPTH_THIRDS = (0, 1, 2, 3)
WELL_USED = 0.8
STAGE_VARIATIONS = 4
FINE_CANDIDATES = 16
FINE_ROUNDS = 2
MUTATION_PROBABILITIES = (0.1, 0.2)


def skeletons(space: Space) -> list[Genotype]:
    """The coarse grid, cheapest settings first.

    Every resolution of the space, times settings that hold for all stages at once: depth at
    0, 1/3, 2/3 and 1 of each stage's range, rounded; widths (those of stem and head too,
    and anything else that varies, such as expansion) all smallest or all biggest; kernels
    all smallest, largest in the first half of the stages that have a choice, largest in
    the second half, all largest. Of an odd number of stages the middle one counts to the
    second half. The paper gives the numbers of settings, not the settings.

    Returns:
        Canonical genotypes, each once: 160 for `bignas`. The smallest is among them.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, "Coarse-to-fine Architecture Selection".
    """
    kernels = [gene.name for gene in space.genes if _kind(gene) == "kernel" and _elastic(gene)]
    first, second = kernels[: len(kernels) // 2], kernels[len(kernels) // 2 :]
    grid = itertools.product(
        space.resolutions, DEPTH_THIRDS, (False, True), ([], first, second, kernels)
    )
    found = [
        space.canonical(_skeleton(space, resolution, thirds, widest, largest))
        for resolution, thirds, widest, largest in grid
    ]
    return list(dict.fromkeys(found))


def _skeleton(
    space: Space, resolution: int, thirds: int, widest: bool, largest: Sequence[str]
) -> Genotype:
    values = {}
    for gene in space.genes:
        kind = _kind(gene)
        if kind == "resolution":
            value = resolution
        elif kind == "depth":
            value = _depth(gene, thirds)
        elif kind == "kernel":
            value = gene.choices[-1 if gene.name in largest else 0]
        else:
            value = gene.choices[-1 if widest else 0]
        values[gene.name] = value
    return space.genotype(values)


def _kind(gene: Gene) -> str:
    """`resolution`, `depth`, `kernel`, `width`, ...: how a gene's name ends."""
    return gene.name.rpartition("_")[2]


def _elastic(gene: Gene) -> bool:
    return len(gene.choices) > 1


def _depth(gene: Gene, thirds: int) -> int:
    """The choice nearest to that many thirds of the gene's range."""
    low, high = gene.choices[0], gene.choices[-1]
    return min(gene.choices, key=lambda depth: abs(3 * (depth - low) - thirds * (high - low)))


class CoarseToFine(RoundStrategy):
    """Evaluates the coarse grid, then varies the best child under each budget.

    Skeletons above every budget are left out: they could never be chosen. In each fine
    round the best child so far under a budget is varied in one gene, in one stage, or by
    mutation; of the variations under the budget those that use at least 80 % of it come
    first, then the costliest of the others. What is evaluated for one budget counts for
    all. Nothing is trained.

    Args:
        space: to search in.
        budgets: each of them feasible.
        seed: int, 0 or more; equal seeds propose the same after the same results.
        fine_candidates: evaluations per budget and fine round, at most.
        fine_rounds: number of fine rounds; 0 stops after the coarse grid.

    Raises:
        ValueError: for an infeasible budget or a bad number.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, "Coarse-to-fine Architecture Selection".
    """

    name = "coarse_to_fine"

    def __init__(
        self,
        space: Space,
        budgets: Sequence[Budget],
        seed: int = 0,
        fine_candidates: int = FINE_CANDIDATES,
        fine_rounds: int = FINE_ROUNDS,
    ) -> None:
        require_int("fine_candidates", fine_candidates)
        require_int("fine_rounds", fine_rounds, low=0)
        settings = {"fine_candidates": fine_candidates, "fine_rounds": fine_rounds}
        super().__init__(space, budgets, seed, rounds=1 + fine_rounds, settings=settings)
        self._fine_candidates = fine_candidates

    def phase_of(self, number: int) -> str:
        return f"fine{number}" if number else "coarse"

    def most(self, number: int) -> int:
        if number == 0:
            return len(skeletons(self.space))
        return self._fine_candidates * len(self.budgets)

    def propose(self, number: int) -> list[Genotype]:
        if number == 0:
            return [
                genotype
                for genotype in skeletons(self.space)
                if not self.known(genotype) and self.allows(genotype)
            ]
        proposed: dict[Genotype, None] = {}
        for index, budget in enumerate(self.budgets):
            rng = self.rng(number, index)
            # The grid has a child under the budget unless the cheapest is none of it.
            parent = self.best(budget) or self.cheapest(budget)
            fresh = {
                genotype: None
                for genotype in (parent, *map(self.space.canonical, self._variations(parent, rng)))
                if not self.known(genotype) and genotype not in proposed
            }
            within = [genotype for genotype in fresh if budget.allows(genotype)]
            mixed = [within[i] for i in rng.permutation(len(within))]
            unused = {g: max(0.0, WELL_USED - budget.cost(g) / budget.limit) for g in mixed}
            mixed.sort(key=unused.__getitem__)  # stable: random among those that use it well
            proposed |= dict.fromkeys(mixed[: self._fine_candidates])
        return list(proposed)

    def _variations(self, parent: Genotype, rng: np.random.Generator) -> Iterator[Genotype]:
        """Changes of one gene (all), of one stage and of several genes (drawn)."""
        yield from self.space.neighbours(parent)
        groups: dict[str, list[Gene]] = {}
        for gene in filter(_elastic, self.space.genes):
            groups.setdefault(gene.group, []).append(gene)
        if not groups:
            return
        for genes in groups.values():
            if len(genes) > 1:  # else a change of one gene, which came already
                for _ in range(STAGE_VARIATIONS):
                    drawn = {g.name: g.choices[rng.integers(len(g.choices))] for g in genes}
                    yield parent.replace(**drawn)
        for probability in MUTATION_PROBABILITIES:
            for _ in range(2 * self._fine_candidates):
                yield self.space.mutate(parent, rng, probability)
