"""The one resize: against TensorFlow's and Pillow's, and its own properties."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bignas_tf.resize import prepare, resize, resize_by, resize_matrix, to_input_range

SIZES = [(8, 12), (12, 8), (32, 24), (24, 32), (33, 32), (35, 9), (9, 35), (64, 15), (1, 4), (5, 1)]


def images(height: int, width: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.uniform(-1, 1, (2, height, width, channels)).astype("float32")


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_it_is_tensorflows_antialiased_bicubic(source, target):
    for width in (source, source + 3):
        x = images(source, width)
        expected = tf.image.resize(x, (target, target), "bicubic", antialias=True)
        np.testing.assert_allclose(resize(x, target), expected, atol=2e-5)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_it_is_pillows_bicubic(source, target):
    x = images(source, source + 3, channels=1)
    for image, resized in zip(x, resize(x, target), strict=True):
        # Mode F holds floats: nothing is rounded or clipped.
        pillow = Image.fromarray(image[..., 0]).resize((target, target), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(np.asarray(resized)[..., 0], np.asarray(pillow), atol=2e-5)


def test_on_bytes_it_is_pillows_to_rounding_away_from_clipping():
    rng = np.random.default_rng(0)
    x = rng.integers(90, 160, (1, 32, 32, 3)).astype("uint8")
    pillow = Image.fromarray(x[0]).resize((24, 24), Image.Resampling.BICUBIC)
    ours = (np.asarray(prepare(x, 24))[0] + 1) * 127.5
    assert np.abs(ours - np.asarray(pillow, "float32")).max() < 1.1


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_rows_sum_to_one_and_a_constant_stays_itself(source, target):
    matrix = resize_matrix(source, target)
    assert matrix.shape == (target, source)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    constant = np.full((1, source, source, 1), 0.7, "float32")
    np.testing.assert_allclose(resize(constant, target), 0.7, atol=1e-6)


def test_at_its_own_size_an_image_is_returned_untouched():
    x = images(9, 9)
    assert resize(x, 9) is x
    np.testing.assert_array_equal(resize_matrix(9, 9), np.eye(9, dtype="float32"))


def test_one_trace_with_matrices_as_tensors_equals_resize():
    signature = [
        tf.TensorSpec((None, None, None, 3)),
        tf.TensorSpec((None, None)),
        tf.TensorSpec((None, None)),
    ]
    traced = tf.function(resize_by, input_signature=signature)
    for source, target in SIZES:
        x = images(source, source + 1)
        rows, columns = resize_matrix(source, target), resize_matrix(source + 1, target)
        np.testing.assert_allclose(traced(x, rows, columns), resize(x, target), atol=1e-6)
    assert traced.experimental_get_tracing_count() == 1


def test_rows_and_columns_may_have_sizes_of_their_own():
    x = images(8, 10)
    actual = resize_by(x, resize_matrix(8, 5), resize_matrix(10, 14))
    expected = tf.image.resize(x, (5, 14), "bicubic", antialias=True)
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_gradients_go_back_through_the_transposed_matrices():
    x = tf.constant(images(8, 8))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(resize(x, 5))
    weight = resize_matrix(8, 5).sum(0)
    expected = np.outer(weight, weight)[None, :, :, None] * np.ones(x.shape)
    np.testing.assert_allclose(tape.gradient(total, x), expected, atol=1e-5)


def test_matrices_are_shared_and_cannot_be_changed():
    assert resize_matrix(12, 7) is resize_matrix(12, 7)
    with pytest.raises(ValueError, match="read-only"):
        resize_matrix(12, 7)[0, 0] = 1


def test_bytes_become_minus_one_to_one():
    x = np.array([0, 127, 128, 255], "uint8").reshape(1, 2, 2, 1)
    expected = (np.array([0, 127, 128, 255]) / 127.5 - 1).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(to_input_range(x), expected, atol=1e-7)
    assert prepare(x, 3).dtype == "float32"
    np.testing.assert_allclose(prepare(x, 2), expected, atol=1e-7)
