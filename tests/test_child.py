"""Static models: against keras.applications, against plain NumPy, and once saved."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from networks import (
    cell_network,
    efficientnet_b0,
    mobilenet_v2,
    mobilenet_v3_large,
    split_attention_network,
)

from bignas_tf import ops
from bignas_tf.blocks import Block, ConvBlock, HeadBlock, MBConvBlock, SqueezeExcitation
from bignas_tf.child import build_child
from bignas_tf.spec import NetworkSpec

APPLICATIONS = {
    "MobileNetV2": (mobilenet_v2, lambda x: x, {}),
    "EfficientNetB0": (efficientnet_b0, lambda x: x / 255, {}),
    "MobileNetV3Large": (mobilenet_v3_large, lambda x: x, {"include_preprocessing": False}),
}


def small(**arguments) -> NetworkSpec:
    """A network of 21 pixels with every kind of shortcut and a gate."""
    se = SqueezeExcitation()
    blocks = (
        ConvBlock(name="stem", channels=8, strides=2),
        MBConvBlock(name="a", channels=12, expand_ratio=1, se=se, shortcut="projection"),
        MBConvBlock(
            name="b", channels=16, kernel_size=5, strides=2, expand_ratio=3, shortcut="projection"
        ),
        MBConvBlock(name="c", channels=16, expand_ratio=3, se=se),
        HeadBlock(name="head", channels=24, dropout=0.2),
    )
    return NetworkSpec(**({"input_shape": (21, 21, 3), "blocks": blocks, "classes": 5} | arguments))


def randomize(model, seed: int = 0) -> None:
    """Gives every weight a random value at which signals neither vanish nor explode."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.1, shape)
        else:
            fan_in = np.prod(shape[:-2] if variable.path.find("depthwise") >= 0 else shape[:-1])
            value = rng.normal(0, (2 / fan_in) ** 0.5, shape)
        variable.assign(value)


def images(count: int, size: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (count, size, size, channels))


def assert_equal(actual, expected, tolerance: float = 1e-5) -> None:
    """Compares to `tolerance` of the scale of `expected`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def kernels(model) -> list[np.ndarray]:
    """All weights, layer by layer, without those of input normalization."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Normalization)]
    return [array for layer in layers for array in layer.get_weights()]


@pytest.mark.parametrize(
    "name, size",
    [("MobileNetV2", 64), ("MobileNetV2", 75), ("EfficientNetB0", 64), ("MobileNetV3Large", 75)],
)
def test_given_the_weights_of_keras_applications_a_spec_gives_their_outputs(name, size):
    build, preprocess, options = APPLICATIONS[name]
    published = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=7, classifier_activation=None, **options
    )
    randomize(published)
    ours = build_child(build(classes=7).with_input_shape((size, size, 3)))
    # The classifier of MobileNetV3 in Keras is a 1x1 convolution.
    pairs = zip(kernels(published), ours.get_weights(), strict=True)
    ours.set_weights([array.reshape(place.shape) for array, place in pairs])
    batch = images(2, size).astype("float32")
    expected = published(batch).numpy()
    assert_equal(ours(preprocess(batch)).numpy(), expected.reshape(2, 7))


