"""Finds the best child under each budget without training, coarse to fine unless told otherwise.

Every candidate is sliced, calibrated on training images and evaluated on held-out ones.
Of two as accurate the one of lower loss is chosen. Writes to the run's select folder
selected/NAME.json (the chosen children; `bignas show` counts them, `bignas extract` cuts
them out), trials.csv (every evaluation) and front.csv; a search that was stopped resumes,
with the same weights only (docs/searching.md).

--strategy: coarse_to_fine evaluates a grid of skeletons, then variations of the best; random
and evolution (mutation and crossover of the best under each budget) share --evaluations among
the budgets; nsga2 searches the whole front of the --objectives below the largest budget.

--budget: mmacs, params_m, size_mb (of the float32 TFLite file; size_mb_float16, _dynamic,
_int8) or latency_ms, which needs --latency_table, or --device=host to measure one first. A
plus joins metrics that are limited at once: mmacs:5,8+size_mb:0.4,0.6 is two budgets.

--workers=N evaluates in N processes of this machine, with the same result; --role=chief and
--role=worker do it on many machines (docs/searching.md). Equal --threads give equal numbers.

Examples:
  bignas select --workdir=runs/cifar10 --budget=mmacs:3.4,5,7,10 --names=s,m,l,xl
  bignas select --workdir=runs/cifar10 --budget=mmacs:5,10 --strategy=nsga2 --evaluations=200
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from bignas_tf.backend import add_backend
from bignas_tf.checks import require
from bignas_tf.commands.run_folder import add_workdir
from bignas_tf.commands.worker_arguments import (
    add_workers,
    check_role,
    chief_of,
    set_threads,
    threads_of,
)
from bignas_tf.search.evaluator import COSTS
from bignas_tf.search.latency import DEVICES
from bignas_tf.search.metrics import METRICS
from bignas_tf.search.run_search import evaluate_for_chief, search_run
from bignas_tf.search.search_options import STRATEGIES, SearchOptions
from bignas_tf.search.worker import check_worker

FIELDS = tuple(field.name for field in dataclasses.fields(SearchOptions))


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument("--budget", help="metric and limits: mmacs:5,8,12 or mmacs:5,8+size_mb:0.4")
    parser.add_argument(
        "--at_least",
        type=float,
        default=SearchOptions.at_least,
        help="share of its budget that a child should use: keeps tiers apart on easy tasks",
    )
    parser.add_argument("--names", help="names of the chosen children, one per limit: s,m,l,xl")
    parser.add_argument(
        "--strategy",
        default=SearchOptions.strategy,
        choices=STRATEGIES,
        help="see above (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=SearchOptions.seed, help="of the search (default: %(default)s)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew instead of resuming a search"
    )
    _add_strategies(parser)
    parser.add_argument("--latency_table", help="JSON of `bignas latency-table`, for latency_ms")
    parser.add_argument(
        "--device", choices=DEVICES, help="without a table: where latency_ms is measured first"
    )
    parser.add_argument(
        "--quantization",
        help=f"of the files of --device (default: {SearchOptions.quantization})",
    )
    parser.add_argument(
        "--latency_threads",
        type=int,
        help=f"that the files of --device run with (default: {SearchOptions.latency_threads})",
    )
    add_workers(parser)
    add_backend(parser)


def _add_strategies(parser: Any) -> None:
    """Adds what only some strategies have."""
    parser.add_argument(
        "--fine_candidates",
        type=int,
        help="of coarse_to_fine, per budget and fine round, at most "
        f"(default: {SearchOptions.fine_candidates})",
    )
    parser.add_argument(
        "--fine_rounds",
        type=int,
        help=f"of coarse_to_fine, after the grid (default: {SearchOptions.fine_rounds})",
    )
    parser.add_argument(
        "--evaluations",
        type=int,
        help=f"of random, evolution and nsga2, in all (default: {SearchOptions.evaluations})",
    )
    parser.add_argument(
        "--population",
        type=int,
        help="of evolution, evaluations of a round; of nsga2, those of the first and parents "
        f"(default: {SearchOptions.population})",
    )
    parser.add_argument(
        "--objectives",
        help="of nsga2; default: accuracy:max and the metrics of the budgets, such as mmacs:min",
    )
    parser.add_argument(
        "--screen",
        type=int,
        metavar="N",
        help="propose N times as many candidates as are evaluated, and evaluate those that a "
        "predictor, which learns from the results so far, ranks best: 4",
    )


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf.commands.run_folder import load_run, recorded

    if arguments.role == "worker":
        check_worker(os.environ)
        check_role(arguments)
        _check_no_search(arguments)
        set_threads(arguments)
        evaluate_for_chief(*load_run(arguments))
        return
    needed = "metric and limits, such as mmacs:5,8,12, unless `role` is worker"
    require(arguments.budget is not None, "budget", needed, arguments.budget)
    values = {name: getattr(arguments, name) for name in FIELDS}
    options = SearchOptions.given({name: v for name, v in values.items() if v is not None})
    options.require_packages()
    chief = chief_of(arguments)
    set_threads(arguments)
    trained, data = load_run(arguments)
    with recorded(arguments, {"search": options.seed}, trained):
        selected = search_run(
            trained,
            data,
            options,
            arguments.workdir,
            overwrite=arguments.overwrite,
            chief=chief,
            conditions={"backend": arguments.backend, "threads": threads_of(arguments)},
        )
    for chosen in selected:
        limited = [name for name in chosen["budget"] if name not in COSTS]
        others = "".join(f", {chosen[name]:.4g} {METRICS[name].unit}" for name in limited)
        same = f" (the same child as {chosen['same_as']})" if "same_as" in chosen else ""
        print(
            f"{chosen['name']}: {chosen['accuracy']:.2%} of {len(data.held_out)} held-out images, "
            f"{chosen['mmacs']:.3f} MMACs, {chosen['params_m']:.3f} M parameters, "
            f"{chosen['resolution']} px{others}{same}"
        )
    print(f"written to {arguments.workdir / 'select'}")


def _check_no_search(arguments: Any) -> None:
    """Refuses what only the chief would heed."""
    for name in (*FIELDS, "overwrite"):
        value = getattr(arguments, name)
        heeded = value is not None and value != getattr(SearchOptions, name, False)
        require(not heeded, name, "left out with --role=worker: the chief has it", value)
