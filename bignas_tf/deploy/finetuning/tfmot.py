"""The tf_keras networks that are finetuned, and TensorFlow Model Optimization itself.

The one module that imports TFMOT; import it, and those that do, where they are used: that
takes seconds and makes `tf.keras` another package. The builder of children builds these
networks too, layer by layer, so that TFMOT's own rewriting of finished models, which
rejects products, is not needed: its wrappers, schedules and clustering are.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

from bignas_tf.child import walk
from bignas_tf.deploy.finetuning.folded import FoldingFactory, Weights
from bignas_tf.ops import INPUT
from bignas_tf.optional import installing
from bignas_tf.spec import NetworkSpec

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TFMOT imports distutils
        import tensorflow_model_optimization as tfmot  # noqa: F401 - for the modules that use it
        import tf_keras
except ImportError as error:
    raise ImportError(
        f"Finetuning needs TFMOT and tf_keras ({error}); {installing('tfmot')}"
    ) from error


@dataclasses.dataclass(frozen=True)
class Finetunable:
    """A network to finetune.

    Attributes:
        model: of tf_keras, from images to logits.
        start: to be called once before the first step, after a restored state too.
        weights: gives kernels and biases as they are now, without any wrapper; None where
            the model itself is what is converted.
    """

    model: Any
    start: Callable[[], object]
    weights: Callable[[], Weights] | None


def build_wrapped(
    spec: NetworkSpec,
    weights: Weights,
    factory: type[FoldingFactory] = FoldingFactory,
    first: Any = None,
    **options: Any,
) -> Any:
    """Builds a folded network of tf_keras layers, some of them wrapped.

    Args:
        spec: the network.
        weights: of `bignas_tf.deploy.finetuning.folded.folded_weights`.
        factory: class that makes the layers.
        first: called on the images, if given.
        options: of the factory.
    """
    policy = tf_keras.mixed_precision.Policy("float32")
    layers = factory(tf_keras, policy, None, weights, **options)
    inputs = tf_keras.Input(spec.input_shape, name=INPUT)
    return tf_keras.Model(inputs, walk(layers, spec.ops(), first(inputs) if first else inputs))


def nothing() -> None:
    """What most networks need before the first step."""


def kernels_and_biases(model: Any, like: Weights) -> Weights:
    """What the layers hold now, wrapped ones too, in the form of `like`."""
    layers = {}
    for layer in model.layers:
        inner = getattr(layer, "layer", layer)
        layers[inner.name] = inner
    found = {}
    for name, arrays in like.items():
        layer = layers[name]
        kernel = layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel
        values = [kernel, layer.bias][: len(arrays)]
        found[name] = [value.numpy() for value in values]
    return found
