"""How a child is finetuned, as data."""

from __future__ import annotations

import dataclasses
from typing import Any

from bignas_tf.checks import is_number, require, require_choice, require_int, require_rate

TECHNIQUES = ("quantize", "prune", "cluster", "plain")
# What each technique alone is asked for.
_OWN = {"sparsity": "prune", "clusters": "cluster"}


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """How a child is finetuned.

    Attributes:
        technique: one of `TECHNIQUES`.
        epochs: positive number of passes over the training images, also less than one.
        learning_rate: of Adam, first; it falls to 0 along a cosine.
        batch_size: images of a step; None for the recipe's.
        seed: of data order and augmentation; None for the recipe's.
        label_smoothing: of the labels; None for the recipe's.
        sparsity: for `prune`, the share of each kernel that becomes zero.
        clusters: for `cluster`, the values that a kernel may have.
    """

    technique: str
    epochs: float
    learning_rate: float
    batch_size: int | None = None
    seed: int | None = None
    label_smoothing: float | None = None
    sparsity: float | None = None
    clusters: int | None = None

    def __post_init__(self):
        require_choice("technique", self.technique, TECHNIQUES)
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            require(is_number(value) and value > 0, name, "a positive number", value)
        for name, low in (("batch_size", 1), ("seed", 0)):
            if getattr(self, name) is not None:
                require_int(name, getattr(self, name), low)
        if self.label_smoothing is not None:
            require_rate("label_smoothing", self.label_smoothing)
        for name, technique in _OWN.items():
            value, own = getattr(self, name), self.technique == technique
            wanted = "given" if own else "left out"
            require((value is not None) == own, name, f"{wanted} to {self.technique}", value)
        if self.sparsity is not None:
            ok = is_number(self.sparsity) and 0 < self.sparsity < 1
            require(ok, "sparsity", "above 0 and below 1", self.sparsity)
        if self.clusters is not None:
            require_int("clusters", self.clusters, 2)

    def filled(self, recipe: Any) -> FinetuneSettings:
        """These, with what was left open as in the recipe of a run."""
        names = ("batch_size", "seed", "label_smoothing")
        given = {name: getattr(self, name) for name in names}
        return dataclasses.replace(
            self, **{k: getattr(recipe, k) if v is None else v for k, v in given.items()}
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        return dataclasses.asdict(self)

    def steps(self, steps_per_epoch: int) -> int:
        """Steps in all, at least one."""
        return max(1, round(self.epochs * steps_per_epoch))
