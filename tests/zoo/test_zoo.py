"""The zoo's models, as keras.applications tests its own: one table, every model."""

import inspect
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from bignas_tf import zoo
from bignas_tf.cost import count
from bignas_tf.spaces import get_space
from bignas_tf.spec import NetworkSpec

PUBLISHED = {  # MMACs, million parameters, top-1 % of the paper
    "bignasmodel_s": (zoo.BigNASModelS, 242, 4.5, 76.5),
    "bignasmodel_m": (zoo.BigNASModelM, 418, 5.5, 78.9),
    "bignasmodel_l": (zoo.BigNASModelL, 586, 6.4, 79.5),
    "bignasmodel_xl": (zoo.BigNASModelXL, 1040, 9.5, 80.9),
}
NAMES = list(PUBLISHED)
SMALL = zoo.BigNASModelS
# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def small():
    """The smallest model with seven classes and weights at which signals do not vanish."""
    model = SMALL(classes=7)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.1, layer.beta.shape))
    return model


@pytest.fixture(scope="module")
def weights_file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    small.save_weights(path)
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (2, 192, 192, 3)).astype("float32")


def last_width(name: str) -> int:
    return zoo.get_spec(name).blocks[-1].channels


def test_the_presets_are_listed_from_small_to_big():
    assert set(NAMES) < set(zoo.list_models())
    costs = [count(zoo.get_spec(name)).macs for name in zoo.list_models()]
    assert costs == sorted(costs)


@pytest.mark.parametrize("name", NAMES)
def test_macs_and_params_are_the_published_ones_within_one_percent(name):
    _, mmacs, params_m, top1 = PUBLISHED[name]
    cost = count(zoo.get_spec(name))
    assert abs(cost.macs / 1e6 / mmacs - 1) <= 0.01
    assert abs(cost.params / 1e6 / params_m - 1) <= 0.01
    published = zoo.get_preset(name)["published"]
    found = [published[key] for key in ("mmacs", "params_m", "top1_percent")]
    assert found == [mmacs, params_m, top1]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_its_network_costs_and_where_it_comes_from(name):
    preset = zoo.get_preset(name)
    spec, cost = zoo.get_spec(name), count(zoo.get_spec(name))
    assert NetworkSpec.from_json(preset["spec"]) == spec
    assert get_space(preset["space"]).genotype(preset["genotype"]).spec() == spec
    assert (preset["macs"], preset["params"]) == (cost.macs, cost.params)
    assert spec.input_shape == (preset["resolution"], preset["resolution"], 3)
    assert "ours" in preset["origin"]
    assert (preset["input_range"], preset["interpolation"]) == ([0, 255], "bicubic")
    assert preset["weights"] is preset["accuracy"] is None


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_tells_the_figures_of_the_presets(name):
    build, mmacs, params_m, top1 = PUBLISHED[name]
    doc = inspect.getdoc(build)
    resolution, cost = zoo.get_spec(name).input_shape[0], count(zoo.get_spec(name))
    assert doc.startswith(f"Builds the {build.__name__} architecture.")
    assert re.search(rf"Resize images to\s+{resolution} x {resolution} pixels", doc)
    assert (
        f"| {build.__name__} | {resolution} | {cost.macs / 1e6:.1f} | {cost.params / 1e6:.2f} M "
        f"| {mmacs} | {params_m} M | {top1} % |"
    ) in doc
    assert "The per-stage configuration of this model is ours" in doc
    assert "there are no weights of ours" in doc


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_those_of_keras_applications(name):
    ours = inspect.signature(PUBLISHED[name][0]).parameters
    theirs = inspect.signature(keras.applications.EfficientNetV2B0).parameters
    assert list(ours) == list(theirs)
    assert ours["name"].default == name
    assert ours["weights"].default is None
    same = set(ours) - {"name", "weights"}
    assert all(ours[key].default == theirs[key].default for key in same)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_model_has_the_counted_parameters(name):
    model = PUBLISHED[name][0]()
    resolution = zoo.get_spec(name).input_shape[0]
    assert model.name == name
    assert model.input_shape == (None, resolution, resolution, 3)
    assert model.output_shape == (None, 1000)
    assert model.layers[-1].activation is keras.activations.softmax
    assert model.spec == zoo.get_spec(name)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == zoo.get_preset(name)["params"]


@pytest.mark.parametrize(
    "name, channels, pooling, output",
    [
        ("bignasmodel_s", 1, None, (None, None, None)),
        ("bignasmodel_m", 4, "avg", (None,)),
        ("bignasmodel_l", 1, "max", (None,)),
        ("bignasmodel_xl", 3, None, (None, None, None)),
    ],
)
def test_without_the_top_images_may_have_any_size_and_channels(name, channels, pooling, output):
    shape = None if channels == 3 else (None, None, channels)
    model = PUBLISHED[name][0](include_top=False, pooling=pooling, input_shape=shape)
    assert model.input_shape == (None, None, None, channels)
    assert model.output_shape == (*output, last_width(name))
    assert model.spec.input_shape == (*zoo.get_spec(name).input_shape[:2], channels)


def test_a_custom_input_shape_and_number_of_classes_are_used():
    model = SMALL(
        input_shape=(65, 97, 4), classes=3, classifier_activation=None, include_preprocessing=False
    )
    assert model.input_shape == (None, 65, 97, 4)
    assert model.layers[-1].name == "head_classifier"
    assert not any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    assert model.get_layer("stage7_block1_add").output.shape[1:3] == (3, 4)
    assert model(np.zeros((1, 65, 97, 4))).shape == (1, 3)
    assert model.spec.classes == 3


