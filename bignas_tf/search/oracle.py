"""A KerasTuner oracle around a strategy, and a space as KerasTuner's hyperparameters."""

from __future__ import annotations

import collections
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bignas_tf.optional import require_package
from bignas_tf.search.evaluator import Points
from bignas_tf.spaces import Genotype, Space

require_package("keras_tuner", "search", "A search with many workers")

import keras_tuner  # noqa: E402
from keras_tuner.engine import trial as trial_module  # noqa: E402

OBJECTIVE = "accuracy"
SEARCH = "search"
SHARE = 8
RUNNING, IDLE, STOPPED = "RUNNING", "IDLE", "STOPPED"


class Asking(Protocol):
    """What an oracle needs of a `Strategy`, or of the `Search` that writes down its results."""

    @property
    def phase(self) -> str:
        """What the genotypes asked last are for."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing more will be asked."""
        ...

    def ask(self, n: int) -> list[Genotype]:
        """Proposes at most `n` genotypes."""
        ...

    def tell(self, genotypes: Sequence[Genotype], metrics: Sequence[Mapping[str, float]]) -> None:
        """Takes results."""
        ...


def hyperparameters(space: Space, search: str = "") -> Any:
    """A space as KerasTuner's: one `Choice` per gene.

    Args:
        space: whose genes these are.
        search: what a worker must be of, too, in a `Fixed` named `search`.
    """
    found = keras_tuner.HyperParameters()
    genotype_of(space, found)
    if search:
        found.Fixed(SEARCH, search)
    return found


def genotype_of(space: Space, hp: Any) -> Genotype:
    """The genotype that hyperparameters say; genes they do not have yet are added."""
    return space.genotype(
        {
            gene.name: hp.Choice(
                gene.name, list(gene.choices), ordered=True, default=gene.choices[0]
            )
            for gene in space.genes
        }
    )


def objective() -> Any:
    """What trials are ranked by."""
    return keras_tuner.Objective(OBJECTIVE, "max")


