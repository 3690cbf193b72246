"""BigNAS models S, M, L and XL, with the signature of keras.applications.

Reference:
    Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models",
    ECCV 2020, arXiv 2003.11142.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bignas_tf.checks import as_int, require, require_int
from bignas_tf.zoo.building import build_model

BASE_DOCSTRING = """Builds the {name} architecture.

    Images are RGB, `(batch, height, width, 3)`, floats in [0, 255]: the first layer maps them
    to [-1, 1]. With `include_preprocessing=False` give values in [-1, 1]. Resize images to
    {resolution} x {resolution} pixels with antialiased bicubic interpolation.

    The paper publishes the cost and accuracy of its models, not their per-stage
    configurations. **The per-stage configuration of this model is ours**: a network of the
    paper's search space whose MACs and parameters are the published ones within 1 %. Nobody
    has trained it on ImageNet and **there are no weights of ours**; the published top-1 is
    that of the paper's own model of this size.

    =============  ======  ======  ======  ===============  ======  ======
    model          pixels  MMACs   params  published MMACs  params  top-1
    =============  ======  ======  ======  ===============  ======  ======
    BigNASModelS   192     241.5   4.51 M  242              4.5 M   76.5 %
    BigNASModelM   224     416.2   5.53 M  418              5.5 M   78.9 %
    BigNASModelL   224     585.8   6.38 M  586              6.4 M   79.5 %
    BigNASModelXL  288     1034.8  9.42 M  1040             9.5 M   80.9 %
    =============  ======  ======  ======  ===============  ======  ======

    MACs are multiply-accumulates of one image at that resolution. The attribute `spec` of
    the returned model is its `NetworkSpec`; what `keras.models.clone_model` and `load_model`
    return has no such attribute.

    Args:
        include_top: whether to build the classifier.
        weights: None for random initialization, the path of a `.weights.h5` file that
            `save_weights` of the same model wrote, or its address: `https://...#sha256=HASH`
            (or `http://`), or with the extra `hf`
            `hf://OWNER/REPOSITORY[@REVISION]/PATH#sha256=HASH`. A file of the whole model also
            loads with `include_top=False` and for other `classes`, whose classifier then keeps
            its initial weights, which a warning tells.
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
            for a weights file that is missing, has another hash or does not fit.
        ConnectionError: if weights cannot be downloaded; the message says where to put them.

    Reference:
        Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage
        Models", ECCV 2020, table 1 (the space) and table 2 (published figures).
    """


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


def decode_predictions(
    preds: Any, top: int = 5, labels: Sequence[str] | None = None
) -> list[list[tuple]]:
    """Names the most likely classes.

    Args:
        preds: probabilities, array `(batch, classes)`.
        top: how many classes to name per image, at least 1.
        labels: names of the classes in their order, for example those of
            `get_preset(name)["labels"]`. None: ImageNet's 1000, whose list Keras downloads once.

    Returns:
        Per image a list, the likeliest first: of `(label, probability)` with `labels`, without
        of `(WordNet id, name, probability)`, as those of keras.applications.

    Raises:
        ValueError: if `preds` is not of shape `(batch, classes)`.
    """
    top = as_int(top)
    require_int("top", top)
    if labels is None:
        return keras.applications.imagenet_utils.decode_predictions(preds, top=top)
    scores = np.asarray(preds)
    ok = scores.ndim == 2 and scores.shape[1] == len(labels)
    require(ok, "preds", f"of shape (batch, {len(labels)}), a column per label", scores.shape)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(labels[column], float(row[column])) for column in columns]
        for row, columns in zip(scores, best, strict=True)
    ]
