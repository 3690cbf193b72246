"""The one builder of static models: primitive ops to a functional model of stock layers.

A saved child loads wherever Keras is installed; it does not need this package. The same
code builds the `tf_keras` twin when that module is passed in.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from bignas_tf import ops
from bignas_tf.checks import require, require_choice
from bignas_tf.spec import NetworkSpec

TOP = "top"
POOLINGS = ("avg", "max")
# 0..255 to the models' input range, -1..1.
INPUT_SCALE = 1 / 127.5
INPUT_OFFSET = -1.0


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """What the layers of one model have in common.

    Attributes:
        keras: the module whose layers are made, `keras` or `tf_keras`.
        policy: dtype policy of the layers.
        seed: of all kernels, or None for Keras's own random seeds.
    """

    keras: Any
    policy: Any
    seed: int | None

    def layer(self, kind: str, name: str, **arguments) -> Any:
        """Makes the stock layer `kind`; `dtype` may be among its arguments."""
        arguments.setdefault("dtype", self.policy)
        return getattr(self.keras.layers, kind)(name=name, **arguments)

    def make(self, op: ops.Op, **others) -> Any:
        """Makes the layer of `op`.

        Args:
            op: of the network.
            others: arguments of the layer instead of those that follow from `op`.

        Raises:
            ValueError: for a kind of op that no stock layer computes.
        """
        known = ", ".join(sorted(kind.__name__ for kind in _MAKERS))
        require(type(op) in _MAKERS, "spec", f"made of ops of kinds {known}", op)
        kind, arguments = _MAKERS[type(op)](self, op)
        return self.layer(kind, op.name, **(arguments | others))

    def activation(self, op: ops.Activation) -> Any:
        """What an activation layer of this module computes `op` with.

        Raises:
            ValueError: for hard_swish under tf_keras, which has none.
        """
        if self.keras is keras:
            return op.function
        known = op.function != "hard_swish"
        require(known, "spec", "without hard_swish, which tf_keras has not", op.name)
        if op.function == "hard_sigmoid":
            # Its own is max(0, min(1, x / 5 + 1 / 2)).
            relu = self.keras.activations.relu
            return lambda x: relu(x + 3.0, max_value=6.0) / 6.0
        return op.function

    def kernel(self, name: str, scale: float, distribution: str) -> Any:
        """Fan-out scaled initializer: the same values for the same `seed` and `name`."""
        seed = None if self.seed is None else zlib.crc32(f"{self.seed}/{name}".encode())
        return self.keras.initializers.VarianceScaling(
            scale=scale, mode="fan_out", distribution=distribution, seed=seed
        )


Made = tuple[str, dict[str, Any]]


def _conv(factory: LayerFactory, op: ops.Conv) -> Made:
    return "Conv2D", {
        "filters": op.channels,
        "kernel_size": op.kernel_size,
        "strides": op.strides,
        "padding": "same",
        "data_format": "channels_last",
        "dilation_rate": op.dilation,
        "groups": op.groups,
        "use_bias": op.use_bias,
        "kernel_initializer": factory.kernel(op.name, 2.0, "truncated_normal"),
    }


def _depthwise(factory: LayerFactory, op: ops.DepthwiseConv) -> Made:
    return "DepthwiseConv2D", {
        "kernel_size": op.kernel_size,
        "strides": op.strides,
        "padding": "same",
        "data_format": "channels_last",
        "dilation_rate": op.dilation,
        "use_bias": False,
        "depthwise_initializer": factory.kernel(op.name, 2.0, "truncated_normal"),
    }


def _batch_norm(factory: LayerFactory, op: ops.BatchNorm) -> Made:
    gamma = "zeros" if op.zero_gamma else "ones"
    return "BatchNormalization", {"epsilon": op.epsilon, "gamma_initializer": gamma}


def _activation(factory: LayerFactory, op: ops.Activation) -> Made:
    return "Activation", {"activation": factory.activation(op)}


def _pool(factory: LayerFactory, op: ops.Pool) -> Made:
    return f"{op.kind.capitalize()}Pooling2D", {
        "pool_size": op.pool_size,
        "strides": op.strides,
        "padding": "same",
        "data_format": "channels_last",
    }


def _global_pool(factory: LayerFactory, op: ops.GlobalPool) -> Made:
    return "GlobalAveragePooling2D", {"data_format": "channels_last", "keepdims": op.keepdims}


def _dropout(factory: LayerFactory, op: ops.Dropout) -> Made:
    seed = None if factory.seed is None else zlib.crc32(f"{factory.seed}/{op.name}".encode())
    return "Dropout", {"rate": op.rate, "seed": seed}


def _dense(factory: LayerFactory, op: ops.Dense) -> Made:
    return "Dense", {
        "units": op.channels,
        "use_bias": op.use_bias,
        "kernel_initializer": factory.kernel(op.name, 1 / 3, "uniform"),
    }


def _merge(kind: str) -> Callable[[LayerFactory, ops.Op], Made]:
    return lambda factory, op: (kind, {})


_MAKERS: dict[type[ops.Op], Callable[[LayerFactory, Any], Made]] = {
    ops.Conv: _conv,
    ops.DepthwiseConv: _depthwise,
    ops.BatchNorm: _batch_norm,
    ops.Activation: _activation,
    ops.Pool: _pool,
    ops.GlobalPool: _global_pool,
    ops.Dropout: _dropout,
    ops.Dense: _dense,
    ops.Add: _merge("Add"),
    ops.Subtract: _merge("Subtract"),
    ops.Multiply: _merge("Multiply"),
    ops.Concat: _merge("Concatenate"),
}


def build_child(
    spec: NetworkSpec,
    *,
    include_top: bool = True,
    pooling: str | None = None,
    classifier_activation: str | Callable | None = None,
    include_preprocessing: bool = False,
    input_tensor: Any = None,
    seed: int | None = None,
    dtype: Any = None,
    name: str | None = None,
    keras_module: Any = keras,
) -> Any:
    """Builds a finished network as a functional model of stock layers.

    Layers carry the names of their ops. Kernels start as EfficientNet's: convolutions
    truncated normal with variance 2 / fan_out, dense layers uniform with variance
    1 / (3 fan_out). The last scale of every residual branch starts at 0.

    Args:
        spec: the network.
        include_top: whether to build the classifier, the ops of part `"top"`.
        pooling: without the top: None for the feature map, "avg" or "max" for its mean
            or maximum over height and width.
        classifier_activation: applied to the logits by a layer `predictions`; None gives
            logits.
        include_preprocessing: whether the first layer maps 0..255 to the range -1..1.
        input_tensor: Keras tensor `(batch, height, width, channels)` to read instead of a
            new `keras.Input`; height and width may be None.
        seed: of the initial kernels, each of which depends on it and on the layer's name
            alone; None draws them anew.
        dtype: dtype or dtype policy of the layers; None is the global policy. With a mixed
            policy the outputs have the variables' dtype.
        name: of the model.
        keras_module: `keras` or `tf_keras`, whose hard_sigmoid is composed of relu6 then.

    Returns:
        A model from `(batch, height, width, channels)` to `(batch, classes)`, or without
        the top to `(batch, height, width, channels)` or `(batch, channels)`. Its attribute
        `spec` is `spec`.

    Raises:
        ValueError: for an unknown `pooling`, for an `input_tensor` whose channels are not
            those of the spec, where there is nothing below the top, and for hard_swish
            under tf_keras.

    Reference:
        Tan and Le, "EfficientNet", ICML 2019 (initial kernels); Yu et al., "BigNAS",
        ECCV 2020, section 3.1 (zero scales).
    """
    if pooling is not None:
        require_choice("pooling", pooling, POOLINGS)
    policies = keras_module.mixed_precision
    policy = policies.global_policy() if dtype is None else dtype
    policy = policies.Policy(policy) if isinstance(policy, str) else policy
    factory = LayerFactory(keras_module, policy, seed)
    inputs, x = _input(keras_module, spec, input_tensor, policy)
    if include_preprocessing:
        # In the variables' dtype: bfloat16 cannot tell 254.5 from 255.
        x = factory.layer(
            "Rescaling", "rescaling",
            scale=INPUT_SCALE, offset=INPUT_OFFSET, dtype=policy.variable_dtype,
        )(x)  # fmt: skip
    network = [op for op in spec.ops() if include_top or op.block != TOP]
    require(len(network) > 0, "spec", "a network with ops below its top", spec)
    x = walk(factory, network, x)
    if not include_top and pooling is not None:
        kind = {"avg": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D"}[pooling]
        x = factory.layer(kind, f"{pooling}_pool", data_format="channels_last")(x)
    activation = classifier_activation if include_top else None
    if activation is not None or policy.compute_dtype != policy.variable_dtype:
        x = factory.layer(
            "Activation", "predictions" if include_top else "features",
            activation=activation or "linear", dtype=policy.variable_dtype,
        )(x)  # fmt: skip
    model = keras_module.Model(inputs, x, name=name)
    model.spec = spec
    return model


def _input(keras_module: Any, spec: NetworkSpec, tensor: Any, policy: Any) -> tuple[Any, Any]:
    """The model's inputs and the tensor that its first layer reads."""
    if tensor is None:
        tensor = keras_module.Input(spec.input_shape, dtype=policy.variable_dtype, name=ops.INPUT)
        return tensor, tensor
    shape = tuple(tensor.shape)
    require(
        len(shape) == 4 and shape[-1] == spec.input_shape[-1],
        "input_tensor", f"(batch, height, width, {spec.input_shape[-1]})", shape,
    )  # fmt: skip
    sources = keras_module.utils.get_source_inputs(tensor)
    return sources[0] if len(sources) == 1 else sources, tensor


def walk(factory: LayerFactory, network: Sequence[ops.Op], x: Any) -> Any:
    """Calls what `factory` makes of each op, in order.

    Args:
        factory: whose `make` gives what can be called on an op's inputs.
        network: ops in execution order.
        x: Keras tensor that the first ones read.

    Returns:
        The last op's output.
    """
    tensors = {ops.INPUT: x}
    for op in network:
        read = [tensors[name] for name in op.inputs]
        x = tensors[op.name] = factory.make(op)(read[0] if len(read) == 1 else read)
    return x
