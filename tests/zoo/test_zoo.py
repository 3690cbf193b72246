"""The zoo's models, as keras.applications tests its own: one table, every model.

Whole networks of ImageNet's size are built once each, everything that a builder does with any of
them alike is tried on the smallest.
"""

import inspect
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from bignas_tf import zoo
from bignas_tf.cost import count
from bignas_tf.spec import NetworkSpec
from bignas_tf.zoo import building, cifar, models

ROOT = Path(__file__).resolve().parents[2]
BUILDERS = {
    "bignascifar_s": zoo.BigNASCifarS,
    "bignascifar_m": zoo.BigNASCifarM,
    "bignascifar_l": zoo.BigNASCifarL,
    "bignascifar_xl": zoo.BigNASCifarXL,
    "bignasmodel_s": zoo.BigNASModelS,
    "bignasmodel_m": zoo.BigNASModelM,
    "bignasmodel_l": zoo.BigNASModelL,
    "bignasmodel_xl": zoo.BigNASModelXL,
}
CIFAR = [name for name in BUILDERS if "cifar" in name]
IMAGENET = [name for name in BUILDERS if "cifar" not in name]
QUICK = [*BUILDERS, "attentivenas_a0"]
OTHERS = [
    pytest.param(name, marks=pytest.mark.slow) for name in zoo.list_models() if name not in QUICK
]
SMALL = zoo.BigNASCifarS
# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def small(built):
    return built("bignascifar_s")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (2, 24, 24, 3)).astype("float32")


def last_width(name: str) -> int:
    return zoo.get_spec(name).blocks[-1].channels


@pytest.mark.parametrize("name", BUILDERS)
def test_signatures_are_those_of_keras_applications(name):
    ours = inspect.signature(BUILDERS[name]).parameters
    theirs = inspect.signature(keras.applications.EfficientNetV2B0).parameters
    assert list(ours) == list(theirs)
    assert ours["name"].default == name
    assert ours["weights"].default is None
    assert ours["classes"].default == zoo.get_spec(name).classes
    same = set(ours) - {"name", "weights", "classes"}
    assert all(ours[key].default == theirs[key].default for key in same)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_argument_gets_where_it_belongs(name, monkeypatch):
    build = BUILDERS[name]
    module = cifar if name in CIFAR else models
    received = {}

    def build_model(*arguments):
        received.update(inspect.signature(building.build_model).bind(*arguments).arguments)

    monkeypatch.setattr(module, "build_model", build_model)
    given = {argument: object() for argument in inspect.signature(build).parameters}
    build(**given)
    assert received == {"preset": name, **given}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_docstring_tells_size_and_figures(name):
    build, preset, spec = BUILDERS[name], zoo.get_preset(name), zoo.get_spec(name)
    doc = " ".join(inspect.getdoc(build).split())
    resolution, cost = spec.input_shape[0], count(spec)
    assert doc.startswith(f"Builds the {build.__name__} architecture")
    assert f"{resolution} x {resolution} pixels" in doc
    assert "what `keras.models.clone_model` and `load_model` return has no such attribute" in doc
    if name in CIFAR:
        assert ", ".join(preset["labels"]) in doc
        return
    assert "The per-stage configuration of this model is ours" in doc
    assert "there are no weights of ours" in doc
    found = preset["published"]
    assert (
        f"{build.__name__} {resolution} {cost.macs / 1e6:.1f} {cost.params / 1e6:.2f} M "
        f"{found['mmacs']} {found['params_m']} M {found['top1_percent']} %"
    ) in doc


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_a_whole_model_has_the_layers_and_parameters_of_its_preset(name, built):
    model, preset = built(name), zoo.get_preset(name)
    resolution, classes = preset["resolution"], zoo.get_spec(name).classes
    assert model.name == name
    assert model.input_shape == (None, resolution, resolution, 3)
    assert model.output_shape == (None, classes)
    assert isinstance(model.layers[1], keras.layers.Rescaling)
    assert model.layers[-1].activation is keras.activations.softmax
    assert model.spec == zoo.get_spec(name)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == preset["params"]
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


