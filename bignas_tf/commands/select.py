"""Finds the best child under each budget, coarse to fine, without training.

Every candidate is sliced, calibrated on training images and evaluated on held-out ones.
Of two as accurate the one of lower loss is chosen. Writes select/points.jsonl (all
evaluated), front.json, selected.json and weights.json (which weights were searched); a
search that was stopped goes on, with the same weights only.

Example:
  bignas select --workdir=runs/cifar10 --budget=mmacs:3.4,5,7,10 --names=s,m,l,xl
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bignas_tf.commands.run_folder import add_workdir, read_json
from bignas_tf.files import write_json

POINTS, WEIGHTS = "points.jsonl", "weights.json"


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


def _check_weights(folder: Path, identity: dict[str, Any]) -> None:
    """Refuses to mix accuracies of other weights into a search."""
    if not (folder / POINTS).exists():
        return
    known = folder / WEIGHTS
    searched = read_json(known) if known.is_file() else None
    if searched != identity:
        raise ValueError(
            f"The search in {folder} was made with another checkpoint; --overwrite starts anew. "
            f"Received: {identity}, was: {searched or 'unknown'}"
        )


@contextlib.contextmanager
def _search_folder(folder: Path, identity: dict[str, Any], overwrite: bool) -> Iterator[None]:
    """Prepares the folder; an older search is given up only for one that has a result."""
    old = folder.with_name(f"{folder.name}.old")
    _settle(folder, old)  # of a process that was killed
    if overwrite and folder.exists():
        os.rename(folder, old)
    _check_weights(folder, identity)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / WEIGHTS, identity)
        yield
    finally:
        _settle(folder, old)


def _settle(folder: Path, old: Path) -> None:
    """Deletes the search set aside, or puts it back where the new one has no result."""
    if not old.exists():
        return
    points = folder / POINTS
    if points.exists() and points.stat().st_size:
        shutil.rmtree(old)
        return
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(old, folder)


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf.commands.run_folder import load_run, recorded
    from bignas_tf.evaluation import ChildEvaluator
    from bignas_tf.extract import weights_identity
    from bignas_tf.search import CoarseToFine, RandomSearch, check_names, parse_budgets, select

    budgets = parse_budgets(arguments.budget, arguments.at_least)
    names = check_names(budgets, arguments.names.split(",") if arguments.names else None)
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
    evaluator = ChildEvaluator(trained.supernet, data.calibration, data.held_out)
    # Retraining gives the same name again: it is for people.
    checksum = weights_identity(trained.supernet.weight_arrays())
    identity = {"checkpoint": trained.path.name, "crc32": checksum}
    folder = arguments.workdir / "select"
    with (
        recorded(arguments, {"search": arguments.seed}, trained),
        _search_folder(folder, identity, arguments.overwrite),
    ):
        selected = select(space, evaluator, budgets, strategy=strategy, folder=folder, names=names)
    for chosen in selected:
        print(
            f"{chosen['name']}: {chosen['accuracy']:.2%} of {len(data.held_out)} held-out images, "
            f"{chosen['mmacs']:.3f} MMACs, {chosen['params_m']:.3f} M parameters, "
            f"{chosen['resolution']} px"
        )
    print(f"written to {folder}")
