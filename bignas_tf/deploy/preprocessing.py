"""Where pixels become a model's input range: inside the file or before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bignas_tf.checks import require_choice

PREPROCESSING = INSIDE, OUTSIDE = ("inside", "outside")
BYTES = (0.0, 255.0)  # black and white of images that a model preprocesses itself
_UNIT = 1.01  # 255 times a rounded 1/255 is not quite 1


def range_of(metadata: Mapping[str, Any]) -> tuple[float, float]:
    """A model's values of black and white, (-1, 1) if its metadata do not tell.

    Raises:
        ValueError: if they are not two numbers.
    """
    values = metadata.get("input_range", (-1.0, 1.0))
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"`input_range` must be two numbers. Received: {values!r}") from None
    return low, high


def leading_rescaling(model: Any) -> Any:
    """The `Rescaling` layer, or one made of it, that a model begins with, or None.

    Args:
        model: of Keras or tf_keras.
    """
    layers = (layer for layer in model.layers if type(layer).__name__ != "InputLayer")
    first = next(layers, None)
    kinds = [kind.__name__ for kind in type(first).__mro__]
    return first if "Rescaling" in kinds else None


def range_inside(model: Any) -> tuple[float, float] | None:
    """Where a leading `Rescaling` takes 0 and 255, if it is to [-1, 1] or [0, 1].

    None for any other, such as one with a factor for each channel.
    """
    rescaling = leading_rescaling(model)
    if rescaling is None or np.ndim(rescaling.scale) or np.ndim(rescaling.offset):
        return None
    ends = np.multiply(BYTES, rescaling.scale) + rescaling.offset
    return (float(ends[0]), float(ends[1])) if np.max(np.abs(ends)) < _UNIT else None


def placed(
    model: Any, metadata: Mapping[str, Any], preprocessing: str | None = None
) -> tuple[Any, dict[str, Any]]:
    """A model with its preprocessing where it is wanted.

    Args:
        model: functional Keras model.
        metadata: of the model; `input_range` tells what it takes now.
        preprocessing: `"inside"`: the model takes pixels of 0 to 255 and begins with a
            `Rescaling`; `"outside"`: it takes the range that such a layer would give; None
            leaves it.

    Returns:
        The model and its metadata, with `input_range` and `preprocessing`.

    Raises:
        ValueError: for another word, and for a model of bytes without a `Rescaling`, to
            [-1, 1] or [0, 1], to take away.
    """
    import keras

    low, high = range_of(metadata)
    is_inside = (low, high) == BYTES
    if preprocessing is not None:
        require_choice("preprocessing", preprocessing, PREPROCESSING)
    if preprocessing == INSIDE and not is_inside:
        inputs = keras.Input(model.inputs[0].shape[1:], name="pixels")
        rescaling = keras.layers.Rescaling((high - low) / 255, low, name="rescaling")
        model = keras.Model(inputs, model(rescaling(inputs)), name=model.name)
        low, high = BYTES
    elif preprocessing == OUTSIDE and is_inside:
        inner = range_inside(model)
        if inner is None:
            raise ValueError(
                "`preprocessing` must be 'inside' for a model of bytes that begins with no "
                "Rescaling layer to [-1, 1] or [0, 1]. Received: 'outside'"
            )
        model = keras.Model(leading_rescaling(model).output, model.outputs[0], name=model.name)
        low, high = (float(round(end)) for end in inner)
    place = INSIDE if (low, high) == BYTES else OUTSIDE
    return model, {**metadata, "input_range": [low, high], "preprocessing": place}


def in_range(images: np.ndarray, input_range: Sequence[float]) -> np.ndarray:
    """Brings images to a model's input range.

    A model of bytes gets whole numbers from 0 to 255, as a camera gives them: a bicubic
    resize leaves fractions, and overshoots at edges.

    Args:
        images: float, black is -1 and white 1.
        input_range: the model's values of black and white.

    Returns:
        Same shape, float32.
    """
    black, white = input_range
    if (black, white) == (-1.0, 1.0):
        return images
    mapped = (images + 1) * np.float32((white - black) / 2) + np.float32(black)
    return np.clip(np.round(mapped), *BYTES) if (black, white) == BYTES else mapped
