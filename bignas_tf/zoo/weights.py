"""From the argument `weights` to a model that has them: files of numbers, nothing is run."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import keras

from bignas_tf.checks import require
from bignas_tf.ops import Dense
from bignas_tf.zoo.download import fetch, is_remote
from bignas_tf.zoo.trained import weights_file, weights_of

# HDF5. Keras takes the same method for `.keras` files and folders of shards; one form is enough.
SUFFIX = ".weights.h5"


def find_weights(weights: Any, preset: str | None) -> Path | None:
    """The file that `weights` stands for.

    Args:
        weights: None, the name of weights that come with the preset, a path or an address
            (`bignas_tf.zoo.download.fetch`).
        preset: name of the network in the zoo; None for one that is not in it.

    Returns:
        The path of a file that exists and has its hash, if one is known; None for None.

    Raises:
        ValueError: for anything else.
        ConnectionError: if an address cannot be reached.
    """
    if weights is None:
        return None
    names = () if preset is None else weights_of(preset)
    if preset is not None and isinstance(weights, str) and weights in names:
        return weights_file(preset, weights)
    named = "".join(f", {name!r}" for name in names)
    allowed = (
        f"either None (random initialization){named} or the path or address of the weights file "
        f"({SUFFIX}) to be loaded"
    )
    if isinstance(weights, str) and weights == "imagenet":
        raise ValueError(
            f"`weights` must be {allowed}: nobody has trained these "
            "networks on ImageNet yet, so there are no ImageNet weights. Received: 'imagenet'"
        )
    require(isinstance(weights, (str, os.PathLike)), "weights", allowed, weights)
    if isinstance(weights, str) and is_remote(weights):
        require(urlsplit(weights).path.endswith(SUFFIX), "weights", allowed, weights)
        return fetch(weights)
    path = Path(weights)
    require(path.name.endswith(SUFFIX), "weights", allowed, str(path))
    require(path.is_file(), "weights", f"{allowed}, which must exist", str(path))
    return path


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads a file that `save_weights` of the same model wrote.

    A classifier for another number of classes than the file's keeps its initial weights.

    Raises:
        ValueError: if the file does not fit otherwise, or is no such file.
    """
    try:
        with warnings.catch_warnings():
            # Keras misses the classifier's place where a whole file is read without the top.
            warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
            other_classes = _load(model, path)
    except (ValueError, KeyError, OSError, RuntimeError) as error:  # RuntimeError: damaged HDF5
        raise ValueError(
            "`weights` must be a file that `save_weights` of the same model wrote, with as many "
            f"input channels; '{model.name}' cannot load this one: {_reason(error)}. "
            f"Received: {str(path)!r}"
        ) from error
    if other_classes is not None:
        warnings.warn(
            f"the classifier of '{model.name}' keeps its initial weights: it is for "
            f"{model.spec.classes} classes, that of {path.name} for {other_classes}",
            stacklevel=4,
        )


def _load(model: keras.Model, path: Path) -> int | None:
    """Loads a file, and tells how many classes its classifier is for if the model's has others."""
    classifier = _classifier(model)
    if classifier is None:
        model.load_weights(path)
        return None
    kernel, own = _kernel_shape(path, model, classifier), tuple(classifier.kernel.shape)
    if kernel is not None and (kernel == own or kernel[:-1] != own[:-1]):
        model.load_weights(path)
        return None
    below = keras.Model(model.inputs, classifier.input)  # of the same layers
    below.load_weights(path)
    if kernel is None:
        raise ValueError(
            "it has no weights of the classifier; load it with `include_top=False` and add a "
            "classifier of your own"
        )
    return kernel[-1]


def _reason(error: Exception) -> str:
    """What Keras says first, or of the first layer whose shape is another."""
    text = str(error).strip()
    layer = re.search(r"name=(\w+)", text)
    shapes = re.search(r"variable\.shape=(\(.*?\)), Received: value\.shape=(\(.*?\))", text)
    if layer and shapes:
        return f"layer {layer[1]} needs shape {shapes[1]}, the file has {shapes[2]}"
    of_layer = text.partition(":\n\n")[2]  # after a line that tells how many do not fit
    return (of_layer or text).split("\n")[0].rstrip(".: ")


def _classifier(model: keras.Model) -> keras.layers.Layer | None:
    """The layer whose outputs are the classes; None without the top."""
    last = model.spec.ops()[-1]
    layers = [layer for layer in model.layers if layer.name == last.name]
    return layers[0] if layers and isinstance(last, Dense) else None


def _kernel_shape(
    path: Path, model: keras.Model, classifier: keras.layers.Layer
) -> tuple[int, ...] | None:
    """Shape of the kernel that a file has for the classifier; None if it has none."""
    # Keras counts the layers of a class; the classifier is the last of its own.
    number = sum(type(layer) is type(classifier) for layer in model.layers) - 1
    place = f"layers/dense{f'_{number}' if number else ''}/vars/0"
    with h5py.File(path) as file:
        # Unlike `file[place]` this follows no link, which could lead to another file.
        found = file.visititems(lambda name, item: item if name == place else None)
        return found.shape if isinstance(found, h5py.Dataset) else None
