"""Networks that are finetuned: twins, folding, rounding, pruning, clustering, their files."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bignas_tf import ops
from bignas_tf.blocks import ConvBlock, HeadBlock, MBConvBlock, SqueezeExcitation
from bignas_tf.child import build_child
from bignas_tf.deploy.finetuning.file_weights import file_kernels, read_file_weights
from bignas_tf.deploy.finetuning.finetuned import Images, finetunable, write_finetuned
from bignas_tf.deploy.finetuning.folded import build_folded, folded_weights, folds
from bignas_tf.deploy.interpreter import load_interpreter
from bignas_tf.deploy.preprocessing import in_range
from bignas_tf.deploy.sidecar import read_sidecar
from bignas_tf.ops import ACTIVATIONS
from bignas_tf.spaces import get_space
from bignas_tf.spec import NetworkSpec
from bignas_tf.training.finetune_settings import FinetuneSettings

pytestmark = [
    # Of TFMOT, tf_keras and Keras's conversion of variables.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*dynamic shape:UserWarning"),
]
TWINS = tuple(name for name in ACTIVATIONS if name != "hard_swish")


def mixed(**stem) -> NetworkSpec:
    """A child of nine pixels with gates, projected shortcuts and every fused activation."""
    gates = [
        SqueezeExcitation(),
        SqueezeExcitation(activation="relu", gate="hard_sigmoid"),
    ]
    projected = {"shortcut": "projection", "expand_ratio": 2}
    return NetworkSpec(
        (9, 9, 3),
        (
            ConvBlock(name="stem", channels=8, **stem),
            MBConvBlock(name="a", channels=12, strides=2, se=gates[0], **projected),
            MBConvBlock(name="b", channels=12, se=gates[1], activation="relu6", **projected),
            HeadBlock(name="head", channels=24, activation="relu", dropout=0.2),
        ),
        classes=4,
    )


SPEC = mixed()


def randomized(spec, seed=0):
    """A child in which no term can be forgotten without a trace."""
    child = build_child(spec)
    rng = np.random.default_rng(seed)
    for variable in child.weights:
        shape = tuple(variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.3, shape)
        else:
            value = rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)
            if "depthwise" in variable.path:
                value = rng.normal(0, 0.5, shape)
        variable.assign(value)
    return child


def arrays(child):
    return {variable.path: np.asarray(variable) for variable in child.variables}


@pytest.fixture(scope="module")
def child():
    return randomized(SPEC)


@pytest.fixture(scope="module")
def weights(child):
    return folded_weights(SPEC, arrays(child))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (48, 9, 9, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def measured_images(child, images):
    labels = np.asarray(child(images)).argmax(-1)
    return Images(images[:24], images[24:], images, labels)


@pytest.mark.parametrize("function", TWINS)
def test_the_twin_computes_what_the_child_computes(function, images):
    import tf_keras

    spec = mixed(activation=function)
    child = randomized(spec)
    twin = build_child(spec, keras_module=tf_keras)
    twin.set_weights(child.get_weights())
    expected = np.asarray(child(images))
    # hard_sigmoid is composed in the twin, and the network has one: rounding is left.
    np.testing.assert_allclose(twin(images), expected, atol=1e-6 * np.abs(expected).max())


def test_a_twin_with_hard_swish_is_refused():
    import tf_keras

    with pytest.raises(ValueError, match="without hard_swish.*Received: 'stem_activation'"):
        build_child(mixed(activation="hard_swish"), keras_module=tf_keras)


def test_the_folded_network_computes_what_the_child_computes(child, weights, images):
    folded = build_folded(SPEC, weights)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    expected = np.asarray(child(images, training=False))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(folded(images), expected, atol=1e-5 * np.abs(expected).max())
    # Without dropout: training takes the same way.
    np.testing.assert_array_equal(folded(images, training=True), folded(images))


def train(network, images, steps, rate=1e-3):
    """A few steps towards labels that the child does not give."""
    import tf_keras

    network.start()
    variables = network.model.trainable_variables
    optimizer = tf_keras.optimizers.Adam(rate)
    optimizer.build(variables)
    labels = np.arange(len(images)) % 4

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            logits = network.model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return [float(step()) for _ in range(steps)]


def write(network, output, images, quantization="float32", spec=SPEC, io=None, **others):
    return write_finetuned(
        network, spec, output, images, quantization=quantization, io=io, metadata={}, **others
    )


@pytest.fixture(scope="module")
def quantized(weights, images):
    settings = FinetuneSettings("quantize", 1, 1e-3)
    network = finetunable(settings, SPEC, weights, 3)
    losses = train(network, images, 3)
    assert losses[-1] < losses[0]
    return network


def test_an_int8_file_of_quantization_aware_training_has_no_float_operator(
    quantized, measured_images, tmp_path
):
    conversion, measured = write(quantized, tmp_path / "q.tflite", measured_images, "qat_int8")
    interpreter = load_interpreter(conversion.path, delegate="none")
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    assert [t["name"] for t in details.values() if t["dtype"] == np.float32] == []
    operators = interpreter._get_ops_details()
    names = {operator["op_name"] for operator in operators}
    assert {"AVERAGE_POOL_2D", "MEAN", "LOGISTIC", "DEPTHWISE_CONV_2D"} <= names
    # What is rounded in training is what the file rounds: nothing is rescaled on the way.
    assert not {"QUANTIZE", "DEQUANTIZE"} & names
    for operator in operators:
        if "CONV_2D" in operator["op_name"]:  # rounded per channel, depthwise ones too
            kernel = details[operator["inputs"][1]]
            channels = kernel["shape"][3 if operator["op_name"].startswith("DEPTH") else 0]
            assert len(kernel["quantization_parameters"]["scales"]) == channels
    assert conversion.input.dtype == conversion.output.dtype == "int8"
    assert conversion.verification.mean_difference < 2 * conversion.output.scale
    assert abs(measured["top1_file"] - measured["top1_network"]) < 0.1


def test_a_file_of_quantization_aware_training_takes_the_bytes_of_a_picture(
    quantized, measured_images, tmp_path
):
    path = tmp_path / "q.tflite"
    conversion, measured = write(
        quantized, path, measured_images, "qat_int8", io="uint8", preprocessing="inside"
    )
    interpreter = load_interpreter(path, delegate="none")
    dtypes = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    assert np.float32 not in dtypes
    assert (conversion.input.dtype, conversion.input.zero_point) == ("uint8", 0)
    assert conversion.input.scale == pytest.approx(1, abs=1e-6)
    assert conversion.folding["MUL"]["found"] == conversion.folding["MUL"]["explained"]
    described = read_sidecar(path)
    assert (described["input_range"], described["preprocessing"]) == ([0, 255], "inside")
    pixels = in_range(measured_images.scored, (0, 255))
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    chosen = []
    for image in pixels:
        interpreter.set_tensor(source["index"], image[None].astype(np.uint8))
        interpreter.invoke()
        chosen.append(interpreter.get_tensor(target["index"])[0].argmax())
    assert measured["top1_file"] == np.mean(np.array(chosen) == measured_images.labels)
    # What the network that was trained gives for the same pictures, which knows no bytes.
    logits = np.asarray(quantized.model(pixels / 127.5 - 1, training=False))
    assert np.mean(logits.argmax(-1) == chosen) > 0.9


@pytest.mark.slow
def test_a_pruned_file_has_the_sparsity_asked_for(weights, images, measured_images, tmp_path):
    settings = FinetuneSettings("prune", 1, 1e-3, sparsity=0.6)
    network = finetunable(settings, SPEC, weights, 12)
    train(network, images, 12)
    conversion, measured = write(network, tmp_path / "p.tflite", measured_images)
    kernels = file_kernels(conversion.path)
    assert len(kernels) == sum(len(w[0].shape) == 2 or w[0].shape[3] > 1 for w in weights.values())
    for kernel in kernels.values():
        # TFMOT rounds the count of what stays, at least one weight.
        assert abs((kernel == 0).mean() - 0.6) <= 0.5 / kernel.size + 1e-6
    found = read_file_weights(conversion.path)
    assert found.sparsity == pytest.approx(0.6, abs=0.01)
    assert measured["kernels"]["sparsity"] == found.sparsity
    # Of random weights every bit of the others counts, and of zeros hardly one.
    assert found.deflated_bytes < found.bytes - 4 * 0.6 * found.weights + 0.3 * found.weights


@pytest.mark.slow
def test_a_clustered_file_has_few_values_in_each_kernel(weights, images, measured_images, tmp_path):
    settings = FinetuneSettings("cluster", 1, 1e-3, clusters=5)
    network = finetunable(settings, SPEC, weights, 4)
    train(network, images, 4)
    conversion, measured = write(network, tmp_path / "c.tflite", measured_images)
    kernels = file_kernels(conversion.path).values()
    assert all(len(np.unique(kernel)) <= 5 for kernel in kernels)
    assert measured["kernels"]["unique_values"] == 5
    # Training moved the values that the kernels were clustered to.
    before = {value for kernel in weights.values() for value in np.ravel(kernel[0])}
    assert any(not before >= set(np.ravel(kernel)) for kernel in kernels)


def test_settings_name_what_is_wrong():
    for arguments, message in [
        (("distill", 1, 1e-3), "`technique` must be one of quantize, prune, cluster, plain"),
        (("quantize", 0, 1e-3), "`epochs` must be a positive number. Received: 0"),
        (("quantize", 1, float("nan")), "`learning_rate` must be a positive number"),
        (("prune", 1, 1e-3), "`sparsity` must be given to prune. Received: None"),
    ]:
        with pytest.raises(ValueError, match=message):
            FinetuneSettings(*arguments)
    for own, message in [
        ({"technique": "prune", "sparsity": 1.0}, "`sparsity` must be above 0 and below 1"),
        ({"technique": "plain", "sparsity": 0.5}, "`sparsity` must be left out to plain"),
        ({"technique": "cluster", "clusters": 1}, "`clusters` must be an integer of at least 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            FinetuneSettings(epochs=1, learning_rate=1e-3, **own)


def test_a_batch_norm_that_cannot_be_folded_is_refused():
    shared = {"in_channels": 4, "channels": 4}
    conv = ops.Conv(name="conv", inputs=("input",), kernel_size=1, **shared)
    norm = ops.BatchNorm(name="bn", inputs=("conv",), **shared)
    assert folds([conv, norm]) == {"bn": "conv"}
    for network in (
        [ops.BatchNorm(name="bn", inputs=("input",), **shared)],
        [dataclasses.replace(conv, use_bias=True), norm],
        [conv, norm, ops.Add(name="add", inputs=("conv", "bn"), **shared)],
    ):
        with pytest.raises(ValueError, match="batch norm follows a convolution of its own.*'bn'"):
            folds(network)


@pytest.mark.long
@pytest.mark.parametrize(
    "spec",
    [
        get_space("cifar").smallest().spec(),
        get_space("cifar").biggest().spec(),
    ],
    ids=["smallest", "biggest"],
)
def test_children_for_cifar_have_no_float_operator_after_quantization_aware_training(
    spec, tmp_path
):
    weights = folded_weights(spec, arrays(randomized(spec)))
    network = finetunable(FinetuneSettings("quantize", 1, 1e-3), spec, weights, 1)
    images = np.random.default_rng(1).uniform(-1, 1, (16, *spec.input_shape)).astype(np.float32)
    network.model(images, training=True)
    measured = Images(images, images, None, None)
    conversion, _ = write(network, tmp_path / "q.tflite", measured, "qat_int8", spec)
    details = load_interpreter(conversion.path, delegate="none").get_tensor_details()
    assert [tensor["name"] for tensor in details if tensor["dtype"] == np.float32] == []
