import itertools
import threading
import time

import numpy as np
import pytest
from PIL import Image

from bignas_tf.data import (
    AugmentationPolicy,
    BatchPlan,
    BrokenImageError,
    DataError,
    Split,
    training_batches,
)

POLICY = AugmentationPolicy(flip=True, shift=2)
MIXING = AugmentationPolicy(flip=True, shift=2, mixup=0.4)


def make_split(n=23):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (n, 7, 7, 3), np.uint8)
    return Split(rng.integers(0, 3, n).astype(np.int32), images=images)


@pytest.fixture
def files(tmp_path):
    split = make_split(12)
    paths = tuple(str(tmp_path / f"{i}.png") for i in range(12))
    for image, path in zip(split.images, paths, strict=True):
        Image.fromarray(image).save(path)
    return split, Split(split.labels, paths=paths, image_size=7, channels=3)


def take(batches, count):
    return [
        {name: value.numpy() for name, value in batch.items()}
        for batch in itertools.islice(batches, count)
    ]


def assert_same(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
            assert first[name].dtype == second[name].dtype


@pytest.mark.parametrize("policy", [POLICY, MIXING], ids=["plain", "mixup"])
def test_batches_are_those_of_the_plan_in_order(policy):
    arguments = {"batch_size": 5, "policy": policy, "seed": 1}
    batches = training_batches(make_split(), **arguments)
    plan = BatchPlan(make_split(), **arguments)
    assert batches.steps_per_epoch == plan.steps_per_epoch == 4
    assert_same(take(batches, 11), [plan.read(step) for step in range(11)])


@pytest.mark.parametrize("start", [1, 4, 7])
def test_batches_from_a_step_are_the_tail_of_those_from_the_first(start):
    arguments = {"batch_size": 5, "policy": POLICY, "seed": 1}
    whole = take(training_batches(make_split(), **arguments), 12)
    tail = take(training_batches(make_split(), **arguments, start_step=start), 12 - start)
    assert_same(tail, whole[start:])


def test_an_iterator_goes_on_where_a_loop_left_it():
    arguments = {"batch_size": 5, "policy": POLICY, "seed": 1}
    batches = training_batches(make_split(), **arguments)
    parts = take(batches, 3) + take(batches, 3)
    assert_same(parts, take(training_batches(make_split(), **arguments), 6))


def test_files_give_the_same_batches_as_images_in_memory(files):
    memory, disk = (
        training_batches(split, batch_size=5, policy=POLICY, seed=1, start_step=1)
        for split in files
    )
    assert_same(take(memory, 5), take(disk, 5))


@pytest.mark.parametrize(
    ("policy", "more"), [(POLICY, {}), (MIXING, {"partners": (5,), "shares": (5,)})]
)
def test_tensors_have_static_shapes(policy, more):
    batches = training_batches(make_split(), batch_size=5, policy=policy, seed=1)
    shapes = {name: tuple(spec.shape) for name, spec in batches.dataset.element_spec.items()}
    assert shapes == {"images": (5, 7, 7, 3), "labels": (5,), "index": (5,)} | more


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"batch_size": 24}, "`batch_size`.*23. Received: 24"),
        ({"start_step": -1}, "`start_step`.*Received: -1"),
        ({"seed": -1}, "`seed`.*Received: -1"),
    ],
)
def test_an_argument_out_of_range_is_refused_before_any_batch(argument, message):
    with pytest.raises(DataError, match=message):
        training_batches(make_split(), **{"batch_size": 5, "policy": POLICY, "seed": 1} | argument)


def test_a_broken_file_is_named_at_the_step_that_needs_it(files):
    _, split = files
    arguments = {"batch_size": 2, "policy": POLICY, "seed": 1}
    plan = BatchPlan(split, **arguments)
    for step in (3, 4, 5):
        with open(split.paths[plan.indices(step)[0]], "wb") as file:
            file.write(b"broken")
    batches = training_batches(split, **arguments)
    assert len(take(batches, 3)) == 3
    with pytest.raises(BrokenImageError) as caught:
        next(batches)
    assert caught.value.path == split.paths[plan.indices(3)[0]]


def test_errors_of_tensorflow_itself_stay_what_they_are():
    import tensorflow as tf

    batches = training_batches(make_split(), batch_size=5, policy=POLICY, seed=1)

    def fail(batch):
        with tf.control_dependencies([tf.debugging.assert_equal(batch["labels"], -1)]):
            return tf.identity(batch["labels"])

    with pytest.raises(tf.errors.InvalidArgumentError):
        next(batches.iterate(batches.dataset.map(fail)))


class CountedSplit(Split):
    """Counts the batches that were read."""

    reads = 0
    lock = threading.Lock()

    def read(self, indices, views=None):
        with self.lock:
            CountedSplit.reads += 1
        return super().read(indices, views)


def test_batches_are_read_ahead_while_the_trainer_works_but_not_without_end():
    split = make_split()
    counted = CountedSplit(split.labels, images=split.images)
    batches = training_batches(counted, batch_size=5, policy=POLICY, seed=1)
    next(batches)
    deadline = time.monotonic() + 10
    while CountedSplit.reads < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert 4 <= CountedSplit.reads <= 10