class Reference:
    """The ops of a network in float64 NumPy, with the weights of a model."""

    def __init__(self, model):
        self.model = model

    def conv(self, name: str, x, strides: int = 1, groups: int = 1):
        kernel, *bias = self.model.get_layer(name).get_weights()
        size, filters = kernel.shape[0], kernel.shape[-1] // groups
        outputs = []
        for group, part in enumerate(np.split(x, groups, axis=-1)):
            ours = kernel[..., group * filters : (group + 1) * filters]
            windows = self.windows(part, size, strides, 0.0)
            outputs.append(np.einsum("bhwcij,ijcf->bhwf", windows, ours))
        return np.concatenate(outputs, -1) + (bias[0] if bias else 0)

    def bn(self, name: str, x):
        gamma, beta, mean, variance = self.model.get_layer(name).get_weights()
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def dense(self, x):
        kernel, bias = self.model.get_layer("head_classifier").get_weights()
        return x.mean((1, 2)) @ kernel + bias

    def windows(self, x, size: int, strides: int, fill: float):
        """All windows `(batch, height, width, channels, size, size)`, padding "same"."""
        pads = [(0, 0)]
        for length in x.shape[1:3]:
            total = max((-(-length // strides) - 1) * strides + size - length, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, [*pads, (0, 0)], constant_values=fill)
        view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
        return view[:, ::strides, ::strides]


def relu(x):
    return np.maximum(x, 0)


def test_a_cell_of_two_inputs_is_its_formula():
    model = build_child(cell_network(), dtype="float64")
    randomize(model)
    batch = np.random.default_rng(1).normal(size=(2, 10, 10, 3))
    net = Reference(model)
    stem = relu(net.bn("stem_bn", net.conv("stem_conv", batch, strides=2)))
    left = relu(net.bn("left_bn", net.conv("left_conv", stem)))
    right = relu(net.bn("right_bn", net.conv("right_conv", stem, groups=4)))
    left = relu(net.bn("cell_left_bn", net.conv("cell_left_conv", left)))
    right = net.bn("cell_right_bn", net.conv("cell_right_conv", right))
    biggest = net.windows(left, 3, 1, -np.inf).max((-1, -2))
    average = np.nanmean(net.windows(right, 3, 1, np.nan), (-1, -2))
    cell = np.concatenate([biggest, average, left], -1)
    assert_equal(model(batch), net.dense(cell), tolerance=1e-9)


def test_a_split_attention_bottleneck_is_its_formula():
    model = build_child(split_attention_network(), dtype="float64")
    randomize(model)
    batch = np.random.default_rng(1).normal(size=(2, 8, 8, 4))
    net = Reference(model)

    def unit(name, x, groups=1):
        return relu(
            net.bn(f"bottleneck_{name}_bn", net.conv(f"bottleneck_{name}_conv", x, groups=groups))
        )

    y = unit("reduce", batch)
    branches = np.stack([unit("branch1", y, groups=2), unit("branch2", y, groups=2)])
    hidden = unit("hidden", branches.sum(0).mean((1, 2), keepdims=True))
    logits = np.stack([net.conv(f"bottleneck_logits{index}", hidden) for index in (1, 2)])
    attention = np.exp(logits) / np.exp(logits).sum(0)
    mixed = (attention * branches).sum(0)
    projected = net.bn("bottleneck_project_bn", net.conv("bottleneck_project_conv", mixed))
    assert_equal(model(batch), net.dense(relu(batch + projected)), tolerance=1e-9)


def test_layers_carry_the_names_of_their_ops_in_order():
    spec = small()
    model = build_child(spec)
    assert {layer.name for layer in model.layers} == {"input", *(op.name for op in spec.ops())}
    for op in spec.ops():
        shapes = {w.name: tuple(w.shape) for w in model.get_layer(op.name).trainable_weights}
        assert shapes == ops.weight_shapes(op)


def test_only_stock_layers_are_used_and_no_layer_hides_an_activation():
    for layer in build_child(small(), classifier_activation="softmax").layers:
        assert type(layer) is getattr(keras.layers, type(layer).__name__)
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            assert layer.activation is keras.activations.linear


# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_saved_child_loads_where_the_package_is_not_installed(tmp_path):
    model = build_child(small(), classifier_activation="softmax", include_preprocessing=True)
    randomize(model)
    batch = images(3, 21).astype("float32")
    model.save(tmp_path / "child.keras")
    np.save(tmp_path / "batch.npy", batch)
    script = (
        "import sys; sys.modules['bignas_tf'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('child.keras')\n"
        "np.save('outputs.npy', model(np.load('batch.npy')))\n"
    )
    subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True
    )
    assert_equal(np.load(tmp_path / "outputs.npy"), model(batch), tolerance=1e-6)


def test_a_child_knows_its_spec_and_can_be_cloned():
    spec = small()
    model = build_child(spec, name="mine")
    assert model.spec is spec
    assert model.name == "mine"
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    batch = images(2, 21)
    assert_equal(clone(batch), model(batch), tolerance=1e-6)


@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_float16", "mixed_bfloat16"])
def test_outputs_have_the_dtype_of_the_variables(policy):
    expected = "float64" if policy == "float64" else "float32"
    for activation in (None, "softmax"):
        model = build_child(small(), dtype=policy, classifier_activation=activation)
        outputs = model(images(2, 21))
        assert keras.backend.standardize_dtype(outputs.dtype) == expected
        assert {weight.dtype for weight in model.weights} == {expected}
        inner = model.get_layer("stem_conv").compute_dtype
        assert inner == policy.removeprefix("mixed_")


def test_precisions_agree_to_their_rounding():
    batch = images(4, 21)
    models = {
        policy: build_child(small(), dtype=policy, include_preprocessing=True)
        for policy in ("float64", "float32", "mixed_float16", "mixed_bfloat16")
    }
    randomize(models["float64"])
    exact = models["float64"](batch)
    tolerances = {"float32": 1e-5, "mixed_float16": 1e-2, "mixed_bfloat16": 6e-2}
    for policy, tolerance in tolerances.items():
        models[policy].set_weights(models["float64"].get_weights())
        assert_equal(models[policy](batch), exact, tolerance)


def test_without_the_top_come_features_or_their_pooled_values():
    full, pooled = build_child(small()), {}
    randomize(full)
    batch = images(2, 21)
    for pooling in (None, "avg", "max"):
        model = build_child(small(), include_top=False, pooling=pooling)
        model.set_weights(full.get_weights()[:-2])
        pooled[pooling] = model(batch).numpy()
    assert pooled[None].shape == (2, 6, 6, 24)
    assert_equal(pooled["avg"], pooled[None].mean((1, 2)))
    assert_equal(pooled["max"], pooled[None].max((1, 2)))
    kernel, bias = full.get_weights()[-2:]
    assert_equal(full(batch), pooled["avg"] @ kernel + bias)


def test_preprocessing_maps_bytes_to_the_input_range():
    raw = build_child(small(), include_preprocessing=True)
    plain = build_child(small())
    randomize(raw)
    plain.set_weights(raw.get_weights())
    batch = np.random.default_rng(0).integers(0, 256, (2, 21, 21, 3)).astype("uint8")
    assert_equal(raw(batch), plain(batch / 127.5 - 1))
    assert raw.layers[1].name == "rescaling"


def test_an_input_tensor_may_have_any_height_and_width():
    inputs = keras.Input((None, None, 1), name="mine")
    grey = keras.layers.Concatenate()([inputs] * 3)
    model = build_child(small(), input_tensor=grey)
    assert model.input.name == "mine"
    assert model(images(2, 30, channels=1)).shape == (2, 5)
    with pytest.raises(ValueError, match=r"`input_tensor` must be .*, 3\). Received: \(None, "):
        build_child(small(), input_tensor=inputs)


def test_initial_kernels_follow_from_the_seed_and_the_layer_name_alone():
    *body, head = small().blocks
    longer = small(blocks=(*body, dataclasses.replace(body[-1], name="d"), head))
    first, again = build_child(small(), seed=1), build_child(longer, seed=1)
    other = build_child(small(), seed=2)
    for layer in first.layers:
        for index, array in enumerate(layer.get_weights()):
            np.testing.assert_array_equal(array, again.get_layer(layer.name).get_weights()[index])
            if array.ndim > 1:
                assert not np.array_equal(array, other.get_layer(layer.name).get_weights()[index])
    c, d = (again.get_layer(f"{block}_expand_conv").get_weights()[0] for block in "cd")
    assert c.shape == d.shape
    assert not np.array_equal(c, d)


def test_initial_kernels_have_the_variance_of_efficientnet():
    spec = NetworkSpec(
        (8, 8, 64), (ConvBlock(name="stem", channels=256), HeadBlock(name="head")), 400
    )
    model = build_child(spec, seed=0)
    conv = np.asarray(model.get_layer("stem_conv").kernel)
    dense = np.asarray(model.get_layer("head_classifier").kernel)
    np.testing.assert_allclose(conv.var(), 2 / (9 * 256), rtol=0.02)
    np.testing.assert_allclose(dense.var(), 1 / (3 * 400), rtol=0.02)
    assert np.abs(dense).max() <= 1 / 20


def test_every_residual_block_starts_as_its_shortcut():
    model = build_child(small())
    gammas = {op.name for op in small().ops() if getattr(op, "zero_gamma", False)}
    assert gammas == {"a_project_bn", "b_project_bn", "c_project_bn"}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            expected = 0 if layer.name in gammas else 1
            np.testing.assert_array_equal(layer.gamma, np.full(layer.gamma.shape, expected))


def test_an_unknown_pooling_and_an_unknown_op_are_refused():
    with pytest.raises(ValueError, match="`pooling` must be one of avg, max. Received: 'mean'"):
        build_child(small(), include_top=False, pooling="mean")

    class Shuffle(ops.Op):
        """An op that no stock layer computes."""

    class ShuffleBlock(Block):
        def ops(self, writer, *inputs):
            return writer._write(Shuffle, "shuffle", inputs)

    spec = NetworkSpec((8, 8, 3), (ShuffleBlock(name="x"),), 2)
    with pytest.raises(ValueError, match="`spec` must be made of ops of kinds Activation, Add"):
        build_child(spec)


def test_a_network_that_is_all_top_has_no_features():
    spec = NetworkSpec((8, 8, 3), (HeadBlock(name="head"),), 2)
    with pytest.raises(ValueError, match="`spec` must be a network with ops below its top"):
        build_child(spec, include_top=False)


def test_a_spec_from_json_builds_the_same_model():
    spec = small()
    again = build_child(NetworkSpec.from_json(json.dumps(spec.to_json())), seed=3)
    model = build_child(spec, seed=3)
    assert again.get_config()["layers"] == model.get_config()["layers"]
    batch = images(2, 21)
    np.testing.assert_array_equal(model(batch), again(batch))
