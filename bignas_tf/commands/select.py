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
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bignas_tf.backend import add_backend
from bignas_tf.checks import require, require_choice
from bignas_tf.commands.run_folder import add_workdir, read_json
from bignas_tf.files import write_json

POINTS, WEIGHTS = "points.jsonl", "weights.json"
STRATEGIES = ("coarse_to_fine", "random")


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What to search for, and how; the command's arguments of these names say more.

    Raises:
        ValueError: for budgets, names or a strategy that cannot be.
    """

    budget: str
    at_least: float = 0.0
    names: str | None = None
    strategy: str = STRATEGIES[0]
    seed: int = 0
    fine_candidates: int = 16
    fine_rounds: int = 2

    def __post_init__(self):
        ok = isinstance(self.budget, str)
        require(ok, "budget", "a metric and limits, such as 'mmacs:5,8,12'", self.budget)
        ok = self.names is None or isinstance(self.names, str)
        require(ok, "names", "words divided by commas, such as 's,m,l'", self.names)
        require_choice("strategy", self.strategy, STRATEGIES)
        self.children()

    def budgets(self) -> list[Any]:
        """One `Budget` per child."""
        from bignas_tf.search import parse_budgets

        return parse_budgets(self.budget, self.at_least)

    def children(self) -> list[str]:
        """The names of the children, one per budget."""
        from bignas_tf.search import check_names

        return check_names(self.budgets(), self.names.split(",") if self.names else None)

    def new_strategy(self, space: Any) -> Any:
        """The search at its beginning.

        Raises:
            ValueError: for a budget that no child of the space meets, or a bad number.
        """
        from bignas_tf.search import CoarseToFine, RandomSearch

        if self.strategy == "random":
            return RandomSearch(space, self.budgets(), seed=self.seed)
        return CoarseToFine(
            space,
            self.budgets(),
            seed=self.seed,
            fine_candidates=self.fine_candidates,
            fine_rounds=self.fine_rounds,
        )


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument(
        "--budget", required=True, help="metric and limits: mmacs:5,8,12 or params_m:0.2,0.3"
    )
    parser.add_argument(
        "--at_least",
        type=float,
        default=SearchOptions.at_least,
        help="share of its budget that a child should use: keeps tiers apart on easy tasks",
    )
    parser.add_argument("--names", help="names of the chosen children, one per limit: s,m,l,xl")
    parser.add_argument("--strategy", default=SearchOptions.strategy, choices=STRATEGIES)
    parser.add_argument("--seed", type=int, default=SearchOptions.seed, help="of the search")
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew instead of going on with a search"
    )
    parser.add_argument(
        "--fine_candidates",
        type=int,
        default=SearchOptions.fine_candidates,
        help="per budget and fine round, at most",
    )
    parser.add_argument(
        "--fine_rounds", type=int, default=SearchOptions.fine_rounds, help="after the coarse grid"
    )
    add_backend(parser)


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


def search_run(
    trained: Any,
    data: Any,
    options: SearchOptions,
    workdir: Path,
    *,
    overwrite: bool = False,
    evaluator: Any = None,
) -> list[dict[str, Any]]:
    """Searches the children of a run on its held-out images, or goes on with its search.

    Args:
        trained: the run's `Trained`.
        data: the run's `RunData`.
        options: what to search for.
        workdir: folder of the run, whose `select` gets the search.
        overwrite: whether a search that is there is given up.
        evaluator: on the held-out images; None for a new one.

    Returns:
        What `bignas_tf.search.select` does.

    Raises:
        ValueError: if nothing is held out, or for a search of other weights or options.
    """
    from bignas_tf.extract import weights_identity
    from bignas_tf.masked_evaluation import child_evaluator
    from bignas_tf.search import select

    if data.held_out is None:
        raise ValueError(
            "`held_out` of the recipe must be positive for a selection. Received: "
            f"{trained.recipe.held_out}"
        )
    space = trained.supernet.space
    strategy = options.new_strategy(space)
    if evaluator is None:
        evaluator = child_evaluator(trained.supernet, data.calibration, data.held_out)
    # Retraining gives the same name again: it is for people.
    checksum = weights_identity(trained.supernet.weight_arrays())
    identity = {"checkpoint": trained.path.name, "crc32": checksum}
    folder = workdir / "select"
    with _search_folder(folder, identity, overwrite):
        return select(
            space,
            evaluator,
            options.budgets(),
            strategy=strategy,
            folder=folder,
            names=options.children(),
        )


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf.commands.run_folder import load_run, recorded

    fields = [field.name for field in dataclasses.fields(SearchOptions)]
    options = SearchOptions(**{name: getattr(arguments, name) for name in fields})
    trained, data = load_run(arguments)
    with recorded(arguments, {"search": options.seed}, trained):
        selected = search_run(
            trained, data, options, arguments.workdir, overwrite=arguments.overwrite
        )
    for chosen in selected:
        print(
            f"{chosen['name']}: {chosen['accuracy']:.2%} of {len(data.held_out)} held-out images, "
            f"{chosen['mmacs']:.3f} MMACs, {chosen['params_m']:.3f} M parameters, "
            f"{chosen['resolution']} px"
        )
    print(f"written to {arguments.workdir / 'select'}")
