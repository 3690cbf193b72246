"""What a sweep is to do, and what can be wrong with it, found before any run starts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from bignas_tf.checks import require, require_int
from bignas_tf.data.batches import BatchPlan
from bignas_tf.search.search_options import SearchOptions
from bignas_tf.training.loop import require_shared_batch
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.run_data import RunData, load_run_data
from bignas_tf.training.schedules import build_schedule


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        variant: its name.
        seed: of the recipe.
        recipe: with the variant's fields, the seed and the data.
        overrides: fields that are not those of the recipe by its name.
    """

    variant: str
    seed: int
    recipe: Recipe
    overrides: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return f"{self.variant}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep in their order.

    Attributes:
        runs: one after the other.
        select: what is selected in each; None for nothing.
        children: genotypes that are measured in each, values by gene, by name.
    """

    runs: tuple[PlannedRun, ...]
    select: SearchOptions | None = None
    children: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)


def check_plan(
    plan: SweepPlan, loop_options: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Loads the data of every variant and builds what depends on them, but no network.

    Args:
        plan: the runs.
        loop_options: of `Trainer`.

    Returns:
        By run what its rows depend on: `recipe`, `data` (a fingerprint, which images that
        have moved keep), `select` and `children`.

    Raises:
        ValueError: for data or settings that a run or its selection would refuse.
    """
    options = loop_options or {}
    if options.get("steps_per_call") is not None:
        require_int("steps_per_call", options["steps_per_call"])
    devices = _device_count(options)
    select = dataclasses.asdict(plan.select) if plan.select else None
    fingerprints: dict[str, str] = {}
    known: tuple[Any, Any] = (None, None)  # the last data; variants mostly share them
    settings = {}
    for run in plan.runs:
        recipe = run.recipe
        if run.variant not in fingerprints:
            fields = (
                "data", "space", "image_size", "held_out", "calibration_images", "augmentation",
                "on_bad_image",
            )  # fmt: skip
            key = [getattr(recipe, field) for field in fields]
            try:
                if key != known[0]:
                    known = key, load_run_data(recipe)
                _check_run(recipe, known[1], plan, devices)
            except ValueError as error:
                raise ValueError(f"Variant '{run.variant}': {error}") from error
            fingerprints[run.variant] = known[1].source.fingerprint
        fields_of_run = {k: v for k, v in recipe.to_json().items() if k != "data"}
        measured = {"select": select, "children": plan.children}
        found = {"recipe": fields_of_run, "data": fingerprints[run.variant], **measured}
        settings[run.name] = json.loads(json.dumps(found))  # as it is read again
    return settings


def _device_count(options: Mapping[str, Any]) -> int:
    """Among how many devices a batch is divided."""
    if keras.backend.backend() != "jax":
        strategy = options.get("strategy")
        return strategy.num_replicas_in_sync if strategy else 1
    if options.get("devices") is not None:
        return len(options["devices"])
    import jax

    return jax.local_device_count()


def _check_run(recipe: Recipe, data: RunData, plan: SweepPlan, devices: int) -> None:
    batches = BatchPlan(
        data.train, batch_size=recipe.batch_size, policy=recipe.policy(), seed=recipe.seed
    )
    require_shared_batch(recipe.batch_size, devices)
    schedule = build_schedule(recipe.schedule, batches.steps_per_epoch, recipe.epochs)
    build_optimizer(recipe.optimizer, schedule, recipe.ema)
    for argument in ("init_from", "teacher"):
        path = getattr(recipe, argument)
        ok = path is None or Path(path).exists()
        require(ok, argument, "a checkpoint or a run's folder that exists", path)
    space = recipe.build_space(len(data.source.classes))
    for values in plan.children.values():
        space.genotype(values)
    if plan.select:
        low = "at least 1 where there is `select`"
        require(recipe.held_out > 0, "held_out", low, recipe.held_out)
        plan.select.check(space)
