"""The one image resize of the package: bicubic with antialias, as two matrix products.

The matrices are computed on the host, so that every backend resizes alike, and a
resolution known only when the graph runs is just another matrix.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from keras import ops as K

from bignas_tf.primitives import full_precision

A = -0.5  # Keys's parameter, also that of Pillow and of tf.image.resize


def _keys(x: np.ndarray) -> np.ndarray:
    """Keys's cubic kernel."""
    x = np.abs(x)
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = ((A * x - 5 * A) * x + 8 * A) * x - 4 * A
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@functools.lru_cache(maxsize=256)
def resize_matrix(source: int, target: int) -> np.ndarray:
    """Weights that take one axis from `source` to `target` pixels, float32 `(target, source)`.

    Pixel centres are at half-integers; shrinking widens the kernel (antialias); rows sum
    to 1 at the borders too.

    Reference:
        Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    scale = source / target
    support = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale - 0.5
    weights = _keys((np.arange(source)[None, :] - centres[:, None]) / support)
    weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = weights.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def resize_by(images: Any, rows: Any, columns: Any) -> Any:
    """Resizes with given matrices.

    Args:
        images: `(batch, height, width, channels)`, float.
        rows: `(new_height, height)`, from `resize_matrix`.
        columns: `(new_width, width)`.

    Returns:
        `(batch, new_height, new_width, channels)`.
    """
    batch, height, width, channels = (K.shape(images)[axis] for axis in range(4))
    x = K.reshape(images, (batch, height, width * channels))
    with full_precision():
        x = K.matmul(K.cast(rows, images.dtype), x)
        x = K.reshape(x, (batch * K.shape(rows)[0], width, channels))
        x = K.matmul(K.cast(columns, images.dtype), x)
    return K.reshape(x, (batch, K.shape(rows)[0], K.shape(columns)[0], channels))


def resize(images: Any, resolution: int) -> Any:
    """Resizes float images to `resolution` x `resolution`; the identity at that size.

    Args:
        images: `(batch, height, width, channels)` with static height and width.
        resolution: int, in pixels.

    Returns:
        `(batch, resolution, resolution, channels)`.
    """
    height, width = images.shape[1:3]
    if (height, width) == (resolution, resolution):
        return images
    return resize_by(images, resize_matrix(height, resolution), resize_matrix(width, resolution))


def to_input_range(images: Any, dtype: str = "float32") -> Any:
    """Maps uint8 images, 0..255, to the models' input range, -1..1."""
    return K.cast(images, dtype) / 127.5 - 1.0


def prepare(images: Any, resolution: int) -> Any:
    """What evaluation, calibration and export feed a child: -1..1 at its resolution.

    Args:
        images: uint8 `(batch, height, width, channels)`.
        resolution: int, in pixels.

    Returns:
        float32 `(batch, resolution, resolution, channels)`.
    """
    return resize(to_input_range(images), resolution)
