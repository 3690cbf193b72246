"""BigNASCifar S, M, L and XL and their weights, without CIFAR-10 at hand."""

import inspect

import keras
import numpy as np
import pytest
from commands_fixture import WARNINGS, done, read

from bignas_tf import zoo
from bignas_tf.cost import count
from bignas_tf.spaces import get_space
from bignas_tf.spec import NetworkSpec
from bignas_tf.zoo.trained import list_supernets

BUDGETS = {  # MMACs at most
    "bignascifar_s": (zoo.BigNASCifarS, 3.4),
    "bignascifar_m": (zoo.BigNASCifarM, 5),
    "bignascifar_l": (zoo.BigNASCifarL, 7),
    "bignascifar_xl": (zoo.BigNASCifarXL, 10),
}
NAMES = list(BUDGETS)
pytestmark = WARNINGS


@pytest.fixture(scope="module")
def trained():
    return {name: build(weights="cifar10") for name, (build, _) in BUDGETS.items()}


def images(model):
    shape = (4, *model.input_shape[1:])
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_its_network_is_and_is_within_its_budget(name):
    preset = zoo.get_preset(name)
    spec, cost = zoo.get_spec(name), count(zoo.get_spec(name))
    assert NetworkSpec.from_json(preset["spec"]) == spec
    assert get_space("cifar").genotype(preset["genotype"]).spec() == spec
    assert (preset["macs"], preset["params"]) == (cost.macs, cost.params)
    assert cost.macs / 1e6 <= BUDGETS[name][1]
    assert (preset["image_size"], preset["published"]) == (32, None)
    accuracy = preset["accuracy"]["cifar10"]
    low, high = accuracy["top1_interval"]
    assert low < accuracy["top1"] < high
    assert accuracy["top1_uncalibrated"] < accuracy["top1"]
    assert len(preset["labels"]) == spec.classes == 10


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_tells_size_and_classes(name):
    build, _ = BUDGETS[name]
    doc = " ".join(inspect.getdoc(build).split())
    resolution = zoo.get_spec(name).input_shape[0]
    assert doc.startswith(f"Builds the {build.__name__} architecture, of the space `cifar`.")
    assert f"to {resolution} x {resolution} pixels" in doc
    assert ", ".join(zoo.get_preset(name)["labels"]) in doc


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_those_of_keras_applications_but_for_ten_classes(name):
    ours = inspect.signature(BUDGETS[name][0]).parameters
    theirs = inspect.signature(keras.applications.EfficientNetV2B0).parameters
    assert list(ours) == list(theirs)
    assert (ours["name"].default, ours["classes"].default) == (name, 10)
    assert ours["weights"].default is None
    same = set(ours) - {"name", "weights", "classes"}
    assert all(ours[key].default == theirs[key].default for key in same)


@pytest.mark.parametrize("name", NAMES)
def test_the_child_that_the_supernet_gives_under_the_same_budget_is_the_model(
    name, trained, tmp_path
):
    assert list_supernets() == ("cifar10",)
    budget = f"--budget=mmacs:{BUDGETS[name][1]}"
    done("extract", "--supernet=cifar10", budget, f"--output={tmp_path}")
    (path,) = tmp_path.glob("*.keras")
    assert read(path.with_suffix(".json"))["genotype"] == zoo.get_preset(name)["genotype"]
    child, model = keras.models.load_model(path, compile=False), trained[name]
    bytes_ = images(model)
    expected = keras.ops.softmax(child(bytes_ / 127.5 - 1))
    np.testing.assert_allclose(model(bytes_), expected, atol=1e-5)
    assert np.ptp(expected, axis=1).min() > 0.1  # and not the same for every class


def test_features_and_other_classes(trained):
    whole = trained["bignascifar_s"]
    features = zoo.BigNASCifarS(include_top=False, weights="cifar10", input_shape=(24, 24, 3))
    layer = whole.get_layer("head_activation").output
    expected = keras.Model(whole.input, layer)(images(whole))
    np.testing.assert_allclose(features(images(whole)), expected, atol=1e-5)
    assert zoo.BigNASCifarS(classes=3).output_shape == (None, 3)
    with pytest.raises(ValueError, match="classes"):
        zoo.BigNASCifarS(weights="cifar10", classes=3)
    with pytest.raises(ValueError, match=r"at least 8. Received: \(7, 8, 3\)"):
        zoo.BigNASCifarS(input_shape=(7, 8, 3))
