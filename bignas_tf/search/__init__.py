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
from bignas_tf.search.evolution import Evolution
from bignas_tf.search.hypervolume import hypervolume, hypervolume_curve, worst_corner
from bignas_tf.search.nsga2 import NSGA2
from bignas_tf.search.objective import Objective, default_objectives, parse_objectives
from bignas_tf.search.pareto import front
from bignas_tf.search.random_search import RandomSearch
from bignas_tf.search.select import check_names, choose, select
from bignas_tf.search.strategy import RoundStrategy, Strategy

__all__ = [
    "METRICS",
    "NSGA2",
    "Budget",
    "CachedEvaluator",
    "CoarseToFine",
    "Evaluator",
    "Evolution",
    "Metric",
    "Objective",
    "RandomSearch",
    "RoundStrategy",
    "Strategy",
    "TabularEvaluator",
    "check_feasible",
    "check_names",
    "choose",
    "default_objectives",
    "front",
    "hypervolume",
    "hypervolume_curve",
    "measure",
    "parse_budgets",
    "parse_objectives",
    "register_metric",
    "select",
    "skeletons",
    "worst_corner",
]
