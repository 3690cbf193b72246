"""Recipes: every hyper-parameter of a run, as data."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Mapping
from typing import Any

from bignas_tf.checks import (
    from_json,
    is_number,
    require,
    require_choice,
    require_int,
    require_rate,
)
from bignas_tf.data import AugmentationPolicy
from bignas_tf.data.encoded import ON_BAD_IMAGE
from bignas_tf.spaces import Space, get_space

# Keras's name of each precision.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        name: of the recipe.
        space: name of the search space.
        restrict: choices that stay of the space's genes, by gene. One of each trains a child
            alone; that and the biggest's, with no random children, trains it jointly with its
            teacher.
        shortcut: of the space's blocks, "projection" or "identity"; None for the space's own.
        data: source, such as "digits" or "folder:PATH"; None must be given by flag.
        on_bad_image: what an image that cannot be decoded does: "stop", or "skip", by which the
            next one of its class stands in its place.
        image_size: height and width that images are stored at, in pixels.
        epochs: passes over the training images.
        batch_size: over all replicas.
        optimizer: `bignas_tf.training.optimizers.build_optimizer`.
        schedule: `bignas_tf.training.schedules.build_schedule`.
        augmentation: `bignas_tf.data.AugmentationPolicy`.
        init_from: checkpoint or folder of a run of the same space, or of one that it is a
            restriction of, to start the weights from; None for random ones.
        sandwich: whether every step trains the smallest and the biggest child; without them
            the random ones learn from the labels.
        random_children: per step, besides the smallest and the biggest.
        teacher: checkpoint or folder of a run whose biggest child the biggest learns from
            instead of the labels; None for the labels.
        label_smoothing: of the biggest child's labels.
        weight_decay: factor of half the sum of squared kernels in the regularized losses.
        clip_norm: largest global norm of the summed gradients; 0 for any.
        clip_value: largest magnitude of each of their values; 0 for any.
        regularize: "biggest" or "all".
        distillation: whether the smaller children learn from the biggest.
        ema: decay of the weights' exponential moving average, which children are cut from;
            0 for none.
        precision: of activations and products, "float32" or "bfloat16"; weights, statistics
            and losses are float32 in both.
        zero_gamma: whether the last scale of every residual branch starts at 0.
        held_out: training images kept out of training, for selection; below 1 their share.
        calibration_images: training images that batch-norm statistics are estimated from.
        evaluate_every: epochs between evaluations of the biggest and the smallest child
            on the held-out images; 0 for none.
        checkpoint_every: epochs between checkpoints.
        checkpoints_kept: newest ones that remain, 1 or more; the best one does in any case.
        checkpoint_minutes: of training after which there is one in any case; 0 for never.
        seed: of weights, data order, augmentation, genotypes and dropout.
    """

    name: str
    space: str
    image_size: int
    epochs: int
    batch_size: int
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    data: str | None = None
    on_bad_image: str = "stop"
    restrict: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shortcut: str | None = None
    init_from: str | None = None
    augmentation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sandwich: bool = True
    random_children: int = 2
    teacher: str | None = None
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    clip_value: float = 0.0
    regularize: str = "biggest"
    distillation: bool = True
    zero_gamma: bool = True
    ema: float = 0.0
    precision: str = "float32"
    held_out: int | float = 0
    calibration_images: int = 2048
    evaluate_every: int = 0
    checkpoint_every: int = 1
    checkpoints_kept: int = 3
    checkpoint_minutes: float = 10.0
    seed: int = 0

    def __post_init__(self):
        require(_is_text(self.name), "name", "a word", self.name)
        ok = isinstance(self.restrict, Mapping)
        require(ok, "restrict", "an object of lists of choices by gene", self.restrict)
        self.build_space()
        ok = self.data is None or _is_text(self.data)
        require(ok, "data", "a source, such as 'folder:PATH', or None", self.data)
        require_choice("on_bad_image", self.on_bad_image, ON_BAD_IMAGE)
        for argument in ("init_from", "teacher"):
            value = getattr(self, argument)
            ok = value is None or _is_text(value)
            require(ok, argument, "the path of a checkpoint or a run's folder, or None", value)
        for argument in ("optimizer", "schedule"):
            _require_options(argument, getattr(self, argument))
        ok = isinstance(self.augmentation, Mapping)
        require(ok, "augmentation", "an object of fields", self.augmentation)
        for argument in ("sandwich", "distillation", "zero_gamma"):
            value = getattr(self, argument)
            require(isinstance(value, bool), argument, "true or false", value)
        for argument in ("image_size", "epochs", "batch_size", "calibration_images"):
            require_int(argument, getattr(self, argument))
        require_int("checkpoint_every", self.checkpoint_every)
        require_int("checkpoints_kept", self.checkpoints_kept)
        for argument in ("random_children", "evaluate_every", "seed"):
            require_int(argument, getattr(self, argument), 0)
        if isinstance(self.held_out, float):
            require_rate("held_out", self.held_out)
        else:
            require_int("held_out", self.held_out, 0)
        for argument in ("label_smoothing", "ema"):
            require_rate(argument, getattr(self, argument))
        require_choice("precision", self.precision, tuple(POLICIES))
        require(self.seed < 2**64, "seed", "below 2**64", self.seed)
        for argument in ("weight_decay", "clip_norm", "clip_value", "checkpoint_minutes"):
            value = getattr(self, argument)
            require(is_number(value) and value >= 0, argument, "a number of at least 0", value)
        require_choice("regularize", self.regularize, ("biggest", "all"))
        self.policy()

    def policy(self) -> AugmentationPolicy:
        """The augmentation."""
        return AugmentationPolicy.from_dict(dict(self.augmentation))

    def build_space(self, classes: int | None = None) -> Space:
        """The search space, for another number of classes than its own if given."""
        space = get_space(self.space, classes)
        if self.shortcut is not None:
            allowed = f"None for space '{space.name}', which has none"
            require(hasattr(space, "shortcut"), "shortcut", allowed, self.shortcut)
            space = dataclasses.replace(space, shortcut=self.shortcut)  # type: ignore[type-var]
        return space.restricted(self.restrict)

    def replace(self, **fields: Any) -> Recipe:
        """A copy with other fields, checked."""
        return dataclasses.replace(self, **fields)

    def to_json(self) -> dict[str, Any]:
        """The recipe as a JSON object, with lists where it was given tuples."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Builds a recipe from `to_json`, refusing unknown and missing keys."""
        return from_json(cls, data, "A recipe")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _require_options(argument: str, options: Any) -> None:
    """Requires a kind with numbers; which ones, its builder says."""
    ok = isinstance(options, Mapping)
    require(ok, argument, 'an object, such as {"kind": ...}', options)
    for key, value in options.items():
        ok = key == "kind" or is_number(value) or isinstance(value, bool)
        require(ok, f"{argument}['{key}']", "a number, true or false", value)


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    import bignas_tf.recipes

    found = pkgutil.iter_modules(bignas_tf.recipes.__path__)
    return tuple(sorted(module.name for module in found))


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: for an unknown name.
    """
    require_choice("recipe", name, recipe_names())
    return importlib.import_module(f"bignas_tf.recipes.{name}").RECIPE
