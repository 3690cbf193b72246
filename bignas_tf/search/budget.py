"""Budgets: upper limits on what a child may cost, in any metric that a spec has."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from bignas_tf.checks import is_number, require, require_choice
from bignas_tf.search.metrics import METRICS, Metric, Profile, Profiled, as_metric, measure
from bignas_tf.spaces import Genotype, Space

Metrics = Mapping[str, "Metric | Profiled | Profile"]

STARTS = 2  # random children to descend from, after the smallest
_FORM = "written like mmacs:5,8,12 or mmacs:5,8+size_mb:0.4"
# The plus of 2.5e+1 is none between metrics.
_PLUS = re.compile(r"\+(?=\s*[^\W\d]\w*\s*:)")


@dataclasses.dataclass(frozen=True)
class Budget:
    """An upper limit on one metric; a child that meets it exactly is within it.

    Attributes:
        metric: name of a registered metric, or any identifier with `profile`.
        limit: in the metric's unit, above 0.
        at_least: share of the limit, 0..1, that a child should use. Where a task is so easy
            that cheaper children are as accurate, it keeps the device tiers apart; a child
            that uses less is chosen only if no other is known.
        profile: what tells the cost of a network where the metric is not registered: a
            function of a `NetworkSpec`, or an object whose method `profile` is one.

    Raises:
        ValueError: for an unknown metric or an impossible limit or share.
    """

    metric: str
    limit: float
    at_least: float = 0.0
    profile: Metric | Profiled | Profile | None = dataclasses.field(default=None, hash=False)

    def __post_init__(self):
        if self.profile is None:
            require_choice("metric", self.metric, tuple(METRICS))
        else:  # once, so that its costs are remembered
            object.__setattr__(self, "profile", as_metric(self.metric, self.profile))
        ok = is_number(self.limit) and self.limit > 0
        require(ok, "limit", "a number above 0", self.limit)
        ok = is_number(self.at_least) and 0 <= self.at_least <= 1
        require(ok, "at_least", "a number in [0, 1]", self.at_least)

    @property
    def parts(self) -> tuple[Budget, ...]:
        """The limits on one metric each that this consists of."""
        return (self,)

    @property
    def unit(self) -> str:
        """How the limit reads after its number."""
        return self._source.unit

    @property
    def name(self) -> str:
        """Such as `mmacs_5`."""
        return f"{self.metric}_{self.limit:.12g}"

    def cost(self, genotype: Genotype) -> float:
        """The genotype's cost, in the unit of the limit."""
        return measure(genotype, self._source)

    def costs(self, genotype: Genotype) -> dict[str, float]:
        """The genotype's cost in every metric that is limited."""
        return {part.metric: part.cost(genotype) for part in self.parts}

    def allows(self, genotype: Genotype) -> bool:
        """Whether the genotype costs no more than the limit."""
        return self.cost(genotype) <= self.limit

    def uses_enough(self, genotype: Genotype) -> bool:
        """Whether the genotype costs at least the share of the limit that it should."""
        return self.cost(genotype) >= self.at_least * self.limit

    def to_json(self) -> dict[str, float]:
        """Such as `{"mmacs": 5.0}`."""
        return {part.metric: float(part.limit) for part in self.parts}

    @property
    def _source(self) -> Metric:
        if self.profile is None:
            return METRICS[self.metric]
        return as_metric(self.metric, self.profile)


@dataclasses.dataclass(frozen=True)
class CombinedBudget(Budget):
    """Limits on several metrics at once: a child has to meet them all.

    Its `cost` is the largest share of a limit that a child uses, and its `limit` 1, so that
    whoever compares the two, or divides them, is right about the limit that binds.

    Attributes:
        metric: the metrics' names, such as `mmacs+size_mb`.
        limit: 1.
        at_least: share that a child should use of the limit that binds.
        members: two budgets or more, each of another metric. Their own `at_least` counts
            for nothing.

    Raises:
        ValueError: for fewer than two budgets, a metric given twice or an impossible share.
    """

    metric: str = dataclasses.field(default="", init=False)
    limit: float = dataclasses.field(default=1.0, init=False)
    profile: None = dataclasses.field(default=None, init=False, hash=False)
    members: tuple[Budget, ...] = ()

    def __post_init__(self):
        metrics = [member.metric for member in self.members]
        ok = len(self.members) > 1 and len(set(metrics)) == len(metrics)
        require(ok, "members", "two budgets or more, each of another metric", metrics)
        object.__setattr__(self, "metric", "+".join(metrics))
        ok = is_number(self.at_least) and 0 <= self.at_least <= 1
        require(ok, "at_least", "a number in [0, 1]", self.at_least)

    @property
    def parts(self) -> tuple[Budget, ...]:
        return self.members

    @property
    def unit(self) -> str:
        return "of the limit that binds"

    @property
    def name(self) -> str:
        """Such as `mmacs_5_size_mb_0.4`."""
        return "_".join(member.name for member in self.members)

    def cost(self, genotype: Genotype) -> float:
        """The largest share of a limit that the genotype uses; 1 is all of it."""
        return max(member.cost(genotype) / member.limit for member in self.members)

    def allows(self, genotype: Genotype) -> bool:
        """Whether the genotype meets every limit."""
        # Not by its cost: a quotient is rounded.
        return all(member.allows(genotype) for member in self.members)


