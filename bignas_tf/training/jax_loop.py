"""The JAX step: the whole sandwich compiled as one program, several steps per call.

Children that recur run in static mode. All others run in masked mode, whose shapes do not
depend on the child: a `lax.scan` over them with a `lax.switch` over resolutions inside, so
that each resolution compiles once however many children there are. Gradients are taken in
the scan's body and summed, so that memory stays near one child's.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax
from jax.sharding import Mesh

from bignas_tf.checks import require_int
from bignas_tf.data.batches import BatchPlan
from bignas_tf.resize import to_input_range
from bignas_tf.supernet import Supernet
from bignas_tf.training.chunks import Chunk, Inputs, prepared_chunks, signature
from bignas_tf.training.jax_data import DeviceData, sharding
from bignas_tf.training.loop import Loop, require_shared_batch
from bignas_tf.training.rule import Rule, Term

State = dict[str, Any]  # 'weights' and 'optimizer', lists of arrays


def steps_per_call_by_default() -> int:
    """Many on an accelerator, which would wait for the host; one on a CPU."""
    return 1 if jax.devices()[0].platform == "cpu" else 32


class JaxLoop(Loop):
    """Runs training steps of a rule on a supernet on all local devices.

    The batch is divided among the devices; batch statistics are those of the whole batch.
    From the first chunk on the weights live in this object: those of the supernet's and the
    optimizer's variables are old until `publish`, and changing them has no effect.

    Args:
        supernet: as of `Loop`.
        rule: as of `Loop`.
        optimizer: as of `Loop`.
        steps_per_call: between two visits to the host, which a stop has to wait for; None for
            the default of the device.
        remat: whether activations within blocks are computed again in the backward pass
            instead of stored: less memory, more time, the same result.
        devices: to train on; None for all local ones.
        data_limit_mb: images in memory up to this size live on every device, others are sent
            chunk by chunk; None for a quarter of the device's memory.
        **shared: `batch_size`, a multiple of the number of devices, `weight_decay`,
            `clip_norm`, `clip_value` and `seed`, as of `Loop`.

    Raises:
        ValueError: if the batch cannot be divided among the devices.
    """

    def __init__(
        self,
        supernet: Supernet,
        rule: Rule,
        optimizer: keras.optimizers.Optimizer,
        *,
        steps_per_call: int | None = None,
        remat: bool = False,
        devices: Sequence[Any] | None = None,
        data_limit_mb: float | None = None,
        **shared: Any,
    ):
        super().__init__(supernet, rule, optimizer, **shared)
        if steps_per_call is None:
            steps_per_call = steps_per_call_by_default()
        require_int("steps_per_call", steps_per_call)
        devices = jax.local_devices() if devices is None else list(devices)
        require_shared_batch(self._batch_size, len(devices))
        optimizer.build(self._variables)
        self._steps_per_call = steps_per_call
        self._remat = remat
        self._data_limit_mb = data_limit_mb
        self._mesh = Mesh(np.array(devices), ("batch",))
        space = supernet.space
        self._resolutions = space.training_restriction.get("resolution", space.resolutions)
        self._data: DeviceData | None = None
        self._programs: dict[tuple, Any] = {}
        self._state: State | None = None

    def chunks(self, plan: BatchPlan, start: int, last: int) -> Iterator[Chunk]:
        """As of `Loop`; a chunk never crosses the end of an epoch, and the next is prepared ahead.

        Chunks of an earlier call must not be trained on any more.
        """
        if self._data is None or self._data.plan is not plan:
            classes = self.supernet.space.classes
            self._data = DeviceData(plan, classes, self._mesh, self._data_limit_mb)
            self._programs = {}  # they hold the augmentation
        return prepared_chunks(
            self.rule,
            plan,
            start,
            last,
            seed=self._seed,
            steps=self._data.most_steps(self._steps_per_call),
            resolutions=self._resolutions,
            with_images=not self._data.resident,
        )

    # Steps -------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        devices = self._mesh.devices.size
        return {
            "devices": devices,
            "steps_per_call": self._steps_per_call,
            "remat": self._remat,
        }

    def train(self, chunk: Chunk, step: int) -> list[dict[str, float]]:
        self._state, losses = self._program(chunk)(*self._arguments(chunk, step))
        names = [term.name for term in chunk.terms]
        found = np.asarray(losses)[: chunk.count]
        return [dict(zip(names, map(float, row), strict=True)) for row in found]

    def compile(self, chunk: Chunk) -> Any:
        """The compiled program of chunks like this one, for its cost and memory."""
        return self._program(chunk).lower(*self._arguments(chunk, 0)).compile()

    def _arguments(self, chunk: Chunk, step: int) -> tuple[Any, ...]:
        assert self._data is not None  # noqa: S101 - the chunk was made with it
        state = self._state or self._initial_state()
        inputs = self._data.place(chunk.inputs)
        return state, self._data.arrays, inputs, np.int32(step), np.int32(chunk.count)

    def _initial_state(self) -> State:
        state = {"weights": self._variables, "optimizer": self.optimizer.variables}
        # Copies: the program takes these buffers over.
        arrays = {
            name: [jnp.array(variable.value, copy=True) for variable in variables]
            for name, variables in state.items()
        }
        return jax.device_put(arrays, sharding(self._mesh))

    def publish(self) -> None:
        """Writes the trained values into the variables of supernet and optimizer."""
        if self._state is None:
            return
        for variable, array in zip(
            [*self._variables, *self.optimizer.variables],
            [*self._state["weights"], *self._state["optimizer"]],
            strict=True,
        ):
            variable.assign(np.asarray(array))

    def _program(self, chunk: Chunk) -> Any:
        key = signature(chunk.terms)
        if key not in self._programs:
            run = functools.partial(self._run, chunk.terms)
            self._programs[key] = jax.jit(run, donate_argnums=0)
        return self._programs[key]

    def _run(
        self, terms: Sequence[Term], state: State, data: Any, inputs: Inputs, step: Any, count: Any
    ) -> tuple[State, Any]:
        """`count` steps; losses are `(rows of inputs, terms)`."""
        rows = len(inputs["index"])

        def one(position: Any, carry: tuple[State, Any]) -> tuple[State, Any]:
            state, losses = carry
            row = jax.tree.map(lambda x: x[position], inputs)
            state, found = self._step(terms, state, data, row, step + position)
            return state, losses.at[position].set(found)

        losses = jnp.zeros((rows, len(terms)), jnp.float32)
        if rows == 1:
            return one(0, (state, losses))
        return lax.fori_loop(0, count, one, (state, losses))

    def _step(
        self, terms: Sequence[Term], state: State, data: Any, inputs: Inputs, step: Any
    ) -> tuple[State, Any]:
        assert self._data is not None  # noqa: S101 - whose arrays `data` are
        batch = self._data.batch(data, inputs)
        varying = (inputs["tables"], inputs["resolutions"])
        gradients, losses = self.gradients(terms, state["weights"], batch, varying, step)
        weights, optimizer = self.optimizer.stateless_apply(
            state["optimizer"], self.clipped(gradients), state["weights"]
        )
        return {"weights": weights, "optimizer": optimizer}, losses

    def gradients(
        self, terms: Sequence[Term], weights: list[Any], batch: Any, varying: Any, step: Any
    ) -> tuple[list[Any], Any]:
        """Sum of the terms' gradients, and their losses, `(terms,)`.

        Args:
            terms: of the step.
            weights: of the supernet.
            batch: uint8 images and labels.
            varying: size tables and positions of resolutions of the terms that do not recur.
            step: int32 scalar.
        """
        images, labels = batch
        images = to_input_range(images, self.supernet.variable_dtype)
        total = [jnp.zeros_like(weight) for weight in weights]
        outputs: dict[str, Any] = {}
        if self.rule.teacher:
            outputs["teacher"] = lax.stop_gradient(self.rule.teacher(images))
        losses: list[Any] = []
        used = 0
        for _, run in itertools.groupby(enumerate(terms), key=_trace_key):
            group = list(run)
            number, term = group[0]
            # The next child starts when this one's activations are gone.
            images, total = lax.optimization_barrier((images, total))
            if term.recurs:
                mask = self._dropout_mask(term, step, number)
                found = self._static_term(term, weights, images, labels, outputs, mask)
                loss, logits, gradients = found
                total = _add(total, gradients)
                outputs[term.role] = lax.stop_gradient(logits)
                losses.append(loss[None])
                continue
            rows = tuple(x[used : used + len(group)] for x in varying)
            numbers = jnp.asarray([number for number, _ in group], jnp.int32)
            used += len(group)
            total, values = self._varying_terms(
                term, weights, images, labels, outputs, total, (*rows, numbers), step
            )
            losses.append(values)
        return total, jnp.concatenate(losses)

    def _dropout_mask(self, term: Term, step: Any, number: Any) -> Any:
        """Keep-mask of a regularized term, `(batch, largest width)`, scaled; else None."""
        if self._dropout is None or not self.rule.regularized(term.role):
            return None
        key = jax.random.key(self._seed % 2**31)
        key = jax.random.fold_in(jax.random.fold_in(key, step), number)
        keep = 1 - self._dropout.rate
        shape = (self._batch_size, self._dropout.channels)
        mask = jax.random.bernoulli(key, keep, shape).astype(self.supernet.compute_dtype) / keep
        return lax.with_sharding_constraint(mask, sharding(self._mesh, "batch"))

    def _loss(
        self, term: Term, logits: Any, labels: Any, outputs: Mapping[str, Any], **child: Any
    ) -> Any:
        per_example = self.rule.loss(term.role, logits, labels, outputs)
        loss = term.weight * jnp.sum(per_example) / self._batch_size
        if self._weight_decay and self.rule.regularized(term.role):
            loss += term.weight * self._weight_decay * self.supernet.half_square_norm(**child)
        return loss

    def _with(self, weights: Sequence[Any]) -> keras.StatelessScope:
        return keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True)))

    def _static_term(
        self, term: Term, weights: list[Any], images: Any, labels: Any, outputs: Any, mask: Any
    ) -> tuple[Any, Any, list[Any]]:
        images = self._sized(images, term.genotype["resolution"])

        def loss(weights: list[Any]) -> tuple[Any, Any]:
            with self._with(weights):
                logits = self.supernet.run(
                    images, term.genotype, dropout_mask=mask, remat=self._remat
                )
                return self._loss(term, logits, labels, outputs, genotype=term.genotype), logits

        (value, logits), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        return value, logits, gradients

    def _varying_terms(
        self,
        term: Term,
        weights: list[Any],
        images: Any,
        labels: Any,
        outputs: Any,
        total: list[Any],
        rows: Any,
        step: Any,
    ) -> tuple[list[Any], Any]:
        """All consecutive terms of one role: gradients added to `total`, and their losses."""

        def at(resolution: int) -> Any:
            def loss(weights: list[Any], table: Any, mask: Any) -> Any:
                with self._with(weights):
                    resized = self._sized(images, resolution)
                    logits = self.supernet.run_table(
                        resized, table, "masked", mask, remat=self._remat
                    )
                    return self._loss(term, logits, labels, outputs, table=table)

            return jax.value_and_grad(loss)

        branches = [at(resolution) for resolution in self._resolutions]

        def body(total: list[Any], row: Any) -> tuple[list[Any], Any]:
            table, resolution, number = row
            mask = self._dropout_mask(term, step, number)
            value, gradients = lax.switch(resolution, branches, weights, table, mask)
            return _add(total, gradients), value

        return lax.scan(body, total, rows)


def _add(total: list[Any], gradients: list[Any]) -> list[Any]:
    return [a + b for a, b in zip(total, gradients, strict=True)]


def _trace_key(numbered: tuple[int, Term]) -> Any:
    """Terms of one key share a trace; one that recurs has its own."""
    number, term = numbered
    return number if term.recurs else (term.role, term.weight)
