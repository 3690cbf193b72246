"""What a trainer knows of the loop of any backend."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops as K

from bignas_tf.checks import require
from bignas_tf.data import Split
from bignas_tf.data.batches import BatchPlan
from bignas_tf.masked_evaluation import child_evaluator
from bignas_tf.ops import Dropout
from bignas_tf.resize import resize
from bignas_tf.spaces import Genotype
from bignas_tf.supernet import Supernet
from bignas_tf.training.rule import Rule


def require_shared_batch(batch_size: int, devices: int) -> None:
    """Requires a batch that can be divided among so many devices."""
    wanted = f"a multiple of the number of devices, {devices}"
    require(batch_size % devices == 0, "batch_size", wanted, batch_size)


class NonFiniteLossError(ArithmeticError):
    """A loss became infinite or NaN.

    Args:
        child: name of its term.
        value: of the loss.
        step: int, updates made so far.
        genotype: of the child, where it varies.
    """

    def __init__(self, child: str, value: float, step: int, genotype: Genotype | None = None):
        which = f". The child: {genotype.as_dict()}" if genotype else ""
        super().__init__(
            f"The loss of the {child} child is {value} after step {step}; the last checkpoint "
            "is kept. The same command resumes from it, most likely to the same end: start with a "
            f"lower learning rate or a longer warm-up{which}"
        )
        self.child = child


class WorkerLostError(RuntimeError):
    """Another worker of a distributed run does not answer any more.

    Args:
        step: int, steps that were made.
        consistent: whether the weights are those after that step; otherwise some are newer.
        reason: what the runtime said.
    """

    def __init__(self, step: int, consistent: bool, reason: str):
        changing = "" if consistent else ", which was just changing the weights and is not saved"
        super().__init__(
            f"Another worker was lost after step {step}{changing} ({reason}). Start all workers "
            "again with the same command: they go on from the newest checkpoint"
        )
        self.step = step
        self.consistent = consistent


class Loop(abc.ABC):
    """Runs training steps of a rule on a supernet.

    Args:
        supernet: the supernet.
        rule: what a step does.
        optimizer: a Keras optimizer; a subclass builds it on the supernet's variables.
        batch_size: over all devices; losses are divided by it.
        weight_decay: factor of half the sum of squared kernels.
        clip_norm: largest global norm of the summed gradients; 0 for any.
        clip_value: largest magnitude of each of their values, before that; 0 for any.
        seed: of genotypes and dropout.

    Attributes:
        stopped: whether a stop was asked for, and all workers know.
    """

    def __init__(
        self,
        supernet: Supernet,
        rule: Rule,
        optimizer: keras.optimizers.Optimizer,
        *,
        batch_size: int,
        weight_decay: float = 0.0,
        clip_norm: float = 0.0,
        clip_value: float = 0.0,
        seed: int = 0,
    ):
        self.supernet = supernet
        self.rule = rule
        self.optimizer = optimizer
        self._batch_size = batch_size
        self._weight_decay = weight_decay
        self._clip_norm = clip_norm
        self._clip_value = clip_value
        self.stopped = False
        self._seed = seed
        self._variables = list(supernet.variables_by_path().values())
        self._dropout = next((op for op in supernet.space.ops() if isinstance(op, Dropout)), None)

    @abc.abstractmethod
    def chunks(self, plan: BatchPlan, start: int, last: int) -> Iterator[Any]:
        """What `train` takes, for the steps from `start` on.

        Args:
            plan: which augmented examples each step trains on.
            start: int, the first step.
            last: int, where to end.

        Raises:
            BrokenImageError: if an image cannot be read.
        """

    @abc.abstractmethod
    def train(self, chunk: Any, step: int) -> list[dict[str, float]]:
        """Trains on one or more steps.

        Args:
            chunk: of `chunks`.
            step: int, its first step.

        Returns:
            For each step the loss of each term by name, the L2 term included, averaged over
            the batch.

        Raises:
            WorkerLostError: if another worker does not answer any more.
        """

    def start(self) -> None:
        """Forgets an earlier stop."""
        self.stopped = False

    def stop(self) -> None:
        """Asks all workers to stop; where there are others, they know after the next steps."""
        self.stopped = True

    def require_shares(self, calibration: Split, validation: Split) -> None:
        """Requires images that an evaluation can divide among the workers.

        Raises:
            ValueError: naming the field of the recipe that gives too few.
        """
        low = f"at least {self.workers} images, one for each worker"
        for name, split in (("calibration_images", calibration), ("held_out", validation)):
            require(len(split) >= self.workers, name, low, len(split))

    def evaluator(self, calibration: Split, validation: Split) -> Any:
        """Scores children on the present weights; every worker has to ask for the same ones."""
        return child_evaluator(self.supernet, calibration, validation)

    @property
    def worker(self) -> int:
        """Number of this process among those that train together; 0 logs and saves."""
        return 0

    @property
    def workers(self) -> int:
        """Processes that train together."""
        return 1

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Float64 `(n,)` of each worker, in their order, `(workers, n)`; all have to ask.

        Raises:
            WorkerLostError: if another worker does not answer any more.
        """
        return np.asarray(values, np.float64)[None]

    def require_alike(self, facts: Mapping[str, int]) -> None:
        """Requires that all workers start alike.

        Args:
            facts: numbers below 2**53 that have to be equal.

        Raises:
            ValueError: naming what differs.
        """
        found = self.gather(np.asarray(list(facts.values())))
        for name, column in zip(facts, found.T, strict=True):
            allowed = "alike on all workers, which need one folder, one recipe and the same data"
            require(len(set(column)) == 1, name, allowed, column.astype(int).tolist())

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Devices and options, for the record of a run."""

    def _sized(self, images: Any, resolution: int) -> Any:
        """Images as a child of a resolution computes on them."""
        # Half precision comes last: weights of a resize that are rounded do not sum to 1.
        return K.cast(resize(images, resolution), self.supernet.compute_dtype)

    def clipped(self, gradients: Sequence[Any]) -> list[Any]:
        """Gradients, summed over devices and terms, within the limits.

        Reference:
            Pascanu et al., "On the difficulty of training recurrent neural networks", ICML
            2013 (the global norm).
        """
        limit, largest = self._clip_value, self._clip_norm
        clipped = [K.clip(g, -limit, limit) if limit else g for g in gradients]
        if not largest:
            return clipped
        norm = K.sqrt(sum(K.sum(K.square(gradient)) for gradient in clipped))
        return [g * (largest / K.maximum(norm, largest)) for g in clipped]

    @abc.abstractmethod
    def publish(self) -> None:
        """Makes sure that the variables of supernet and optimizer are those just trained."""


def loop_class() -> type[Loop]:
    """The loop of Keras's backend."""
    if keras.backend.backend() == "jax":
        from bignas_tf.training.jax_loop import JaxLoop

        return JaxLoop
    from bignas_tf.training.tensorflow_loop import TensorflowLoop

    return TensorflowLoop
