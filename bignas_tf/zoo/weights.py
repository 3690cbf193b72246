"""From the argument `weights` to a model that has them: files of numbers, nothing is run."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
    ok = path.name.endswith(SUFFIX) and path.is_file()
    require(ok, "weights", f"{allowed}, which must exist", str(path))
    return path


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads a file that `save_weights` of the same model wrote.

    A classifier for another number of classes than the file's keeps its initial weights.

    Raises:
        ValueError: if the file does not fit otherwise, or is no such file.
    """
    try:
        with warnings.catch_warnings(), _classifier_apart(model) as passed_over:
            # Keras misses the classifier's place where a whole file is read without the top.
            warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
            model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            "`weights` must be a file that `save_weights` of the same model wrote, with as many "
            f"input channels; '{model.name}' cannot load this one: {_reason(error)}. "
            f"Received: {str(path)!r}"
        ) from error
    if passed_over:
        warnings.warn(
            f"the classifier of '{model.name}' keeps its initial weights: it is for "
            f"{model.spec.classes} classes, that of {path.name} for {passed_over[0]}",
            stacklevel=4,
        )


def _reason(error: Exception) -> str:
    """What Keras says in its first line, or of the first layer whose shape is another."""
    text = str(error).strip()
    layer = re.search(r"name=(\w+)", text)
    shapes = re.search(r"variable\.shape=(\(.*?\)), Received: value\.shape=(\(.*?\))", text)
    if layer and shapes:
        return f"layer {layer[1]} needs shape {shapes[1]}, the file has {shapes[2]}"
    return text.split("\n")[0].rstrip(".: ")


@contextlib.contextmanager
def _classifier_apart(model: keras.Model) -> Iterator[list[int]]:
    """Passes over what a file has for the classifier, and tells of how many classes, if others."""
    last = model.spec.ops()[-1]
    passed_over: list[int] = []
    layers = [layer for layer in model.layers if layer.name == last.name]
    if not layers or not isinstance(last, Dense):
        yield passed_over
        return
    (classifier,) = layers
    load = classifier.load_own_variables

    def load_own_classes(store: Any) -> None:
        shape = tuple(store["0"].shape) if "0" in store else ()
        fits = len(shape) == 2 and shape[0] == classifier.kernel.shape[0]
        if fits and shape[1] != classifier.units:
            passed_over.append(shape[1])
        else:
            load(store)

    classifier.load_own_variables = load_own_classes
    try:
        yield passed_over
    finally:
        del classifier.load_own_variables
