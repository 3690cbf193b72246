"""Specs of published networks, and blocks that only the tests define."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from bignas_tf.blocks import (
    Block,
    ConvBlock,
    HeadBlock,
    MBConvBlock,
    MobileNetV3HeadBlock,
    SqueezeExcitation,
    register_block,
)
from bignas_tf.ops import OpWriter, Tensor
from bignas_tf.spec import NetworkSpec

IMAGE = (224, 224, 3)


def mobilenet_v2(classes: int = 1000) -> NetworkSpec:
    """MobileNetV2 1.0 (Sandler et al., CVPR 2018, table 2)."""
    blocks: list[Block] = [ConvBlock(name="stem", channels=32, strides=2, activation="relu6")]
    for stage, (expand, channels, depth, strides) in enumerate(
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
         (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)], 1
    ):  # fmt: skip
        blocks += _stage(stage, depth, strides, channels=channels, expand_ratio=expand,
                         activation="relu6")  # fmt: skip
    blocks.append(HeadBlock(name="head", channels=1280, activation="relu6"))
    return NetworkSpec(IMAGE, tuple(blocks), classes)


def mobilenet_v3_large(classes: int = 1000) -> NetworkSpec:
    """MobileNetV3-Large 1.0 (Howard et al., ICCV 2019, table 1)."""
    se = SqueezeExcitation(
        relative_to="expanded", divisor=8, activation="relu", gate="hard_sigmoid"
    )
    blocks: list[Block] = [ConvBlock(name="stem", channels=16, strides=2, activation="hard_swish")]
    for index, (kernel, expanded, channels, has_se, activation, strides) in enumerate(
        [
            (3, 16, 16, False, "relu", 1),
            (3, 64, 24, False, "relu", 2),
            (3, 72, 24, False, "relu", 1),
            (5, 72, 40, True, "relu", 2),
            (5, 120, 40, True, "relu", 1),
            (5, 120, 40, True, "relu", 1),
            (3, 240, 80, False, "hard_swish", 2),
            (3, 200, 80, False, "hard_swish", 1),
            (3, 184, 80, False, "hard_swish", 1),
            (3, 184, 80, False, "hard_swish", 1),
            (3, 480, 112, True, "hard_swish", 1),
            (3, 672, 112, True, "hard_swish", 1),
            (5, 672, 160, True, "hard_swish", 2),
            (5, 960, 160, True, "hard_swish", 1),
            (5, 960, 160, True, "hard_swish", 1),
        ],
        1,
    ):
        blocks.append(
            MBConvBlock(
                name=f"block{index}", channels=channels, kernel_size=kernel, strides=strides,
                expanded_channels=expanded, se=se if has_se else None, activation=activation,
            )
        )  # fmt: skip
    blocks.append(MobileNetV3HeadBlock(name="head", channels=960, features=1280, dropout=0.2))
    return NetworkSpec(IMAGE, tuple(blocks), classes)


def efficientnet_b0(classes: int = 1000) -> NetworkSpec:
    """EfficientNet-B0 (Tan and Le, ICML 2019, table 1)."""
    blocks: list[Block] = [ConvBlock(name="stem", channels=32, strides=2)]
    for stage, (expand, kernel, channels, depth, strides) in enumerate(
        [(1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2),
         (6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1)], 1
    ):  # fmt: skip
        blocks += _stage(stage, depth, strides, channels=channels, kernel_size=kernel,
                         expand_ratio=expand, se=SqueezeExcitation())  # fmt: skip
    blocks.append(HeadBlock(name="head", channels=1280, dropout=0.2))
    return NetworkSpec(IMAGE, tuple(blocks), classes)


def mnasnet_a1(classes: int = 1000) -> NetworkSpec:
    """MnasNet-A1 (Tan et al., CVPR 2019, figure 7)."""
    blocks: list[Block] = [ConvBlock(name="stem", channels=32, strides=2, activation="relu")]
    for stage, (expand, kernel, channels, depth, strides, has_se) in enumerate(
        [(1, 3, 16, 1, 1, False), (6, 3, 24, 2, 2, False), (3, 5, 40, 3, 2, True),
         (6, 3, 80, 4, 2, False), (6, 3, 112, 2, 1, True), (6, 5, 160, 3, 2, True),
         (6, 3, 320, 1, 1, False)], 1
    ):  # fmt: skip
        blocks += _stage(stage, depth, strides, channels=channels, kernel_size=kernel,
                         expand_ratio=expand, activation="relu",
                         se=SqueezeExcitation(activation="relu") if has_se else None)  # fmt: skip
    blocks.append(HeadBlock(name="head", channels=1280, activation="relu", dropout=0.2))
    return NetworkSpec(IMAGE, tuple(blocks), classes)


def fairnas(layers: Iterable[Sequence[int]], classes: int = 1000) -> NetworkSpec:
    """A FairNAS network (Chu et al., ICCV 2021).

    Args:
        layers: `(expand_ratio, channels, kernel_size, strides)` of its 19 choice blocks.
        classes: outputs of the classifier.
    """
    common = {"activation": "relu6"}
    blocks: list[Block] = [
        ConvBlock(name="stem", channels=32, strides=2, **common),
        MBConvBlock(name="block0", channels=16, expand_ratio=1, **common),
    ]
    for index, (expand, channels, kernel, strides) in enumerate(layers, 1):
        blocks.append(
            MBConvBlock(
                name=f"block{index}", channels=channels, kernel_size=kernel, strides=strides,
                expand_ratio=expand, **common,
            )
        )  # fmt: skip
    blocks.append(HeadBlock(name="head", channels=1280, dropout=0.2, **common))
    return NetworkSpec(IMAGE, tuple(blocks), classes)


def bignas(
    resolution: int,
    widths: Sequence[int],
    depths: Sequence[int],
    kernels: Sequence[int],
    shortcut: str = "projection",
    classes: int = 1000,
) -> NetworkSpec:
    """A BigNAS child (Yu et al., ECCV 2020, table 1).

    Args:
        resolution: pixels.
        widths: of the stem, the seven stages and the head.
        depths: of the seven stages.
        kernels: of the seven stages.
        shortcut: of the inverted residuals.
        classes: outputs of the classifier.
    """
    blocks: list[Block] = [ConvBlock(name="stem", channels=widths[0], strides=2)]
    strides = (1, 2, 2, 2, 1, 2, 1)
    for stage in range(1, 8):
        blocks += _stage(stage, depths[stage - 1], strides[stage - 1], channels=widths[stage],
                         kernel_size=kernels[stage - 1], expand_ratio=1 if stage == 1 else 6,
                         se=SqueezeExcitation(), shortcut=shortcut)  # fmt: skip
    blocks.append(HeadBlock(name="head", channels=widths[8]))
    return NetworkSpec((resolution, resolution, 3), tuple(blocks), classes)


def attentivenas(
    resolution: int,
    widths: Sequence[int],
    depths: Sequence[int],
    kernels: Sequence[int],
    expands: Sequence[int],
    shortcut: str = "projection",
    classes: int = 1000,
) -> NetworkSpec:
    """An AttentiveNAS child (Wang et al., CVPR 2021, table 1).

    Args:
        resolution: pixels.
        widths: of the stem, the seven stages and the hidden layer of the head.
        depths: of the seven stages.
        kernels: of the seven stages.
        expands: expansion ratios of the seven stages.
        shortcut: of the inverted residuals.
        classes: outputs of the classifier.
    """
    blocks: list[Block] = [ConvBlock(name="stem", channels=widths[0], strides=2)]
    se = SqueezeExcitation(
        relative_to="expanded", divisor=8, activation="relu", gate="hard_sigmoid"
    )
    strides = (1, 2, 2, 2, 1, 2, 1)
    for stage in range(1, 8):
        blocks += _stage(stage, depths[stage - 1], strides[stage - 1], channels=widths[stage],
                         kernel_size=kernels[stage - 1], expand_ratio=expands[stage - 1],
                         se=se if stage in (3, 5, 6, 7) else None,
                         shortcut=shortcut)  # fmt: skip
    blocks.append(
        MobileNetV3HeadBlock(
            name="head", channels=6 * widths[7], features=widths[8], features_bias=False,
            activation="swish",
        )
    )  # fmt: skip
    return NetworkSpec((resolution, resolution, 3), tuple(blocks), classes)


def _stage(stage: int, depth: int, strides: int, **fields) -> list[Block]:
    return [
        MBConvBlock(
            name=f"stage{stage}_block{index}", strides=strides if index == 1 else 1, **fields
        )
        for index in range(1, depth + 1)
    ]


@register_block("pair_cell")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PairCellBlock(Block):
    """A cell of two inputs: both are projected, pooled and concatenated with the first."""

    arity = 2
    channels: int

    def ops(self, writer: OpWriter, *inputs: Tensor) -> Tensor:
        left, right = (
            writer.batch_norm(f"{side}_bn", writer.conv(f"{side}_conv", x, self.channels, 1))
            for side, x in zip(("left", "right"), inputs, strict=True)
        )
        left = writer.activation("left_activation", left, "relu")
        biggest = writer.pool("left_pool", left, "max", 3, 1)
        average = writer.pool("right_pool", right, "average", 3, 1)
        return writer.concat("concat", biggest, average, left)


@register_block("split_attention")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitAttentionBlock(Block):
    """A bottleneck whose two branches are weighed per channel (Zhang et al., ResNeSt, 2020).

    The softmax over two branches is the sigmoid of the difference of their logits.
    """

    width: int
    hidden: int
    groups: int = 2

    def ops(self, writer: OpWriter, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        y = self._conv_bn_relu(writer, "reduce", x, self.width, 1)
        branches = [
            self._conv_bn_relu(writer, f"branch{index}", y, self.width, 3, groups=self.groups)
            for index in (1, 2)
        ]
        pooled = writer.global_pool("pool", writer.add("sum", *branches), keepdims=True)
        hidden = self._conv_bn_relu(writer, "hidden", pooled, self.hidden, 1)
        one, two = (
            writer.conv(f"logits{index}", hidden, self.width, 1, use_bias=True) for index in (1, 2)
        )
        gates = [
            writer.activation("gate1", writer.subtract("difference1", one, two), "sigmoid", True),
            writer.activation("gate2", writer.subtract("difference2", two, one), "sigmoid", True),
        ]
        scaled = [
            writer.multiply(f"scale{index}", branch, gate)
            for index, (branch, gate) in enumerate(zip(branches, gates, strict=True), 1)
        ]
        y = writer.conv("project_conv", writer.add("mix", *scaled), x.channels, 1)
        y = writer.batch_norm("project_bn", y, zero_gamma=True)
        return writer.activation("activation", writer.add("add", x, y), "relu")

    def _conv_bn_relu(
        self, writer: OpWriter, name: str, x: Tensor, channels: int, kernel_size: int, **fields
    ) -> Tensor:
        x = writer.conv(f"{name}_conv", x, channels, kernel_size, **fields)
        return writer.activation(f"{name}_relu", writer.batch_norm(f"{name}_bn", x), "relu")


def cell_network() -> NetworkSpec:
    """A stem that two convolutions read, and the cell that reads both."""
    relu = {"activation": "relu"}
    return NetworkSpec(
        (10, 10, 3),
        (
            ConvBlock(name="stem", channels=8, strides=2, **relu),
            ConvBlock(name="left", channels=6, kernel_size=1, **relu),
            ConvBlock(name="right", inputs=("stem",), channels=4, groups=4, **relu),
            PairCellBlock(name="cell", inputs=("left", "right"), channels=5),
            HeadBlock(name="head"),
        ),
        classes=7,
    )


def split_attention_network() -> NetworkSpec:
    """One split-attention bottleneck on an image of four channels."""
    return NetworkSpec(
        (8, 8, 4),
        (SplitAttentionBlock(name="bottleneck", width=6, hidden=3), HeadBlock(name="head")),
        classes=2,
    )
