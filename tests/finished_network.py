"""A finished network in float64 NumPy, op by op, as an independent reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bignas_tf import ops
from bignas_tf.spec import NetworkSpec

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "swish": lambda x: x / (1 + np.exp(-x)),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


def windows(x: np.ndarray, size: int, strides: int, fill: float) -> np.ndarray:
    """All windows `(batch, height, width, channels, size, size)`, padding "same"."""
    pads = [(0, 0)]
    for length in x.shape[1:3]:
        total = max((-(-length // strides) - 1) * strides + size - length, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [*pads, (0, 0)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return view[:, ::strides, ::strides]


def apply(op: ops.Op, weights: Mapping[str, np.ndarray], x: np.ndarray, *others) -> np.ndarray:
    """Output of one op; batch norm reads its moving statistics from `weights`."""
    own = {
        path.rpartition("/")[2]: w for path, w in weights.items() if path.startswith(f"{op.name}/")
    }
    match op:
        case ops.Conv():
            view = windows(x, op.kernel_size, op.strides, 0.0)
            return np.einsum("bhwcij,ijcf->bhwf", view, own["kernel"]) + own.get("bias", 0.0)
        case ops.DepthwiseConv():
            view = windows(x, op.kernel_size, op.strides, 0.0)
            return np.einsum("bhwcij,ijc->bhwc", view, own["kernel"][..., 0])
        case ops.BatchNorm():
            scale = own["gamma"] / np.sqrt(own["moving_variance"] + op.epsilon)
            return (x - own["moving_mean"]) * scale + own["beta"]
        case ops.Activation():
            return ACTIVATIONS[op.function](x)
        case ops.Pool(kind="average"):
            return np.nanmean(windows(x, op.pool_size, op.strides, np.nan), (-1, -2))
        case ops.GlobalPool():
            return x.mean((1, 2), keepdims=op.keepdims)
        case ops.Dropout():
            return x
        case ops.Dense():
            return x @ own["kernel"] + own.get("bias", 0.0)
        case ops.Add():
            return x + others[0]
        case ops.Multiply():
            return x * others[0]
    raise AssertionError(op)


def run(
    spec: NetworkSpec,
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
    statistics: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """All tensors by name.

    Args:
        spec: the network.
        weights: by `op/weight`, with moving statistics, unless
        statistics: is given: then those of every batch norm's input over all images are used
            and added to it.
        images: in the input range.
    """
    weights = {path: np.asarray(array, np.float64) for path, array in weights.items()}
    tensors = {ops.INPUT: images.astype(np.float64)}
    for op in spec.ops():
        inputs = [tensors[name] for name in op.inputs]
        if statistics is not None and isinstance(op, ops.BatchNorm):
            found = {
                f"{op.name}/moving_mean": inputs[0].mean((0, 1, 2)),
                f"{op.name}/moving_variance": inputs[0].var((0, 1, 2)),
            }
            statistics |= found
            weights |= found
        tensors[op.name] = apply(op, weights, *inputs)
    return tensors
