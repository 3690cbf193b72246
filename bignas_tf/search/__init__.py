"""Search for children under budgets, without training: strategies, evaluators, selection."""

from bignas_tf.search.budget import (
    Budget,
    CombinedBudget,
    cheapest,
    check_feasible,
    parse_budgets,
)
from bignas_tf.search.choice import check_names, choose
from bignas_tf.search.coarse_to_fine import CoarseToFine, skeletons
from bignas_tf.search.evaluator import CachedEvaluator, Evaluator, Points, TabularEvaluator
from bignas_tf.search.evolution import Evolution
from bignas_tf.search.hypervolume import hypervolume, hypervolume_curve, worst_corner
from bignas_tf.search.metrics import METRICS, Metric, Profiled, measure, register_metric
from bignas_tf.search.nsga2 import NSGA2
from bignas_tf.search.objective import Objective, default_objectives, parse_objectives
from bignas_tf.search.pareto import front
from bignas_tf.search.predictor import AccuracyPredictor
from bignas_tf.search.random_search import RandomSearch
from bignas_tf.search.round_strategy import RoundStrategy
from bignas_tf.search.screening import Screening
from bignas_tf.search.select import Search, select
from bignas_tf.search.strategy import Strategy

__all__ = [
    "AccuracyPredictor",
    "Screening",
    "METRICS",
    "NSGA2",
    "Budget",
    "CachedEvaluator",
    "CoarseToFine",
    "CombinedBudget",
    "Evaluator",
    "Evolution",
    "Metric",
    "Points",
    "Objective",
    "Profiled",
    "RandomSearch",
    "RoundStrategy",
    "Search",
    "Strategy",
    "TabularEvaluator",
    "cheapest",
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
