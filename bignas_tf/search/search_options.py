"""What a search among the children of a run looks for, and how: its options, checked.

Importing this loads no Keras: commands read their arguments without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bignas_tf.checks import from_json, require, require_choice, require_int
from bignas_tf.deploy.schemes import POST_TRAINING
from bignas_tf.latency_table import LatencyTable
from bignas_tf.optional import require_package
from bignas_tf.search.budget import Budget, check_feasible, parse_budgets
from bignas_tf.search.choice import check_names
from bignas_tf.search.coarse_to_fine import FINE_CANDIDATES, FINE_ROUNDS, CoarseToFine
from bignas_tf.search.evolution import Evolution
from bignas_tf.search.latency import DEVICES, check_coverage, latency_from, measured_table
from bignas_tf.search.metrics import LATENCY
from bignas_tf.search.nsga2 import NSGA2
from bignas_tf.search.objective import Objective, parse_objectives
from bignas_tf.search.random_search import RandomSearch
from bignas_tf.search.round_strategy import RoundStrategy
from bignas_tf.search.strategy import Strategy
from bignas_tf.spaces import Space

# The options that a strategy looks at besides those that all do.
OF_STRATEGIES = {
    "coarse_to_fine": ("fine_candidates", "fine_rounds"),
    "random": ("evaluations",),
    "evolution": ("evaluations", "population"),
    "nsga2": ("evaluations", "population", "objectives"),
}
STRATEGIES = tuple(OF_STRATEGIES)
OF_DEVICE = ("quantization", "latency_threads")


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What to search for, and how; the command's arguments of these names say more.

    Raises:
        ValueError: for budgets, names, objectives or a strategy that cannot be.
    """

    budget: str
    at_least: float = 0.0
    names: str | None = None
    strategy: str = STRATEGIES[0]
    seed: int = 0
    fine_candidates: int = FINE_CANDIDATES
    fine_rounds: int = FINE_ROUNDS
    evaluations: int = 100
    population: int = 20
    objectives: str | None = None
    latency_table: str | None = None
    device: str | None = None
    quantization: str = "float32"
    latency_threads: int = 1
    screen: int | None = None

    def __post_init__(self):
        ok = isinstance(self.budget, str)
        require(ok, "budget", "a metric and limits, such as 'mmacs:5,8,12'", self.budget)
        ok = self.names is None or isinstance(self.names, str)
        require(ok, "names", "words divided by commas, such as 's,m,l'", self.names)
        require_choice("strategy", self.strategy, STRATEGIES)
        ok = self.objectives is None or isinstance(self.objectives, str)
        require(ok, "objectives", "such as 'accuracy:max,mmacs:min'", self.objectives)
        ok = self.objectives is None or self.strategy == "nsga2"
        require(ok, "objectives", "left out unless `strategy` is nsga2", self.objectives)
        self._check_numbers()
        self._check_latency()
        self.children()

    @classmethod
    def given(cls, options: Mapping[str, Any]) -> SearchOptions:
        """Of the options that somebody gave, by name; the others are as by default.

        Raises:
            ValueError: also for an unknown one, or one that this search would not look at.
        """
        found: SearchOptions = from_json(cls, options, "`select`")
        for name in options:
            users = [each for each, names in OF_STRATEGIES.items() if name in names]
            if users:
                allowed = f"left out unless `strategy` is {' or '.join(users)}"
                require(found.strategy in users, name, allowed, options[name])
            if name in OF_DEVICE:
                require("device" in options, name, "left out without `device`", options[name])
        return found

    def budgets(self) -> list[Budget]:
        """One per child."""
        return parse_budgets(self.budget, self.at_least)

    def children(self) -> list[str]:
        """The names of the children, one per budget."""
        return check_names(self.budgets(), self.names.split(",") if self.names else None)

    def new_strategy(self, space: Space) -> Strategy:
        """The search at its beginning.

        Raises:
            ValueError: for a budget that no child of the space meets, or a bad number.
            ModuleNotFoundError: for a strategy whose package is not installed.
        """
        strategy = self._unscreened(space)
        if self.screen is not None:
            strategy.screen(self.screen)
        return strategy

    def _unscreened(self, space: Space) -> RoundStrategy:
        budgets, seed, count = self.budgets(), self.seed, self.evaluations
        if self.strategy == "random":
            return RandomSearch(space, budgets, seed, count)
        if self.strategy == "evolution":
            return Evolution(space, budgets, seed, count, population=self.population)
        if self.strategy == "nsga2":
            return NSGA2(
                space,
                budgets,
                seed,
                count,
                population=self.population,
                objectives=self._objectives(),
            )
        return CoarseToFine(
            space,
            budgets,
            seed,
            fine_candidates=self.fine_candidates,
            fine_rounds=self.fine_rounds,
        )

    def require_packages(self) -> None:
        """Requires what the search needs to be installed.

        Raises:
            ModuleNotFoundError: naming what is not.
        """
        if self.strategy == "nsga2":
            require_package("moocore", "search", "NSGA-II")
        if self.screen is not None:
            require_package("sklearn", "search", "The accuracy predictor")

    def check(self, space: Space) -> None:
        """Refuses what no search of a space could begin with, without measuring anything.

        Raises:
            ValueError: for a budget that no child of the space meets, a table that cannot tell
                the latency of every network of it, or a bad number.
            ModuleNotFoundError: for what is not installed.
        """
        self.require_packages()
        table = None if self.latency_table is None else LatencyTable.read(self.latency_table)
        if table is not None:
            check_coverage(table, space)
        with latency_from(table):
            self.new_strategy(space)

    def check_counted(self, space: Space) -> None:
        """Refuses limits that no child meets, of all metrics that need no latency table.

        Raises:
            ValueError: with the least that one meets.
        """
        for budget in self.budgets():
            for part in budget.parts:
                if part.metric != LATENCY:
                    check_feasible(part, space)

    def open_table(self, space: Space, workdir: Path) -> LatencyTable | None:
        """The table that latencies come from, measured now if only `device` is given.

        Raises:
            ValueError: if it cannot tell the latency of every network of the space.
        """
        if self.latency_table is not None:
            table = LatencyTable.read(self.latency_table)
        elif self.device is not None:
            table = measured_table(space, workdir, self.quantization, self.latency_threads)
        else:
            return None
        note = check_coverage(table, space)
        if note:
            print(note)
        return table

    def _check_numbers(self) -> None:
        least = len(self.budgets())
        shared = least if self.strategy != "coarse_to_fine" else 1
        pair = 2 if self.strategy == "nsga2" else 1
        require_int("seed", self.seed, low=0)
        require_int("fine_candidates", self.fine_candidates)
        require_int("fine_rounds", self.fine_rounds, low=0)
        require_int("evaluations", self.evaluations, low=shared)
        bred = self.strategy in ("evolution", "nsga2")
        require_int("population", self.population, low=max(least, pair) if bred else 1)
        require_int("latency_threads", self.latency_threads)
        quantizations = tuple(kind.value for kind in POST_TRAINING)
        require_choice("quantization", self.quantization, quantizations)
        if self.screen is not None:
            require_int("screen", self.screen, low=2)
            ok = self.strategy != "nsga2"
            require(ok, "screen", "left out for nsga2, which searches a front", self.screen)

    def _check_latency(self) -> None:
        ok = self.latency_table is None or isinstance(self.latency_table, str)
        require(ok, "latency_table", "a file", self.latency_table)
        if self.device is not None:
            require_choice("device", self.device, DEVICES)
            ok = self.latency_table is None
            require(ok, "device", "left out with `latency_table`", self.device)
        metrics = {part.metric for budget in self.budgets() for part in budget.parts}
        metrics |= {objective.name for objective in self._objectives() or ()}
        if LATENCY in metrics and self.latency_table is None and self.device is None:
            raise ValueError(
                f"`latency_table` or `device` must be given for {LATENCY}. Received: neither"
            )
        if self.latency_table is not None:
            LatencyTable.read(self.latency_table)  # before anything is loaded or trained

    def _objectives(self) -> tuple[Objective, ...] | None:
        return None if self.objectives is None else parse_objectives(self.objectives)
