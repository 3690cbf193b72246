"""Search for children under budgets, without training: strategies, evaluators, selection."""

from bignas_tf.search.budget import (
    METRICS,
    Budget,
    Metric,
    check_feasible,
    measure,
    parse_budgets,
    register_metric,
)
from bignas_tf.search.coarse_to_fine import CoarseToFine, skeletons
from bignas_tf.search.evaluator import CachedEvaluator, Evaluator, TabularEvaluator
from bignas_tf.search.pareto import front
from bignas_tf.search.random_search import RandomSearch
from bignas_tf.search.select import check_names, choose, select
from bignas_tf.search.strategy import RoundStrategy, Strategy

__all__ = [
    "METRICS",
    "Budget",
    "CachedEvaluator",
    "CoarseToFine",
    "Evaluator",
    "Metric",
    "RandomSearch",
    "RoundStrategy",
    "Strategy",
    "TabularEvaluator",
    "check_feasible",
    "check_names",
    "choose",
    "front",
    "measure",
    "parse_budgets",
    "register_metric",
    "select",
    "skeletons",
]
