"""What every layer must do, checked in one call."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

POLICIES = ("float32", "float64", "mixed_float16", "mixed_bfloat16")
TOLERANCES = {"float32": 1e-5, "float64": 0.0, "float16": 2e-2, "bfloat16": 1e-1}


def run_layer_test(
    layer_class: type[keras.layers.Layer],
    arguments: dict[str, Any],
    inputs: np.ndarray,
    output_shape: tuple[int, ...],
    weights: dict[str, tuple[int, ...]],
    **call: Any,
) -> None:
    """Checks config round trip, symbolic and eager call, weights and dtype policies.

    Args:
        layer_class: to test.
        arguments: of its constructor.
        inputs: a batch.
        output_shape: of the output for that batch.
        weights: expected shapes by name.
        call: further arguments of the call.
    """
    layer = layer_class(**arguments, name="tested")
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    again = layer_class.from_config(config)
    assert again.get_config() == config
    assert keras.layers.deserialize(keras.layers.serialize(layer)).get_config() == config

    symbolic = layer(keras.Input(inputs.shape[1:]), **call)
    assert symbolic.shape[1:] == output_shape[1:]
    assert {weight.name: tuple(weight.shape) for weight in layer.weights} == weights
    assert len(layer.trainable_weights) == len(weights)

    rng = np.random.default_rng(0)
    values = [rng.uniform(0.2, 1.0, weight.shape) for weight in layer.weights]
    outputs = {}
    for policy in reversed(POLICIES):
        layer = layer_class(**arguments, dtype=policy)
        layer.build(inputs.shape)
        layer.set_weights(values)
        output = layer(inputs.astype(layer.compute_dtype), **call)
        assert output.shape == output_shape
        assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
        assert {weight.dtype for weight in layer.weights} == {layer.variable_dtype}
        outputs[layer.compute_dtype] = np.asarray(output).astype("float64")
    exact = outputs["float64"]
    for dtype, output in outputs.items():
        scale = np.abs(exact).max()
        np.testing.assert_allclose(output, exact, rtol=0, atol=TOLERANCES[dtype] * scale)
