"""What a TensorFlow step computes on one replica: the terms' losses and gradients.

Children that recur run in static mode, all others in sliced mode through one trace, or masked
with static shapes, through one for each resolution. They run one after the other, so that peak
memory stays near the biggest child's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bignas_tf.checks import require_choice
from bignas_tf.resize import resize_by, resize_matrix, to_input_range
from bignas_tf.supernet import Supernet
from bignas_tf.training.layout import Layout
from bignas_tf.training.loop import Loop, require_shared_batch
from bignas_tf.training.rule import Rule, Term

Gradients = list[Any]


def _add(total: Gradients, gradients: Sequence[Any]) -> Gradients:
    """Sums gradients, None being a weight that a child does not have."""
    return [
        new if old is None else old if new is None else old + new
        for old, new in zip(total, gradients, strict=True)
    ]


class TensorflowTerms(Loop):
    """The terms of a step on the rows of one replica, within `strategy.run`.

    Args:
        supernet: as of `Loop`, built under `strategy.scope()`.
        rule: as of `Loop`.
        optimizer: as of `Loop`.
        varying: how children that do not recur run: "sliced", one trace for all of them, or
            "masked", with static shapes: a trace for each resolution, and of the whole step for
            each combination of them.
        strategy: a `tf.distribute.Strategy`; None is the current one.
        **shared: `batch_size`, a multiple of the replicas, `weight_decay`, `clip_norm`,
            `clip_value` and `seed`, as of `Loop`.

    Raises:
        ValueError: if the batch cannot be divided among the replicas.
    """

    def __init__(
        self,
        supernet: Supernet,
        rule: Rule,
        optimizer: keras.optimizers.Optimizer,
        *,
        varying: str = "sliced",
        strategy: Any = None,
        **shared: Any,
    ):
        require_choice("varying", varying, ("sliced", "masked"))
        super().__init__(supernet, rule, optimizer, **shared)
        self.layout = Layout(strategy)
        require_shared_batch(self._batch_size, self.layout.replicas)
        self._mode = varying
        self._varying: dict[tuple, Any] = {}

    def gradients(
        self, terms: Sequence[Term], batch: Any, varying: Any, step: Any
    ) -> tuple[Gradients, dict[str, Any]]:
        """Sum of the terms' gradients on this replica, and their losses by name.

        Args:
            terms: of the step.
            batch: images, uint8 `(batch, height, width, channels)`, and labels, int `(batch,)`,
                or probabilities `(batch, classes)`.
            varying: size tables and resolutions, int32, of the terms that do not recur.
            step: int32 scalar.
        """
        images, labels = batch
        images = to_input_range(images, self.supernet.variable_dtype)
        total: Gradients = [None] * len(self._variables)
        losses: dict[str, Any] = {}
        outputs: dict[str, Any] = {}
        if self.rule.teacher:
            outputs["teacher"] = tf.stop_gradient(self.rule.teacher(images))
        sizes = iter(zip(*varying, strict=True))
        for number, term in enumerate(terms):
            mask = self._dropout_mask(term, images, step, number)
            if term.recurs:
                found = self._static_term(term, images, labels, outputs, mask)
            else:
                compute = self._varying_term(term)
                found = compute(images, labels, outputs, mask, *next(sizes))
            loss, logits, gradients = found
            total = _add(total, gradients)
            losses[term.name] = loss
            if term.recurs:
                outputs[term.role] = tf.stop_gradient(logits)
            # The next child starts when this one's activations are gone. The sums wait for the
            # gradients; an edge from the call of a traced child waits for its variable reads only.
            with tf.control_dependencies([g for g in total if g is not None]):
                images = tf.identity(images)
        return total, losses

    def _fixed(self, term: Term) -> Any:
        """What of a term's genotype its trace depends on."""
        if term.recurs:
            return term.genotype
        return term.genotype["resolution"] if self._mode == "masked" else None

    def _dropout_mask(self, term: Term, images: Any, step: Any, number: int) -> Any:
        """Keep-mask of a regularized term, `(batch, largest width)`, scaled; else None."""
        if self._dropout is None or not self.rule.regularized(term.role):
            return None
        rate = self._dropout.rate
        # A function of (seed, step, term); a replica takes its rows of the global mask.
        key = tf.stack([self._seed % 2**31, step * 64 + number])
        shape = [self._batch_size, self._dropout.channels]
        # The same generator under XLA, which has one of its own, and makes other fractions of the
        # same integers.
        drawn = tf.random.stateless_uniform(
            shape, key, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )
        mask = tf.cast(drawn >= round(rate * 2**32), self.supernet.compute_dtype) / (1 - rate)
        rows = tf.shape(images)[0]
        context = tf.distribute.get_replica_context()
        start = (context.replica_id_in_sync_group if context else 0) * rows
        return mask[start : start + rows]

    def _loss(self, term: Term, logits: Any, labels: Any, outputs: dict[str, Any]) -> Any:
        per_example = self.rule.loss(term.role, logits, labels, outputs)
        return term.weight * tf.reduce_sum(per_example) / self._batch_size

    def _l2(self, term: Term, **child: Any) -> Any:
        """The L2 term; each replica adds its share."""
        if not self._weight_decay or not self.rule.regularized(term.role):
            return 0.0
        norm = self.supernet.half_square_norm(**child)
        return term.weight * self._weight_decay * norm / self.layout.replicas

    def _static_term(
        self, term: Term, images: Any, labels: Any, outputs: dict[str, Any], mask: Any
    ) -> tuple[Any, Any, Gradients]:
        images = self._sized(images, term.genotype["resolution"])
        with tf.GradientTape() as tape:
            logits = self.supernet.run(images, term.genotype, dropout_mask=mask)
            loss = self._loss(term, logits, labels, outputs)
            loss += self._l2(term, genotype=term.genotype)
        return loss, logits, tape.gradient(loss, [v.value for v in self._variables])

    def _varying_term(self, term: Term) -> Any:
        """One trace for all terms of a role, whatever their sizes."""
        key = (term.role, term.weight, self._fixed(term))
        if key not in self._varying:

            def compute(*arguments: Any) -> Any:
                return self._table_term(term, *arguments)

            # Collectives have to be traced with the step itself: each child once more.
            inlined = self.layout.replicas > 1 and self.supernet.synchronized
            self._varying[key] = compute if inlined else tf.function(compute, autograph=False)
        return self._varying[key]

    def _table_term(
        self,
        term: Term,
        images: Any,
        labels: Any,
        outputs: dict[str, Any],
        mask: Any,
        table: Any,
        resolution: Any,
    ) -> tuple[Any, Any, Gradients]:
        if self._mode == "masked":
            images = self._sized(images, term.genotype["resolution"])
        else:
            rows, columns = (self._resize_matrix(n, resolution) for n in images.shape[1:3])
            images = tf.cast(resize_by(images, rows, columns), self.supernet.compute_dtype)
        with tf.GradientTape() as tape:
            logits = self.supernet.run_table(images, table, self._mode, dropout_mask=mask)
            loss = self._loss(term, logits, labels, outputs)
            loss += self._l2(term, table=table)
        return loss, logits, tape.gradient(loss, [v.value for v in self._variables])

    def _resize_matrix(self, source: int, resolution: Any) -> Any:
        """`resize_matrix(source, resolution)` for a resolution known when the graph runs."""
        choices = self.supernet.space.resolutions
        stacked = np.zeros((len(choices), max(choices), source), np.float32)
        for position, choice in enumerate(choices):
            stacked[position, :choice] = resize_matrix(source, choice)
        position = tf.argmax(tf.equal(choices, resolution), output_type=tf.int32)
        return tf.constant(stacked)[position, :resolution]
