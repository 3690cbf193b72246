import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bignas_tf.data import DataError, load_source


@pytest.fixture(scope="module")
def bundled():
    from sklearn.datasets import load_digits

    return load_digits()


def as_rows(images, labels):
    return sorted((label, image.tobytes()) for image, label in zip(images, labels, strict=True))


def test_digits_are_the_bundled_ones_scaled_to_8_bits(bundled):
    source = load_source("digits", image_size=8, channels=1)
    scaled = (bundled.images * 255 / 16).round().astype(np.uint8)[..., None]
    assert scaled.max() == 255
    images = np.concatenate([source.train.images, source.test.images])
    labels = np.concatenate([source.train.labels, source.test.labels])
    assert as_rows(images, labels) == as_rows(scaled, bundled.target.astype(np.int32))
    assert source.classes == tuple("0123456789")
    assert (source.name, source.image_size, source.channels) == ("digits", 8, 1)


def test_digits_in_colour_repeat_the_grey_channel():
    grey, colour = (load_source("digits", image_size=8, channels=c).train for c in (1, 3))
    np.testing.assert_array_equal(colour.images, np.repeat(grey.images, 3, axis=-1))


def test_digits_of_another_size_are_resized_by_pillow():
    small, large = (load_source("digits", image_size=s, channels=1).test for s in (8, 12))
    for before, after in zip(small.images[:20, ..., 0], large.images[:20, ..., 0], strict=True):
        resized = Image.fromarray(before).resize((12, 12), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(after, np.asarray(resized))


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_the_test_split_of_digits_has_each_class_in_its_share(bundled, fraction):
    source = load_source("digits", image_size=8, test_fraction=fraction)
    assert len(source.test) == round(1797 * fraction)
    share = np.bincount(bundled.target) * fraction
    assert abs(np.bincount(source.test.labels) - share).max() < 1


def test_the_test_split_of_digits_alone_is_that_of_the_whole():
    whole, alone = (load_source("digits", image_size=8, test_only=only) for only in (False, True))
    np.testing.assert_array_equal(alone.test.images, whole.test.images)
    assert (len(whole.train), len(alone.train)) == (1438, 0)


def test_splits_and_fingerprints_of_digits_differ_by_seed_only():
    first, again, other = (load_source("digits", image_size=8, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.fingerprint == load_source("digits", image_size=9, channels=1).fingerprint


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        DataError, match=r"Source 'digits' needs sklearn; .*: pip install '\.\[digits\]'"
    ):
        load_source("digits", image_size=8)


@pytest.mark.parametrize("name", ["", "mnist", "digits:8", "tfds", "tfds:", "Folder:/tmp"])
def test_an_unknown_source_is_refused(name):
    with pytest.raises(DataError, match=f"`name` must be 'digits'.*Received: '{name}'"):
        load_source(name, image_size=8)


@pytest.mark.parametrize(
    "argument",
    [
        {"image_size": 0},
        {"image_size": 8.0},
        {"channels": 2},
        {"test_fraction": 0},
        {"test_fraction": 1.0},
        {"seed": -1},
        {"memory_limit_mb": -1},
        {"memory_limit_mb": float("nan")},
    ],
)
def test_an_argument_out_of_range_is_named(argument):
    ((name, value),) = argument.items()
    with pytest.raises(DataError, match=f"`{name}` must.*Received: {value}$"):
        load_source("digits", **{"image_size": 8} | argument)


def test_a_test_fraction_that_leaves_a_class_without_examples_is_refused():
    with pytest.raises(DataError, match="`test_fraction`.*1797 examples of 10.*Received: 0.001"):
        load_source("digits", image_size=8, test_fraction=0.001)


def test_tensorflow_is_not_needed_for_sources_augmentation_and_batches():
    program = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # importing them fails
from bignas_tf.data import AugmentationPolicy, BatchPlan, evaluation_batches, load_source
split = load_source("digits", image_size=8).train
plan = BatchPlan(split, batch_size=16, policy=AugmentationPolicy(shift=1), seed=0)
print(plan.read(100)["images"].shape, next(evaluation_batches(split, 5))["images"].shape)
"""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "(16, 8, 8, 3) (5, 8, 8, 3)\n", done.stderr
