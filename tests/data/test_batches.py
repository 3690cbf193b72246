import dataclasses

import numpy as np
import pytest
from PIL import Image

from bignas_tf.data import (
    AugmentationPolicy,
    BatchPlan,
    BrokenImageError,
    DataError,
    Split,
    epoch_order,
    evaluation_batches,
)

POLICY = AugmentationPolicy(flip=True, shift=2, cutout=3)


def make_split(n, size=7):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (n, size, size, 3), np.uint8)
    return Split(rng.integers(0, 3, n).astype(np.int32), images=images)


def test_a_batch_is_its_place_in_the_epochs_order_augmented():
    split = make_split(23)
    plan = BatchPlan(split, batch_size=5, policy=POLICY, seed=8)
    assert plan.steps_per_epoch == 4
    for step in (0, 3, 4, 9):
        epoch, position = step // 4, step % 4
        index = epoch_order(23, 8, epoch)[5 * position : 5 * position + 5]
        everything = POLICY.apply(split.images, POLICY.draw(23, 8, epoch))
        batch = plan.read(step)
        np.testing.assert_array_equal(batch["index"], index)
        np.testing.assert_array_equal(batch["images"], everything[index])
        np.testing.assert_array_equal(batch["labels"], split.labels[index])
        assert [batch[name].dtype for name in ("images", "labels", "index")] == [
            np.uint8,
            np.int32,
            np.int64,
        ]


@pytest.mark.parametrize("batch_size", [4, 5])
def test_mixup_adds_the_batch_reversed_and_its_labels(batch_size):
    split = make_split(23)
    plain, mixing = (
        BatchPlan(split, batch_size=batch_size, policy=policy, seed=8)
        for policy in (POLICY, dataclasses.replace(POLICY, mixup=0.4))
    )
    for step in (0, 3, 7):
        alone, batch = plain.read(step), mixing.read(step)
        assert batch.keys() - alone.keys() == {"partners", "shares"}
        np.testing.assert_array_equal(batch["index"], alone["index"])
        np.testing.assert_array_equal(batch["labels"], alone["labels"])
        np.testing.assert_array_equal(batch["partners"], split.labels[batch["index"][::-1]])
        epoch = step // mixing.steps_per_epoch
        draws = mixing.policy.draw(23, 8, epoch)
        assert mixing.draws(step).keys() == draws.keys()
        for name, values in mixing.draws(step).items():
            np.testing.assert_array_equal(values, draws[name][batch["index"]])
        shares = draws["shares"][batch["index"]]
        np.testing.assert_array_equal(batch["shares"], shares)
        share = shares[:, None, None, None] / 256
        images = share * alone["images"] + (1 - share) * alone["images"][::-1]
        np.testing.assert_array_equal(batch["images"], np.floor(images + 0.5))
        assert batch["partners"].dtype == batch["shares"].dtype == np.int32


def test_without_mixup_a_batch_is_images_labels_and_index_only():
    batch = BatchPlan(make_split(23), batch_size=5, policy=POLICY, seed=8).read(0)
    assert list(batch) == ["images", "labels", "index"]


def test_an_epoch_has_no_example_twice_and_each_epoch_another_order():
    plan = BatchPlan(make_split(22), batch_size=4, policy=POLICY, seed=8)
    epochs = [np.concatenate([plan.indices(5 * e + s) for s in range(5)]) for e in range(3)]
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_how_an_example_is_augmented_does_not_depend_on_the_batch_size():
    split = make_split(24)
    seen = []
    for batch_size in (4, 6, 24):
        plan = BatchPlan(split, batch_size=batch_size, policy=POLICY, seed=8)
        second = range(plan.steps_per_epoch, 2 * plan.steps_per_epoch)
        batches = [plan.read(step) for step in second]
        index = np.concatenate([batch["index"] for batch in batches])
        images = np.concatenate([batch["images"] for batch in batches])
        seen.append(images[np.argsort(index)])
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("batch_size", "message"), [(25, "at most.*24. Received: 25"), (0, "at least 1. Received: 0")]
)
def test_an_impossible_batch_size_is_refused(batch_size, message):
    with pytest.raises(DataError, match=f"`batch_size` must be {message}"):
        BatchPlan(make_split(24), batch_size=batch_size, policy=POLICY, seed=0)


@pytest.mark.parametrize("batch_size", [1, 5, 10, 11, 100])
def test_evaluation_visits_everything_once_in_order(batch_size):
    split = make_split(10)
    batches = list(evaluation_batches(split, batch_size))
    full, last = divmod(10, batch_size)
    sizes = [len(batch["labels"]) for batch in batches]
    assert sizes == [batch_size] * full + [last] * bool(last)
    for name, expected in (
        ("images", split.images),
        ("labels", split.labels),
        ("index", np.arange(10)),
    ):
        np.testing.assert_array_equal(np.concatenate([b[name] for b in batches]), expected)


def test_evaluation_refuses_a_batch_size_before_it_iterates():
    with pytest.raises(DataError, match="`batch_size` must be at least 1. Received: 0"):
        evaluation_batches(make_split(3), 0)


def test_evaluation_of_nothing_has_no_batches():
    assert list(evaluation_batches(make_split(0), 4)) == []


def test_evaluation_names_a_broken_file_after_the_batches_before_it(tmp_path):
    paths = tuple(str(tmp_path / f"{i}.png") for i in range(6))
    for path in paths[:4] + paths[5:]:
        Image.new("L", (4, 4)).save(path)
    (tmp_path / "4.png").write_bytes(b"broken")
    split = Split(np.zeros(6, np.int32), paths=paths, image_size=4, channels=1)
    batches = evaluation_batches(split, 2)
    assert [next(batches)["images"].shape for _ in range(2)] == [(2, 4, 4, 1)] * 2
    with pytest.raises(BrokenImageError, match="4.png"):
        next(batches)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 4), slice(4, 6), slice(1, 6), slice(6)])
def test_rows_of_a_batch_are_those_of_the_whole(mixup, rows):
    policy = dataclasses.replace(POLICY, mixup=mixup)
    plan = BatchPlan(make_split(23), batch_size=6, policy=policy, seed=8)
    whole, part = plan.read(5), plan.read(5, rows)
    assert part.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(part[name], values[rows])
