"""Pruning and clustering: networks whose files compress well."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_tf.checks import require
from bignas_tf.deploy.finetuning.folded import FoldingFactory, Weights
from bignas_tf.deploy.finetuning.tfmot import (
    Finetunable,
    build_wrapped,
    kernels_and_biases,
    nothing,
    tfmot,
)
from bignas_tf.ops import Conv, Dense, Op
from bignas_tf.spec import NetworkSpec


@dataclasses.dataclass(frozen=True)
class _WrappingFactory(FoldingFactory):
    """Wraps convolutions and dense layers.

    Attributes:
        wrapper: gives the wrapped layer.
    """

    wrapper: Callable[[Any], Any] = lambda layer: layer

    def wrap(self, op: Op, layer: Any) -> Any:
        # TFMOT neither prunes nor clusters depthwise kernels: few weights, much accuracy.
        return self.wrapper(layer) if isinstance(op, (Conv, Dense)) else layer


def pruned(spec: NetworkSpec, weights: Weights, sparsity: float, steps: int) -> Finetunable:
    """The network with its smallest weights set to zero, more and more of them.

    Sparsity rises over the first half of the steps, cubically: the rest, at a rate that falls,
    makes up for it.

    Args:
        spec: the network.
        weights: of `folded_weights`.
        sparsity: share of each kernel, above 0 and below 1.
        steps: of the whole finetuning.

    Reference:
        Zhu and Gupta, "To prune, or not to prune", 2017.
    """
    require(steps >= 2, "epochs", "two steps at least, to prune", steps)
    updates = max(1, min(20, steps // 2))
    frequency = max(1, steps // 2 // updates)
    # The count starts at 1; the last update is that of the whole sparsity.
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.0, sparsity, begin_step=1, end_step=1 + max(1, updates - 1) * frequency,
        frequency=frequency,
    )  # fmt: skip

    def wrapper(layer: Any) -> Any:
        return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)

    model = build_wrapped(spec, weights, _WrappingFactory, wrapper=wrapper)
    counter = tfmot.sparsity.keras.UpdatePruningStep()
    counter.set_model(model)

    def read() -> Weights:
        counter.on_epoch_end(0)  # the last update has moved pruned weights too
        return kernels_and_biases(model, weights)

    return Finetunable(model, counter.on_train_begin, read)


def clustered(spec: NetworkSpec, weights: Weights, clusters: int) -> Finetunable:
    """The network with a few values only in each kernel, which training moves.

    Args:
        spec: the network.
        weights: of `folded_weights`.
        clusters: values of a kernel, at least 2; smaller kernels stay as they are.
    """

    def wrapper(layer: Any) -> Any:
        if np.prod(layer.kernel.shape) <= clusters:
            return layer
        return tfmot.clustering.keras.cluster_weights(
            layer, clusters, tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
        )

    model = build_wrapped(spec, weights, _WrappingFactory, wrapper=wrapper)

    def read() -> Weights:
        for layer in model.layers:
            if hasattr(layer, "update_clustered_weights_associations"):
                layer.update_clustered_weights_associations()
        return kernels_and_biases(model, weights)

    return Finetunable(model, nothing, read)


def plain(spec: NetworkSpec, weights: Weights) -> Finetunable:
    """The network as it is.

    Args:
        spec: the network.
        weights: of `folded_weights`.
    """
    model = build_wrapped(spec, weights)
    return Finetunable(model, nothing, lambda: kernels_and_biases(model, weights))
