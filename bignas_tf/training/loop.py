"""What a trainer knows of the loop of any backend."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import keras

from bignas_tf.checks import require
from bignas_tf.data.batches import BatchPlan
from bignas_tf.ops import Dropout
from bignas_tf.supernet import Supernet
from bignas_tf.training.rule import Rule


def require_shared_batch(batch_size: int, devices: int) -> None:
    """Requires a batch that can be divided among so many devices."""
    wanted = f"a multiple of the number of devices, {devices}"
    require(batch_size % devices == 0, "batch_size", wanted, batch_size)


class Loop(abc.ABC):
    """Runs training steps of a rule on a supernet.

    Args:
        supernet: the supernet.
        rule: what a step does.
        optimizer: a Keras optimizer, built on the supernet's variables here.
        batch_size: over all devices; losses are divided by it.
        weight_decay: factor of half the sum of squared kernels.
        seed: of genotypes and dropout.
    """

    def __init__(
        self,
        supernet: Supernet,
        rule: Rule,
        optimizer: keras.optimizers.Optimizer,
        *,
        batch_size: int,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        self.supernet = supernet
        self.rule = rule
        self.optimizer = optimizer
        self._batch_size = batch_size
        self._weight_decay = weight_decay
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
        """

    @abc.abstractmethod
    def publish(self) -> None:
        """Makes sure that the variables of supernet and optimizer are those just trained."""
