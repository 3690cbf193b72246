"""The state of an optimizer as named arrays, as checkpoints keep it.

Keras's own way to save an optimizer numbers its variables; these names say which weight a slot
is of, so that what does not fit can be told by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bignas_tf.checks import require
from bignas_tf.training.checkpoints import CheckpointError


def optimizer_arrays(optimizer: keras.optimizers.Optimizer) -> dict[str, np.ndarray]:
    """Copies the state of a built optimizer out, under names that any process repeats.

    A slot is `slot/0003/dense/kernel`: the optimizer's own name for the slot, the
    position of the weight among the optimizer's weights, and the weight's path without
    the numbers that Keras appends to default names (`dense_7`), which depend on what
    else the process has built.

    Args:
        optimizer: on which `build(variables)` was called.

    Returns:
        `iterations` (int64, 0-d), `learning_rate` (0-d, only without a schedule), and
        the slots, each of its weight's shape.

    Raises:
        ValueError: if the optimizer is not built or has state of an unknown layout.
    """
    # `np.array(variable)` and Keras's `convert_to_numpy` warn under NumPy 2.
    arrays = {
        name: np.asarray(variable).copy() for name, variable in _named_variables(optimizer).items()
    }
    # int64 under TensorFlow, int32 under JAX.
    arrays["iterations"] = arrays["iterations"].astype(np.int64)
    return arrays


def restore_optimizer(
    optimizer: keras.optimizers.Optimizer, arrays: Mapping[str, np.ndarray]
) -> None:
    """Puts `optimizer_arrays` back into an optimizer built on the same weights.

    Nothing is changed unless everything fits.

    Args:
        optimizer: on which `build(variables)` was called.
        arrays: what `optimizer_arrays` returned, and nothing else.

    Raises:
        CheckpointError: if names, shapes or types differ; lists them.
    """
    variables = _named_variables(optimizer)
    differences = [f"missing {name}" for name in variables if name not in arrays]
    differences += [f"unexpected {name}" for name in arrays if name not in variables]
    for name in variables.keys() & arrays.keys():
        variable, array = variables[name], arrays[name]
        dtype = keras.backend.standardize_dtype(variable.dtype)
        wanted = ("int64" if name == "iterations" else dtype, tuple(variable.shape))
        given = (array.dtype.name, array.shape)
        if wanted != given:
            differences.append(f"{name} of {given} where {wanted} is needed")
    if differences:
        raise CheckpointError(
            "Optimizer state does not fit this optimizer: " + "; ".join(sorted(differences))
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _named_variables(optimizer: Any) -> dict[str, Any]:
    if not optimizer.built:
        raise ValueError("`optimizer` must be built: call `optimizer.build(variables)` first")
    weights = optimizer._trainable_variables
    own = {id(variable): variable for variable in optimizer.variables}
    # With gradient accumulation the public `iterations` is a quotient of this one.
    named = {"iterations": optimizer._iterations}
    if id(getattr(optimizer, "_learning_rate", None)) in own:
        named["learning_rate"] = optimizer._learning_rate
    for attribute, value in sorted(vars(optimizer).items()):
        # A slot is a list with one variable (or None) for each weight.
        if attribute == "_variables" or not isinstance(value, list):
            continue
        if len(value) != len(weights) or not all(v is None or id(v) in own for v in value):
            continue
        for position, (weight, variable) in enumerate(zip(weights, value, strict=True)):
            if variable is not None:
                path = re.sub(r"_\d+(?=/|$)", "", weight.path)
                named[f"{attribute.lstrip('_')}/{position:04d}/{path}"] = variable
    complete = {id(variable) for variable in named.values()} == set(own)
    layout = "one whose state is lists with one variable per weight"
    require(complete, "optimizer", layout, type(optimizer).__name__)
    return named
