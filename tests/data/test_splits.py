import numpy as np
import pytest

from bignas_tf.data import DataError, Split, hold_out
from bignas_tf.data.streams import Stream, raw, unit


def make_split(sizes, seed=0):
    labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    labels = np.random.default_rng(seed).permutation(labels)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Split(labels, images=images)


def philox(key, counter, rounds=10):
    """Philox4x64 as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011."""
    mask = 2**64 - 1
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(rounds):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c2, 2**64)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (5, 3), (2**64 - 1, 41)])
def test_raw_numbers_are_philox_of_seed_epoch_stream_and_position(seed, epoch):
    for stream in Stream:
        blocks = [philox((seed, epoch), (block, 0, 0, stream)) for block in (1, 2, 3)]
        expected = np.array(blocks, np.uint64).ravel()
        np.testing.assert_array_equal(raw(stream, 10, seed=seed, epoch=epoch), expected[:10])


def test_unit_numbers_reach_0_and_stay_below_1():
    values = unit(np.array([0, 2**63, 2**64 - 1], np.uint64))
    assert values.tolist() == [0.0, 0.5, 1 - 2.0**-53]


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": 2**64}, {"seed": 0, "epoch": -1}])
def test_a_seed_or_epoch_out_of_range_is_refused(arguments):
    with pytest.raises(DataError, match="must be an integer in"):
        raw(Stream.ORDER, 1, **arguments)


def test_held_out_examples_are_each_class_in_its_share():
    split = make_split([50, 30, 20])
    rest, held = hold_out(split, 10, seed=3)
    assert np.bincount(held.labels).tolist() == [5, 3, 2]
    assert np.bincount(rest.labels).tolist() == [45, 27, 18]


def test_rest_and_held_out_are_the_whole_in_its_order():
    split = make_split([7, 5, 9])
    rest, held = hold_out(split, 6, seed=3)
    numbers = [part.images.ravel().tolist() for part in (rest, held)]
    assert [sorted(part) for part in numbers] == numbers
    assert sorted(numbers[0] + numbers[1]) == list(range(21))
    for part in (rest, held):
        np.testing.assert_array_equal(part.labels, split.labels[part.images.ravel()])


def test_what_is_held_out_depends_on_the_seed_only():
    split = make_split([40, 60])
    first, again, other = (hold_out(split, 20, seed)[1].images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert set(first.ravel()) != set(other.ravel())


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_on_both_sides_where_that_is_possible(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 30, 8)
    for count in (8, 11, int(sizes.sum()) - 8):
        rest, held = hold_out(make_split(sizes), count, seed)
        assert len(held) == count
        assert np.bincount(held.labels, minlength=8).min() >= 1
        assert np.bincount(rest.labels, minlength=8).min() >= 1


def test_the_only_example_of_a_class_stays():
    rest, held = hold_out(make_split([1, 10]), 5, seed=0)
    assert np.bincount(rest.labels).tolist() == [1, 5]
    assert held.labels.tolist() == [1] * 5


@pytest.mark.parametrize("count", [-1, 0, 18, 20, 21])
def test_impossible_counts_are_refused(count):
    with pytest.raises(DataError, match=rf"`count`.*1\.\.17.*Received: {count}"):
        hold_out(make_split([5, 6, 9]), count, seed=0)


def test_take_keeps_files_with_their_labels():
    split = Split(
        np.arange(4, dtype=np.int32), paths=("a", "b", "c", "d"), image_size=8, channels=3
    )
    part = split.take(np.array([2, 0]))
    assert part.paths == ("c", "a")
    assert part.labels.tolist() == [2, 0]
    assert part.image_shape == (8, 8, 3)


ONE = np.zeros(1, np.int32)
PIXEL = np.zeros((1, 1, 1, 1), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ONE}, "Exactly one"),
        ({"labels": ONE, "images": PIXEL, "paths": ("a",)}, "Exactly one"),
        ({"labels": ONE.astype(np.int64), "images": PIXEL}, "`labels` must be int32"),
        ({"labels": np.zeros(2, np.int32), "images": PIXEL}, "`labels` must be as many"),
        ({"labels": ONE, "images": PIXEL.astype(float)}, "`images` must be uint8"),
        ({"labels": ONE, "images": PIXEL[0]}, "`images` must be uint8"),
        ({"labels": ONE, "paths": ("a",)}, "`paths` and `records` need an `image_size`"),
    ],
)
def test_a_split_that_does_not_fit_together_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        Split(**arguments)
