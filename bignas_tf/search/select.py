"""The driver of a search: asks a strategy, scores, writes down, and chooses."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bignas_tf.checks import require_int
from bignas_tf.files import only_writer, remove_all_remains, write_json
from bignas_tf.search.budget import Budget
from bignas_tf.search.choice import check_search, choose
from bignas_tf.search.evaluator import CachedEvaluator, Evaluator, Points
from bignas_tf.search.metrics import measure
from bignas_tf.search.objective import ACCURACY
from bignas_tf.search.progress import SearchBar
from bignas_tf.search.results import SELECTED, write_results
from bignas_tf.search.strategy import Strategy
from bignas_tf.spaces import Genotype, Space

POINTS, STATE = "points.jsonl", "state.json"


def select(
    space: Space,
    evaluator: Evaluator,
    budgets: Sequence[Budget],
    *,
    strategy: Strategy,
    folder: str | os.PathLike[str],
    batch: int = 8,
    names: Sequence[str] | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Searches, and chooses the best child under each budget.

    The best is the most accurate of all that were evaluated, for whichever budget. Of
    two as accurate it is the one of lower `loss`, which is less coarse on few held-out
    images, or, where the evaluator gives none, the cheaper. So a larger budget of the
    same metric never gets a less accurate child, unless its `at_least` rules the better
    one out. The folder gets `points.jsonl`, a line per evaluation as soon as it is done,
    and after each batch what `write_results` writes (`trials.csv`, `front.csv` and the
    result so far as `selected/NAME.json`) and `state.json`. Called again after a kill it
    goes on from there; with `state.json` deleted it starts over but keeps what it
    evaluated. The folder belongs to one set of weights: accuracies of others are not told
    apart; and to one process at a time, which locks `.NAME.lock` beside it.

    Args:
        space: of the children.
        evaluator: scores them, on images that the final accuracy is not reported on.
        budgets: each of them feasible.
        strategy: new, for the same space and budgets.
        folder: path, created if missing.
        batch: evaluations between two states.
        names: one per budget, none twice; by default such as `mmacs_5`.
        progress: bool, whether to show a bar with the time left.

    Returns:
        Per budget `name`, `budget` (limits by metric), `genotype` by gene, `accuracy`,
        `mmacs`, `params_m` (and the budget's own metrics), `resolution` in pixels, `split`;
        `same_as`, the name of an earlier entry, where both are the same child.

    Raises:
        ValueError: for an infeasible budget, unfit names, or a folder of another search.
        FolderInUse: a ValueError, if another process searches there.
        RuntimeError: if the strategy ends without a child under some budget.
    """
    require_int("batch", batch)
    check_search(space, budgets, names)
    path, lock = Path(folder), lock_of(Path(folder))
    lock.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(path, "searched", lock, "folder"):
        return select_alone(
            space,
            evaluator,
            budgets,
            strategy=strategy,
            folder=path,
            batch=batch,
            names=names,
            progress=progress,
        )


def lock_of(folder: Path) -> Path:
    """The file that a search locks: beside its folder, which `--overwrite` sets aside."""
    place = folder.resolve()
    return place.with_name(f".{place.name}.lock")


