"""Strategies that propose in rounds: what is queued, asked and told, and its state."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bignas_tf.checks import is_number, require, require_int
from bignas_tf.search.budget import Budget, cheapest, check_feasible
from bignas_tf.search.evaluator import loss_of
from bignas_tf.search.objective import Objective, default_objectives
from bignas_tf.search.screening import Screening
from bignas_tf.search.strategy import prefix_order
from bignas_tf.spaces import Genotype, Space


class RoundStrategy(abc.ABC):
    """A strategy that proposes in rounds, each after all results of the one before.

    Within a round it asks in `prefix_order`.

    Subclasses define `propose` and `phase_of`. What they draw should depend on `rng` alone,
    so that a resumed search draws the same.

    Args:
        space: to search in.
        budgets: each of them feasible.
        seed: int, 0 or more.
        rounds: number of rounds.
        settings: whatever else the proposals depend on, plain JSON.
        objectives: what the front of the results is of; None for accuracy and the metrics of
            the budgets.

    Attributes:
        name: of the class, in its states.
        needs_budgets: of the class: whether it searches for the best under budgets; if not,
            no budgets mean no limit.

    Raises:
        ValueError: for a budget below the smallest child, or none where they are needed.
    """

    name: ClassVar[str]
    needs_budgets: ClassVar[bool] = True

    def __init__(
        self,
        space: Space,
        budgets: Sequence[Budget],
        seed: int,
        rounds: int,
        settings: Mapping[str, Any],
        objectives: Sequence[Objective] | None = None,
    ) -> None:
        require(len(budgets) > 0 or not self.needs_budgets, "budgets", "at least one", budgets)
        for budget in budgets:
            check_feasible(budget, space)
        require_int("seed", seed, low=0)
        self.space = space
        self.budgets = tuple(budgets)
        self.seed = seed
        self.objectives = default_objectives(budgets) if objectives is None else tuple(objectives)
        self._rounds = rounds
        self._settings = dict(settings)
        self._round = -1
        self._queue: list[Genotype] = []
        self._pending: list[Genotype] = []
        self._told: dict[Genotype, tuple[float, float]] = {}  # accuracy, loss
        self._cheapest: dict[Budget, Genotype] = {}
        self._screening: Screening | None = None
        self._repeat = 0  # of the round's proposals, where it has several

    def screen(self, times: int) -> None:
        """Lets a predictor choose what is evaluated; to be called before anything is asked.

        Each round proposes several times, every time with other draws, and asks as many of
        all these candidates as it would without; see `Screening`.

        Args:
            times: how often each round proposes, 2 or more.

        Raises:
            ValueError: for a bad number, a strategy of one round, which has nothing to learn
                from, or one that searches a front: the predictor looks for the most accurate
                under each budget and knows no other objective.
            ModuleNotFoundError: without scikit-learn.
        """
        allowed = f"left out for {self.name}, whose one round has no results to learn from"
        require(self._rounds > 1, "screen", allowed, times)
        front = f"left out for {self.name}, which searches a front and not the best under budgets"
        require(self.needs_budgets, "screen", front, times)
        self._screening = Screening(self.space, self.budgets, self.seed, times)
        self._settings["screen"] = times

    @property
    def screenings(self) -> tuple[dict[str, Any], ...]:
        """What the predictor did in each round, as in `Screening.reports`."""
        return tuple(self._screening.reports) if self._screening else ()

    @abc.abstractmethod
    def propose(self, number: int) -> list[Genotype]:
        """Canonical genotypes of round `number` (from 0), none of them known, none twice."""

    @abc.abstractmethod
    def phase_of(self, number: int) -> str:
        """Name of round `number`."""

    @abc.abstractmethod
    def most(self, number: int) -> int:
        """Upper bound on the genotypes of round `number`, before it is proposed."""

    @property
    def phase(self) -> str:
        return self.phase_of(max(0, self._round))

    @property
    def planned(self) -> int:
        later = sum(self.most(number) for number in range(self._round + 1, self._rounds))
        return len(self._told) + len(self.waiting) + later

    @property
    def waiting(self) -> tuple[Genotype, ...]:
        return (*self._pending, *self._queue)

    @property
    def told(self) -> tuple[Genotype, ...]:
        return tuple(self._told)

    @property
    def finished(self) -> bool:
        # The round first: a thread that only looks never sees the last one without its queue.
        return self._round + 1 >= self._rounds and not (self._queue or self._pending)

    def ask(self, n: int) -> list[Genotype]:
        require_int("n", n)
        self._advance()
        asked = self._queue[:n]
        self._pending += asked  # before they leave the queue: at no time is there nothing left
        self._queue = self._queue[n:]
        return asked

    def tell(self, genotypes: Sequence[Genotype], metrics: Sequence[Mapping[str, float]]) -> None:
        require(
            len(genotypes) == len(metrics),
            "metrics", f"{len(genotypes)} in number, as many as genotypes", len(metrics),
        )  # fmt: skip
        for genotype, values in zip(genotypes, metrics, strict=True):
            require(genotype in self.space, "genotypes", f"of {self.space.name}", genotype)
            accuracy = values["accuracy"]
            require(is_number(accuracy), "accuracy", f"a number for {genotype}", accuracy)
            self._told[self.space.canonical(genotype)] = (float(accuracy), loss_of(values))
        self._queue = [genotype for genotype in self._queue if genotype not in self._told]
        self._pending = [genotype for genotype in self._pending if genotype not in self._told]
        if self._round >= 0:  # the first round begins when it is asked for
            self._advance()

    def best(self, budget: Budget) -> Genotype | None:
        """The best genotype told so far within a budget; see `ranked`."""
        return next(iter(self.ranked(budget)), None)

    def ranked(self, budget: Budget) -> list[Genotype]:
        """The genotypes told so far within a budget, the best first.

        Of two as accurate the one of lower loss, where losses are told, else the cheaper.
        One that uses less of the budget than it should comes after all that use enough.
        """
        return sorted(
            filter(budget.allows, self._told),
            key=lambda g: (not budget.uses_enough(g), *self._rank(g), budget.cost(g), g.values),
        )

    def _rank(self, genotype: Genotype) -> tuple[float, float]:
        accuracy, loss = self._told[genotype]
        return -accuracy, loss

    def known(self, genotype: Genotype) -> bool:
        """Whether a canonical genotype was told already."""
        return genotype in self._told

    def allows(self, genotype: Genotype) -> bool:
        """Whether a genotype is within some budget; what is above all is never chosen."""
        return not self.budgets or any(budget.allows(genotype) for budget in self.budgets)

    def cheapest(self, budget: Budget) -> Genotype:
        """A canonical genotype under a budget of the search."""
        if budget not in self._cheapest:
            self._cheapest[budget] = cheapest(budget, self.space)
        return self._cheapest[budget]

    def first_new(
        self, candidates: Iterable[Genotype], proposed: Container[Genotype]
    ) -> Genotype | None:
        """The first candidate, canonical, that some budget allows and that is worth asking.

        Args:
            candidates: of the space, looked at one after the other.
            proposed: those of the round so far.

        Returns:
            None if every candidate is known, proposed or above all budgets.
        """
        for genotype in map(self.space.canonical, candidates):
            if not self.known(genotype) and genotype not in proposed and self.allows(genotype):
                return genotype
        return None

    def in_turn(
        self, count: int, draw: Callable[[Budget, Container[Genotype]], Genotype | None]
    ) -> list[Genotype]:
        """Genotypes for the budgets in turn.

        Args:
            count: of genotypes, at most.
            draw: a new one for a budget, given those so far; None if it has none left, which
                leaves its share to the other budgets.
        """
        found: dict[Genotype, None] = {}
        budgets = list(self.budgets)
        while budgets and len(found) < count:
            budget = budgets[len(found) % len(budgets)]
            new = draw(budget, found)
            if new is None:
                budgets.remove(budget)
            else:
                found[new] = None
        return list(found)

    def rng(self, *keys: int) -> np.random.Generator:
        """A generator of its own for every seed and `keys`, independent of the past."""
        again = [self._repeat] if self._repeat else []
        return np.random.Generator(np.random.Philox([self.seed, *keys, *again]))

    def state(self) -> dict[str, Any]:
        screening = {"screening": self._screening.state()} if self._screening else {}
        return {
            **self._identity(),
            **screening,
            "round": self._round,
            # What was asked but not told was lost with the process: it is asked again first.
            "queue": [list(genotype.values) for genotype in (*self._pending, *self._queue)],
            "told": [
                [list(genotype.values), accuracy, *([loss] if math.isfinite(loss) else [])]
                for genotype, (accuracy, loss) in self._told.items()
            ],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for key, value in self._identity().items():
            require(state.get(key) == value, f"state.{key}", f"{value!r} here", state.get(key))
        self._round = state["round"]
        self._pending = []
        self._queue = [self.space.genotype(values) for values in state["queue"]]
        self._told = {
            self.space.genotype(values): (accuracy, loss[0] if loss else math.inf)
            for values, accuracy, *loss in state["told"]
        }
        if self._screening:
            self._screening.load_state(state["screening"])

    def _identity(self) -> dict[str, Any]:
        """What two searches must share for one to continue the other."""
        return {
            "strategy": self.name,
            "space": self.space.to_json(),
            "budgets": [budget.to_json() for budget in self.budgets],
            "at_least": [budget.at_least for budget in self.budgets],
            "seed": self.seed,
            "settings": self._settings,
        }

    def _advance(self) -> None:
        """Begins the next round that has anything to propose once this one is over."""
        while not (self._queue or self._pending):
            if self._screening:
                self._screening.settle(self._accuracies())
            if self._round + 1 >= self._rounds:
                return
            number = self._round + 1
            # Proposing takes a while, and until it is done the round before is the current one.
            self._queue = sorted(self._chosen(number), key=prefix_order)
            self._round = number

    def _chosen(self, number: int) -> list[Genotype]:
        """What the round that begins asks."""
        if self._screening is None:
            return self.propose(number)
        proposal = functools.partial(self._proposal, number)
        return self._screening.choose(self.phase_of(number), proposal, self._accuracies())

    def _proposal(self, number: int, draw: int) -> list[Genotype]:
        """What a round proposes when it draws for the first time (0), the second, ..."""
        self._repeat = draw
        try:
            return self.propose(number)
        finally:
            self._repeat = 0

    def _accuracies(self) -> dict[Genotype, float]:
        return {genotype: accuracy for genotype, (accuracy, _) in self._told.items()}
