"""Calibration: exact, whatever the chunks, and what the frozen network will see."""

import functools
import itertools

import finished_network
import numpy as np
import pytest
from supernets import SPACES, assert_agrees, noise, shared

from bignas_tf import cost
from bignas_tf.blocks import HeadBlock
from bignas_tf.calibration import (
    PooledMoments,
    SequentialCalibration,
    batch_norm_statistics,
    calibrate,
    held_blocks,
)
from bignas_tf.child import build_child
from bignas_tf.extract import extract
from bignas_tf.ops import INPUT, BatchNorm
from bignas_tf.ops import shapes as op_shapes
from bignas_tf.spec import NetworkSpec

IMAGES = 11
ALL = ("digits", "kernels", "attentive")


@functools.cache
def case(name: str):
    """Spec, float32 weights and images of a child with every kind of block of its space."""
    genotype = SPACES[name]().sample(1, seed=12)[0]
    weights = shared(name, "float32").child_weights(genotype)
    # Not centred: a forgotten mean would not show otherwise.
    images = 0.5 * noise(genotype, batch=IMAGES, dtype="float32", seed=3) + 0.3
    return genotype, weights, images


@functools.cache
def exact(name: str) -> dict[str, np.ndarray]:
    """Statistics by NumPy, in float64, over all images at once."""
    genotype, weights, images = case(name)
    statistics: dict[str, np.ndarray] = {}
    finished_network.run(genotype.spec(), weights, images, statistics)
    return statistics


def assert_same_statistics(actual, expected, tolerance=2e-5, dtype="float32") -> None:
    assert actual.keys() == expected.keys()
    for path, value in expected.items():
        assert actual[path].dtype == dtype
        assert_agrees(actual[path], value, tolerance)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("chunk", [1, 4, 128])
def test_statistics_are_those_of_all_images_at_once_in_float64(name, chunk):
    genotype, weights, images = case(name)
    actual = batch_norm_statistics(genotype.spec(), weights, images, chunk=chunk)
    assert_same_statistics(actual, exact(name))


def block_ends(spec, images=IMAGES):
    """After how many ops a block ends and MB that are read beyond it, of all images."""
    ops = spec.ops()
    shapes = {INPUT: spec.input_shape, **op_shapes(ops, spec.input_shape)}
    found = []
    for end in range(1, len(ops)):
        if ops[end].block != ops[end - 1].block:
            beyond = {name for op in ops[end:] for name in op.inputs}
            known = {INPUT, *(op.name for op in ops[:end])}
            sizes = [4 * np.prod(shapes[name]) / 1e6 for name in beyond & known]
            found.append((end, images * sum(sizes)))
    return found


