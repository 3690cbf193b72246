"""What several steps train on, as one upload of small arrays; NumPy only."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bignas_tf.checks import require
from bignas_tf.data.batches import BatchPlan
from bignas_tf.spaces.sizes import size_table
from bignas_tf.training.rule import Rule, Term

Inputs = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What one call trains on.

    Attributes:
        count: how many of the rows of `inputs` are steps; the others are padding.
        terms: of the first step.
        inputs: arrays with a leading axis of steps.
    """

    count: int
    terms: Sequence[Term]
    inputs: Inputs


def prepared_chunks(
    rule: Rule,
    plan: BatchPlan,
    start: int,
    last: int,
    *,
    seed: int,
    steps: int,
    resolutions: Sequence[int],
    with_images: bool,
) -> Iterator[Chunk]:
    """Yields the chunks from step `start` on, the next one prepared in a thread.

    None crosses the end of an epoch.

    Args:
        rule: what a step trains.
        plan: which augmented examples each step trains on.
        start: int, the first step.
        last: int, where to end.
        seed: of the rule's plans.
        steps: int, most steps of a chunk.
        resolutions: that the varying terms may have.
        with_images: whether chunks carry their images, augmented only where a device cannot.

    Raises:
        BrokenImageError: if an image cannot be read.
        ValueError: for a rule whose terms change from step to step.
    """

    def chunk(start: int, end: int) -> Chunk:
        plans = [rule.plan(seed, step) for step in range(start, end)]
        fixed = {signature(terms) for terms in plans}
        require(len(fixed) == 1, "rule", "one whose terms are the same in every step", fixed)
        inputs = _varying(plans, resolutions)
        index = [plan.indices(step) for step in range(start, end)]
        inputs["index"] = np.asarray(index, np.int32)
        draws = [plan.draws(step) for step in range(start, end)]
        names = plan.policy.device_draw_names()
        inputs |= {name: np.stack([each[name] for each in draws]) for name in names}
        if with_images:
            inputs["images"] = np.stack([_images(plan, step) for step in range(start, end)])
        # One shape for all chunks: a shorter one would compile again.
        missing = steps - (end - start)
        if missing:
            inputs = {
                name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
                for name, array in inputs.items()
            }
        return Chunk(end - start, plans[0], inputs)

    with concurrent.futures.ThreadPoolExecutor(1, "bignas-chunks") as ahead:
        pending: Any = None
        while start < last or pending:
            ready, pending = pending, None
            if start < last:
                epoch_end = (start // plan.steps_per_epoch + 1) * plan.steps_per_epoch
                end = min(start + steps, epoch_end, last)
                pending = ahead.submit(chunk, start, end)
                start = end
            if ready:
                yield ready.result()


def _images(plan: BatchPlan, step: int) -> np.ndarray:
    if plan.policy.on_host:
        return plan.read(step)["images"]
    return plan.split.read(plan.indices(step))


def signature(terms: Sequence[Term]) -> tuple[Any, ...]:
    """What of a step's terms a compiled program depends on."""
    return tuple((t.name, t.role, t.weight, t.genotype if t.recurs else None) for t in terms)


def _varying(plans: Sequence[Sequence[Term]], resolutions: Sequence[int]) -> Inputs:
    """Size tables, `(steps, terms, ops, 4)`, and positions of resolutions, `(steps, terms)`."""
    genotypes = [[term.genotype for term in terms if not term.recurs] for terms in plans]
    tables = [[size_table(genotype) for genotype in row] for row in genotypes]
    positions = [
        [resolutions.index(genotype["resolution"]) for genotype in row] for row in genotypes
    ]
    return {"tables": np.asarray(tables, np.int32), "resolutions": np.asarray(positions, np.int32)}
