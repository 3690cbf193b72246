"""BigNAS models S, M, L and XL, with the signature of keras.applications.

Reference:
    Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models",
    ECCV 2020, arXiv 2003.11142.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from bignas_tf.checks import is_int, require, require_choice, require_int
from bignas_tf.child import POOLINGS, build_child
from bignas_tf.spec import NetworkSpec
from bignas_tf.zoo.presets import get_spec
from bignas_tf.zoo.trained import weights_file, weights_of

MIN_SIZE = 32
WEIGHTS_SUFFIX = ".weights.h5"
_WEIGHTS = (
    f"either None (random initialization){{}} or the path to the weights file ({WEIGHTS_SUFFIX}) "
    "to be loaded"
)

BASE_DOCSTRING = """Builds the {name} architecture.

    Images are RGB, `(batch, height, width, 3)`, floats in [0, 255]: the first layer maps them
    to [-1, 1]. With `include_preprocessing=False` give values in [-1, 1]. Resize images to
    {resolution} x {resolution} pixels with antialiased bicubic interpolation.

    The paper publishes the cost and accuracy of its models, not their per-stage
    configurations. **The per-stage configuration of this model is ours**: a network of the
    paper's search space whose MACs and parameters are the published ones within 1 %. Nobody
    has trained it on ImageNet and **there are no weights of ours**; the published top-1 is
    that of the paper's own model of this size.

    | model | pixels | MMACs | params | published MMACs | params | top-1 |
    |---|---|---|---|---|---|---|
    | BigNASModelS | 192 | 241.5 | 4.51 M | 242 | 4.5 M | 76.5 % |
    | BigNASModelM | 224 | 416.2 | 5.53 M | 418 | 5.5 M | 78.9 % |
    | BigNASModelL | 224 | 585.8 | 6.38 M | 586 | 6.4 M | 79.5 % |
    | BigNASModelXL | 288 | 1034.8 | 9.42 M | 1040 | 9.5 M | 80.9 % |

    MACs are multiply-accumulates of one image at that resolution. The attribute `spec` of
    the returned model is its `NetworkSpec`.

    Args:
        include_top: whether to build the classifier.
        weights: None for random initialization, or the path of a `.weights.h5` file that
            `save_weights` of the same model wrote. A file of the whole model also loads
            with `include_top=False`.
        input_tensor: Keras tensor `(batch, height, width, channels)` to use as image input.
        input_shape: `(height, width, channels)`, height and width at least 32 or None for
            any. By default `({resolution}, {resolution}, 3)`, without the top
            `(None, None, 3)`.
        pooling: used where `include_top` is False. None: the output is the feature map of
            the last convolution; "avg" or "max": its mean or maximum over height and width.
        classes: number of classes; used where `include_top` is True.
        classifier_activation: activation of the classifier, a name or a callable; None
            gives logits. Used where `include_top` is True; only None and "softmax" if
            `weights` are loaded too.
        include_preprocessing: whether the first layer maps [0, 255] to [-1, 1].
        name: of the model.

    Returns:
        A `keras.Model` from images to `(batch, classes)`; without the top to
        `(batch, ceil(height / 32), ceil(width / 32), channels)` or, pooled,
        `(batch, channels)`.

    Raises:
        ValueError: for an argument that is not as described, for `weights="imagenet"`, and
            for a weights file that is missing or does not fit.

    Reference:
        Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage
        Models", ECCV 2020, table 1 (the space) and table 2 (published figures).
    """


def build_model(
    preset: str,
    include_top: bool,
    weights: str | os.PathLike[str] | None,
    input_tensor: Any,
    input_shape: tuple[int | None, int | None, int] | None,
    pooling: str | None,
    classes: int,
    classifier_activation: str | Callable | None,
    include_preprocessing: bool,
    name: str,
    min_size: int = MIN_SIZE,
) -> keras.Model:
    """Checks the arguments, builds the model and loads its weights."""
    path = _weights_path(preset, weights)
    if pooling is not None:
        require_choice("pooling", pooling, POOLINGS)
    require_int("classes", classes)
    _check_activation(classifier_activation, include_top and path is not None)
    spec = get_spec(preset)
    if include_top and isinstance(weights, str) and weights in weights_of(preset):
        own = spec.classes
        require(classes == own, "classes", f"{own} with weights={weights!r}", classes)
    shape = _input_shape(spec, include_top, input_tensor, input_shape, min_size)
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
        _load(model, path)
    return model


def _weights_path(preset: str, weights: Any) -> Path | None:
    if weights is None:
        return None
    names = weights_of(preset)
    if isinstance(weights, str) and weights in names:
        return weights_file(preset, weights)
    allowed = _WEIGHTS.format("".join(f", {name!r}" for name in names))
    if isinstance(weights, str) and weights == "imagenet":
        raise ValueError(
            f"`weights` must be {allowed}: nobody has trained these "
            "networks on ImageNet yet, so there are no ImageNet weights. Received: 'imagenet'"
        )
    require(isinstance(weights, (str, os.PathLike)), "weights", allowed, weights)
    path = Path(weights)
    ok = path.name.endswith(WEIGHTS_SUFFIX) and path.is_file()
    require(ok, "weights", f"{allowed}, which must exist", str(path))
    return path


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
    spec: NetworkSpec, include_top: bool, tensor: Any, shape: Any, min_size: int
) -> tuple[int | None, int | None, int]:
    """`(height, width, channels)` of the images, None where any size is accepted."""
    if tensor is not None:
        require(keras.utils.is_keras_tensor(tensor), "input_tensor", "a Keras tensor", tensor)
        found = tuple(tensor.shape)[1:]
        require(
            len(found) == 3 and is_int(found[-1]),
            "input_tensor", "(batch, height, width, channels)", tuple(tensor.shape),
        )  # fmt: skip
        require(
            shape is None or tuple(shape) == found,
            "input_shape", f"left out or that of `input_tensor`, {found}", shape,
        )  # fmt: skip
        shape = found
    if shape is None:
        return spec.input_shape if include_top else (None, None, 3)  # type: ignore[return-value]
    ok = isinstance(shape, (tuple, list)) and len(shape) == 3 and is_int(shape[2])
    ok = ok and all(side is None or is_int(side, min_size) for side in shape[:2])
    allowed = f"(height, width, channels), height and width None or at least {min_size}"
    require(ok, "input_shape", allowed, shape)
    return tuple(shape)


def _load(model: keras.Model, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            # Keras misses the classifier's place where a whole file is read without the top.
            warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
            model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".: ")
        raise ValueError(
            "`weights` must be a file that `save_weights` of the same model wrote, with as many "
            f"classes and input channels; '{model.name}' cannot load this one: {reason}. "
            f"Received: {str(path)!r}"
        ) from error


def BigNASModelS(  # noqa: D103 - BASE_DOCSTRING, below
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="bignasmodel_s",
) -> keras.Model:
    return build_model(
        "bignasmodel_s", include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name,
    )  # fmt: skip


def BigNASModelM(  # noqa: D103 - BASE_DOCSTRING, below
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="bignasmodel_m",
) -> keras.Model:
    return build_model(
        "bignasmodel_m", include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name,
    )  # fmt: skip


def BigNASModelL(  # noqa: D103 - BASE_DOCSTRING, below
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="bignasmodel_l",
) -> keras.Model:
    return build_model(
        "bignasmodel_l", include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name,
    )  # fmt: skip


def BigNASModelXL(  # noqa: D103 - BASE_DOCSTRING, below
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="bignasmodel_xl",
) -> keras.Model:
    return build_model(
        "bignasmodel_xl", include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name,
    )  # fmt: skip


BigNASModelS.__doc__ = BASE_DOCSTRING.format(name="BigNASModelS", resolution=192)
BigNASModelM.__doc__ = BASE_DOCSTRING.format(name="BigNASModelM", resolution=224)
BigNASModelL.__doc__ = BASE_DOCSTRING.format(name="BigNASModelL", resolution=224)
BigNASModelXL.__doc__ = BASE_DOCSTRING.format(name="BigNASModelXL", resolution=288)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Returns `x` as it is: the models map [0, 255] to [-1, 1] themselves.

    It is here so that these models can stand where a model of keras.applications stood.

    Args:
        x: images `(batch, height, width, channels)`, values in [0, 255].
        data_format: accepted and not used.

    Returns:
        `x`.
    """
    return x


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Names the most likely ImageNet classes.

    Keras downloads the list of class names once.

    Args:
        preds: probabilities, array `(batch, 1000)`.
        top: how many classes to name per image.

    Returns:
        Per image a list of `(WordNet id, name, probability)`, the likeliest first.

    Raises:
        ValueError: if `preds` is not of shape `(batch, 1000)`.
    """
    return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
