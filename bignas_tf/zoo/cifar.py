"""BigNASCifar S, M, L and XL: children of a supernet trained on CIFAR-10.

Unlike the ImageNet-size models these come with weights, and their configurations were found
by a search in the supernet that they were cut from.
"""

from __future__ import annotations

import keras

from bignas_tf.zoo.building import build_model

BASE_DOCSTRING = """Builds the {name} architecture, of the space `cifar`.

    Images are RGB, `(batch, height, width, 3)`, floats in [0, 255]: the first layer maps them
    to [-1, 1]. With `include_preprocessing=False` give values in [-1, 1]. Resize images from 32
    to {resolution} x {resolution} pixels with antialiased bicubic interpolation
    (`bignas_tf.resize.resize`, equal to `tf.image.resize` with `antialias=True`).

    Accuracy, conditions and limits are in zoo/cards/BigNASCifar.md. The attribute `spec` of the
    returned model is its `NetworkSpec`; what `keras.models.clone_model` and `load_model` return
    has no such attribute.

    Args:
        include_top: whether to build the classifier.
        weights: None for random initialization, "cifar10", the path of a `.weights.h5` file
            that `save_weights` of the same model wrote, or its address:
            `https://...#sha256=HASH` (or `http://`), or with the extra `hf`
            `hf://OWNER/REPOSITORY[@REVISION]/PATH#sha256=HASH`. Weights of the whole model also
            load with `include_top=False` and for other `classes`, whose classifier then keeps
            its initial weights, which a warning tells.
        input_tensor: Keras tensor `(batch, height, width, channels)` to use as image input.
        input_shape: `(height, width, channels)`, height and width at least 8 or None for
            any. By default `({resolution}, {resolution}, 3)`, without the top
            `(None, None, 3)`.
        pooling: used where `include_top` is False. None: the output is the feature map of
            the last convolution; "avg" or "max": its mean or maximum over height and width.
        classes: number of classes; used where `include_top` is True. The ten of "cifar10" are
            airplane, automobile, bird, cat, deer, dog, frog, horse, ship,
            truck.
        classifier_activation: activation of the classifier, a name or a callable; None
            gives logits. Used where `include_top` is True; only None and "softmax" if
            `weights` are loaded too.
        include_preprocessing: whether the first layer maps [0, 255] to [-1, 1].
        name: of the model.

    Returns:
        A `keras.Model` from images to `(batch, classes)`; without the top to
        `(batch, ceil(height / 8), ceil(width / 8), channels)` or, pooled,
        `(batch, channels)`.

    Raises:
        ValueError: for an argument that is not as described, and for a weights file that is
            missing, has another hash or does not fit.
        ConnectionError: if weights cannot be downloaded; the message says where to put them.

    Reference:
        Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage
        Models", ECCV 2020 (the method; space, children and weights are ours).
    """


def BigNASCifarS(  # noqa: D103 - BASE_DOCSTRING, below
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=10,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="bignascifar_s",
) -> keras.Model:
    return build_model(
        "bignascifar_s", include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name,
    )  # fmt: skip


def BigNASCifarM(  # noqa: D103 - BASE_DOCSTRING, below
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=10,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="bignascifar_m",
) -> keras.Model:
    return build_model(
        "bignascifar_m", include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name,
    )  # fmt: skip


def BigNASCifarL(  # noqa: D103 - BASE_DOCSTRING, below
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=10,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="bignascifar_l",
) -> keras.Model:
    return build_model(
        "bignascifar_l", include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name,
    )  # fmt: skip


def BigNASCifarXL(  # noqa: D103 - BASE_DOCSTRING, below
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=10,
    classifier_activation="softmax",
    include_preprocessing=True,
    name="bignascifar_xl",
) -> keras.Model:
    return build_model(
        "bignascifar_xl", include_top, weights, input_tensor, input_shape, pooling, classes,
        classifier_activation, include_preprocessing, name,
    )  # fmt: skip


BigNASCifarS.__doc__ = BASE_DOCSTRING.format(name="BigNASCifarS", resolution=24)
BigNASCifarM.__doc__ = BASE_DOCSTRING.format(name="BigNASCifarM", resolution=24)
BigNASCifarL.__doc__ = BASE_DOCSTRING.format(name="BigNASCifarL", resolution=28)
BigNASCifarXL.__doc__ = BASE_DOCSTRING.format(name="BigNASCifarXL", resolution=32)
