"""Which operations an image gets: AutoAugment's fixed policies, and RandAugment.

Magnitudes are the published ranges: shears of up to 0.3, translations of 150 of 331 pixels,
rotations of 30 degrees, each with a random sign; 4 to 8 bits for posterize, thresholds of 0 to 256
for solarize, factors of 0.1 to 1.9 for color, contrast, brightness and sharpness. A level of 0 is
the weakest of posterize and solarize (8 bits, 256), and a factor of 0.1. `autoaugment_v0` is the
policy of EfficientNet's code, with the ranges of that code (`efficientnet_value`), where posterize
and solarize are the stronger the lower their level, and translations are pixels of whatever size.

Reference:
    Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data", CVPR 2019,
    arXiv 1805.09501: ranges in table 6, policy found on ImageNet in table 9 of the appendix;
    Cubuk et al., "RandAugment", CVPR workshops 2020, arXiv 1909.13719;
    github.com/tensorflow/tpu, models/official/efficientnet/autoaugment.py: `policy_v0` and
    `level_to_arg`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bignas_tf.data.operations import IDENTITY, OPERATIONS
from bignas_tf.data.streams import Stream, raw, unit

NONE = "none"
KINDS = (NONE, "autoaugment", "autoaugment_v0", "randaugment")
RANDAUGMENT_LEVELS = 10

_SIGNED = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
    "rotate": 30.0,
}
_PIXELS = 250  # of EfficientNet's translations
_FACTORS = ("color", "contrast", "brightness", "sharpness")

# Each line is a sub-policy: operation, probability, level, twice.
# The ImageNet policy of the paper's appendix; levels are 0 to 9. Some lines are there twice.
_PAPER = """
posterize 0.4 8  rotate 0.6 9
solarize 0.6 5  auto_contrast 0.6 5
equalize 0.8 8  equalize 0.6 3
posterize 0.6 7  posterize 0.6 6
equalize 0.4 7  solarize 0.2 4
equalize 0.4 4  rotate 0.8 8
solarize 0.6 3  equalize 0.6 7
posterize 0.8 5  equalize 1.0 2
rotate 0.2 3  solarize 0.6 8
equalize 0.6 8  posterize 0.4 6
rotate 0.8 8  color 0.4 0
rotate 0.4 9  equalize 0.6 2
equalize 0.0 7  equalize 0.8 8
invert 0.6 4  equalize 1.0 8
color 0.6 4  contrast 1.0 8
rotate 0.8 8  color 1.0 2
color 0.8 8  solarize 0.8 7
sharpness 0.4 7  invert 0.6 8
shear_x 0.6 5  equalize 1.0 9
color 0.4 0  equalize 0.6 3
equalize 0.4 7  solarize 0.2 4
solarize 0.6 5  auto_contrast 0.6 5
invert 0.6 4  equalize 1.0 8
color 0.6 4  contrast 1.0 8
equalize 0.8 8  equalize 0.6 3
"""
# The sub-policies that EfficientNet was published with, "v0" in its code; levels are 0 to 10.
_V0 = """
equalize 0.8 1  shear_y 0.8 4
color 0.4 9  equalize 0.6 3
color 0.4 1  rotate 0.6 8
solarize 0.8 3  equalize 0.4 7
solarize 0.4 2  solarize 0.6 2
color 0.2 0  equalize 0.8 8
equalize 0.4 8  solarize_add 0.8 3
shear_x 0.2 9  rotate 0.6 8
color 0.6 1  equalize 1.0 2
invert 0.4 9  rotate 0.6 0
equalize 1.0 9  shear_y 0.6 3
color 0.4 7  equalize 0.6 0
posterize 0.4 6  auto_contrast 0.4 7
solarize 0.6 8  color 0.6 9
solarize 0.2 4  rotate 0.8 9
rotate 1.0 7  translate_y_pixels 0.8 9
shear_x 0.0 0  solarize 0.8 4
shear_y 0.8 0  color 0.6 4
color 1.0 0  rotate 0.6 2
equalize 0.8 4  equalize 0.0 8
equalize 1.0 4  auto_contrast 0.6 2
shear_y 0.4 7  solarize_add 0.6 7
posterize 0.8 2  solarize 0.6 10
solarize 0.6 8  equalize 0.6 1
color 0.8 6  rotate 0.4 5
"""
_RANDAUGMENT = (
    IDENTITY, "auto_contrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast",
    "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip


def operation_value(name: str, strength: float, negative: bool = False) -> float:
    """Returns the number that `operate` takes, in the paper's ranges.

    Args:
        name: of `OPERATIONS`.
        strength: float in [0, 1], level over the greatest level.
        negative: the sign, of operations that have one.
    """
    if name in _SIGNED:
        return (-1 if negative else 1) * _SIGNED[name] * strength
    if name in _FACTORS:
        return 0.1 + 1.8 * strength
    if name == "posterize":
        return 8.0 - round(4 * strength)
    return 256.0 - round(256 * strength) if name == "solarize" else 0.0


def efficientnet_value(name: str, strength: float, negative: bool = False) -> float:
    """Returns the number that `operate` takes, in the ranges of EfficientNet's code.

    They are the paper's but for four operations, whole numbers being rounded down: 0 to 4 bits stay
    for posterize, the threshold of solarize is 0 to 256, `solarize_add` adds up to 110, and
    translations are of up to 250 pixels, as that code sets it for AutoAugment (100 are its
    RandAugment's).

    A level at which no bit is left keeps one: that code then shifts bytes by 8, which TensorFlow
    does by 7 on a CPU. At 256 solarize changes nothing here; there it depends on what the version
    of TensorFlow makes of 256 as a byte.

    Args:
        name: of `OPERATIONS`.
        strength: float in [0, 1], level over the greatest level.
        negative: the sign, of operations that have one.
    """
    if name == "posterize":
        return float(max(1, int(4 * strength)))
    if name == "solarize":
        return float(int(256 * strength))
    if name == "solarize_add":
        return float(int(110 * strength))
    if name == "translate_y_pixels":
        return (-1 if negative else 1) * _PIXELS * strength
    return operation_value(name, strength, negative)


# Sub-policies, the greatest level, and what a level means.
_TABLES = {
    "autoaugment": (_PAPER, 9, operation_value),
    "autoaugment_v0": (_V0, 10, efficientnet_value),
}


def draw_operations(
    kind: str, n: int, *, seed: int, epoch: int, layers: int, magnitude: float
) -> dict[str, np.ndarray]:
    """Draws the operations of an epoch.

    Args:
        kind: of `KINDS`, not 'none'.
        n: int, number of examples.
        seed: int in [0, 2**64).
        epoch: int, 0 or more.
        layers: int, operations an image gets from RandAugment, which AutoAugment has 2 of.
        magnitude: float in [0, 10], RandAugment's level.

    Returns:
        'operations' int8 `(n, layers)`, positions in `OPERATIONS`, 0 where none was drawn;
        'values' float32 of the same shape, what `operate` takes.
    """
    if kind == "randaugment":
        numbers = unit(raw(Stream.OPERATIONS, 2 * layers * n, seed=seed, epoch=epoch))
        which, sign = np.moveaxis(numbers.reshape(n, layers, 2), -1, 0)
        strength = magnitude / RANDAUGMENT_LEVELS
        names, values = _values(_RANDAUGMENT, [strength] * len(_RANDAUGMENT), operation_value)
        chosen = (which * len(_RANDAUGMENT)).astype(np.int64)
        return _drawn(names[chosen], values[chosen], sign, True)
    table, levels, value_of = _TABLES[kind]
    cells = [line.split() for line in table.split("\n") if line]
    flat = [cell[i : i + 3] for cell in cells for i in (0, 3)]
    names, values = _values([c[0] for c in flat], [int(c[2]) / levels for c in flat], value_of)
    probabilities = np.array([float(c[1]) for c in flat]).reshape(-1, 2)
    numbers = unit(raw(Stream.OPERATIONS, 5 * n, seed=seed, epoch=epoch)).reshape(n, 5)
    row = (numbers[:, 0] * len(cells)).astype(np.int64)
    names, values = names.reshape(-1, 2), values.reshape(-1, 2, 2)
    applied = numbers[:, 1:3] < probabilities[row]
    return _drawn(names[row], values[row], numbers[:, 3:], applied)


def _values(
    names: list[str] | tuple[str, ...], strengths: list[float], value_of: Callable[..., float]
) -> tuple:
    """Positions of operations, int8 `(k,)`, and their numbers with either sign, `(k, 2)`."""
    values = [
        [value_of(name, strength, negative) for negative in (False, True)]
        for name, strength in zip(names, strengths, strict=True)
    ]
    return np.array([OPERATIONS.index(name) for name in names], np.int8), np.array(values)


def _drawn(
    operations: np.ndarray, values: np.ndarray, sign: np.ndarray, applied: np.ndarray | bool
) -> dict[str, np.ndarray]:
    signed = np.where(sign < 0.5, values[..., 0], values[..., 1])
    return {
        "operations": np.where(applied, operations, np.int8(0)),
        "values": np.where(applied, signed, 0.0).astype(np.float32),
    }
