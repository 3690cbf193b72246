"""Small spaces and made-up accuracies."""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable

from bignas_tf.blocks import SqueezeExcitation
from bignas_tf.search import measure
from bignas_tf.spaces import Genotype, MBConvSpace, Stage


def tiny_space(cls: type[MBConvSpace] = MBConvSpace) -> MBConvSpace:
    """2 * 3 * 2 * 2 * 2 * 2 * 2 = 192 genotypes, 0.03 to 0.26 MMACs."""
    return cls(
        name="tiny",
        resolution_choices=(6, 8),
        stem_widths=(8,),
        stem_strides=1,
        stages=(
            Stage((8, 16), (1, 2, 3), (3,), (2,), 1, SqueezeExcitation()),
            Stage((16, 24), (1, 2), (3, 5), (3,), 2, SqueezeExcitation()),
        ),
        head_widths=(32, 48),
        classes=10,
        input_channels=1,
    )


@dataclasses.dataclass(frozen=True)
class OneHeadSpace(MBConvSpace):
    """A space with redundant genotypes: the head has its smallest width whatever the gene."""

    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype.replace(head_width=self.head_widths[0])

    def spec(self, genotype: Genotype):
        return super().spec(self.canonical(genotype))


def noisy(genotype: Genotype) -> float:
    """Accuracy that grows with MACs, with noise of 0.02 that belongs to the genotype."""
    noise = zlib.crc32(repr(genotype.values).encode()) / 2**32
    return 0.5 + 0.05 * math.log(1 + measure(genotype, "mmacs")) + 0.02 * noise


def uneven(seed: int) -> Callable[[Genotype], float]:
    """Accuracy in which every gene has a worth and a saturation of its own.

    Which genes are worth their MACs differs by seed, so the best child under a budget is
    not merely one that uses it up.
    """

    def share(name: str, what: str) -> float:
        return zlib.crc32(f"{seed}/{name}/{what}".encode()) / 2**32

    @functools.cache
    def accuracy(genotype: Genotype) -> float:
        total = 0.0
        for gene, value in zip(genotype.space.genes, genotype.values, strict=True):
            position = gene.choices.index(value) / max(1, len(gene.choices) - 1)
            total += share(gene.name, "worth") * position ** (0.3 + share(gene.name, "power"))
        return 0.6 + 0.03 * total

    return accuracy


def run(strategy, accuracy, batch=8, stop=None):
    """Asks and tells until the strategy is finished or `stop` batches were told."""
    asked = []
    while not strategy.finished and (stop is None or stop > 0):
        genotypes = strategy.ask(batch)
        assert 0 < len(genotypes) <= batch
        asked += genotypes
        strategy.tell(genotypes, [{"accuracy": accuracy(genotype)} for genotype in genotypes])
        stop = None if stop is None else stop - 1
    return asked
