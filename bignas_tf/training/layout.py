"""Device layouts of the TensorFlow loop: one device, those of a host, or of several workers."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from bignas_tf.checks import require, require_choice, require_int

STRATEGIES = ("one_device", "mirrored", "multi_worker")
_TF_CONFIG = (
    'set for a multi_worker strategy, without a chief, such as {"cluster": {"worker": '
    '["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}, with another index '
    "on each worker"
)
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def build_strategy(name: str, replicas: int | None = None) -> tf.distribute.Strategy | None:
    """Builds a strategy; call it before TensorFlow runs anything.

    Args:
        name: "one_device"; "mirrored", on all devices of this host; or "multi_worker", on those
            of all workers that the environment variable TF_CONFIG names.
        replicas: of a mirrored strategy on a host without accelerators, which then divides its
            CPU; None for 1.

    Returns:
        The strategy, or None for TensorFlow's default one of one device.

    Raises:
        ValueError: for an unknown name, replicas where they cannot be chosen, or no or a wrong
            TF_CONFIG.
    """
    require_choice("strategy", name, STRATEGIES)
    gpus = tf.config.list_physical_devices("GPU")
    if replicas is not None:
        ok = name == "mirrored" and not gpus
        require(ok, "replicas", "left out unless a mirrored strategy runs on CPU", replicas)
        require_int("replicas", replicas)
    if name == "one_device":
        return None
    if name == "multi_worker":
        _check_cluster(os.environ.get("TF_CONFIG"))
        return tf.distribute.MultiWorkerMirroredStrategy()
    if gpus:
        return tf.distribute.MirroredStrategy()
    count = replicas or 1
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)])


def _check_cluster(text: str | None) -> None:
    try:
        config = json.loads(text or "")
        workers, task = config["cluster"]["worker"], config["task"]
        ok = task["type"] == "worker" and 0 <= task["index"] < len(workers)
        ok = ok and "chief" not in config["cluster"]  # one more replica, which no row is for
    except (ValueError, KeyError, TypeError):
        ok = False
    require(ok, "TF_CONFIG", _TF_CONFIG, text)


class Layout:
    """Who trains on which rows of a batch.

    Args:
        strategy: a `tf.distribute.Strategy`, or None for the current one.

    Attributes:
        strategy: the strategy.
        replicas: of all workers.
        workers: processes that train together.
        worker: number of this process among them; 0 logs and saves.
    """

    def __init__(self, strategy: Any = None):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        resolver = getattr(self.strategy, "cluster_resolver", None)
        self.workers, self.worker = 1, 0
        if resolver and "worker" in resolver.cluster_spec().as_dict():
            self.workers = len(resolver.cluster_spec().as_dict()["worker"])
            self.worker = resolver.task_id

    def rows(self, batch_size: int) -> slice:
        """The rows of a batch that this worker trains on."""
        share = batch_size // self.workers
        return slice(self.worker * share, (self.worker + 1) * share)

    def share(self, count: int) -> np.ndarray:
        """Of so many examples the positions that this worker evaluates, int `(k,)`."""
        return np.array_split(np.arange(count), self.workers)[self.worker]

    def distribute(self, arrays: Mapping[str, np.ndarray], axis: int = 0) -> dict[str, Any]:
        """Divides this worker's rows, along `axis`, among its replicas."""
        if self.replicas == 1:
            return {name: tf.convert_to_tensor(array) for name, array in arrays.items()}
        local = self.replicas // self.workers

        def part(array: np.ndarray) -> Any:
            parts = iter(np.split(np.asarray(array), local, axis))
            return self.strategy.experimental_distribute_values_from_function(
                lambda context: tf.convert_to_tensor(next(parts))
            )

        return {name: part(array) for name, array in arrays.items()}

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Float64 `(n,)` of each worker, in their order, `(workers, n)`, on every worker."""
        found = self._gathered(tf.constant(values, tf.float64))
        return self.strategy.experimental_local_results(found)[0].numpy()

    @functools.cached_property
    def _gathered(self) -> Any:
        local = self.replicas // self.workers

        def of_replica(values: Any) -> Any:
            context = tf.distribute.get_replica_context()
            worker = context.replica_id_in_sync_group // local
            # Of the replicas of a worker one speaks.
            speaks = tf.cast(context.replica_id_in_sync_group % local == 0, values.dtype)
            own = tf.one_hot(worker, self.workers, dtype=values.dtype) * speaks
            rows = own[:, None] * values[None]
            return context.all_reduce(tf.distribute.ReduceOp.SUM, rows)

        return tf.function(
            lambda values: self.strategy.run(of_replica, args=(values,)),
            input_signature=[tf.TensorSpec([None], tf.float64)],
            autograph=False,
        )

    def why_lost(self, error: tf.errors.OpError) -> str | None:
        """What the runtime says of another worker that is lost; None for any other error."""
        message = error.message or type(error).__name__
        lost = isinstance(error, _LOST) or "Collective ops is aborted" in message
        # Of one that has started again already; others of the kind are errors of this process.
        restarted = isinstance(error, tf.errors.FailedPreconditionError)
        lost = lost or (restarted and "incarnation" in message)
        if self.workers == 1 or not lost:
            return None
        return message.splitlines()[0].rpartition("}} ")[2].rstrip(":")  # without the operation

    def describe(self) -> dict[str, Any]:
        """As run.json says it."""
        name = type(self.strategy).__name__
        return {"strategy": name, "replicas": self.replicas, "workers": self.workers}


@contextlib.contextmanager
def building(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """The scope of a strategy, in which all workers make their variables together.

    Raises:
        RuntimeError: if another worker is lost meanwhile, such as one that finds no data.
    """
    try:
        with strategy.scope():
            yield
    except tf.errors.OpError as error:
        why = Layout(strategy).why_lost(error)
        if why is None:
            raise
        raise RuntimeError(
            f"Another worker was lost before the first step ({why}). Its own last line says the "
            "reason; start all workers again with the same command"
        ) from error
