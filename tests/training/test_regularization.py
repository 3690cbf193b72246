"""Weight decay and dropout: which children of a step they reach, and how."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from loop_case import (
    BATCH,
    DECAY,
    TINY,
    Calls,
    added,
    assert_same,
    gradients,
    make_batch,
    make_loop,
    randomized_supernet,
)

from bignas_tf.training.rule import SandwichRule


def test_weight_decay_changes_the_gradient_of_the_biggest_child_only(eager):
    supernet = randomized_supernet()
    batch = make_batch(0)
    plain, decayed = (make_loop(supernet, weight_decay=decay) for decay in (0.0, DECAY))
    without = {"weights": {"biggest": 0.0}}
    students, losses = gradients(plain, batch, **without)
    assert_same(gradients(decayed, batch, **without)[0], students, 1e-15)
    assert losses["smallest"] > 1
    difference = added([gradients(decayed, batch)[0], negative(gradients(plain, batch)[0])])
    for path, variable in supernet.variables_by_path().items():
        expected = DECAY * variable.numpy() if "kernel" in path else np.zeros(variable.shape)
        np.testing.assert_allclose(difference[path], expected, atol=1e-12, err_msg=path)


def negative(found):
    return {path: -value for path, value in found.items()}


@pytest.mark.parametrize("regularize", ["biggest", "all"])
def test_dropout_and_decay_reach_other_children_only_where_all_are_regularized(eager, regularize):
    batch = make_batch(0)
    found = []
    for dropout, decay in ((0.0, 0.0), (0.5, DECAY)):
        supernet = randomized_supernet(space=dataclasses.replace(TINY, dropout=dropout))
        # Labels for all: with distillation the dropped-out teacher would change their target.
        rule = SandwichRule(supernet.space, distillation=False, regularize=regularize)
        loop = make_loop(supernet, rule, weight_decay=decay)
        found.append(gradients(loop, batch, weights={"biggest": 0.0}))
    (plain, losses), (regularized, other_losses) = found
    if regularize == "biggest":
        assert_same(regularized, plain, 1e-15)
        del losses["biggest"], other_losses["biggest"]
        assert losses == other_losses
    else:
        assert all(losses[name] != other_losses[name] for name in ("smallest", "random1"))
        largest = max(np.abs(regularized[path] - plain[path]).max() for path in plain)
        assert largest > 1e-3


def masks(seed, step, regularize="all"):
    supernet = Calls(TINY)
    loop = make_loop(supernet, SandwichRule(TINY, regularize=regularize), seed=seed)
    loop.step(make_batch(0), step)
    found = [mask for _, _, mask in supernet.static + supernet.sliced]
    return [None if mask is None else mask.numpy() for mask in found]


def test_dropout_masks_depend_on_seed_step_and_term_and_on_nothing_else(eager):
    first, again = masks(3, 7), masks(3, 7)
    np.testing.assert_array_equal(first, again)
    drawn = [*first, *masks(3, 8), *masks(4, 7)]
    assert len({mask.tobytes() for mask in drawn}) == 12
    assert all(mask.shape == (BATCH, 8) for mask in drawn)
    assert 0.4 < np.mean(np.array(drawn) > 0) < 0.6
    assert np.unique(drawn).tolist() == [0, 2]


def test_dropout_masks_are_the_same_where_xla_compiles_the_step():
    loop = make_loop(randomized_supernet(), SandwichRule(TINY), seed=3)
    biggest, *_ = loop.rule.plan(3, 7)

    def mask(step):
        return loop._dropout_mask(biggest, tf.zeros((BATCH, 1)), step, 0)

    traced, compiled = (tf.function(mask, jit_compile=jit)(7) for jit in (False, True))
    np.testing.assert_array_equal(traced, compiled)
    assert np.unique(traced).tolist() == [0, 2]


def test_only_the_biggest_child_has_a_dropout_mask(eager):
    biggest, *others = masks(3, 7, regularize="biggest")
    np.testing.assert_array_equal(biggest, masks(3, 7)[0])
    assert others == [None, None, None]