def select_alone(
    space: Space,
    evaluator: Evaluator,
    budgets: Sequence[Budget],
    *,
    strategy: Strategy,
    folder: Path,
    batch: int = 8,
    names: Sequence[str] | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """`select` for a process that has locked the folder, or knows of no other."""
    cached = CachedEvaluator(evaluator, space, folder / POINTS)
    search = Search(cached, budgets, strategy=strategy, folder=folder, names=names)
    with search.bar(progress) as bar:
        while genotypes := search.ask(batch):
            search.show(bar)
            metrics = []
            for genotype in genotypes:
                metrics += cached.score([genotype], phase=search.phase)
                search.show(bar)
            search.tell(genotypes, metrics)
            search.show(bar)
    search.require_finished()
    return search.finish()


class Search:
    """A search in its folder: goes on where it was, asks and tells, writes, and chooses.

    Args:
        points: what is known, in the folder's `points.jsonl`.
        budgets: each of them feasible.
        strategy: new, for the same space and budgets.
        folder: path, created if missing.
        names: one per budget, none twice; by default such as `mmacs_5`.
        write_every: results between two states, at least, but for the last. What a kill
            leaves out of the state is in the points: it is asked for again and known.

    Raises:
        ValueError: for an infeasible budget, unfit names, or a folder of another search.
    """

    def __init__(
        self,
        points: Points,
        budgets: Sequence[Budget],
        *,
        strategy: Strategy,
        folder: str | os.PathLike[str],
        names: Sequence[str] | None = None,
        write_every: int = 1,
    ) -> None:
        require_int("write_every", write_every)
        self.points = points
        self._write_every = write_every
        self._unwritten = 0
        self._names = check_search(points.space, budgets, names)
        self._budgets = budgets
        self._strategy = strategy
        self._folder = Path(folder)
        self._selected: list[dict[str, Any]] = []
        self._first = len(points.points)  # of those that are evaluated from now on
        for place in (self._folder, self._folder / SELECTED):
            remove_all_remains(place)
        _resume(strategy, self._folder / STATE)
        # Told, but their lines are of a file that was deleted or damaged by more than a kill.
        self._lost = [genotype for genotype in strategy.told if genotype not in points]

    @property
    def phase(self) -> str:
        """What the genotypes asked last are for."""
        return self._strategy.phase

    @property
    def planned(self) -> int:
        """Evaluations of the whole search, past ones included; an upper bound."""
        return self._strategy.planned

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to ask."""
        return not self._lost and self._strategy.finished

    def bar(self, progress: bool = True) -> SearchBar:
        """A bar of the evaluations, those of earlier processes done."""
        return SearchBar(self.planned, self._known, progress)

    def show(self, bar: SearchBar, note: str = "") -> None:
        """Shows how far it is, and what is best as of the last state that was written.

        Args:
            bar: of this search.
            note: what else to say, in a few words.
        """
        if bar.disable:
            return
        done, left = self._mmacs()
        bar.show(
            self.phase,
            self._known,
            self.planned,
            (done, left),
            self._selected,
            self._strategy.screenings,
            note,
        )

    @property
    def _known(self) -> int:
        """Evaluations that are done, told or not."""
        told = len(self._strategy.told) - len(self._lost)
        return told + sum(genotype in self.points for genotype in self._strategy.waiting)

    def _mmacs(self) -> tuple[float, float]:
        """Of what was evaluated since the beginning, and of what is still to be.

        Later rounds, which nobody knows yet, count as what is known does on average.
        """
        known = [point["mmacs"] for point in self.points.points]
        waiting = [g for g in self._strategy.waiting if g not in self.points] + self._lost
        later = max(0, self.planned - self._known - len(waiting))
        mean = sum(known) / max(1, len(known))
        left = sum(measure(genotype, "mmacs") for genotype in waiting) + later * mean
        return sum(known[self._first :]), left

    def ask(self, n: int) -> list[Genotype]:
        """Up to `n` genotypes to evaluate; none if the search is over or waits for results."""
        lost, self._lost = self._lost[:n], self._lost[n:]
        return lost or ([] if self._strategy.finished else self._strategy.ask(n))

    def tell(self, genotypes: Sequence[Genotype], metrics: Sequence[Mapping[str, float]]) -> None:
        """Tells the strategy, and writes what is best so far and the state."""
        self._strategy.tell(genotypes, metrics)
        self._unwritten += len(genotypes)
        if self._unwritten >= self._write_every or self.finished:
            self._write()
            self._unwritten = 0

    def require_finished(self) -> None:
        """Refuses to end before everything is asked and told.

        Raises:
            RuntimeError: if there is something left.
        """
        if not self.finished:
            raise RuntimeError("The strategy waits for results although it has them all")

    def arrange(self) -> None:
        """Puts the points into the order of the proposals, in which one process writes them."""
        self.points.arrange(self._strategy.told)

    def finish(self) -> list[dict[str, Any]]:
        """Writes and returns what is best.

        Raises:
            RuntimeError: if no child is under some budget.
        """
        selected = self._write()
        missing = sorted(set(self._names) - {entry["name"] for entry in selected})
        if missing:
            raise RuntimeError(f"No child was evaluated under {', '.join(missing)}")
        return selected

    def _write(self) -> list[dict[str, Any]]:
        selected = self._selected = choose(self.points, self._budgets, self._names)
        write_results(
            self._folder,
            self.points.space,
            self._measured(),
            selected,
            self._strategy.screenings,
            self._strategy.objectives,
            self.finished,
        )
        write_json(self._folder / STATE, self._strategy.state())
        return selected

    def _measured(self) -> list[dict[str, Any]]:
        """The points with every metric that is limited or an objective."""
        # A budget may bring a metric that is not registered.
        costs: dict[str, Callable[[Genotype], float]] = {
            objective.name: functools.partial(measure, metric=objective.name)
            for objective in self._strategy.objectives
            if objective.name != ACCURACY
        }
        costs |= {part.metric: part.cost for budget in self._budgets for part in budget.parts}
        space = self.points.space
        return [
            point | {name: cost(space.genotype(point["genotype"])) for name, cost in costs.items()}
            for point in self.points.points
        ]


def _resume(strategy: Strategy, state: Path) -> None:
    if not state.exists():
        return
    try:
        strategy.load_state(json.loads(state.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(
            f"{state} is of another search. Delete it to search anew with what was evaluated, or "
            f"start with nothing by --overwrite. {error}"
        ) from error
