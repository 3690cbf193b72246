"""Cutting children out of a trained supernet."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bignas_tf.checks import require
from bignas_tf.child import build_child
from bignas_tf.spaces import Genotype
from bignas_tf.supernet import Supernet


def extract(supernet: Supernet, genotype: Genotype, **arguments: Any) -> keras.Model:
    """Builds a child and gives it the supernet's weights, by equal names.

    Its moving statistics are still those of a new layer: calibrate it
    (`bignas_tf.calibration.calibrate`) before running it in inference mode.

    Args:
        supernet: the trained supernet.
        genotype: of its space.
        arguments: of `bignas_tf.child.build_child`.

    Returns:
        A functional model of stock layers that needs nothing of this package.

    Raises:
        ValueError: for a genotype of another space.
    """
    if genotype not in supernet.space:
        raise ValueError(
            f"`genotype` must be of space '{supernet.space.name}'. Received: {genotype!r}"
        )
    arguments.setdefault("dtype", supernet.dtype_policy)
    child = build_child(genotype.spec(), **arguments)
    assign_weights(child, supernet.child_weights(genotype))
    return child


def weights_identity(arrays: Mapping[str, np.ndarray]) -> str:
    """Eight hexadecimal digits that tell weights apart, whatever their order.

    Args:
        arrays: by path, such as `Supernet.weight_arrays` gives them.
    """
    identity = 0
    for path in sorted(arrays):
        array = np.ascontiguousarray(arrays[path])
        identity = zlib.crc32(f"{path} {array.dtype} {array.shape}".encode(), identity)
        identity = zlib.crc32(array.tobytes(), identity)
    return f"{identity:08x}"


def assign_weights(child: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Sets the variables of a child whose paths are in `weights`; all trainable ones must be.

    Raises:
        ValueError: if a trainable variable has no weight, a weight no variable, or one
            another shape; nothing is changed then.
    """
    variables = {variable.path: variable for variable in child.variables}
    trainable = {variable.path for variable in child.trainable_variables}
    missing, unknown = trainable - set(weights), set(weights) - set(variables)
    if missing or unknown:
        raise ValueError(
            f"`weights` must be those of the child. Received: missing {sorted(missing)[:3]}, "
            f"unknown {sorted(unknown)[:3]}"
        )
    for path, array in weights.items():
        shape = tuple(variables[path].shape)
        require(array.shape == shape, "weights", f"of shape {shape} at '{path}'", array.shape)
    for path, array in weights.items():
        variables[path].assign(array)
