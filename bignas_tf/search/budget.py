"""Budgets: upper limits on what a child may cost, in any metric that a spec has."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from bignas_tf.checks import is_number, require, require_choice
from bignas_tf.cost import Cost, count
from bignas_tf.spaces import Genotype, Space
from bignas_tf.spec import NetworkSpec


@dataclasses.dataclass(frozen=True)
class Metric:
    """A cost of a network that can be told without evaluating it; lower is better.

    Attributes:
        name: an identifier, such as `mmacs`.
        unit: as it reads after a number, such as `MMACs`.
        profile: the cost of a network, 0 or more.
    """

    name: str
    unit: str
    profile: Callable[[NetworkSpec], float]


METRICS: dict[str, Metric] = {}


def register_metric(name: str, unit: str, profile: Callable[[NetworkSpec], float]) -> Metric:
    """Makes a metric known to budgets.

    Args:
        name: an identifier that no other metric has.
        unit: as it reads after a number.
        profile: the cost of a network, 0 or more, the same at every call.

    Raises:
        ValueError: if the name is taken or no identifier.
    """
    ok = isinstance(name, str) and name.isidentifier() and name not in METRICS
    require(ok, "name", f"an identifier other than {', '.join(METRICS)}", name)
    METRICS[name] = Metric(name, unit, profile)
    return METRICS[name]


@functools.lru_cache(maxsize=16)
def _count(spec: NetworkSpec) -> Cost:
    """One count serves the metrics that ask for the same network one after the other."""
    return count(spec)


register_metric("mmacs", "MMACs", lambda spec: _count(spec).mmacs)
register_metric("params_m", "M parameters", lambda spec: _count(spec).params_m)


def measure(genotype: Genotype, metric: str) -> float:
    """The cost of a genotype in a registered metric.

    Raises:
        ValueError: for an unknown metric.
    """
    require_choice("metric", metric, tuple(METRICS))
    return _measure(genotype, METRICS[metric])


# A search asks for the same genotypes again and again: as a candidate, as a result, as the
# best under each budget. The key is the metric, not its name, which may be registered anew.
@functools.lru_cache(maxsize=2**16)
def _measure(genotype: Genotype, metric: Metric) -> float:
    return float(metric.profile(genotype.spec()))


@dataclasses.dataclass(frozen=True)
class Budget:
    """An upper limit on one metric; a child that meets it exactly is within it.

    Attributes:
        metric: name of a registered metric.
        limit: in the metric's unit, above 0.
        at_least: share of the limit, 0..1, that a child should use. Where a task is so easy
            that cheaper children are as accurate, it keeps the device tiers apart; a child
            that uses less is chosen only if no other is known.

    Raises:
        ValueError: for an unknown metric or an impossible limit or share.
    """

    metric: str
    limit: float
    at_least: float = 0.0

    def __post_init__(self):
        require_choice("metric", self.metric, tuple(METRICS))
        ok = is_number(self.limit) and self.limit > 0
        require(ok, "limit", "a number above 0", self.limit)
        ok = is_number(self.at_least) and 0 <= self.at_least <= 1
        require(ok, "at_least", "a number in [0, 1]", self.at_least)

    @property
    def name(self) -> str:
        """Such as `mmacs_5`."""
        return f"{self.metric}_{self.limit:.12g}"

    def cost(self, genotype: Genotype) -> float:
        """The genotype's cost in the budget's metric."""
        return measure(genotype, self.metric)

    def allows(self, genotype: Genotype) -> bool:
        """Whether the genotype costs no more than the limit."""
        return self.cost(genotype) <= self.limit

    def uses_enough(self, genotype: Genotype) -> bool:
        """Whether the genotype costs at least the share of the limit that it should."""
        return self.cost(genotype) >= self.at_least * self.limit

    def to_json(self) -> dict[str, float]:
        """Such as `{"mmacs": 5.0}`."""
        return {self.metric: float(self.limit)}


def parse_budgets(text: str, at_least: float = 0.0) -> list[Budget]:
    """Reads budgets as they are written on a command line.

    Args:
        text: a metric, a colon and limits, such as `mmacs:5,8,12`; more metrics follow
            after semicolons, each with budgets of its own.
        at_least: share of each limit that a child should use.

    Returns:
        One `Budget` per limit, in the order given.

    Raises:
        ValueError: for anything else, an unknown metric or a limit given twice.
    """
    budgets = []
    for part in text.split(";"):
        metric, colon, limits = (piece.strip() for piece in part.partition(":"))
        require(bool(colon and limits), "budgets", "written like mmacs:5,8,12", text)
        require_choice("metric", metric, tuple(METRICS))
        budgets += [Budget(metric, _limit(word), at_least) for word in limits.split(",")]
    for budget in budgets:
        require(budgets.count(budget) == 1, "budgets", "given once each", text)
    return budgets


def _limit(word: str) -> float:
    try:
        limit = float(word)
    except ValueError:
        limit = math.nan
    # float() reads 5_8 as 58; here it is more likely a slip for 5,8.
    ok = math.isfinite(limit) and limit > 0 and "_" not in word
    require(ok, "limit", "a number above 0", word.strip())
    return limit


def check_feasible(budget: Budget, space: Space) -> None:
    """Refuses a budget that not even the smallest child of the space meets.

    The smallest child has every gene, resolution included, at its first choice.

    Raises:
        ValueError: with the least possible budget.
    """
    smallest = space.canonical(space.smallest())
    low = budget.cost(smallest)
    if low <= budget.limit:
        return
    raise ValueError(
        f"`budget` must be at least {_rounded_up(low)} {METRICS[budget.metric].unit}, the "
        f"smallest child of space '{space.name}' at {smallest.spec().input_shape[0]} px. "
        f"Received: {budget.limit:.12g}"
    )


def _rounded_up(value: float, digits: int = 4) -> str:
    """At least `value`, so that a budget copied from the message is enough."""
    decimals = max(0, digits - 1 - math.floor(math.log10(value)))
    return f"{math.ceil(value * 10**decimals) / 10**decimals:.{decimals}f}"
