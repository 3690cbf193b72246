"""Evaluators: what a genotype is worth, and a cache of it that outlives the process."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bignas_tf.checks import is_number, require
from bignas_tf.json_lines import append_line, mend, read_lines, write_lines
from bignas_tf.search.metrics import measure
from bignas_tf.spaces import Genotype, Space

COSTS = ("mmacs", "params_m")
_LABELS = ("genotype", "phase", "split")


class Evaluator(Protocol):
    """Tells what genotypes are worth.

    Attributes:
        split: name of the images that are scored; a search should never see those that
            its result is reported on.
    """

    @property
    def split(self) -> str:
        """Name of the images, such as "held_out"."""
        ...

    def score(self, genotypes: Sequence[Genotype]) -> list[dict[str, float]]:
        """Evaluates genotypes.

        Returns:
            One dict per genotype: `accuracy` in [0, 1] and any other metrics, such as
            `loss`, the mean cross-entropy, which decides between equal accuracies.
        """
        ...


def loss_of(metrics: Mapping[str, Any]) -> float:
    """The `loss` of a genotype's metrics; infinity where there is none or no finite one."""
    loss = float(metrics.get("loss", math.inf))
    return loss if math.isfinite(loss) else math.inf


class TabularEvaluator:
    """An evaluator over known accuracies, for tests and for tabular benchmarks.

    Args:
        table: accuracy in [0, 1] by canonical genotype, or a function that gives it.
        split: name of the images that the accuracies are of.

    Attributes:
        evaluated: every genotype scored so far, in order, repetitions included.
    """

    def __init__(
        self,
        table: Mapping[Genotype, float] | Callable[[Genotype], float],
        split: str = "table",
    ) -> None:
        self._table = table
        self.split = split
        self.evaluated: list[Genotype] = []

    def score(self, genotypes: Sequence[Genotype]) -> list[dict[str, float]]:
        """Looks genotypes up.

        Raises:
            ValueError: for a genotype that the table does not have.
        """
        scores = []
        for genotype in genotypes:
            self.evaluated.append(genotype)
            scores.append({"accuracy": self._look_up(genotype)})
        return scores

    def _look_up(self, genotype: Genotype) -> float:
        if not isinstance(self._table, Mapping):
            return float(self._table(genotype))
        if genotype not in self._table:
            raise ValueError(
                f"`genotypes` must be among the {len(self._table)} of the table. "
                f"Received: {genotype}"
            )
        return float(self._table[genotype])


