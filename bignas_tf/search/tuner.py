"""KerasTuner around our searches: an oracle of a strategy, a tuner that trains nothing.

Both work in one process and as chief and workers over KerasTuner's gRPC service. The
wrapping goes this way round only: strategies and evaluators know nothing of KerasTuner.
"""

from __future__ import annotations

import collections
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from bignas_tf.search.evaluator import Evaluator, Points
from bignas_tf.search.packages import search_package
from bignas_tf.spaces import Genotype, Space

search_package("keras_tuner", "A search with many workers")

import keras_tuner  # noqa: E402
from keras_tuner.engine import base_tuner  # noqa: E402
from keras_tuner.engine import trial as trial_module  # noqa: E402

OBJECTIVE = "accuracy"
SEARCH = "search"
IDLE_SECONDS = (0.02, 0.5)
RUNNING, IDLE, STOPPED, COMPLETED = "RUNNING", "IDLE", "STOPPED", "COMPLETED"


class Asking(Protocol):
    """What an oracle needs of a `Strategy`, or of the `Search` that writes down its results."""

    @property
    def phase(self) -> str: ...

    @property
    def finished(self) -> bool: ...

    def ask(self, n: int) -> list[Genotype]: ...

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


def _objective() -> Any:
    return keras_tuner.Objective(OBJECTIVE, "max")


class StrategyOracle(keras_tuner.Oracle):
    """Hands out what a strategy asks for, and tells it the results.

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
            objective=_objective(),
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

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to evaluate, or an error."""
        return self.error is not None or (self._strategy.finished and not self._asked)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next genotype to evaluate; IDLE while it depends on results that are not there."""
        try:
            genotype = self._next()
        except Exception as error:  # see the class
            self.error = error
            genotype = None
        if genotype is None:
            return {"status": STOPPED if self.finished else IDLE}
        fixed = {SEARCH: self._search} if self._search else {}
        return {"status": RUNNING, "values": genotype.as_dict() | fixed}

    def _next(self) -> Genotype | None:
        while self.error is None:
            genotypes = self._strategy.ask(1)
            if not genotypes:
                if not self._asked and not self._strategy.finished:
                    raise RuntimeError("The strategy waits for results although it has them all")
                return None
            (genotype,) = genotypes
            self._asked[genotype] = self._strategy.phase
            if genotype not in self.points:
                return genotype
            self._tell()
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
        if trial is not None and self._genotype(trial) not in self.points:
            return trial  # of a worker that died over it, and has come again
        self.ongoing_trials.pop(tuner_id, None)
        self.tuner_ids.add(tuner_id)
        # An id of its own: a worker that outlives a chief must not answer another's question.
        trial_id = uuid.uuid4().hex
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
        return self.get_trial(trial_id)

    @keras_tuner.synchronized
    def end_trial(self, trial: Any) -> None:
        if trial.trial_id not in self.trials:
            return
        try:
            super().end_trial(trial)
        except Exception as error:  # see the class
            self.error = error

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


class ChildTuner(base_tuner.BaseTuner):
    """Evaluates the genotypes that an oracle hands out; trains nothing.

    With KerasTuner's environment variables set (`KERASTUNER_TUNER_ID`,
    `KERASTUNER_ORACLE_IP`, `KERASTUNER_ORACLE_PORT`) the oracle is the chief's.

    Args:
        space: of the genotypes.
        evaluator: of them.
        oracle: None for a worker, whose oracle is the chief's.
        search: what this worker's evaluations are of, as of `StrategyOracle`.

    Raises:
        keras_tuner.errors.FatalError: from `search`, if an evaluation fails or is of another
            search than this worker. Anything else KerasTuner would count as a bad trial.
    """

    def __init__(
        self, space: Space, evaluator: Evaluator, oracle: Any = None, search: str = ""
    ) -> None:
        if oracle is None:
            oracle = keras_tuner.Oracle(_objective(), hyperparameters=hyperparameters(space))
        super().__init__(oracle, directory=os.devnull, project_name=SEARCH)
        self._space = space
        self._evaluator = evaluator
        self._search = search
        self._pause = 0.0

    def run_trial(self, trial: Any) -> dict[str, float]:
        """The evaluator's metrics of the trial's genotype."""
        values = dict(trial.hyperparameters.values)
        search = values.pop(SEARCH, "")
        if search != self._search:
            raise keras_tuner.errors.FatalValueError(
                f"`search` must be that of the chief, {search or 'none'}. "
                f"Received: {self._search or 'none'}"
            )
        try:
            (metrics,) = self._evaluator.score([self._space.genotype(values)])
        except Exception as error:
            raise keras_tuner.errors.FatalRuntimeError(str(error)) from error
        return {name: float(value) for name, value in metrics.items()}

    def pre_create_trial(self) -> None:
        # KerasTuner asks again at once while the oracle has nothing to do.
        time.sleep(self._pause)
        self._pause = min(max(IDLE_SECONDS[0], 2 * self._pause), IDLE_SECONDS[1])

    def on_trial_begin(self, trial: Any) -> None:
        self._pause = 0.0

    def on_trial_end(self, trial: Any) -> None:
        self.oracle.end_trial(trial)
        self._pause = 0.0

    @property
    def project_dir(self) -> str:
        """Where KerasTuner looks for files of its own: there can be none, nor the folder."""
        return os.path.join(self.directory, self.project_name)

    def save(self) -> None:
        """Writes nothing: the oracle's points are what lasts."""


class ChildHyperModel(keras_tuner.HyperModel):
    """The children of a space for KerasTuner's own tuners, which train each from scratch.

    Models take images of one size, 0..255, and resize them to the child's resolution
    (bicubic with antialias).

    Args:
        space: one hyperparameter per gene.
        image_size: int, height and width of the images in pixels.
        optimizer: makes the optimizer of each model; None for Keras's Adam.
        seed: int, of the initial weights.

    Reference:
        https://keras.io/keras_tuner/api/hypermodels/base_hypermodel/
    """

    def __init__(
        self,
        space: Space,
        image_size: int,
        optimizer: Callable[[], Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name=space.name)
        self.space = space
        self.image_size = image_size
        self.optimizer = optimizer
        self.seed = seed

    def build(self, hp: Any) -> Any:
        """The child that `hp` says, compiled: integer labels, `accuracy`."""
        import keras

        from bignas_tf.child import build_child

        spec = genotype_of(self.space, hp).spec()
        height, width, channels = spec.input_shape
        images = keras.Input((self.image_size, self.image_size, channels), name="images")
        x = keras.layers.Resizing(height, width, interpolation="bicubic", antialias=True)(images)
        model = build_child(
            spec, include_preprocessing=True, classifier_activation="softmax",
            input_tensor=x, seed=self.seed,
        )  # fmt: skip
        model.compile(
            optimizer=keras.optimizers.Adam() if self.optimizer is None else self.optimizer(),
            loss="sparse_categorical_crossentropy",
            metrics=[OBJECTIVE],
        )
        return model
