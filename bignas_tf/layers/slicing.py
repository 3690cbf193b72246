"""How a child's part of a weight is taken: by slice or by mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops as K

from bignas_tf.checks import require

Size = Any  # int, int32 scalar tensor, or None for the largest


def centre(kernel: Any, kernel_size: Size, max_kernel_size: int) -> Any:
    """The centre of the two leading axes of `kernel`; arrays and tensors alike."""
    if kernel_size is None or (isinstance(kernel_size, int) and kernel_size == max_kernel_size):
        return kernel
    start = (max_kernel_size - kernel_size) // 2
    return kernel[start : start + kernel_size, start : start + kernel_size]


def first(weight: Any, axis: int, size: Size) -> Any:
    """The first `size` entries of `weight` along `axis`; arrays and tensors alike."""
    if size is None or (isinstance(size, int) and size == weight.shape[axis]):
        return weight
    index: list[Any] = [slice(None)] * len(weight.shape)
    index[axis] = slice(None, size)
    return weight[tuple(index)]


def channel_mask(max_channels: int, channels: Size, dtype: str) -> Any:
    """1 for the first `channels` of `max_channels`, 0 beyond: `(max_channels,)`."""
    return K.cast(K.arange(max_channels, dtype="int32") < channels, dtype)


def ring_mask(max_kernel_size: int, kernel_size: Size, dtype: str) -> Any:
    """1 at the centre `kernel_size` x `kernel_size` of a kernel, 0 around it: `(k, k, 1, 1)`."""
    radius = np.abs(np.arange(max_kernel_size) - max_kernel_size // 2)
    ring = np.maximum(radius[:, None], radius[None, :])[:, :, None, None]
    return K.cast(2 * K.convert_to_tensor(ring, "int32") < kernel_size, dtype)


def check_channels(channels: Size, max_channels: int) -> None:
    """Refuses a number of channels, given as int, that the weights do not have."""
    if isinstance(channels, int):
        require(1 <= channels <= max_channels, "channels", f"1 to {max_channels}", channels)


def check_inputs(inputs: Any, max_channels: int, masked: bool) -> None:
    """Refuses inputs, where their width is known, that are too wide, or masked and not whole."""
    width = inputs.shape[-1]
    if width is None:
        return
    ok = width == max_channels if masked else width <= max_channels
    allowed = f"{'' if masked else 'at most '}{max_channels} channels wide"
    require(ok, "inputs", allowed, width)


def check_odd(max_kernel_size: int) -> None:
    """Refuses even kernel sizes: they have no centre."""
    if max_kernel_size % 2 == 0:
        raise ValueError(f"`max_kernel_size` must be odd. Received: {max_kernel_size}")


def check_kernel_size(kernel_size: Size, max_kernel_size: int, strides: int) -> None:
    """Refuses a kernel size, given as int, that the weights do not contain."""
    if not isinstance(kernel_size, int):
        return
    if kernel_size % 2 == 0 or not 1 <= kernel_size <= max_kernel_size:
        raise ValueError(
            f"`kernel_size` must be odd and at most {max_kernel_size}. Received: {kernel_size}"
        )
    if kernel_size == 1 < max_kernel_size and strides > 1:
        raise ValueError(
            "`kernel_size` must not be 1 where a larger kernel has stride 2: with 'same' padding "
            f"its centre looks elsewhere. Received: {kernel_size}"
        )
