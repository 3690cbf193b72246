"""Stretches of a finished network, run as one function each.

Calling TensorFlow for one op at a time costs a small network as much time as its arithmetic.
A stretch is traced once for all networks that have it, whatever its ops are called there, and
for any number of images.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import keras

from bignas_tf.ops import Op
from bignas_tf.primitives import apply_finished

Weights = Mapping[str, Any]
# From tensors by name to those of them, and of what the stretch computes, that are needed after it.
Stretch = Callable[[Mapping[str, Any]], dict[str, Any]]
_Shapes = tuple[tuple[str, tuple[int | None, ...], str], ...]


def stretch(ops: Sequence[Op], weights: Weights, needed: Set[str]) -> Stretch:
    """A function that runs ops of a finished network in inference mode.

    Args:
        ops: that follow each other.
        weights: tensors by `op/weight`, moving statistics included.
        needed: names of tensors that are read after them.

    Returns:
        From tensors by name, all that the ops read among them, to what is needed of them and of
        what the ops compute.
    """
    read = dict.fromkeys(name for op in ops for name in op.inputs)
    for op in ops:
        read.pop(op.name, None)
    short = {name: f"input{number}" for number, name in enumerate(read)}
    short |= {op.name: f"op{number}" for number, op in enumerate(ops)}
    own = {path: value for path, value in weights.items() if path.rpartition("/")[0] in short}
    renamed = {_renamed(path, short): value for path, value in own.items()}
    anonymous = tuple(
        dataclasses.replace(
            op, name=short[op.name], inputs=tuple(short[name] for name in op.inputs), block=""
        )
        for op in ops
    )
    wanted = tuple(op.name for op in ops if op.name in needed)
    outputs = tuple(short[name] for name in wanted)

    def run(tensors: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {short[name]: tensors[name] for name in read}
        if keras.backend.backend() == "tensorflow":
            function = _traced(anonymous, outputs, _shapes(renamed), _shapes(inputs, batch=True))
            found = function(renamed, inputs)
        else:
            found = _run(anonymous, outputs, renamed, inputs)
        kept = {name: tensor for name, tensor in tensors.items() if name in needed}
        return kept | dict(zip(wanted, found, strict=True))

    return run


def _renamed(path: str, short: Mapping[str, str]) -> str:
    op, _, weight = path.rpartition("/")
    return f"{short[op]}/{weight}"


def _run(
    ops: Sequence[Op], outputs: Sequence[str], weights: Weights, inputs: Mapping[str, Any]
) -> list[Any]:
    tensors = dict(inputs)
    for op in ops:
        tensors[op.name] = apply_finished(op, weights, *(tensors[name] for name in op.inputs))
    return [tensors[name] for name in outputs]


def _shapes(tensors: Mapping[str, Any], batch: bool = False) -> _Shapes:
    """Names, shapes and types; with `batch` the first axis may have any length."""
    return tuple(
        (name, (None, *tensor.shape[1:]) if batch else tuple(tensor.shape), tensor.dtype.name)
        for name, tensor in tensors.items()
    )


@functools.cache
def _traced(
    ops: tuple[Op, ...], outputs: tuple[str, ...], weights: _Shapes, inputs: _Shapes
) -> Any:
    import tensorflow as tf

    signature = [
        {name: tf.TensorSpec(shape, dtype) for name, shape, dtype in shapes}
        for shapes in (weights, inputs)
    ]
    run = functools.partial(_run, ops, outputs)
    return tf.function(run, input_signature=signature, autograph=False)