@pytest.mark.parametrize(
    "name, channels, pooling, output",
    [
        ("bignascifar_m", 1, None, (None, None, None)),
        ("bignasmodel_s", 4, "avg", (None,)),
        ("fairnas_a", 3, "max", (None,)),
    ],
)
def test_without_the_top_images_may_have_any_size_and_channels(name, channels, pooling, output):
    shape = None if channels == 3 else (None, None, channels)
    model, resolution = zoo.get_model(
        name, include_top=False, pooling=pooling, input_shape=shape, name="features"
    )
    assert resolution == zoo.get_spec(name).input_shape[0]
    assert model.name == "features"
    assert model.input_shape == (None, None, None, channels)
    assert model.output_shape == (*output, last_width(name))
    assert model.spec.input_shape == (resolution, resolution, channels)


@pytest.mark.parametrize(
    ("arguments", "resolution"),
    [
        ({"input_shape": (64, 64, 3)}, 64),
        ({"input_tensor": keras.Input((40, 40, 3))}, 40),
        ({"input_shape": (None, None, 3)}, 24),
        ({"input_shape": (64, 48, 3)}, 24),
    ],
)
def test_the_resolution_beside_a_model_is_its_own(arguments, resolution):
    assert zoo.get_model("bignascifar_s", **arguments)[1] == resolution


def test_an_argument_that_get_model_does_not_have_is_named_with_those_it_has():
    message = r"of get_model\(\) .* include_top, .*, classes, .*, name\. Received: clases, spec"
    with pytest.raises(TypeError, match=message):
        zoo.get_model("bignascifar_s", clases=3, spec=None)


def test_pooled_features_are_those_of_the_map(small, images):
    features = keras.Model(small.input, small.get_layer("head_activation").output)(images)
    model = SMALL(include_top=False, weights="cifar10", pooling="max", input_shape=(24, 24, 3))
    np.testing.assert_allclose(model(images), np.max(features, (1, 2)), atol=1e-5)


def test_a_custom_input_shape_and_number_of_classes_are_used():
    model = SMALL(
        input_shape=(17, 25, 4), classes=3, classifier_activation=None, include_preprocessing=False
    )
    assert model.input_shape == (None, 17, 25, 4)
    assert model.layers[-1].name == "head_classifier"
    assert not any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    assert model.get_layer("head_activation").output.shape[1:3] == (3, 4)
    assert model(np.zeros((1, 17, 25, 4))).shape == (1, 3)
    assert model.spec.classes == 3


@pytest.mark.parametrize("integer", [np.int64, np.uint8, np.array, keras.ops.convert_to_tensor])
def test_integers_of_other_libraries_are_taken_and_specs_have_plain_ones(integer):
    shape = (integer(17), None, integer(4))
    for given in (shape, list(shape)):
        model, _ = zoo.get_model("bignascifar_s", classes=integer(6) + 1, input_shape=given)
        assert model.input_shape == (None, 17, None, 4)
        assert model.output_shape == (None, 7)
        assert NetworkSpec.from_json(json.dumps(model.spec.to_json())) == model.spec
    image = keras.Input((17, 24, 4))
    model = SMALL(input_tensor=image, input_shape=(integer(17), integer(24), integer(4)))
    assert model.input is image


def test_the_spec_of_a_model_is_not_that_of_its_copies(small, tmp_path):
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    for copy in (keras.models.clone_model(small), loaded):
        assert not hasattr(copy, "spec")
    said = "`keras.models.clone_model` and `load_model` return has no such attribute"
    page = (ROOT / "docs" / "zoo.md").read_text()
    for text in (zoo.from_spec.__doc__, page):
        assert said in " ".join(text.split())


def test_an_input_tensor_is_read_through_its_predecessors():
    image = keras.Input((32, 32, 4), name="mine")
    x = keras.layers.Conv2D(3, 2, strides=2, name="before")(image)
    model = SMALL(include_top=False, input_tensor=x)
    assert model.input is image
    assert model.output_shape == (None, 2, 2, last_width("bignascifar_s"))
    assert model.get_layer("before").output is x


