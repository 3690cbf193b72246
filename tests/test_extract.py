"""Extracted children: weights by name, usable without this package, others refused."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from supernets import SPACES, assert_agrees, noise, shared

from bignas_tf.calibration import calibrate
from bignas_tf.extract import assign_weights, extract
from bignas_tf.spaces import get_space


def test_a_child_carries_the_supernets_weights_under_equal_names():
    genotype = shared("kernels").space.sample(1, seed=2)[0]
    child = extract(shared("kernels"), genotype)
    weights = shared("kernels").child_weights(genotype)
    assert {variable.path for variable in child.trainable_variables} == set(weights)
    for variable in child.trainable_variables:
        np.testing.assert_array_equal(variable, weights[variable.path])
        assert variable.dtype == "float64"
    assert child.spec == genotype.spec()


def test_extracting_again_gives_a_child_of_its_own():
    genotype = shared("kernels").space.smallest()
    images = noise(genotype)
    first = extract(shared("kernels"), genotype)
    before = first(images, training=False).numpy()
    second = extract(shared("kernels"), genotype, classifier_activation="softmax", name="second")
    assert_agrees(second(images), keras.ops.softmax(before), 1e-12)
    for variable in second.trainable_variables:
        variable.assign(variable + 1)
    np.testing.assert_array_equal(first(images), before)
    assert second.name == "second"


# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_calibrated_child_runs_where_the_package_is_not_installed(tmp_path):
    genotype = shared("attentive").space.sample(1, seed=2)[0]
    child = extract(shared("attentive", "float32"), genotype, include_preprocessing=False)
    images = noise(genotype, batch=8, dtype="float32")
    calibrate(child, images)
    child.save(tmp_path / "child.keras")
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys; sys.modules['bignas_tf'] = None\n"
        "import keras, numpy as np\n"
        "child = keras.models.load_model('child.keras')\n"
        "np.save('outputs.npy', child.predict(np.load('images.npy'), verbose=0))\n"
    )
    subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True
    )
    assert_agrees(np.load(tmp_path / "outputs.npy"), child(images), 1e-5)


def test_genotypes_of_other_spaces_are_refused():
    for other in (get_space("cifar"), get_space("digits"), SPACES["kernels"](classes=4)):
        with pytest.raises(ValueError, match="`genotype` must be of space 'kernels'. Received: G"):
            extract(shared("kernels"), other.smallest())


def test_weights_that_are_not_the_childs_are_refused_before_anything_changes():
    supernet = shared("kernels")
    child = extract(supernet, supernet.space.smallest())
    before = child.get_weights()
    weights = {
        path: array + 1 for path, array in supernet.child_weights(supernet.space.smallest()).items()
    }
    less = {path: array for path, array in weights.items() if path != "head_bn/gamma"}
    with pytest.raises(ValueError, match=r"missing \['head_bn/gamma'\], unknown \[\]"):
        assign_weights(child, less)
    with pytest.raises(ValueError, match=r"missing \[\], unknown \['tail/kernel'\]"):
        assign_weights(child, weights | {"tail/kernel": np.zeros(1)})
    for old, new in zip(before, child.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
