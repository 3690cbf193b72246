"""NSGA-II: a search for all the best trade-offs at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bignas_tf.checks import require, require_choice, require_int
from bignas_tf.search.budget import METRICS, Budget, measure
from bignas_tf.search.objective import ACCURACY, Objective, default_objectives, matrix
from bignas_tf.search.packages import search_package
from bignas_tf.search.random_search import DRAWS, lowered
from bignas_tf.search.strategy import RoundStrategy
from bignas_tf.spaces import Genotype, Space

CROSSOVER_PROBABILITY = 0.9


def ranks_and_crowding(
    values: np.ndarray, objectives: Sequence[Objective]
) -> tuple[np.ndarray, np.ndarray]:
    """What NSGA-II compares points by: lower ranks first, then larger distances.

    Args:
        values: `(points, objectives)`, at least one point.
        objectives: of the columns.

    Returns:
        The rank of every point, int `(points,)`: 0 if no other dominates it, 1 if only
        points of rank 0 do, and so on; and its `crowding_distance` among its rank.

    Raises:
        ModuleNotFoundError: without moocore.
    """
    moocore = search_package("moocore", "NSGA-II")
    ranks = moocore.pareto_rank(values, maximise=[each.maximised for each in objectives])
    distances = np.zeros(len(values))
    for rank in np.unique(ranks):
        distances[ranks == rank] = crowding_distance(values[ranks == rank])
    return ranks, distances


def crowding_distance(values: np.ndarray) -> np.ndarray:
    """How far apart the neighbours of every point of a front are.

    Args:
        values: `(points, objectives)`, at least one point.

    Returns:
        `(points,)`: the sum over the objectives of the distance between the points on
        either side, as a share of the front's range; infinity at the ends of each.

    Reference:
        Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC
        6(2), 2002, section III-B.
    """
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        span = ordered[-1] - ordered[0]
        if span > 0:
            distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
        distances[order[[0, -1]]] = np.inf
    return distances


class NSGA2(RoundStrategy):
    """Evolves the front of several objectives by rank and crowding distance.

    Parents are drawn by binary tournament from the best `population`, crossed (gene by gene,
    with probability 0.9) and mutated (one gene on average, at least one). Candidates above
    every budget are thrown away before they are evaluated; without budgets there are none.

    As evaluations are dear, four things differ from the original. The best are taken from
    everything evaluated so far, not from parents and children only. A generation is smaller
    than the population; `children=population` makes them equal. No network is evaluated
    twice: what is known is bred again, up to 30 times, and then drawn at random. And the first
    population is spread over all sizes: besides the smallest and the biggest it has children
    whose genes are at about the same share of their choices, from lowest to highest.

    Args:
        space: to search in.
        budgets: each of them feasible; none for no limit.
        seed: int, 0 or more; equal seeds propose the same after the same results.
        evaluations: in all.
        population: how many compete to be parents; also the evaluations of the first round.
        children: evaluations of every later round.
        objectives: accuracy and registered metrics, at least one of them; None for accuracy
            and the metrics of the budgets, MMACs without budgets.

    Raises:
        ValueError: for an infeasible budget, a bad number or other objectives.
        ModuleNotFoundError: without moocore.

    Reference:
        Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC
        6(2), 2002.
    """

    name = "nsga2"
    needs_budgets = False

    def __init__(
        self,
        space: Space,
        budgets: Sequence[Budget] = (),
        seed: int = 0,
        evaluations: int = 100,
        population: int = 20,
        children: int = 8,
        objectives: Sequence[Objective] | None = None,
    ) -> None:
        search_package("moocore", "NSGA-II")  # before anything is evaluated
        require_int("evaluations", evaluations)
        require_int("population", population, low=2)
        require_int("children", children)
        self.objectives = default_objectives(budgets) if objectives is None else tuple(objectives)
        self._check_objectives()
        settings = {
            "evaluations": evaluations,
            "population": population,
            "children": children,
            "objectives": [str(objective) for objective in self.objectives],
        }
        rounds = 1 + math.ceil(max(0, evaluations - population) / children)
        super().__init__(space, budgets, seed, rounds=rounds, settings=settings)
        self._evaluations = evaluations
        self._population = population
        self._children = children

    def phase_of(self, number: int) -> str:
        return f"generation{number}"

    def most(self, number: int) -> int:
        if number == 0:
            return min(self._population, self._evaluations)
        begun = self._population + (number - 1) * self._children
        return min(self._children, self._evaluations - begun)

    def propose(self, number: int) -> list[Genotype]:
        rng, count = self.rng(number), self.most(number)
        found: dict[Genotype, None] = {}
        if number == 0:
            ends = (self.space.smallest(), self.space.biggest())
            for new in [self.first_new([end], found) for end in ends[:count]]:
                found |= {} if new is None else {new: None}
        parents = self._parents(rng) if number else []
        while len(found) < count:
            new = self.first_new(self._bred(parents, rng), found)
            if new is None:
                level = (len(found) + rng.random()) / count if number == 0 else rng.random()
                new = self.first_new((self._draw(level, rng) for _ in range(DRAWS)), found)
            if new is None:
                break  # as good as everything is known
            found[new] = None
        return list(found)

    def _check_objectives(self) -> None:
        names = [objective.name for objective in self.objectives]
        ok = ACCURACY in names and len(set(names)) == len(names) > 1
        require(ok, "objectives", f"{ACCURACY} and other ones, once each", names)
        for name in names:
            require_choice("objectives", name, (ACCURACY, *METRICS))

    def _draw(self, level: float, rng: np.random.Generator) -> Genotype:
        """A random genotype whose genes are at about that share (0..1) of their choices."""
        steps = [len(gene.choices) - 1 for gene in self.space.genes]
        return lowered(self.space.decode(rng.binomial(steps, level)), self.allows, rng)

    def _parents(self, rng: np.random.Generator) -> list[Genotype]:
        """The best of everything told that a budget allows, the best first."""
        told = sorted(filter(self.allows, self._told), key=lambda genotype: genotype.values)
        points = [
            {
                objective.name: self._told[genotype][0]
                if objective.name == ACCURACY
                else measure(genotype, objective.name)
                for objective in self.objectives
            }
            for genotype in told
        ]
        ranks, distances = ranks_and_crowding(matrix(points, self.objectives), self.objectives)
        order = np.lexsort((rng.permutation(len(told)), -distances, ranks))
        return [told[i] for i in order[: self._population]]

    def _bred(self, parents: list[Genotype], rng: np.random.Generator) -> Iterator[Genotype]:
        elastic = sum(len(gene.choices) > 1 for gene in self.space.genes)
        for _ in range(DRAWS if parents and elastic else 0):
            # Of two parents the earlier in the order wins the tournament.
            a, b = (parents[int(rng.integers(len(parents), size=2).min())] for _ in range(2))
            child = self.space.crossover(a, b, rng) if rng.random() < CROSSOVER_PROBABILITY else a
            yield self.space.mutate(child, rng, 1 / elastic)