class Points:
    """What is known of every network: its metrics, its cost, and the file that keeps them.

    Genotypes that are the same network (equal `canonical`) share one line; of several in the
    file the first counts. A last line that a kill left half-written is dropped (`json_lines`).

    Args:
        space: of all genotypes.
        split: name of the images that all scores are of.
        path: file of one JSON object per line, read if it exists: `genotype` by gene,
            `phase`, `split`, `accuracy`, `mmacs`, `params_m` and the evaluator's other
            metrics. None keeps them in memory only.

    Attributes:
        points: those objects in the order they were added, earlier processes' included.

    Raises:
        ValueError: if the file has genotypes of another space or scores of another split.
    """

    def __init__(
        self, space: Space, split: str, path: str | os.PathLike[str] | None = None
    ) -> None:
        self.split = split
        self.space = space
        self.points: list[dict[str, Any]] = []
        self._scores: dict[Genotype, dict[str, float]] = {}
        self._path = None if path is None else Path(path)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            mend(self._path)
            for record in read_lines(self._path):
                self._load(record)

    def __getitem__(self, genotype: Genotype) -> dict[str, float]:
        """A copy of a known genotype's `accuracy`, `mmacs`, `params_m`, other metrics."""
        return dict(self._scores[self.space.canonical(genotype)])

    def __contains__(self, genotype: Genotype) -> bool:
        return self.space.canonical(genotype) in self._scores

    def __len__(self) -> int:
        return len(self._scores)

    def add(self, genotype: Genotype, metrics: Mapping[str, float], phase: str = "") -> None:
        """Adds a result, which is on the disk when this returns; a known one stays as it is.

        Args:
            genotype: of the space.
            metrics: `accuracy` and any other.
            phase: of the search.

        Raises:
            ValueError: if the genotype is not of the space or its accuracy not in [0, 1].
        """
        require(genotype in self.space, "genotypes", f"of {self.space.name}", genotype)
        if genotype in self:
            return
        genotype = self.space.canonical(genotype)
        metrics = {name: float(value) for name, value in metrics.items()}
        accuracy = metrics.get("accuracy", math.nan)
        require(0 <= accuracy <= 1, "accuracy", f"in [0, 1] for {genotype}", accuracy)
        # In one order, whoever evaluated: a remote one's metrics come in any.
        others = sorted(set(metrics) - {"accuracy", *COSTS})
        metrics = {name: metrics[name] for name in ("accuracy", *others)}
        metrics |= {name: measure(genotype, name) for name in COSTS}
        record = {
            "genotype": genotype.as_dict(),
            # JSON has no NaN and no infinity; float() reads their names.
            **{name: v if math.isfinite(v) else str(v) for name, v in metrics.items()},
            "phase": phase,
            "split": self.split,
        }
        if self._path is not None:
            append_line(self._path, record)
        self._keep(genotype, record)

    def arrange(self, genotypes: Sequence[Genotype]) -> None:
        """Puts the lines of genotypes into their order, behind those of all others.

        Results of many workers come in no certain order; in the end the file is the same.

        Args:
            genotypes: all of them known.
        """
        place = {self.space.canonical(genotype): i for i, genotype in enumerate(genotypes)}

        def place_of(point: dict[str, Any]) -> int:
            return place.get(self.space.canonical(self.space.genotype(point["genotype"])), -1)

        arranged = sorted(self.points, key=place_of)
        if arranged != self.points and self._path is not None:
            write_lines(self._path, arranged)
        self.points = arranged

    def _load(self, record: dict[str, Any]) -> None:
        missing = [name for name in ("accuracy", *COSTS, *_LABELS) if name not in record]
        require(not missing, "points", f"with {', '.join(missing)} in {self._path}", record)
        require(
            record["split"] == self.split,
            "split", f"'{record['split']}', that of the scores in {self._path}", self.split,
        )  # fmt: skip
        require(is_number(record["accuracy"]), "accuracy", f"a number in {self._path}", record)
        genotype = self.space.genotype(record["genotype"])
        if genotype not in self:
            self._keep(genotype, record)

    def _keep(self, genotype: Genotype, record: dict[str, Any]) -> None:
        self.points.append(record)
        metrics = {name: float(v) for name, v in record.items() if name not in _LABELS}
        self._scores[self.space.canonical(genotype)] = metrics


class CachedEvaluator(Points):
    """Scores every network once and keeps the results.

    Genotypes are handed on one at a time and each result is on the disk before the next
    begins: a kill costs one evaluation.

    Args:
        evaluator: that does the work.
        space: as of `Points`.
        path: as of `Points`.

    Raises:
        ValueError: as `Points`.
    """

    def __init__(
        self, evaluator: Evaluator, space: Space, path: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__(space, evaluator.split, path)
        self._evaluator = evaluator

    def score(self, genotypes: Sequence[Genotype], phase: str = "") -> list[dict[str, float]]:
        """Evaluates the genotypes that are new and remembers the others.

        Args:
            genotypes: of the space.
            phase: of the search, recorded with the new ones.

        Returns:
            One dict per genotype: `accuracy`, `mmacs`, `params_m`, other metrics.

        Raises:
            ValueError: if a genotype is not of the space or its accuracy not in [0, 1].
        """
        scores = []
        for genotype in genotypes:
            require(genotype in self.space, "genotypes", f"of {self.space.name}", genotype)
            if genotype not in self:
                (metrics,) = self._evaluator.score([self.space.canonical(genotype)])
                self.add(genotype, metrics, phase)
            scores.append(self[genotype])
        return scores
