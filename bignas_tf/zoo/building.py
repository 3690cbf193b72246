"""Models of the zoo's networks, or of any, with the arguments of keras.applications."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsIndex

import keras

from bignas_tf.checks import as_int, is_int, require, require_choice, require_int
from bignas_tf.child import POOLINGS, TOP, build_child
from bignas_tf.files import read_json
from bignas_tf.ops import shapes
from bignas_tf.spec import NetworkSpec
from bignas_tf.zoo.presets import get_preset, get_spec, list_models
from bignas_tf.zoo.weights import find_weights, load_weights

ImageShape = tuple[SupportsIndex | None, SupportsIndex | None, SupportsIndex]
Weights = str | os.PathLike[str] | None


def get_model(name: str, /, **arguments: Any) -> tuple[keras.Model, int]:
    """Builds a preset's network.

    Args:
        name: one of `list_models()`.
        arguments: of `from_spec`; `weights` may also be the name of weights that come with the
            package, such as "cifar10".

    Returns:
        `(model, resolution)`: the model, and the height and width in pixels of the images that
        it takes; of one that takes any size or images that are not square, of those that its
        preset was made for.

    Raises:
        TypeError: for an argument that `from_spec` does not have.
        ValueError: for an unknown name, and as `from_spec`.
    """
    spec = get_spec(name)
    allowed = tuple(inspect.signature(from_spec).parameters)[1:]
    if unknown := [argument for argument in arguments if argument not in allowed]:
        raise TypeError(
            f"arguments of get_model() after `name` must be among {', '.join(allowed)}. "
            f"Received: {', '.join(unknown)}"
        )
    model = build_model(name, spec=spec, **{"name": name, **arguments})
    height, width = model.inputs[0].shape[1:3]
    fixed = height is not None and height == width
    return model, height if fixed else get_preset(name)["resolution"]


def from_spec(
    spec: NetworkSpec | str | os.PathLike[str],
    include_top: bool = True,
    weights: Weights = None,
    input_tensor: Any = None,
    input_shape: ImageShape | None = None,
    pooling: str | None = None,
    classes: SupportsIndex | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
) -> keras.Model:
    """Builds any network as keras.applications builds theirs.

    Images are floats in [0, 255], which the first layer maps to [-1, 1]. With
    `include_preprocessing=False` give values in [-1, 1].

    Args:
        spec: the network, or the path of a JSON file that has it: that of a child
            (`bignas extract` writes one beside each) or of a network alone.
        include_top: whether to build the classifier.
        weights: None for random initialization, the path of a `.weights.h5` file that
            `save_weights` of the same model wrote, or its address: `https://...#sha256=HASH`
            (or `http://`), or with the extra `hf`
            `hf://OWNER/REPOSITORY[@REVISION]/PATH#sha256=HASH`. A file of the whole model also
            loads with `include_top=False` and for other `classes`, whose classifier then keeps
            its initial weights, which a warning tells.
        input_tensor: Keras tensor `(batch, height, width, channels)` to use as image input.
        input_shape: `(height, width, channels)`, height and width None for any, or at least as
            many pixels as the network reduces to one. By default the spec's, without the top
            `(None, None, channels)`.
        pooling: used where `include_top` is False. None: the output is the feature map of
            the last convolution; "avg" or "max": its mean or maximum over height and width.
        classes: number of classes, the spec's by default; used where `include_top` is True.
        classifier_activation: activation of the classifier, a name or a callable; None
            gives logits. Used where `include_top` is True; only None and "softmax" if
            `weights` are loaded too.
        include_preprocessing: whether the first layer maps [0, 255] to [-1, 1].
        name: of the model.

    Returns:
        A `keras.Model` from images to `(batch, classes)`; without the top to
        `(batch, height, width, channels)` or, pooled, `(batch, channels)`. Its attribute `spec`
        is its `NetworkSpec`; what `keras.models.clone_model` and `load_model` return has no such
        attribute.

    Raises:
        ValueError: for an argument that is not as described, and for a weights file that is
            missing, has another hash or does not fit.
        ConnectionError: if weights cannot be downloaded; the message says where to put them.
    """
    if not isinstance(spec, NetworkSpec):
        spec = _read(spec)
    return build_model(
        None, include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name, spec,
    )  # fmt: skip


def build_model(
    preset: str | None,
    include_top: bool = True,
    weights: Weights = None,
    input_tensor: Any = None,
    input_shape: ImageShape | None = None,
    pooling: str | None = None,
    classes: SupportsIndex | None = None,
    classifier_activation: str | Callable | None = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    spec: NetworkSpec | None = None,
) -> keras.Model:
    """What `get_model`, `from_spec` and the zoo's functions do; `from_spec` has the arguments.

    They call it themselves: a warning of `load_weights` counts its callers.
    """
    if spec is None:
        spec = get_spec(preset)  # type: ignore[arg-type]
    require(isinstance(include_top, bool), "include_top", "True or False", include_top)
    ok = isinstance(include_preprocessing, bool)
    require(ok, "include_preprocessing", "True or False", include_preprocessing)
    if pooling is not None:
        require_choice("pooling", pooling, POOLINGS)
    classes = spec.classes if classes is None else as_int(classes)
    require_int("classes", classes)
    _check_activation(classifier_activation, include_top and weights is not None)
    shape = _input_shape(spec, include_top, input_tensor, input_shape)
    path = find_weights(weights, preset)
    if input_tensor is None:
        input_tensor = keras.Input(shape, name="input")
    size = [side or default for side, default in zip(shape[:2], spec.input_shape[:2], strict=True)]
    model = build_child(
        spec.with_classes(classes).with_input_shape((*size, shape[2])),
        include_top=include_top,
        pooling=pooling,
        classifier_activation=classifier_activation,
        include_preprocessing=include_preprocessing,
        input_tensor=input_tensor,
        name=name,
    )
    if path is not None:
        load_weights(model, path)
    return model


def _read(path: Any) -> NetworkSpec:
    allowed = "a NetworkSpec, or the path of the JSON of a child or a network"
    if path in list_models():
        allowed += "; the networks of presets are built by get_model()"
    ok = isinstance(path, (str, os.PathLike)) and Path(path).is_file()
    require(ok, "spec", allowed, path)
    content = read_json(Path(path))
    ok = isinstance(content, dict) and ("spec" in content or "blocks" in content)
    require(ok, "spec", allowed, str(path))
    return NetworkSpec.from_json(content.get("spec", content))


def _check_activation(activation: str | Callable | None, loads_top: bool) -> None:
    allowed = "None, the name of an activation or a callable"
    try:
        found = keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`classifier_activation` must be {allowed}. Received: {activation!r}"
        ) from error
    # As keras.applications do: what trained weights give is logits.
    known = (keras.activations.get(None), keras.activations.softmax)
    allowed = "None or 'softmax' when `weights` are loaded with `include_top=True`"
    require(not loads_top or found in known, "classifier_activation", allowed, activation)


def _input_shape(
    spec: NetworkSpec, include_top: bool, tensor: Any, shape: Any
) -> tuple[int | None, int | None, int]:
    """`(height, width, channels)` of the images, None where any size is accepted."""
    if isinstance(shape, (tuple, list)):
        shape = tuple(as_int(side) for side in shape)
    if tensor is not None:
        require(keras.utils.is_keras_tensor(tensor), "input_tensor", "a Keras tensor", tensor)
        found = tuple(tensor.shape)[1:]
        require(
            len(found) == 3 and is_int(found[-1]),
            "input_tensor", "(batch, height, width, channels)", tuple(tensor.shape),
        )  # fmt: skip
        require(
            shape is None or (isinstance(shape, tuple) and shape == found),
            "input_shape", f"left out or that of `input_tensor`, {found}", shape,
        )  # fmt: skip
        shape = found
    if shape is None:
        own = spec.input_shape
        return own if include_top else (None, None, own[2])  # type: ignore[return-value]
    least = _reduction(spec)
    ok = isinstance(shape, tuple) and len(shape) == 3 and is_int(shape[2])
    ok = ok and all(side is None or is_int(side, least) for side in shape[:2])
    allowed = f"(height, width, channels), height and width None or at least {least}"
    require(ok, "input_shape", allowed, shape)
    return shape


def _reduction(spec: NetworkSpec) -> int:
    """Pixels of the image's side to one of the last feature map."""
    below = [op.name for op in spec.ops() if op.block != TOP]
    if not below:
        return 1
    side = 1024
    found = shapes(spec.ops(), (side, side, spec.input_shape[2]))[below[-1]]
    return math.ceil(side / found[0]) if len(found) == 3 else 1
