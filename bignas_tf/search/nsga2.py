"""NSGA-II: a search for all the best trade-offs at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bignas_tf.checks import require, require_choice, require_int
from bignas_tf.optional import require_package
from bignas_tf.search.budget import Budget
from bignas_tf.search.metrics import METRICS, measure
from bignas_tf.search.objective import ACCURACY, Objective, default_objectives, matrix
from bignas_tf.search.random_search import DRAWS, approach
from bignas_tf.search.round_strategy import RoundStrategy
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
    require_package("moocore", "search", "NSGA-II")
    import moocore

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
    with probability 0.9) and mutated (one gene or so). Candidates above
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
        require_package("moocore", "search", "NSGA-II")  # before anything is evaluated
        require_int("evaluations", evaluations, low=max(1, len(budgets)))
        require_int("population", population, low=max(2, len(budgets)))
        require_int("children", children)
        self._limits = {limit.metric: limit for budget in budgets for limit in budget.parts}
        self.objectives = default_objectives(budgets) if objectives is None else tuple(objectives)
        self._check_objectives()
        settings = {
            "evaluations": evaluations,
            "population": population,
            "children": children,
            "objectives": [str(objective) for objective in self.objectives],
        }
        rounds = 1 + math.ceil(max(0, evaluations - population) / children)
        super().__init__(
            space, budgets, seed, rounds=rounds, settings=settings, objectives=self.objectives
        )
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
            for end in [*map(self.cheapest, self.budgets), self._smallest, self.space.biggest()]:
                new = self.first_new([end], found) if len(found) < count else None
                found |= {} if new is None else {new: None}
        parents = self._parents(rng) if number else []
        while len(found) < count:
            if number == 0:
                level = (len(found) + rng.random()) / count
                new = self.first_new(self._drawn(level, rng), found)
            else:
                new = self.first_new(self._bred(parents, rng), found)
            new = new or self.first_new(self._drawn(None, rng), found)
            if new is None:
                break  # as good as everything is known
            found[new] = None
        return list(found)

    @property
    def _smallest(self) -> Genotype:
        return self.space.canonical(self.space.smallest())

    def _check_objectives(self) -> None:
        names = [objective.name for objective in self.objectives]
        ok = ACCURACY in names and len(set(names)) == len(names) > 1
        require(ok, "objectives", f"{ACCURACY} and other ones, once each", names)
        for objective in self.objectives:
            known = tuple(dict.fromkeys((ACCURACY, *METRICS, *self._limits)))
            require_choice("objectives", objective.name, known)
            ok = not objective.maximised or objective.name == ACCURACY
            require(ok, "direction", f"min for {objective.name}", objective.direction)

    def _value(self, genotype: Genotype, name: str) -> float:
        if name == ACCURACY:
            return self._told[genotype][0]
        # A budget may bring a metric that is not registered.
        return (
            self._limits[name].cost(genotype) if name in self._limits else measure(genotype, name)
        )

    def _drawn(self, level: float | None, rng: np.random.Generator) -> Iterator[Genotype]:
        """Random genotypes; their genes at about the share `level` (0..1) of their choices."""
        steps = [len(gene.choices) - 1 for gene in self.space.genes]
        ends = [*map(self.cheapest, self.budgets)] or [self._smallest]
        for _ in range(DRAWS):
            drawn = (
                self.space.draw(rng)
                if level is None
                else self.space.decode(rng.binomial(steps, level))
            )
            yield approach(drawn, ends[int(rng.integers(len(ends)))], self.allows, rng)

    def _parents(self, rng: np.random.Generator) -> list[Genotype]:
        """The best of everything told that a budget allows, the best first."""
        told = sorted(filter(self.allows, self._told), key=lambda genotype: genotype.values)
        names = [objective.name for objective in self.objectives]
        points = [{name: self._value(genotype, name) for name in names} for genotype in told]
        ranks, distances = ranks_and_crowding(matrix(points, self.objectives), self.objectives)
        order = np.lexsort((rng.permutation(len(told)), -distances, ranks))
        return [told[i] for i in order[: self._population]]

    def _bred(self, parents: list[Genotype], rng: np.random.Generator) -> Iterator[Genotype]:
        elastic = sum(len(gene.choices) > 1 for gene in self.space.genes)
        for _ in range(DRAWS if parents and elastic else 0):
            # Of two parents the earlier in the order wins the tournament.
            a, b = (parents[int(rng.integers(len(parents), size=2).min())] for _ in range(2))
            crossed = rng.random() < CROSSOVER_PROBABILITY
            child = self.space.crossover(a, b, rng) if crossed else a
            # `mutate` changes a gene at least; so often the original would change none.
            unchanged = (1 - 1 / elastic) ** elastic
            if not crossed or rng.random() >= unchanged:
                child = self.space.mutate(child, rng, 1 / elastic)
            yield child
