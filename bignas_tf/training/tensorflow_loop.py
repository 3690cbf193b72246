"""The TensorFlow step on all replicas: gradients summed, one update.

The terms of a step are `bignas_tf.training.tensorflow_terms`.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import dismantle_func_graph

from bignas_tf.checks import require, require_int
from bignas_tf.data import Split
from bignas_tf.data.batches import BatchPlan
from bignas_tf.data.pipeline import TrainingBatches
from bignas_tf.evaluation import ChildEvaluator
from bignas_tf.spaces.sizes import size_table
from bignas_tf.supernet import Supernet
from bignas_tf.training.loop import WorkerLostError
from bignas_tf.training.losses import mixed_targets
from bignas_tf.training.rule import Rule, Term
from bignas_tf.training.tensorflow_terms import TensorflowTerms

Batch = dict[str, Any]
_STOP = "_stop"  # beside the losses by name of their term


class TensorflowLoop(TensorflowTerms):
    """Runs training steps of a rule on a supernet under a distribution strategy.

    Every replica computes the terms on its rows of the batch, batch statistics are those of the
    whole batch unless the supernet says otherwise, and all replicas apply the same sum of
    gradients. All workers stop after the same step.

    Args:
        supernet: as of `TensorflowTerms`.
        rule: as of `Loop`.
        optimizer: as of `Loop`.
        steps_per_call: steps between two visits to the host, in one `tf.function`.
        jit_compile: whether XLA compiles a replica's step: static shapes are needed, so children
            that vary have to be masked. On CPU it is many times slower.
        **shared: of `TensorflowTerms`.

    Raises:
        ValueError: for options that exclude each other, or as `TensorflowTerms`.
    """

    def __init__(
        self,
        supernet: Supernet,
        rule: Rule,
        optimizer: keras.optimizers.Optimizer,
        *,
        steps_per_call: int = 1,
        jit_compile: bool = False,
        **shared: Any,
    ):
        super().__init__(supernet, rule, optimizer, **shared)
        require_int("steps_per_call", steps_per_call)
        masked = self._mode == "masked"
        # Masked, each resolution is a trace of its own. Replicas that meet within a loop come out
        # with empty results unless all of TensorFlow's graph optimizers are off (2.21).
        ok = steps_per_call == 1 or (not masked and self.layout.replicas == 1)
        allowed = "1 on several replicas and where children that vary are masked"
        require(ok, "steps_per_call", allowed, steps_per_call)
        ok = not jit_compile or (masked and self.layout.replicas == 1)
        allowed = "False unless children that vary are masked, on one replica"
        require(ok, "jit_compile", allowed, jit_compile)
        self._steps_per_call = steps_per_call
        self._jit_compile = jit_compile
        self._stopping = False
        self._programs: dict[tuple, Any] = {}
        if self.layout.replicas > 1:
            _sum_nothing(optimizer)
        with self.layout.strategy.scope():
            optimizer.build(self._variables)
            # Set while weights change: a worker that is lost may leave some of them behind.
            self._updating = tf.Variable(False, trainable=False)

    def start(self) -> None:
        super().start()
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True
        self.stopped = self.stopped or self.layout.workers == 1

    def evaluator(self, calibration: Split, validation: Split) -> Any:
        if self.layout.workers == 1:
            return super().evaluator(calibration, validation)
        self.require_shares(calibration, validation)
        calibration, validation = (
            split.share(self.layout.share(len(split))) for split in (calibration, validation)
        )
        return ChildEvaluator(self.supernet, calibration, validation, gather=self.gather)

    @property
    def worker(self) -> int:
        return self.layout.worker

    @property
    def workers(self) -> int:
        return self.layout.workers

    def gather(self, values: np.ndarray) -> np.ndarray:
        with self._noticing():
            return self.layout.gather(values)

    def describe(self) -> dict[str, Any]:
        return {
            **self.layout.describe(),
            "synchronized": self.supernet.synchronized,
            "varying": self._mode,
            "steps_per_call": self._steps_per_call,
            "jit_compile": self._jit_compile,
        }

    def chunks(self, plan: BatchPlan, start: int, last: int) -> Iterator[list[Batch]]:
        """As of `Loop`; a chunk never crosses the end of an epoch."""
        batches = TrainingBatches(plan, start, self.layout.rows(plan.batch_size))
        while start < last:
            epoch_end = (start // plan.steps_per_epoch + 1) * plan.steps_per_epoch
            end = min(start + self._steps_per_call, epoch_end, last)
            yield list(itertools.islice(batches, end - start))
            start = end

    def publish(self) -> None:
        """Nothing to do: variables are always those just trained."""

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """Trains on one batch, as `train`."""
        return self.train([batch], step)[0]

    def train(self, chunk: list[Batch], step: int) -> list[dict[str, float]]:
        """Trains on batches.

        Args:
            chunk: this worker's rows of 1..`steps_per_call` batches: 'images' uint8 `(batch,
                height, width, channels)`, 'labels' `(batch,)`; where images are mixed,
                'partners' and 'shares' too.
            step: int, of the run.

        Returns:
            For each step the loss of each term by name, the L2 term included, averaged over
            the batch.

        Raises:
            WorkerLostError: if another worker does not answer any more.
        """
        plans = [self.rule.plan(self._seed, step + i) for i in range(len(chunk))]
        inputs = self._inputs(chunk)
        # One shape for all chunks: a shorter one would be traced again.
        padded = plans + plans[-1:] * (self._steps_per_call - len(chunk))
        varying = [[t.genotype for t in terms if not t.recurs] for terms in padded]
        tables = np.asarray([[size_table(g) for g in row] for row in varying], np.int32)
        resolutions = np.asarray([[g["resolution"] for g in row] for row in varying], np.int32)
        with self._noticing():
            found = self._program(plans)(
                (inputs["images"], inputs["labels"]),
                (tf.constant(tables), tf.constant(resolutions)),
                tf.constant(step, tf.int32),
                tf.constant(len(chunk)),
                tf.constant(float(self._stopping)),
            )
            values = {name: array.numpy()[: len(chunk)] for name, array in found.items()}
        self.stopped = bool(values.pop(_STOP).any())
        return [{name: float(v[i]) for name, v in values.items()} for i in range(len(chunk))]

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        """Tells the loss of another worker from errors of this one."""
        try:
            yield
        except tf.errors.OpError as error:
            why = self.layout.why_lost(error)
            if why is None:
                raise
            step = int(self.optimizer.iterations.numpy())
            consistent = not bool(self._updating.numpy())
            raise WorkerLostError(step, consistent, why) from error

    def _inputs(self, chunk: list[Batch]) -> Batch:
        """Images and labels of all steps, divided among replicas."""
        labels = []
        for batch in chunk:
            values = batch["labels"]
            if "partners" in batch:
                classes = self.supernet.space.classes
                values = mixed_targets(values, batch["partners"], batch["shares"], classes)
            labels.append(np.asarray(values))
        images = [np.asarray(batch["images"]) for batch in chunk]
        missing = self._steps_per_call - len(chunk)
        stacked = {
            name: np.stack([*rows, *[rows[-1]] * missing])
            for name, rows in (("images", images), ("labels", labels))
        }
        return self.layout.distribute(stacked, axis=1)

    # The traced step ---------------------------------------------------------------------

    def _program(self, plans: Sequence[Sequence[Term]]) -> Any:
        keys = {tuple((t.name, t.role, t.weight, self._fixed(t)) for t in terms) for terms in plans}
        require(len(keys) == 1, "rule", "one whose terms are the same in every step", keys)
        (key,) = keys
        if key not in self._programs:
            terms = plans[0]
            self._programs[key] = tf.function(
                lambda *arguments: self._run(terms, *arguments), autograph=False
            )
        return self._programs[key]

    def _run(
        self,
        terms: Sequence[Term],
        batches: Any,
        varying: Any,
        step: Any,
        count: Any,
        stop: Any,
    ) -> dict[str, Any]:
        """`count` steps; losses by name, `(steps_per_call,)` each."""
        if not tf.executing_eagerly():
            # TensorFlow keeps the first trace of a function, and with it the weights (2.21).
            weakref.finalize(self, dismantle_func_graph, tf.compat.v1.get_default_graph())
        numbers = range(sum(not term.recurs for term in terms))

        def one(position: Any) -> dict[str, Any]:
            sizes = [[rows[position][number] for number in numbers] for rows in varying]
            return self._distributed_step(terms, batches, sizes, step, position, stop)

        if self._steps_per_call == 1:
            return {name: value[None] for name, value in one(0).items()}
        names = [term.name for term in terms] + [_STOP]
        dtype = self.supernet.variable_dtype

        def body(position: Any, table: Any) -> tuple[Any, Any]:
            losses = one(position)
            row = tf.stack([tf.cast(losses[name], dtype) for name in names])
            return position + 1, tf.tensor_scatter_nd_update(table, [[position]], [row])

        table = tf.zeros((self._steps_per_call, len(names)), dtype)
        _, table = tf.while_loop(
            lambda position, _: position < count, body, (0, table), parallel_iterations=1
        )
        return dict(zip(names, tf.unstack(table, axis=1), strict=True))

    def _distributed_step(
        self,
        terms: Sequence[Term],
        batches: Any,
        varying: Any,
        start: Any,
        position: Any,
        stop: Any,
    ) -> dict[str, Any]:
        def replica_step(*rows: Any) -> dict[str, Any]:
            batch = [row[position] for row in rows]
            gradients, losses = self.gradients(terms, batch, varying, start + position)
            pairs = zip(gradients, self._variables, strict=True)
            self._update([tf.zeros_like(v.value) if g is None else g for g, v in pairs])
            return {**losses, _STOP: tf.identity(stop)}

        if self._jit_compile:
            replica_step = tf.function(replica_step, autograph=False, jit_compile=True)
        losses = self.layout.strategy.run(replica_step, args=batches)
        return {
            name: self.layout.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in losses.items()
        }

    def _update(self, gradients: list[Any]) -> None:
        """Applies the gradients of all replicas once."""
        if self.layout.replicas > 1:
            # Only sums can be clipped, and here another worker may be lost without harm to weights.
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        gradients = self.clipped(gradients)
        if self.layout.workers == 1:
            self.optimizer.apply(gradients, self._variables)
            return
        with tf.control_dependencies(gradients):
            begun = self._updating.assign(True)
        with tf.control_dependencies([begun]):
            self.optimizer.apply([tf.identity(g) for g in gradients], self._variables)
        changed = [*self._variables, *self.optimizer.variables]
        with tf.control_dependencies([tf.identity(variable.value) for variable in changed]):
            self._updating.assign(False)


def _sum_nothing(optimizer: keras.optimizers.Optimizer) -> None:
    """Has an optimizer apply gradients as they come: Keras's sums them over replicas itself.

    Raises:
        AttributeError: if Keras has no such method any more; gradients would be summed twice.
    """
    name = "_all_reduce_sum_gradients"
    getattr(optimizer, name)
    setattr(optimizer, name, lambda pairs: pairs)
