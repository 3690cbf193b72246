"""KerasTuner around our searches: a tuner that trains nothing, and children for its own tuners.

With `StrategyOracle` the tuner works in one process and as one of many workers over KerasTuner's
gRPC service. The wrapping goes this way round only: strategies and evaluators know nothing of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from bignas_tf.search.evaluator import Evaluator
from bignas_tf.search.oracle import (
    OBJECTIVE,
    SEARCH,
    StrategyOracle,
    genotype_of,
    hyperparameters,
    keras_tuner,
    objective,
)
from bignas_tf.spaces import Space

from keras_tuner.engine import base_tuner  # isort: skip

__all__ = ["ChildHyperModel", "ChildTuner", "StrategyOracle"]

IDLE_SECONDS = (0.02, 0.5)


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
        Exception: from `search`, what stopped a `StrategyOracle` of this process.
    """

    def __init__(
        self, space: Space, evaluator: Evaluator, oracle: Any = None, search: str = ""
    ) -> None:
        if oracle is None:
            oracle = keras_tuner.Oracle(objective(), hyperparameters=hyperparameters(space))
        super().__init__(oracle, directory=os.devnull, project_name=SEARCH)
        self._space = space
        self._evaluator = evaluator
        self._search = search
        self._pause = 0.0

    def search(self, *arguments: Any, **named: Any) -> None:
        """Evaluates until the oracle has nothing left; see the class for what it raises."""
        super().search(*arguments, **named)
        if isinstance(self.oracle, StrategyOracle) and self.oracle.error is not None:
            raise self.oracle.error

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