def parse_budgets(text: str, at_least: float = 0.0, metrics: Metrics | None = None) -> list[Budget]:
    """Reads budgets as they are written on a command line.

    Args:
        text: a metric, a colon and limits, such as `mmacs:5,8,12`. A plus joins metrics that
            are limited at once: `mmacs:5,8+size_mb:0.4,0.6` is 5 MMACs and 0.4 MB, then 8
            MMACs and 0.6 MB, and a single limit serves for all. More metrics, with budgets of
            their own, follow after semicolons.
        at_least: share of each limit that a child should use.
        metrics: those that are not registered, by name.

    Returns:
        One `Budget` per limit, in the order given.

    Raises:
        ValueError: for anything else, an unknown metric or a limit given twice.
    """
    budgets: list[Budget] = []
    for part in text.split(";"):
        columns = [
            _budgets_of_one(word, at_least, metrics or {}, text) for word in _PLUS.split(part)
        ]
        count = max(map(len, columns))
        ok = all(len(column) in (1, count) for column in columns)
        received = " and ".join(str(len(column)) for column in columns)
        require(ok, "budgets", "as many for each of the metrics that a + joins", received)
        rows = [[column[i % len(column)] for column in columns] for i in range(count)]
        budgets += [
            row[0] if len(row) == 1 else CombinedBudget(at_least=at_least, members=tuple(row))
            for row in rows
        ]
    for budget in budgets:
        require(budgets.count(budget) == 1, "budgets", "given once each", text)
    return budgets


def _budgets_of_one(word: str, at_least: float, metrics: Metrics, text: str) -> list[Budget]:
    """The budgets of one metric, such as those of `mmacs:5,8`."""
    metric, colon, limits = (piece.strip() for piece in word.partition(":"))
    require(bool(colon and limits), "budgets", _FORM, text)
    require_choice("metric", metric, (*METRICS, *metrics))
    own = as_metric(metric, metrics[metric]) if metric in metrics else None
    return [Budget(metric, _limit(limit), at_least, own) for limit in limits.split(",")]


def _limit(word: str) -> float:
    try:
        limit = float(word)
    except ValueError:
        limit = math.nan
    # float() reads 5_8 as 58; here it is more likely a slip for 5,8.
    ok = math.isfinite(limit) and limit > 0 and "_" not in word
    require(ok, "limit", "a number above 0", word.strip())
    return limit


def cheapest(budget: Budget, space: Space) -> Genotype:
    """A child that meets the budget, or else the one of least cost that was found.

    The smallest child, where it meets the budget. Its cost is the least of all in MACs, in
    parameters and in the size of the file, but need not be in others: on some machines a
    layer with more channels is the faster one. So from the smallest child, and then from
    `STARTS` random ones, each gene in turn takes its cheapest choice (coordinate descent)
    until none gets cheaper. That need not find the least cost either; it is the same at
    every call.

    Args:
        budget: of any metric.
        space: of the children.

    Returns:
        A canonical genotype.
    """
    smallest = space.canonical(space.smallest())
    if budget.allows(smallest):
        return smallest
    rng = np.random.Generator(np.random.Philox(0))
    starts = [smallest, *(space.canonical(space.draw(rng)) for _ in range(STARTS))]
    found = smallest
    for start in starts:
        found = min(found, _descend(budget, start), key=budget.cost)
        if budget.allows(found):
            break
    return found


def _descend(budget: Budget, genotype: Genotype) -> Genotype:
    """Coordinate descent; ends early at a child that meets the budget."""
    space = genotype.space
    before = math.inf
    while budget.cost(genotype) < before and not budget.allows(genotype):
        before = budget.cost(genotype)
        for gene in space.genes:
            changed = (genotype.replace(**{gene.name: value}) for value in gene.choices)
            # The genotype itself first: of equals it stays.
            genotype = min([genotype, *map(space.canonical, changed)], key=budget.cost)
    return genotype


def check_feasible(budget: Budget, space: Space) -> None:
    """Refuses a budget that no child of the space seems to meet.

    See `cheapest` for what is tried: in metrics other than MACs, parameters and size a
    child that was not found might meet it.

    Raises:
        ValueError: with the least budget that would be met.
    """
    nearest = cheapest(budget, space)
    if budget.allows(nearest):
        return
    resolution = nearest.spec().input_shape[0]
    whose = "the smallest child"
    if nearest != space.canonical(space.smallest()):
        whose = f"the cheapest child that coordinate descent finds, {nearest.as_dict()},"
    needed = " and ".join(f"{_rounded_up(part.cost(nearest))} {part.unit}" for part in budget.parts)
    given = ", ".join(f"{part.limit:.12g}" for part in budget.parts)
    raise ValueError(
        f"`budget` must be at least {needed}, {whose} of space '{space.name}' at "
        f"{resolution} px. Received: {given}"
    )


def _rounded_up(value: float, digits: int = 4) -> str:
    """At least `value`, so that a budget copied from the message is enough."""
    decimals = max(0, digits - 1 - math.floor(math.log10(value))) if value else 0
    return f"{math.ceil(value * 10**decimals) / 10**decimals:.{decimals}f}"
