"""Spaces of staged MBConv networks: BigNAS, AttentiveNAS and their small relatives."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
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
from bignas_tf.spaces.genotype import Gene, Genotype, Space, as_tuples
from bignas_tf.spec import NetworkSpec

# What varies in a stage; `Stage` holds the choices under the plural.
_STAGE_GENES = ("width", "depth", "kernel", "expand")


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

    Raises:
        ValueError: for choices that are not ascending tuples of positive ints, or that the
            shared weights cannot hold.
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

    Choices are ascending tuples of positive ints.

    Attributes:
        name: in recipes and errors.
        resolution_choices: heights (= widths) of images, in pixels.
        stem_widths: choices of the stem's output channels.
        stages: in execution order.
        head_widths: choices of the channels before the classifier.
        stem_strides: of the stem's 3x3 convolution.
        head_expand: if given, the head is MobileNetV3's: a convolution to so many times the
            last width, pooling, `head_width` features.
        activation: of all blocks but squeeze-and-excitation, one of `bignas_tf.ops.ACTIVATIONS`.
        dropout: rate in [0, 1), before the classifier.
        classes: outputs of the classifier.
        input_channels: of images.
        training_resolutions: those that training samples; empty means all.
        shortcut: "projection" (BigNAS: an identity path in every block) or "identity".

    Raises:
        ValueError: for choices that are not such tuples, or `training_resolutions` or `shortcut`
            that do not go with the others; fields of blocks are checked with their networks.
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
                Gene(f"{group}_{what}", getattr(stage, f"{what}s"), group) for what in _STAGE_GENES
            ]
        return (*genes, Gene("head_width", self.head_widths, "head"))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MBConvSpace:
        stages = []
        for stage in config["stages"]:
            se = SqueezeExcitation(**stage["se"]) if stage["se"] else None
            stages.append(Stage(**{k: as_tuples(v) for k, v in (stage | {"se": se}).items()}))
        return super().from_config({**config, "stages": stages})  # type: ignore[return-value]

    def with_choices(self, choices: Mapping[str, tuple[int, ...]]) -> MBConvSpace:
        stages = []
        for n, stage in enumerate(self.stages, 1):
            fields: dict[str, Any] = {f"{w}s": choices[f"stage{n}_{w}"] for w in _STAGE_GENES}
            stages.append(dataclasses.replace(stage, **fields))
        trained = tuple(r for r in self.training_resolutions if r in choices["resolution"])
        return dataclasses.replace(
            self,
            resolution_choices=choices["resolution"],
            stem_widths=choices["stem_width"],
            stages=tuple(stages),
            head_widths=choices["head_width"],
            training_resolutions=trained,
        )

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
