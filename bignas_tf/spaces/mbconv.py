"""Spaces of staged MBConv networks: BigNAS, AttentiveNAS and their small relatives."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

from bignas_tf.blocks import (
    Block,
    ConvBlock,
    HeadBlock,
    MBConvBlock,
    MobileNetV3HeadBlock,
    SqueezeExcitation,
    make_divisible,
)
from bignas_tf.checks import is_int, require, require_choice
from bignas_tf.spaces.genotype import Gene, Genotype, Space
from bignas_tf.spec import NetworkSpec


def _require_choices(argument: str, choices: tuple[int, ...]) -> None:
    ok = isinstance(choices, tuple) and len(choices) > 0 and all(is_int(c) for c in choices)
    ok = ok and all(a < b for a, b in itertools.pairwise(choices))
    require(ok, argument, "a non-empty tuple of ascending positive integers", choices)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of MBConv blocks that share width, kernel size and expansion.

    Attributes:
        widths: choices of output channels.
        depths: choices of the number of blocks, at least 1.
        kernels: choices of the depthwise kernel size, odd: the smaller ones are the centres
            of the larger.
        expands: choices of the expansion ratio.
        strides: of the first block.
        se: squeeze-and-excitation of its blocks, or None.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]
    strides: int
    se: SqueezeExcitation | None = None

    def __post_init__(self):
        for argument in ("widths", "depths", "kernels", "expands"):
            _require_choices(argument, getattr(self, argument))
        odd = all(kernel % 2 for kernel in self.kernels)
        require(odd, "kernels", "odd", self.kernels)
        # The centre of a larger kernel is not where a 1x1 kernel of stride 2 looks.
        if self.strides > 1 and len(self.kernels) > 1 and 1 in self.kernels:
            raise ValueError(
                f"`kernels` must not mix 1 with others at stride 2. Received: {self.kernels}"
            )
        # Of all ops only a shortcut convolution may be absent, not an expanding one.
        if len(self.expands) > 1 and 1 in self.expands:
            raise ValueError(f"`expands` must not mix 1 with others. Received: {self.expands}")


@dataclasses.dataclass(frozen=True)
class MBConvSpace(Space):
    """Stem convolution, stages of MBConv blocks, head; all elastic per stage.

    Attributes:
        head_expand: if given, the head is MobileNetV3's: a convolution to so many times the
            last width, pooling, `head_width` features.
        training_resolutions: those that training samples; empty means all.
        shortcut: "projection" (BigNAS: an identity path in every block) or "identity".
    """

    name: str
    resolution_choices: tuple[int, ...]
    stem_widths: tuple[int, ...]
    stages: tuple[Stage, ...]
    head_widths: tuple[int, ...]
    stem_strides: int = 2
    head_expand: int | None = None
    activation: str = "swish"
    dropout: float = 0.2
    classes: int = 1000
    input_channels: int = 3
    training_resolutions: tuple[int, ...] = ()
    shortcut: str = "projection"

    def __post_init__(self):
        for argument in ("resolution_choices", "stem_widths", "head_widths"):
            _require_choices(argument, getattr(self, argument))
        unknown = set(self.training_resolutions) - set(self.resolution_choices)
        allowed = f"among {self.resolution_choices}"
        require(not unknown, "training_resolutions", allowed, self.training_resolutions)
        require_choice("shortcut", self.shortcut, ("identity", "projection"))
        # An addition that some genotypes lack would have to be an optional op.
        in_widths = self.stem_widths
        for number, stage in enumerate(self.stages, 1):
            elastic = len({*in_widths, *stage.widths}) > 1 and {*in_widths} & {*stage.widths}
            if self.shortcut == "identity" and stage.strides == 1 and elastic:
                raise ValueError(
                    f'`shortcut` must be "projection" where widths may or may not be equal, in '
                    f"stage {number}: {in_widths} to {stage.widths}. Received: {self.shortcut!r}"
                )
            in_widths = stage.widths

    @functools.cached_property
    def genes(self) -> tuple[Gene, ...]:  # type: ignore[override]
        """Resolution, stem, four per stage (width, depth, kernel, expand), head."""
        genes = [
            Gene("resolution", self.resolution_choices, "resolution"),
            Gene("stem_width", self.stem_widths, "stem"),
        ]
        for number, stage in enumerate(self.stages, 1):
            group = f"stage{number}"
            genes += [
                Gene(f"{group}_width", stage.widths, group),
                Gene(f"{group}_depth", stage.depths, group),
                Gene(f"{group}_kernel", stage.kernels, group),
                Gene(f"{group}_expand", stage.expands, group),
            ]
        return (*genes, Gene("head_width", self.head_widths, "head"))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MBConvSpace:
        """Inverse of `config`, also after a trip through JSON."""

        def frozen(fields: dict[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}

        stages = []
        for stage in config["stages"]:
            se = SqueezeExcitation(**stage["se"]) if stage["se"] else None
            stages.append(Stage(**frozen({**stage, "se": se})))
        return cls(**frozen({**config, "stages": tuple(stages)}))

    @property
    def resolutions(self) -> tuple[int, ...]:
        return self.resolution_choices

    @functools.cached_property
    def optional_ops(self) -> frozenset[str]:  # type: ignore[override]
        """Shortcut convolutions of stages whose input can have their own width."""
        inputs = [self.stem_widths, *(stage.widths for stage in self.stages)]
        names = {
            f"stage{number}_block1_shortcut_conv"
            for number, stage in enumerate(self.stages, 1)
            if set(inputs[number - 1]) & set(stage.widths)
        }
        return frozenset(op.name for op in self.ops() if op.name in names)

    @property
    def training_restriction(self) -> dict[str, tuple[int, ...]]:
        return {"resolution": self.training_resolutions} if self.training_resolutions else {}

    def spec(self, genotype: Genotype) -> NetworkSpec:
        return self._spec(genotype, every_op=False)

    def all_ops_spec(self, genotype: Genotype) -> NetworkSpec:
        return self._spec(genotype, every_op=True)

    def _spec(self, genotype: Genotype, every_op: bool) -> NetworkSpec:
        blocks: list[Block] = [
            ConvBlock(
                name="stem",
                channels=genotype["stem_width"],
                strides=self.stem_strides,
                activation=self.activation,
            )
        ]
        widths = self.stem_widths
        for number, stage in enumerate(self.stages, 1):
            blocks += self._stage(number, stage, genotype, widths, every_op)
            widths = stage.widths
        blocks.append(self._head(genotype, f"stage{len(self.stages)}_width"))
        resolution = genotype["resolution"]
        shape = (resolution, resolution, self.input_channels)
        return NetworkSpec(shape, tuple(blocks), self.classes)

    def _stage(
        self,
        number: int,
        stage: Stage,
        genotype: Genotype,
        in_widths: tuple[int, ...],
        every_op: bool,
    ) -> list[Block]:
        group = f"stage{number}"
        depth = max(stage.depths) if every_op else genotype[f"{group}_depth"]
        may_need_conv = len(in_widths) > 1 or in_widths != stage.widths
        project_always = every_op and may_need_conv and self.shortcut == "projection"
        return [
            MBConvBlock(
                name=f"{group}_block{position}",
                channels=genotype[f"{group}_width"],
                kernel_size=genotype[f"{group}_kernel"],
                strides=stage.strides if position == 1 else 1,
                expand_ratio=genotype[f"{group}_expand"],
                activation=self.activation,
                se=stage.se,
                shortcut="projection_always" if project_always and position == 1 else self.shortcut,
            )
            for position in range(1, depth + 1)
        ]

    def _head(self, genotype: Genotype, last_width: str) -> Block:
        if self.head_expand is None:
            return HeadBlock(
                name="head",
                channels=genotype["head_width"],
                activation=self.activation,
                dropout=self.dropout,
            )
        return MobileNetV3HeadBlock(
            name="head",
            channels=make_divisible(self.head_expand * genotype[last_width]),
            features=genotype["head_width"],
            features_bias=False,
            activation=self.activation,
            dropout=self.dropout,
        )