class StrategyOracle(keras_tuner.Oracle):
    """Hands out what a strategy asks for, and tells it the results.

    A tuner gets genotypes that were asked one after the other, as far as there are enough:
    those begin alike (`prefix_order`), and an evaluator goes on from where one departs from
    the one before.

    The strategy hears them in the order in which it asked, whatever the order in which they
    come, so a `RoundStrategy` proposes the same for any number of workers. What is known
    already becomes no trial. Nothing that goes wrong here is raised in a worker's call, which
    would keep KerasTuner's lock for ever: the search stops and `error` says why. KerasTuner's
    own files, which a kill can damage, are not written: `points` is what lasts.

    Args:
        space: of the genotypes.
        strategy: new or with a state; `Search` is one that writes its files.
        points: known results; new ones are added at once.
        search: what a worker must be of, too (such as a checksum of the weights), in every
            trial's hyperparameter `search`; empty for nothing.

    Attributes:
        error: what stopped the search; None if nothing did.
        evaluated: number of results by the id of the tuner that they came from.
    """

    def __init__(
        self, space: Space, strategy: Asking, points: Points | None = None, search: str = ""
    ) -> None:
        super().__init__(
            objective=objective(),
            hyperparameters=hyperparameters(space, search),
            allow_new_entries=False,
            tune_new_entries=False,
        )
        self.verbose = 0  # the trials are shown by whoever runs this
        self.points = Points(space, "search") if points is None else points
        self.error: Exception | None = None
        self.evaluated: collections.Counter[str] = collections.Counter()
        self._space = space
        self._strategy = strategy
        self._search = search
        # Asked and not told: the phase it was asked in.
        self._asked: dict[Genotype, str] = {}
        # Asked and not handed out, by the tuner that is to get them.
        self._shares: dict[str, collections.deque[Genotype]] = collections.defaultdict(
            collections.deque
        )
        self._tuner_id = ""
        self._since: dict[str, float] = {}  # when a tuner got what it evaluates
        self._finished = strategy.finished

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to evaluate, or an error.

        As of the last call that was answered: another thread may look at any time, also while
        the strategy is between two rounds.
        """
        return self._finished

    @property
    def holders(self) -> dict[str, float]:
        """For how many seconds tuners have had the genotype that they evaluate, by their ids."""
        now = time.monotonic()
        return {tuner_id: now - self._since[tuner_id] for tuner_id in list(self.ongoing_trials)}

    def _look(self) -> bool:
        over = self._strategy.finished and not self._asked
        self._finished = self.error is not None or over
        return self._finished

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next genotype to evaluate; IDLE while it depends on results that are not there."""
        genotype = None
        try:
            if self.error is None:
                genotype = self._next(self._shares[self._tuner_id])
        except Exception as error:  # see the class
            self.error = error
        finished = self._look()
        if genotype is None:
            return {"status": STOPPED if finished else IDLE}
        fixed = {SEARCH: self._search} if self._search else {}
        return {"status": RUNNING, "values": genotype.as_dict() | fixed}

    def _next(self, share: collections.deque[Genotype]) -> Genotype | None:
        while not share:
            genotypes = self._strategy.ask(SHARE)
            if not genotypes:
                break
            self._asked |= dict.fromkeys(genotypes, self._strategy.phase)
            share.extend(genotype for genotype in genotypes if genotype not in self.points)
            self._tell()
        if share:
            return share.popleft()
        longest = max(self._shares.values(), key=len)
        if longest:
            return longest.pop()  # as far as can be from what its owner does next
        if not self._asked and not self._strategy.finished:
            raise RuntimeError("The strategy waits for results although it has them all")
        return None

    def _tell(self) -> None:
        """Tells the strategy what is known of the first that it asked for."""
        while self._asked:
            first = next(iter(self._asked))
            if first not in self.points:
                return
            # Before it is told: what the strategy raises must not come again at every call.
            del self._asked[first]
            self._strategy.tell([first], [self.points[first]])

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Any:
        trial = self.ongoing_trials.get(tuner_id)
        self._since[tuner_id] = time.monotonic()
        if trial is not None and self._genotype(trial) not in self.points:
            return trial  # of a worker that died over it, and has come again
        self.ongoing_trials.pop(tuner_id, None)
        self.tuner_ids.add(tuner_id)
        # An id of its own: a worker that outlives a chief must not answer another's question.
        trial_id = uuid.uuid4().hex
        self._tuner_id = tuner_id
        response = self.populate_space(trial_id)
        space = self.get_space()
        space.values = response.get("values", {})
        trial = trial_module.Trial(space, trial_id, response["status"])
        if trial.status == RUNNING:
            self.trials[trial_id] = self.ongoing_trials[tuner_id] = trial
            self.start_order.append(trial_id)
        elif trial.status == STOPPED:
            self.tuner_ids.discard(tuner_id)
        return trial

    @keras_tuner.synchronized
    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Any:
        if trial_id not in self.trials:
            return self.get_trial(trial_id)
        try:
            trial = super().update_trial(trial_id, metrics, step=step)
            genotype = self._genotype(trial)
            self.points.add(genotype, metrics, self._asked.get(genotype, ""))
            self.evaluated.update(
                tuner_id for tuner_id, ongoing in self.ongoing_trials.items() if ongoing is trial
            )
            self._tell()
        except Exception as error:  # see the class
            self.error = error
        self._look()
        return self.get_trial(trial_id)

    @keras_tuner.synchronized
    def end_trial(self, trial: Any) -> None:
        if trial.trial_id not in self.trials:
            return
        try:
            super().end_trial(trial)
        except Exception as error:  # see the class
            self.error = error
        self._look()

    def get_trial(self, trial_id: str) -> Any:
        """The trial; a stopped one without values where the id is of another chief."""
        known = self.trials.get(trial_id)
        return known or trial_module.Trial(self.get_space(), trial_id, STOPPED)

    def save(self) -> None:
        """Writes nothing: see the class."""

    def reload(self) -> None:
        """Reads nothing: see the class."""

    def _save_trial(self, trial: Any) -> None:
        """Writes nothing: see the class."""

    def _genotype(self, trial: Any) -> Genotype:
        values = trial.hyperparameters.values
        return self._space.genotype({gene.name: values[gene.name] for gene in self._space.genes})
