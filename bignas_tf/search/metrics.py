"""Metrics: what a network costs, told from its spec alone, without building it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

from bignas_tf.checks import is_number, require, require_choice
from bignas_tf.cost import Cost, count
from bignas_tf.file_size import QUANTIZATIONS, file_size_mb
from bignas_tf.spaces import Genotype
from bignas_tf.spec import NetworkSpec

Profile = Callable[[NetworkSpec], float]


class Profiled(Protocol):
    """Anything that tells what a network costs, such as a `LatencyTable`."""

    def profile(self, spec: NetworkSpec) -> float:
        """The cost of a network, 0 or more, the same at every call."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
    """A cost of a network that can be told without evaluating it; lower is better.

    Attributes:
        name: an identifier, such as `mmacs`.
        unit: as it reads after a number, such as `MMACs`.
        profile: the cost of a network, 0 or more.
    """

    name: str
    unit: str
    profile: Profile


METRICS: dict[str, Metric] = {}
LATENCY = "latency_ms"


def register_metric(name: str, unit: str, profile: Profile) -> Metric:
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


def as_metric(name: str, profile: Metric | Profiled | Profile) -> Metric:
    """A metric of anything that tells what a network costs.

    Args:
        name: an identifier.
        profile: a function of a `NetworkSpec`, or an object whose method `profile` is one;
            its `unit`, if it has one, is read in messages.

    Raises:
        ValueError: if it is neither, or the name is no identifier.
    """
    if isinstance(profile, Metric) and profile.name == name:
        return profile
    require(isinstance(name, str) and name.isidentifier(), "metric", "an identifier", name)
    function: Any = getattr(profile, "profile", profile)
    allowed = "a function of a NetworkSpec, or an object whose method `profile` is one"
    require(callable(function), "profile", allowed, profile)
    return Metric(name, str(getattr(profile, "unit", name)), function)


@functools.lru_cache(maxsize=16)
def _count(spec: NetworkSpec) -> Cost:
    """One count serves the metrics that ask for the same network one after the other."""
    return count(spec)


register_metric("mmacs", "MMACs", lambda spec: _count(spec).mmacs)
register_metric("params_m", "M parameters", lambda spec: _count(spec).params_m)
for _quantization in QUANTIZATIONS:
    register_metric(
        "size_mb" if _quantization == "float32" else f"size_mb_{_quantization}",
        f"MB of the {_quantization} TFLite file",
        functools.partial(file_size_mb, quantization=_quantization),
    )


def _without_table(spec: NetworkSpec) -> float:
    raise ValueError(f"`latency_table` or `device` must be given for {LATENCY}. Received: neither")


# Known from the beginning, so that budgets and objectives of it can be read.
register_metric(LATENCY, "ms", _without_table)


def measure(genotype: Genotype, metric: str | Metric) -> float:
    """The cost of a genotype in a metric, or in a registered one by name.

    Raises:
        ValueError: for an unknown metric, or one that gives no number of at least 0.
    """
    if isinstance(metric, Metric):
        return _measure(genotype, metric)
    require_choice("metric", metric, tuple(METRICS))
    return _measure(genotype, METRICS[metric])


# A search asks for the same genotypes again and again: as a candidate, as a result, as the
# best under each budget. The key is the metric, not its name, which may be registered anew.
@functools.lru_cache(maxsize=2**16)
def _measure(genotype: Genotype, metric: Metric) -> float:
    cost = metric.profile(genotype.spec())
    value = float(cost)
    ok = is_number(value) and value >= 0
    require(ok, metric.name, f"a number of at least 0 for {genotype}", cost)
    return value
