"""Weights from files: what fits is loaded, what does not is refused, nothing in a file is run."""

import pathlib
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest

from bignas_tf import zoo
from bignas_tf.zoo.trained import weights_file
from bignas_tf.zoo.weights import load_weights

SMALL = zoo.BigNASCifarS
PATH = weights_file("bignascifar_s", "cifar10")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def assert_same(model, other, but=()):
    for a, b in zip(model.weights, other.weights, strict=False):
        assert a.path == b.path
        same = a.shape == b.shape and np.array_equal(a, b)
        assert same == (a.path not in but), a.path


@pytest.fixture
def expected(built):
    return built("bignascifar_s")


def test_a_file_of_the_whole_model_loads_with_and_without_the_top(expected):
    assert_same(SMALL(weights=PATH, classifier_activation=None), expected)
    features = SMALL(include_top=False, weights=str(PATH), classifier_activation="relu")
    assert_same(features, expected)
    assert len(features.weights) == len(expected.weights) - 2


def test_weights_for_other_classes_are_loaded_but_for_the_classifier(expected):
    new = ("head_classifier/kernel", "head_classifier/bias")
    said = "of 'mine' keeps its initial weights: it is for 7 classes, that of .* for 10"
    with pytest.warns(UserWarning, match=said) as warned:
        model = SMALL(weights=PATH, classes=7, name="mine")
    assert [warning.filename for warning in warned] == [__file__]
    assert_same(model, expected, but=new)
    assert model.get_layer("head_classifier").bias.shape == (7,)


def test_a_saved_model_gives_the_same_outputs_again(expected, tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (2, 24, 24, 3)).astype("float32")
    expected.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    assert again.name == "bignascifar_s"
    np.testing.assert_array_equal(again(images), expected(images))


def test_a_dense_layer_before_the_network_is_not_taken_for_the_classifier(tmp_path):
    def build(**arguments):
        image = keras.layers.Dense(3, name="colours")(keras.Input((24, 24, 5)))
        return SMALL(input_tensor=image, **arguments)

    whole, path = build(), tmp_path / "a.weights.h5"
    whole.save_weights(path)
    with pytest.warns(UserWarning, match="is for 7 classes, that of a.weights.h5 for 10"):
        model = build(weights=path, classes=7)
    assert_same(model, whole, but=("head_classifier/kernel", "head_classifier/bias"))


def test_a_file_without_the_classifier_says_so_where_one_is_built(tmp_path):
    path = tmp_path / "features.weights.h5"
    features = SMALL(include_top=False)
    features.save_weights(path)
    assert_same(SMALL(include_top=False, weights=path), features)
    for classes in (10, 7):
        said = "no weights of the classifier; load it with `include_top=False` and add a classifier"
        with pytest.raises(ValueError, match=f"cannot load this one: it has {said}.*features.weig"):
            SMALL(weights=path, classes=classes)


class Malicious:
    """Its pickle creates a file when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def malicious_keras(mark):
    """A `.keras` archive whose Lambda layer would create a file."""
    name = str(mark)
    layer = keras.layers.Lambda(lambda x: (pathlib.Path(name).touch(), x)[1])
    path = mark.with_suffix(".keras")
    keras.Sequential([keras.Input((1,)), layer]).save(path)
    assert mark.exists()  # it works: building the model called it
    mark.unlink()
    return path.read_bytes()


def external(path, other, place="/vars"):
    """A file of weights that reads those of the classifier from another file."""
    with h5py.File(PATH) as source, h5py.File(path, "w") as copy:
        source.copy("layers", copy)
        del copy["layers/dense/vars"]
        copy["layers/dense/vars"] = h5py.ExternalLink(str(other), place)


@pytest.fixture(scope="module")
def another():
    """A model that loading may leave half done."""
    return SMALL()


@pytest.mark.parametrize("kind", ["pickle", "npy", "keras", "zip", "link", "empty"])
@pytest.mark.filterwarnings("ignore:The `lambda`")
def test_a_file_that_could_do_more_than_hold_numbers_is_refused(kind, another, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "a.weights.h5"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Malicious(mark)))
    elif kind == "npy":
        np.save(tmp_path / "a.npy", np.array([Malicious(mark)], object), allow_pickle=True)
        (tmp_path / "a.npy").rename(path)
    elif kind == "keras":
        path.write_bytes(malicious_keras(mark))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", PATH.read_bytes())
    elif kind == "link":
        external(path, mark)
    else:
        path.touch()
    with pytest.raises(ValueError, match="cannot load this one: .* Received: .*a.weights.h5"):
        load_weights(another, path)
    assert not mark.exists()


def test_a_link_to_another_file_is_not_followed_even_for_a_shape(tmp_path):
    path = tmp_path / "a.weights.h5"
    external(path, PATH, "/layers/dense/vars")
    with pytest.raises(ValueError, match="it has no weights of the classifier"):
        SMALL(weights=path, classes=7)


def test_a_damaged_file_is_refused_like_any_other(another, tmp_path):
    path = tmp_path / "a.weights.h5"
    path.write_bytes(PATH.read_bytes().replace(b"SNOD", b"snod"))  # the nodes of its tables
    with pytest.raises(ValueError, match="cannot load this one: .* Received: .*a.weights.h5"):
        load_weights(another, path)


def test_the_layer_that_does_not_fit_is_named_with_what_the_file_has(another, tmp_path):
    path = tmp_path / "a.weights.h5"
    for place, said in [
        ("layers/conv2d", "'stem_conv' expected 1 variables, but received 0"),
        ("layers/dense/vars/1", "'head_classifier' expected 2 variables, but received 1"),
    ]:
        path.write_bytes(PATH.read_bytes())
        with h5py.File(path, "a") as file:
            del file[place]
        with pytest.raises(ValueError, match=f"cannot load this one: Layer {said}"):
            load_weights(another, path)


def test_files_of_other_kinds_are_not_even_opened(tmp_path):
    for suffix in (".keras", ".pkl", ".npz", ".weights.json"):
        path = tmp_path / f"a{suffix}"
        path.touch()
        # The file exists: nothing is said of that.
        said = r"the weights file \(.weights.h5\) to be loaded\. Received"
        with pytest.raises(ValueError, match=said):
            SMALL(weights=path)


def test_a_file_of_another_network_or_of_other_channels_is_refused(another):
    refused = "`weights` must be a file that .* with as many input channels; '.*' cannot load this"
    with pytest.raises(ValueError, match=refused):
        load_weights(another, weights_file("bignascifar_m", "cifar10"))
    shapes = r": layer stem_conv needs shape \(3, 3, 1, 16\), the file has \(3, 3, 3, 16\)\. Rec"
    with pytest.raises(ValueError, match=refused + " one" + shapes):
        SMALL(weights=PATH, input_shape=(24, 24, 1))
