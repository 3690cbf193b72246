"""Training rules: which children a step trains, and on what."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bignas_tf.checks import require_choice, require_int, require_rate
from bignas_tf.spaces import Genotype, Space
from bignas_tf.training.losses import label_cross_entropy, soft_cross_entropy

# One key word of Philox; the other is the run's seed.
_PLAN_STREAM = 0x706C616E


@dataclasses.dataclass(frozen=True)
class Term:
    """One child's share of a step.

    Attributes:
        name: unique in its step, such as "random1"; names losses in logs.
        role: what it learns from, such as "random"; terms of one role share a trace.
        genotype: the child.
        weight: factor of its loss.
        recurs: the child is the same in every step, worth a trace of its own.
    """

    name: str
    role: str
    genotype: Genotype
    weight: float = 1.0
    recurs: bool = False


class Rule(abc.ABC):
    """What one training step does; the trainer knows nothing beyond this.

    The terms of a step run in order on the same batch, their gradients are summed, and
    the optimizer is applied once. Names, roles and weights of a plan, which terms recur and
    with what genotype must be the same in every step: loops trace by them.

    Attributes:
        space: that the children come from.
        teacher: a function from the step's images, in the input range at the size they are
            stored at, to logits `(batch, classes)`; None if no loss needs it.
    """

    space: Space
    teacher: Callable[[Any], Any] | None = None

    @abc.abstractmethod
    def plan(self, seed: int, step: int) -> list[Term]:
        """The terms of a step, a function of seed and step only."""

    @abc.abstractmethod
    def loss(self, role: str, logits: Any, labels: Any, outputs: Mapping[str, Any]) -> Any:
        """Loss of one term per example.

        Args:
            role: of the term.
            logits: `(batch, classes)`.
            labels: int `(batch,)`; probabilities `(batch, classes)` where images are mixed.
            outputs: logits of the step's earlier recurring terms by role, without gradient;
                those of the rule's `teacher` by that name.

        Returns:
            `(batch,)`.
        """

    def regularized(self, role: str) -> bool:
        """Whether dropout and the L2 term apply to this term."""
        return True

    def config(self) -> dict[str, Any]:
        """The rule's options as plain data, for the run's record."""
        return {}


@dataclasses.dataclass(frozen=True)
class SandwichRule(Rule):
    """BigNAS: biggest, smallest and random children, distilled in place from the biggest.

    The biggest child learns from the labels; all others only from its soft predictions
    of the same step, at temperature 1 and with its gradient stopped. In a space of one
    child that child is trained alone, as the biggest is.

    Args:
        space: that the children come from.
        random_children: per step, besides the smallest and the biggest.
        label_smoothing: of the labels.
        distillation: False trains every child on the labels (an ablation).
        regularize: "biggest": dropout and L2 in the biggest child's loss only; "all": in
            every child's (an ablation).
        sandwich: False trains the random children only, on the labels: with one of them
            uniform sampling of single paths (an ablation).
        teacher: that the biggest child learns from instead of the labels, by its soft
            predictions; see `Rule`.

    Raises:
        ValueError: for options out of range.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, section 3.1; Guo et al., "Single Path One-Shot Neural
        Architecture Search with Uniform Sampling", ECCV 2020; Yu and Huang, "Universally Slimmable
        Networks", ICCV 2019 (sandwich rule, in-place distillation).
    """

    space: Space
    random_children: int = 2
    label_smoothing: float = 0.0
    distillation: bool = True
    regularize: str = "biggest"
    sandwich: bool = True
    teacher: Callable[[Any], Any] | None = None

    def __post_init__(self):
        # Without the ends a step must have something to train.
        require_int("random_children", self.random_children, 0 if self.sandwich else 1)
        require_rate("label_smoothing", self.label_smoothing)
        require_choice("regularize", self.regularize, ("biggest", "all"))

    def plan(self, seed: int, step: int) -> list[Term]:
        ends = [
            Term("biggest", "biggest", self.space.biggest(), recurs=True),
            Term("smallest", "smallest", self.space.smallest(), recurs=True),
        ]
        if self.space.size() == 1:
            return ends[:1]
        randoms = enumerate(self._randoms(seed, step), 1)
        terms = [Term(f"random{i}", "random", genotype) for i, genotype in randoms]
        return [*ends, *terms] if self.sandwich else terms

    def _randoms(self, seed: int, step: int) -> list[Genotype]:
        """Random children, uniform over the choices of every gene."""
        choices = [
            self.space.training_restriction.get(gene.name, gene.choices)
            for gene in self.space.genes
        ]
        bits = np.random.Philox(
            key=np.array([seed, _PLAN_STREAM], np.uint64),
            counter=np.array([0, 0, 0, step], np.uint64),
        )
        # Raw output: NumPy keeps it between versions, which it does not promise of Generator.
        raw = bits.random_raw(self.random_children * len(choices))
        return [
            self.space.genotype(
                [options[int(n % len(options))] for options, n in zip(choices, row, strict=True)]
            )
            for row in raw.reshape(self.random_children, len(choices))
        ]

    def loss(self, role: str, logits: Any, labels: Any, outputs: Mapping[str, Any]) -> Any:
        if role == "biggest" and self.teacher:
            return soft_cross_entropy(outputs["teacher"], logits)
        if role == "biggest" or not (self.distillation and self.sandwich):
            return label_cross_entropy(labels, logits, self.label_smoothing)
        return soft_cross_entropy(outputs["biggest"], logits)

    def regularized(self, role: str) -> bool:
        return role == "biggest" or self.regularize == "all"

    def config(self) -> dict[str, Any]:
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del found["space"]
        return {"kind": "sandwich", **found, "teacher": self.teacher is not None}
