"""Specs of published networks, and blocks that only the tests define."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bignas_tf.blocks import (
    Block,
    ConvBlock,
    HeadBlock,
    MBConvBlock,
    MobileNetV3HeadBlock,
    SqueezeExcitation,
)
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
