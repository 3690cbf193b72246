import itertools
import subprocess
import sys

import numpy as np
import pytest

from bignas_tf.data import AugmentationPolicy, DataError

jax = pytest.importorskip("jax")

from bignas_tf.data.device_augmentation import augment  # noqa: E402

augment_jitted = jax.jit(augment, static_argnums=0)

# Both fills, crops that leave nothing of the image, odd, even and oversized squares.
SHIFTS = [
    {},
    {"shift": 3},
    {"shift": 2, "fill": "constant", "value": 9},
    {"shift": 40, "fill": "constant", "value": 255},
]
POLICIES = [
    AugmentationPolicy(flip=flip, **shift, cutout=cutout, mixup=mixup)
    for flip, shift, cutout, mixup in itertools.product(
        (False, True), SHIFTS, (0, 3, 4), (0.0, 0.4)
    )
] + [AugmentationPolicy(flip=True, shift=1, cutout=50, mixup=1.0)]


def make_images(shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def on_device(draws):
    return {name: jax.numpy.asarray(values) for name, values in draws.items()}


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_device_gives_the_bytes_of_numpy(policy):
    for shape in ((33, 8, 8, 3), (32, 7, 12, 1)):
        images = make_images(shape)
        draws = policy.draw(len(images), seed=1, epoch=2)
        augmented = augment_jitted(policy, jax.numpy.asarray(images), on_device(draws))
        assert augmented.dtype == np.uint8
        np.testing.assert_array_equal(augmented, policy.apply(images, draws))


@pytest.mark.parametrize("side", [1, 2, 97, 128, 129, 257, 1000])
def test_a_centre_next_to_the_border_of_a_pixel_falls_on_the_side_it_does_in_numpy(side):
    border = -(-np.arange(side, dtype=np.int64) * 2**24 // side)  # the least centres in a pixel
    below = np.append(border[1:], 2**24) - 1  # and the greatest
    fractions = np.concatenate([border, below])
    centres = np.stack([fractions, fractions[::-1]], axis=1) * 2.0**-24
    assert (centres.astype(np.float32) == centres).all()
    draws = {"cutouts": centres.astype(np.float32)}
    policy = AugmentationPolicy(cutout=1, value=1)
    for shape in ((2 * side, side, 1, 1), (2 * side, 1, side, 1)):
        images = np.zeros(shape, np.uint8)
        cut = np.asarray(augment_jitted(policy, jax.numpy.asarray(images), on_device(draws)))
        np.testing.assert_array_equal(cut, policy.apply(images, draws))
        pixels = np.tile(np.arange(side), 2)
        expected = pixels if shape[1] == side else pixels[::-1]
        np.testing.assert_array_equal(cut.reshape(2 * side, side).argmax(axis=1), expected)


def test_a_centre_is_exact_at_the_longest_side_that_is_allowed():
    height = 2**19 - 1
    fractions = np.array([0, 1, 32, 33, 2**12 - 1, 2**12, 2**23, 2**24 - 33, 2**24 - 1])
    draws = {"cutouts": np.column_stack([fractions * 2.0**-24] * 2).astype(np.float32)}
    images = np.zeros((len(fractions), height, 1, 1), np.uint8)
    policy = AugmentationPolicy(cutout=1, value=1)
    cut = np.asarray(augment_jitted(policy, jax.numpy.asarray(images), on_device(draws)))
    rows = cut.reshape(len(fractions), height).argmax(axis=1)
    assert rows.tolist() == [int(f) * height // 2**24 for f in fractions]


def test_every_share_of_every_pair_of_bytes_is_mixed_as_numpy_does():
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256))).astype(np.uint8)
    # Image i and its partner, 513 - i, hold all pairs of bytes.
    images = np.repeat(pairs[..., None], 257, axis=0)
    draws = {"shares": np.tile(np.arange(257, dtype=np.int32), 2)}
    policy = AugmentationPolicy(mixup=1.0)
    np.testing.assert_array_equal(
        augment_jitted(policy, jax.numpy.asarray(images), on_device(draws)),
        policy.apply(images, draws),
    )


def test_batches_of_one_shape_share_one_program():
    policy = AugmentationPolicy(flip=True, shift=2, cutout=3, mixup=0.4)
    traces = []

    @jax.jit
    def step(images, draws):
        traces.append(images.shape)
        return augment(policy, images, draws)

    images = make_images((9, 7, 8, 3))
    for epoch in range(3):
        draws = policy.draw(9, seed=1, epoch=epoch)
        np.testing.assert_array_equal(step(images, draws), policy.apply(images, draws))
    assert traces == [(9, 7, 8, 3)]


def test_what_numpy_refuses_is_refused_when_the_program_is_traced():
    images = jax.numpy.zeros((2, 8, 9, 1), "uint8")
    flip = AugmentationPolicy(flip=True)
    with pytest.raises(DataError, match=r"`draws\['flips'\]`.*2 images. Received: 0"):
        augment_jitted(flip, images, {})
    with pytest.raises(DataError, match=r"`draws\['flips'\]`.*2 images. Received: 3"):
        augment_jitted(flip, images, on_device(flip.draw(3, 0, 0)))
    shift = AugmentationPolicy(shift=8)
    with pytest.raises(DataError, match="`shift`.*8 pixels. Received: 8"):
        augment_jitted(shift, images, on_device(shift.draw(2, 0, 0)))
    for host in (AugmentationPolicy(crop=0.1), AugmentationPolicy(operations="randaugment")):
        with pytest.raises(DataError, match="`policy` must have no crop and no operations"):
            augment(host, images, host.draw(2, 0, 0))


def test_data_without_this_module_does_not_load_jax():
    code = (
        "import sys, bignas_tf.data, bignas_tf.data.batches, bignas_tf.data.augmentation; "
        "print('jax' in sys.modules)"
    )
    found = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"