def test_images_are_bytes_unless_preprocessing_is_left_out(small, images):
    raw = SMALL(include_preprocessing=False, weights="cifar10", classifier_activation=None)
    np.testing.assert_allclose(keras.ops.softmax(raw(images / 127.5 - 1)), small(images), atol=1e-5)
    assert zoo.preprocess_input(images) is images


def test_a_network_of_ones_own_is_built_from_its_file(tmp_path, small):
    child, network = tmp_path / "child.json", tmp_path / "network.json"
    child.write_text(json.dumps({"name": "s", "spec": small.spec.to_json()}))
    network.write_text(json.dumps(small.spec.to_json()))
    model = zoo.from_spec(str(child), include_top=False, input_shape=(24, 24, 3))
    assert model.spec == small.spec
    assert model.output_shape == (None, 3, 3, last_width("bignascifar_s"))
    with pytest.raises(ValueError, match="`pooling`"):  # the network was read
        zoo.from_spec(network, pooling="mean")
    child.write_text("{}")
    for bad in (child, str(child), tmp_path, "none.json", small.spec.to_json()):
        with pytest.raises(ValueError, match="`spec` must be a NetworkSpec, or the path of the JS"):
            zoo.from_spec(bad)
    with pytest.raises(ValueError, match=r"presets are built by get_model\(\)\. Received: 'fairn"):
        zoo.from_spec("fairnas_a")


def test_what_is_frozen_stays_and_the_rest_is_finetuned_by_fit(images):
    keras.utils.set_random_seed(0)  # of the new classifier
    with pytest.warns(UserWarning, match="classifier of 'bignascifar_s' keeps its initial weights"):
        model = SMALL(weights="cifar10", classes=2)
    for layer in model.layers[:-2]:  # all but the classifier and its softmax
        layer.trainable = False
    before = {variable.path: np.array(variable) for variable in model.weights}

    def moved():
        return {v.path for v in model.weights if np.any(np.array(v) != before[v.path])}

    # A few steps run faster as they are written than traced.
    how = {"loss": "sparse_categorical_crossentropy", "run_eagerly": True}
    model.compile(keras.optimizers.SGD(1e-3), **how)
    labels = np.array([0, 1])
    first = model.evaluate(images, labels, verbose=0)  # fit's own losses have dropout
    model.fit(images, labels, epochs=4, verbose=0, shuffle=False)
    assert model.evaluate(images, labels, verbose=0) < first
    assert moved() == {"head_classifier/kernel", "head_classifier/bias"}
    for layer in model.layers:
        layer.trainable = True
    model.compile(keras.optimizers.SGD(1e-3), **how)
    model.fit(images, labels, verbose=0)
    assert {"stem_conv/kernel", "stem_bn/moving_mean", "stage5_block1_project_bn/gamma"} <= moved()


