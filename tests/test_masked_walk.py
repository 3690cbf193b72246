"""Masked walks in parts, on any backend; what compiles them is tested in `jax_backend`."""

import numpy as np
import pytest
from supernets import SPACES, ends_and_samples, noise, shared

from bignas_tf.calibration import PooledMoments
from bignas_tf.data import Split
from bignas_tf.evaluation import ChildEvaluator
from bignas_tf.masked_evaluation import MaskedEvaluator, child_evaluator
from bignas_tf.masked_programs import group_moments, live_tensors
from bignas_tf.ops import INPUT
from bignas_tf.spaces.sizes import size_table
from bignas_tf.table_walk import TableWalk


@pytest.mark.parametrize("name", ["kernels", "attentive"])
def test_a_walk_that_pauses_before_every_op_and_keeps_what_lives_is_the_whole_walk(name):
    supernet = shared(name)
    ops = supernet.space.ops()
    for genotype in ends_and_samples(supernet.space, 1, seed=3):
        images = noise(genotype)
        walk = TableWalk(supernet, size_table(genotype), masked=True)
        tensors = {INPUT: images}
        for index in range(len(ops)):
            live = live_tensors(supernet.space, index)
            tensors = {name: tensors[name] for name in live}
            walk.masked_ops(index, index + 1, tensors)
        whole = supernet.run(images, genotype, "masked")
        np.testing.assert_array_equal(tensors[ops[-1].name], whole)


def test_few_tensors_live_at_a_time():
    space = SPACES["attentive"]()
    most = max(len(live_tensors(space, index)) for index in range(len(space.ops())))
    assert most <= 3  # a shortcut, the expanded tensor and its squeezed gate


@pytest.mark.parametrize("positions", [2**15, 40])
def test_groups_of_a_padded_chunk_pool_to_the_moments_of_its_images(positions, monkeypatch):
    monkeypatch.setattr("bignas_tf.calibration.POSITIONS", positions)
    x = np.random.default_rng(0).normal(3, 2, (13, 5, 4, 2)).astype("float32")
    x[11:] = np.nan  # padding
    counts, *moments = (np.asarray(part) for part in group_moments(x, np.int32(11)))
    assert list(counts) == ([220] if positions > 40 else [40, 40, 40, 40, 40, 20, 0])
    pooled = PooledMoments()
    for group in np.flatnonzero(counts):
        pooled.add_moments(int(counts[group]), *(part[group] for part in moments))
    exact = x[:11].astype("float64").reshape(-1, 2)
    np.testing.assert_allclose(pooled.mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(pooled.variance, exact.var(axis=0), rtol=1e-6)


def test_the_evaluator_of_tensorflow_slices():
    images = Split(np.zeros(2, np.int32), np.zeros((2, 8, 8, 1), np.uint8))
    made = child_evaluator(shared("digits", "float32"), images, images, "test", 7.5)
    assert isinstance(made, ChildEvaluator)
    assert (made.split, made._memory_limit_mb) == ("test", 7.5)
    with pytest.raises(ValueError, match="`KERAS_BACKEND` must be jax .* Received: 'tensorflow'"):
        MaskedEvaluator(shared("digits", "float32"), images, images)