def test_an_input_tensor_is_read_through_its_predecessors():
    image = keras.Input((80, 80, 4), name="mine")
    x = keras.layers.Conv2D(3, 2, strides=2, name="before")(image)
    model = SMALL(include_top=False, input_tensor=x)
    assert model.input is image
    assert model.output_shape == (None, 2, 2, last_width("bignasmodel_s"))
    assert model.get_layer("before").output is x


def test_images_are_bytes_unless_preprocessing_is_left_out(small, images):
    raw = SMALL(classes=7, include_preprocessing=False)
    raw.set_weights(small.get_weights())
    np.testing.assert_allclose(raw(images / 127.5 - 1), small(images), atol=1e-6)
    assert zoo.preprocess_input(images) is images


def test_a_file_of_the_whole_model_loads_with_and_without_the_top(small, weights_file, images):
    whole = SMALL(classes=7, weights=weights_file)
    np.testing.assert_array_equal(whole(images), small(images))
    features = SMALL(include_top=False, weights=str(weights_file))
    expected = keras.Model(small.input, small.get_layer("head_activation").output)
    np.testing.assert_allclose(features(images), expected(images), atol=1e-6)


def test_a_saved_model_gives_the_same_outputs_again(small, images, tmp_path):
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    assert again.name == "bignasmodel_s"
    np.testing.assert_array_equal(again(images), small(images))


def test_a_file_that_does_not_fit_is_refused_by_name(weights_file):
    with pytest.raises(ValueError, match="`weights` must be a file that .* as many classes"):
        SMALL(classes=8, weights=weights_file)


def test_trained_weights_give_logits_or_probabilities_as_in_keras_applications(weights_file):
    with pytest.raises(ValueError, match="must be None or 'softmax' when .* Received: 'relu'"):
        SMALL(classes=7, weights=weights_file, classifier_activation="relu")
    logits = SMALL(classes=7, weights=weights_file, classifier_activation=None)
    assert logits.layers[-1].name == "head_classifier"
    SMALL(include_top=False, weights=weights_file, classifier_activation="relu")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weights": "imagenet"}, "nobody has trained these networks on ImageNet"),
        ({"weights": "none.weights.h5"}, "`weights` must be .*, which must exist. Received: 'none"),
        ({"weights": "model.h5"}, r"`weights` must be either None .* Received: 'model.h5'"),
        ({"weights": 1}, "`weights` must be either None .* Received: 1"),
        ({"pooling": "mean"}, "`pooling` must be one of avg, max. Received: 'mean'"),
        ({"classes": 0}, "`classes` must be an integer of at least 1. Received: 0"),
        ({"classifier_activation": "softmin2"}, "`classifier_activation` .* Received: 'softmin2'"),
        ({"input_shape": (224, 224)}, r"`input_shape` must be .* Received: \(224, 224\)"),
        ({"input_shape": (31, 64, 3)}, r"at least 32. Received: \(31, 64, 3\)"),
        ({"input_shape": (None, None, None)}, r"Received: \(None, None, None\)"),
        ({"input_tensor": np.zeros((1, 64, 64, 3))}, "`input_tensor` must be a Keras tensor"),
        ({"input_tensor": keras.Input((64,))}, r"`input_tensor` must be .* Received: \(None, 64\)"),
        (
            {"input_tensor": keras.Input((64, 64, 3)), "input_shape": (32, 32, 3)},
            r"`input_shape` must be left out .*\(64, 64, 3\). Received: \(32, 32, 3\)",
        ),
    ],
)
def test_a_bad_argument_is_named_with_what_is_allowed_and_what_came(arguments, message):
    with pytest.raises(ValueError, match=message):
        SMALL(**arguments)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    for read in (zoo.get_spec, zoo.get_preset):
        with pytest.raises(ValueError, match="must be one of bignascifar_s, .* Received: 'xxl'"):
            read("xxl")


def test_a_preset_that_a_caller_changes_stays_as_it_is():
    zoo.get_preset("bignasmodel_s")["spec"]["classes"] = 5
    assert zoo.get_preset("bignasmodel_s")["spec"]["classes"] == 1000


def test_only_probabilities_of_imagenet_classes_are_decoded(monkeypatch):
    with pytest.raises(ValueError, match="1000"):
        zoo.decode_predictions(np.zeros((1, 7)))
    module = sys.modules[keras.applications.imagenet_utils.decode_predictions.__module__]
    index = {str(i): [f"n{i}", f"class {i}"] for i in range(1000)}
    monkeypatch.setattr(module, "CLASS_INDEX", index)
    predictions = np.zeros((1, 1000))
    predictions[0, [5, 9]] = 0.25, 0.75
    decoded = zoo.decode_predictions(predictions, top=2)
    assert decoded == [[("n9", "class 9", 0.75), ("n5", "class 5", 0.25)]]


def test_importing_the_zoo_loads_nothing_beyond_keras_and_this_package():
    script = (
        "import sys, keras; before = set(sys.modules)\n"
        "from bignas_tf.zoo import BigNASModelM\n"
        "print(sorted(name for name in set(sys.modules) - before))\n"
    )
    run = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    loaded = re.findall(r"'(.*?)'", run.stdout.strip().splitlines()[-1])
    assert {name.split(".")[0] for name in loaded} == {"bignas_tf"}
    assert "bignas_tf.spaces" not in loaded
