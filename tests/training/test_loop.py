"""Steps of training: gradients, losses and updates, against the same written out from the paper."""

import dataclasses
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from loop_case import (
    BATCH,
    DECAY,
    STEP,
    TINY,
    Calls,
    added,
    assert_same,
    gradients,
    make_batch,
    make_loop,
    randomized_supernet,
    separate_gradients,
)

from bignas_tf.resize import resize
from bignas_tf.spaces import MBConvSpace
from bignas_tf.spaces.sizes import size_table
from bignas_tf.supernet import Supernet
from bignas_tf.training.rule import Rule, SandwichRule, Term


def test_the_step_of_these_tests_draws_children_of_both_resolutions():
    names = [term.genotype["resolution"] for term in SandwichRule(TINY).plan(0, STEP)[2:]]
    assert sorted(names) == [6, 8]


def test_the_gradient_of_a_step_is_the_sum_of_every_childs_own(eager):
    supernet = randomized_supernet()
    loop = make_loop(supernet, weight_decay=DECAY)
    batch = make_batch(0)
    plan = loop.rule.plan(0, STEP)
    mask = loop._dropout_mask(plan[0], tf.zeros([BATCH], tf.float64), tf.constant(STEP), 0)
    assert set(np.unique(mask)) == {0.0, 2.0}
    found, losses = gradients(loop, batch)
    parts, own_losses = separate_gradients(supernet, plan, batch, mask, DECAY)
    assert_same(found, added(list(parts.values())), 1e-10)
    assert losses == pytest.approx(own_losses, rel=1e-10)
    # No child's part is lost in the sum.
    for part in parts.values():
        assert max(np.abs(value).max() for value in part.values()) > 1e-3


def test_the_students_pass_no_gradient_to_their_teacher(eager):
    supernet = randomized_supernet()
    loop = make_loop(supernet)
    batch = make_batch(0)
    alone, _ = gradients(loop, batch, only={"biggest"})
    both, _ = gradients(loop, batch, only={"biggest", "smallest"})
    # The smallest child has one block in stage 2; the second is the biggest's alone.
    own = [path for path in alone if path.startswith("stage2_block2_")]
    assert len(own) > 5
    for path in own:
        np.testing.assert_array_equal(both[path], alone[path])
    assert not np.array_equal(both["stem_conv/kernel"], alone["stem_conv/kernel"])
    students, _ = gradients(loop, batch, only={"biggest", "smallest"}, weights={"biggest": 0.0})
    assert not any(np.any(students[path]) for path in own)


def test_every_child_sees_the_batch_at_its_own_resolution(eager):
    supernet = Calls(TINY, dtype="float64")
    loop = make_loop(supernet)
    batch = make_batch(0)
    loop.step(batch, STEP)
    plan = loop.rule.plan(0, STEP)
    calls = supernet.static + supernet.sliced
    assert len(calls) == len(plan) == 4
    full = batch["images"] / 127.5 - 1.0
    for (images, _, _), term in zip(calls, plan, strict=True):
        expected = resize(tf.constant(full), term.genotype["resolution"])
        np.testing.assert_allclose(images, expected, atol=1e-12)
    tables = [table for _, table, _ in supernet.sliced]
    for table, term in zip(tables, plan[2:], strict=True):
        np.testing.assert_array_equal(table, size_table(term.genotype))


@pytest.mark.parametrize("varying", ["sliced", "masked"])
def test_in_half_precision_an_image_of_one_colour_keeps_it_at_every_resolution(eager, varying):
    supernet = Calls(TINY, dtype="mixed_bfloat16")
    colours = np.array([3, 60, 100, 121, 140, 170, 200, 254])
    images = np.broadcast_to(colours[:, None, None, None], (BATCH, 8, 8, 1)).astype(np.uint8)
    make_loop(supernet, varying=varying).step({**make_batch(0), "images": images}, STEP)
    exact = np.broadcast_to(colours[:, None, None, None] / 127.5 - 1, images.shape)
    seen = [np.asarray(images, np.float32) for images, *_ in supernet.static + supernet.sliced]
    assert sorted(each.shape[1] for each in seen) == [6, 6, 8, 8]
    for each in seen:
        size = each.shape[1]
        # Half a unit in the last of eight places, and what float32 adds to it.
        np.testing.assert_allclose(each, exact[:, :size, :size], rtol=1.001 * 2**-8)