def test_half_precision_keeps_float32_weights_and_outputs(small, images):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = SMALL(weights="cifar10")
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("stage1_block1_depthwise_conv").compute_dtype == "float16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    outputs = model(images)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    np.testing.assert_allclose(outputs, small(images), atol=0.02)
    assert np.any(np.array(outputs) != np.array(small(images)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weights": "imagenet"}, "nobody has trained these networks on ImageNet"),
        ({"weights": "none.weights.h5"}, "`weights` must be .*, which must exist. Received: 'none"),
        ({"weights": "model.h5"}, r"`weights` must be either None .* Received: 'model.h5'"),
        ({"weights": 1}, "`weights` must be either None .*'cifar10' .* Received: 1"),
        ({"pooling": "mean"}, "`pooling` must be one of avg, max. Received: 'mean'"),
        ({"classes": 0}, "`classes` must be an integer of at least 1. Received: 0"),
        ({"classifier_activation": "softmin2"}, "`classifier_activation` .* Received: 'softmin2'"),
        (
            {"classifier_activation": "relu", "weights": "cifar10"},
            "must be None or 'softmax' when .* Received: 'relu'",
        ),
        ({"classes": True}, "`classes` must be an integer of at least 1. Received: True"),
        ({"classes": np.float64(7)}, r"`classes` must be .* Received: np.float64\(7.0\)"),
        ({"classes": np.arange(3)}, r"Received: ndarray of shape \(3,\) and dtype int64"),
        ({"include_top": "no"}, "`include_top` must be True or False. Received: 'no'"),
        ({"include_preprocessing": 1}, "`include_preprocessing` must be True or .* Received: 1"),
        ({"input_shape": (224, 224)}, r"`input_shape` must be .* Received: \(224, 224\)"),
        ({"input_shape": (7, 64, 3)}, r"at least 8. Received: \(7, 64, 3\)"),
        ({"input_shape": (None, None, None)}, r"Received: \(None, None, None\)"),
        ({"input_shape": (64, 64, True)}, r"Received: \(64, 64, True\)"),
        (
            {"input_tensor": np.zeros((1, 64, 64, 3))},
            r"a Keras tensor. Received: ndarray of shape \(1, 64, 64, 3\) and dtype float64$",
        ),
        (
            {"input_tensor": keras.ops.zeros((1, 64, 64, 3))},
            r"must be a Keras tensor. Received: \w+ of shape \(1, 64, 64, 3\) and dtype .*float32",
        ),
        ({"input_tensor": keras.Input((64,))}, r"`input_tensor` must be .* Received: \(None, 64\)"),
        (
            {"input_tensor": keras.Input((64, 64, 3)), "input_shape": (32, 32, 3)},
            r"`input_shape` must be left out .*\(64, 64, 3\). Received: \(32, 32, 3\)",
        ),
        (
            {"input_tensor": keras.Input((64, 64, 3)), "input_shape": 64},
            r"`input_shape` must be left out .*\(64, 64, 3\). Received: 64",
        ),
    ],
)
def test_a_bad_argument_is_named_with_what_is_allowed_and_what_came(arguments, message):
    with pytest.raises(ValueError, match=message):
        SMALL(**arguments)


@pytest.mark.parametrize("name", [*IMAGENET, "attentivenas_a6", "fairnas_a"])
def test_networks_for_imagenet_refuse_images_that_they_reduce_to_nothing(name):
    with pytest.raises(ValueError, match=r"at least 32. Received: \(31, 64, 3\)"):
        zoo.get_model(name, input_shape=(31, 64, 3))


def test_predictions_are_decoded_by_the_labels_of_their_preset(small, images):
    labels = zoo.get_preset("bignascifar_s")["labels"]
    scores = np.array(small(images))
    decoded = zoo.decode_predictions(scores, top=np.int64(3), labels=labels)
    for row, found in zip(scores, decoded, strict=True):
        assert found == sorted(zip(labels, row, strict=True), key=lambda pair: -pair[1])[:3]
    for preds in (scores[:, 1:], scores[0]):
        with pytest.raises(
            ValueError, match=r"`preds` must be of shape \(batch, 10\).* Received: \("
        ):
            zoo.decode_predictions(preds, labels=labels)
    with pytest.raises(ValueError, match="`top` must be an integer of at least 1. Received: 0"):
        zoo.decode_predictions(scores, top=0, labels=labels)


def test_without_labels_only_probabilities_of_imagenet_classes_are_decoded(monkeypatch):
    with pytest.raises(ValueError, match="1000"):
        zoo.decode_predictions(np.zeros((1, 7)))
    module = sys.modules[keras.applications.imagenet_utils.decode_predictions.__module__]
    index = {str(i): [f"n{i}", f"class {i}"] for i in range(1000)}
    monkeypatch.setattr(module, "CLASS_INDEX", index)
    predictions = np.zeros((1, 1000))
    predictions[0, [5, 9]] = 0.25, 0.75
    decoded = zoo.decode_predictions(predictions, top=2)
    assert decoded == [[("n9", "class 9", 0.75), ("n5", "class 5", 0.25)]]
