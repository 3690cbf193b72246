"""Finds the best child under each budget, coarse to fine, without training.

Every candidate is sliced, calibrated on training images and evaluated on held-out ones.
Writes select/points.jsonl (all evaluated), front.json and selected.json; a search that
was stopped goes on.

Example:
  bignas select --workdir=runs/cifar10 --budget=mmacs:3.4,5,7,10 --names=s,m,l,xl
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bignas_tf.commands.run_folder import add_workdir


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument(
        "--budget", required=True, help="metric and limits: mmacs:5,8,12 or params_m:0.2,0.3"
    )
    parser.add_argument(
        "--at_least",
        type=float,
        default=0.0,
        help="share of its budget that a child should use: keeps tiers apart on easy tasks",
    )
    parser.add_argument("--names", help="names of the chosen children, one per limit: s,m,l,xl")
    parser.add_argument(
        "--strategy", default="coarse_to_fine", choices=["coarse_to_fine", "random"]
    )
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew instead of going on with a search"
    )
    parser.add_argument(
        "--fine_candidates", type=int, default=16, help="per budget and fine round, at most"
    )
    parser.add_argument("--fine_rounds", type=int, default=2, help="after the coarse grid")


def _check_folder(folder: Path, trained: Any, overwrite: bool) -> None:
    """Refuses to mix accuracies of two checkpoints in one search."""
    made_with = folder / "checkpoint.txt"
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    elif made_with.is_file() and made_with.read_text(encoding="utf-8") != trained.path.name:
        raise ValueError(
            f"The search in {folder} was made with another checkpoint; --overwrite starts anew. "
            f"Received: {trained.path.name}, was: {made_with.read_text(encoding='utf-8')}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    made_with.write_text(trained.path.name, encoding="utf-8")


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf.commands.run_folder import load_run, record
    from bignas_tf.evaluation import ChildEvaluator
    from bignas_tf.search import CoarseToFine, RandomSearch, parse_budgets, select

    budgets = parse_budgets(arguments.budget, arguments.at_least)
    trained, data = load_run(arguments)
    space = trained.supernet.space
    if data.held_out is None:
        raise ValueError(
            "`held_out` of the recipe must be positive for a selection. Received: "
            f"{trained.recipe.held_out}"
        )
    if arguments.strategy == "random":
        strategy: Any = RandomSearch(space, budgets, seed=arguments.seed)
    else:
        strategy = CoarseToFine(
            space,
            budgets,
            seed=arguments.seed,
            fine_candidates=arguments.fine_candidates,
            fine_rounds=arguments.fine_rounds,
        )
    folder = arguments.workdir / "select"
    _check_folder(folder, trained, arguments.overwrite)
    record(arguments, {"search": arguments.seed}, trained)
    names = arguments.names.split(",") if arguments.names else None
    evaluator = ChildEvaluator(trained.supernet, data.calibration, data.held_out)
    for chosen in select(space, evaluator, budgets, strategy=strategy, folder=folder, names=names):
        print(
            f"{chosen['name']}: {chosen['accuracy']:.2%} of {len(data.held_out)} held-out images, "
            f"{chosen['mmacs']:.3f} MMACs, {chosen['params_m']:.3f} M parameters, "
            f"{chosen['resolution']} px"
        )
    print(f"written to {folder}")