@dataclasses.dataclass(frozen=True)
class Weighted(Rule):
    """Two children on the labels, one of them for little."""

    space: MBConvSpace

    def plan(self, seed, step):
        return [
            Term("low", "label", self.space.smallest(), weight=0.25, recurs=True),
            Term("high", "label", self.space.biggest(), recurs=True),
        ]

    def loss(self, role, logits, labels, outputs):
        return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    def regularized(self, role):
        return False


def test_another_rule_needs_no_other_loop_and_its_weights_scale_its_terms(eager):
    supernet = randomized_supernet()
    loop = make_loop(supernet, Weighted(TINY))
    batch = make_batch(0)
    parts = [
        gradients(loop, batch, only={name}, weights={name: 1.0})[0] for name in ("low", "high")
    ]
    before = supernet.weight_arrays()
    losses = loop.step(batch, 0)
    assert list(losses) == ["low", "high"]
    for path, value in supernet.weight_arrays().items():
        expected = before[path] - 0.1 * (0.25 * parts[0][path] + parts[1][path])
        np.testing.assert_allclose(value, expected, atol=1e-7, err_msg=path)  # float32 rate


@pytest.fixture(scope="module")
def traced():
    """Four traced steps: the supernet, its loop, and weights and losses around each."""
    supernet = Calls(TINY, zero_gamma=False)
    optimizer = keras.optimizers.SGD(0.1)
    loop = make_loop(supernet, optimizer=optimizer, weight_decay=DECAY)
    history = []
    for step in range(4):
        before = supernet.weight_arrays()
        losses = loop.step(make_batch(step), step)
        history.append(
            (step, before, supernet.weight_arrays(), losses, optimizer.iterations.numpy())
        )
    return supernet, loop, history


def test_a_step_is_exactly_one_update_by_the_summed_gradient(traced, eager):
    _, loop, history = traced
    assert [iterations for *_, iterations in history] == [1, 2, 3, 4]
    for step, before, after, losses, _ in history[1::2]:
        own = Supernet(TINY)
        own.assign(before)
        plan = loop.rule.plan(0, step)
        mask = loop._dropout_mask(plan[0], tf.zeros([BATCH]), tf.constant(step), 0)
        parts, own_losses = separate_gradients(own, plan, make_batch(step), mask, DECAY)
        assert losses == pytest.approx(own_losses, rel=1e-5)
        moved = {path: (before[path] - after[path]) / 0.1 for path in before}
        assert_same(moved, added(list(parts.values())), 1e-5)


def test_children_of_changing_sizes_share_one_trace(traced):
    supernet, loop, history = traced
    drawn = {term.genotype for step, *_ in history for term in loop.rule.plan(0, step)[2:]}
    assert len(drawn) > 4
    assert {genotype["resolution"] for genotype in drawn} == {6, 8}
    # Python runs while a trace is made, and only then.
    assert len(supernet.static) == 2
    assert len(supernet.sliced) == 1


def test_the_weights_of_a_loop_that_is_gone_are_not_kept():
    supernet = Supernet(TINY)
    loop = make_loop(supernet, SandwichRule(TINY, random_children=0))
    loop.step(make_batch(0), 0)
    weights = [weakref.ref(variable.value) for variable in supernet.weights]
    del loop, supernet
    gc.collect()
    assert [weight for weight in weights if weight() is not None] == []


def test_a_step_gives_the_loss_of_every_child_by_name(traced):
    *_, history = traced
    for _, _, _, losses, _ in history:
        assert list(losses) == ["biggest", "smallest", "random1", "random2"]
        assert all(type(loss) is float and loss > 0 for loss in losses.values())


def test_the_biggest_child_is_taught_by_what_the_rules_teacher_says_of_the_images(eager):
    space = dataclasses.replace(TINY, dropout=0.0)
    supernet = randomized_supernet(space=space)
    batch = make_batch(0)
    seen = []

    def teacher(images):
        seen.append(np.asarray(images))
        return tf.reshape(images, (BATCH, -1))[:, :10]

    rule = SandwichRule(space, random_children=0, teacher=teacher)
    _, losses = gradients(make_loop(supernet, rule), batch)
    images = batch["images"] / 127.5 - 1.0
    np.testing.assert_allclose(seen[0], images, atol=1e-12)
    logits = supernet.run(tf.constant(images), space.biggest())
    target = np.exp(images.reshape(BATCH, -1)[:, :10])
    target /= target.sum(-1, keepdims=True)
    expected = -(target * tf.nn.log_softmax(logits).numpy()).sum(-1).mean()
    np.testing.assert_allclose(losses["biggest"], expected, rtol=1e-9)