@pytest.mark.parametrize("name, limit", [*((name, 0.9) for name in ALL), ("digits", 0.0)])
def test_recomputing_from_block_inputs_or_images_gives_the_stored_statistics(
    name, limit, monkeypatch
):
    genotype, weights, images = case(name)
    spec = genotype.spec()
    stored = batch_norm_statistics(spec, weights, images, chunk=6)
    monkeypatch.setattr(SequentialCalibration, "walk", None)  # not to be called
    limit *= cost.count(spec).peak_activation_bytes * IMAGES / 1e6
    recomputed = batch_norm_statistics(spec, weights, images, chunk=6, memory_limit_mb=limit)
    assert_same_statistics(recomputed, stored, tolerance=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_blocks_are_held_as_long_as_two_of_them_fit_into_the_limit(name):
    spec = case(name)[0].spec()
    ends = block_ends(spec)
    assert held_blocks(spec, IMAGES, 0.0) == []
    everything = held_blocks(spec, IMAGES, sum(mb for _, mb in ends))
    assert [end for end, _ in everything] == [end for end, _ in ends]
    assert [IMAGES * mb for _, mb in everything] == pytest.approx([mb for _, mb in ends])
    limit = np.median([sum(pair) for pair in itertools.pairwise([0.0, *(mb for _, mb in ends)])])
    chosen = held_blocks(spec, IMAGES, limit)
    assert 0 < len(chosen) < len(ends)
    held = [0.0, *(IMAGES * mb for _, mb in chosen)]
    assert max(map(sum, itertools.pairwise(held))) <= limit
    assert set(chosen) <= set(everything)


def test_the_order_of_the_images_does_not_matter():
    genotype, weights, images = case("digits")
    order = np.random.default_rng(0).permutation(IMAGES)
    actual = batch_norm_statistics(genotype.spec(), weights, images[order], chunk=3)
    assert_same_statistics(actual, exact("digits"))


@pytest.mark.parametrize("name", ["digits", "attentive"])
def test_statistics_are_what_the_frozen_network_sees(name):
    genotype, _, images = case(name)
    child = extract(shared(name, "float32"), genotype)
    statistics = calibrate(child, images, chunk=4)
    weights = {variable.path: np.asarray(variable) for variable in child.variables}
    for path, value in statistics.items():
        np.testing.assert_array_equal(weights[path], value)
    tensors = finished_network.run(genotype.spec(), weights, images)
    assert_agrees(child(images), tensors["head_classifier"], 1e-4)
    for op in genotype.spec().ops():
        if isinstance(op, BatchNorm):
            seen = tensors[op.inputs[0]]
            assert_agrees(weights[f"{op.name}/moving_mean"], seen.mean((0, 1, 2)), 1e-4)
            assert_agrees(weights[f"{op.name}/moving_variance"], seen.var((0, 1, 2)), 1e-4)


def test_a_float64_child_is_calibrated_in_float64():
    genotype, _, images = case("kernels")
    expected: dict[str, np.ndarray] = {}
    weights = shared("kernels").child_weights(genotype)
    finished_network.run(genotype.spec(), weights, images, expected)
    actual = calibrate(extract(shared("kernels"), genotype), images)
    assert_same_statistics(actual, expected, tolerance=1e-9, dtype="float64")


def test_a_child_of_mixed_precision_is_calibrated_in_float32():
    genotype, weights, images = case("digits")
    child = build_child(genotype.spec(), dtype="mixed_bfloat16")
    for variable in child.trainable_variables:
        variable.assign(weights[variable.path])
    assert_same_statistics(calibrate(child, images), exact("digits"))


# The peers' way ----------------------------------------------------------------------


def test_the_batch_average_of_one_chunk_is_the_statistics_of_the_batch():
    genotype, weights, images = case("attentive")
    spec = genotype.spec()
    actual = batch_norm_statistics(spec, weights, images, method="batch_average")
    assert_same_statistics(actual, exact("attentive"))


def test_the_batch_average_is_the_mean_of_the_chunks_own_statistics():
    genotype, weights, images = case("attentive")
    spec = genotype.spec()
    parts = []
    for start in (0, 4, 8):
        parts.append({})
        finished_network.run(spec, weights, images[start : start + 4], parts[-1])
    expected = {path: np.mean([part[path] for part in parts], axis=0) for path in parts[0]}
    actual = batch_norm_statistics(spec, weights, images, method="batch_average", chunk=4)
    assert_same_statistics(actual, expected)
    sequential = exact("attentive")
    last = "head_bn/moving_variance"
    assert np.abs(actual[last] / sequential[last] - 1).max() > 0.05


# Moments and refusals ----------------------------------------------------------------


def test_pooled_moments_are_those_of_all_chunks_together():
    rng = np.random.default_rng(0)
    x = rng.normal(100, 0.1, (17, 3, 2, 4)) * np.array([1, 2, 3, 0])
    pooled = PooledMoments()
    for chunk in np.split(x, [1, 2, 9]):
        pooled.add(chunk)
    assert pooled.count == 17 * 6
    np.testing.assert_allclose(pooled.mean, x.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(pooled.variance, x.var((0, 1, 2)), rtol=1e-9, atol=1e-20)


def test_moments_stay_exact_over_millions_of_positions():
    rng = np.random.default_rng(0)
    x = 0.1 * rng.standard_normal((64, 160, 160, 2), dtype="float32") + np.float32(0.3)
    pooled = PooledMoments()
    pooled.add(x)
    exact = x.astype("float64")
    np.testing.assert_allclose(pooled.mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(pooled.variance, exact.var((0, 1, 2)), rtol=1e-5)


def test_images_that_do_not_fit_are_refused_before_anything_changes():
    genotype = SPACES["digits"]().smallest()
    child = build_child(genotype.spec())
    before = child.get_weights()
    for shape in ((3, 9, 8, 1), (3, 8, 8, 3), (0, 8, 8, 1), (8, 8, 1)):
        with pytest.raises(ValueError, match=r"`images` must be \(images, 8, 8, 1\).*Received: \("):
            calibrate(child, np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match=r"`images` must be floats in .* Received: 'uint8'"):
        calibrate(child, np.zeros((2, 8, 8, 1), "uint8"))
    for old, new in zip(before, child.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_unknown_method_and_an_empty_chunk_are_refused():
    child = build_child(SPACES["digits"]().smallest().spec())
    images = np.zeros((2, 8, 8, 1), "float32")
    with pytest.raises(ValueError, match="`method` must be one of sequential, batch_av"):
        calibrate(child, images, method="moving_average")
    for bad in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=r"`chunk` must be an integer of at least 1\. Rec"):
            calibrate(child, images, chunk=bad)


def test_a_network_without_batch_norm_has_no_statistics():
    spec = NetworkSpec((4, 4, 3), (HeadBlock(name="head"),), 2)
    assert calibrate(build_child(spec), np.zeros((1, 4, 4, 3), "float32")) == {}


def test_a_loaded_child_is_calibrated_by_its_spec_and_refused_without_it():
    spec = SPACES["digits"]().smallest().spec()
    child = build_child(spec)
    loaded = build_child(spec)
    loaded.set_weights(child.get_weights())
    del loaded.spec  # as after keras.models.load_model
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
    with pytest.raises(ValueError, match="`spec` must be given"):
        calibrate(loaded, images)
    for path, value in calibrate(loaded, images, spec=spec).items():
        np.testing.assert_array_equal(value, calibrate(child, images)[path])
