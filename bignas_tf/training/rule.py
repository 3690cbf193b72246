"""Training rules: which children a step trains, and on what."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
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
    """

    space: Space

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
            outputs: logits of the step's earlier recurring terms by role, without gradient.

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
    of the same step, at temperature 1 and with its gradient stopped.

    Args:
        space: that the children come from.
        random_children: per step, besides the smallest and the biggest.
        label_smoothing: of the labels.
        distillation: False trains every child on the labels (an ablation).
        regularize: "biggest": dropout and L2 in the biggest child's loss only; "all": in
            every child's (an ablation).

    Raises:
        ValueError: for options out of range.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, section 3.1; Yu and Huang, "Universally Slimmable
        Networks", ICCV 2019 (sandwich rule, in-place distillation).
    """

    space: Space
    random_children: int = 2
    label_smoothing: float = 0.0
    distillation: bool = True
    regularize: str = "biggest"

    def __post_init__(self):
        require_int("random_children", self.random_children, 0)
        require_rate("label_smoothing", self.label_smoothing)
        require_choice("regularize", self.regularize, ("biggest", "all"))

    def plan(self, seed: int, step: int) -> list[Term]:
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
        randoms = [
            self.space.genotype(
                [options[int(n % len(options))] for options, n in zip(choices, row, strict=True)]
            )
            for row in raw.reshape(self.random_children, len(choices))
        ]
        return [
            Term("biggest", "biggest", self.space.biggest(), recurs=True),
            Term("smallest", "smallest", self.space.smallest(), recurs=True),
            *(Term(f"random{i}", "random", genotype) for i, genotype in enumerate(randoms, 1)),
        ]

    def loss(self, role: str, logits: Any, labels: Any, outputs: Mapping[str, Any]) -> Any:
        if role == "biggest" or not self.distillation:
            return label_cross_entropy(labels, logits, self.label_smoothing)
        return soft_cross_entropy(outputs["biggest"], logits)

    def regularized(self, role: str) -> bool:
        return role == "biggest" or self.regularize == "all"

    def config(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        fields.pop("space")
        return {"kind": "sandwich", **fields}
