"""Masked evaluation: the numbers of sliced children, and no compilation for any of them."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import keras
import numpy as np
import pytest
from scored import VALIDATION, child_logits, genotypes, space, split, splits, supernet
from supernets import assert_agrees, random_weights, randomized

from bignas_tf import masked_evaluation
from bignas_tf.calibration import PooledMoments
from bignas_tf.evaluation import ChildEvaluator
from bignas_tf.masked_evaluation import MaskedEvaluator, child_evaluator
from bignas_tf.masked_programs import FinishedWalk, group_moments
from bignas_tf.ops import BatchNorm
from bignas_tf.supernet import Supernet

HERE = Path(__file__).resolve().parent
TOLERANCE = {"float32": (1e-5, 1e-4), "float64": (1e-9, 1e-9)}  # statistics, logits

# Traces and lowerings too: what a cache on the disk spares is also compiled for.
compilations: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compilations.append(event) if "/jax/core/compile/" in event else None
)


@functools.cache
def evaluators(name: str) -> tuple[MaskedEvaluator, ChildEvaluator]:
    arguments = (supernet(name), *splits())
    return MaskedEvaluator(*arguments), ChildEvaluator(*arguments)


def is_statistic(path: str) -> bool:
    return path.endswith(("moving_mean", "moving_variance"))


def assert_same_child(masked, genotype, weights, logits, dtype="float32") -> None:
    """Compares statistics to their scale, weights exactly, then logits."""
    statistics_tolerance, logits_tolerance = TOLERANCE[dtype]
    actual = masked.finished_weights(genotype)
    assert list(actual) == list(weights)
    assert sum(map(is_statistic, actual)) > 10
    for path, value in weights.items():
        assert actual[path].dtype == value.dtype == dtype
        if is_statistic(path):
            assert_agrees(actual[path], value, statistics_tolerance)
        else:
            np.testing.assert_array_equal(actual[path], value)
    assert_agrees(masked.logits(genotype), logits, logits_tolerance)


@pytest.mark.parametrize(("name", "chosen"), [("kernels", (5,))])
def test_masked_scores_are_those_of_the_sliced_child(name, chosen):
    masked, sliced = evaluators(name)
    _, validation = splits()
    for number in chosen:
        genotype = genotypes(name)[number]
        weights = sliced.finished_weights(genotype)
        assert_same_child(masked, genotype, weights, child_logits(sliced, genotype, validation))
        (score,), (expected,) = masked.score([genotype]), sliced.score([genotype])
        assert list(score) == list(expected)
        assert 0 < score["accuracy"] < 1
        assert abs(score["loss"] - expected.pop("loss")) < 1e-4
        assert {key: score[key] for key in expected} == expected


def test_statistics_of_a_bigger_child_are_sliced_as_for_the_sliced_child():
    masked, sliced = evaluators("kernels")
    genotype, donor = masked.supernet.space.smallest(), masked.supernet.space.biggest()
    expected = sliced.logits(genotype, donor)
    assert_agrees(masked.logits(genotype, donor), expected, 1e-4)
    assert np.abs(masked.logits(genotype) - expected).max() > 1e-2 * np.abs(expected).max()


def test_masked_scores_are_those_of_tensorflow(tmp_path):
    path = tmp_path / "expected.npz"
    environment = {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(HERE.parent)}
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, HERE / "scored.py", path],
        env={**os.environ, **environment},
        check=True,
        timeout=600,
    )
    masked, _ = evaluators("kernels")
    with np.load(path) as arrays:
        for number, genotype in enumerate(genotypes("kernels")):
            own = {key: arrays[key] for key in arrays.files if key.startswith(f"{number}/")}
            weights = {key.partition("/")[2]: value for key, value in own.items()}
            assert_same_child(masked, genotype, weights, weights.pop("logits"))


@pytest.mark.slow
def test_masked_scores_are_exact_in_float64():
    where = jax if hasattr(jax, "enable_x64") else jax.experimental  # before JAX 0.8
    with where.enable_x64(True):
        net, (calibration, validation) = randomized(space("hidden_sigmoid")), splits()
        masked = MaskedEvaluator(net, calibration, validation)
        sliced = ChildEvaluator(net, calibration, validation)
        for genotype in genotypes("hidden_sigmoid")[2:3]:
            weights = sliced.finished_weights(genotype)
            logits = child_logits(sliced, genotype, validation)
            assert_same_child(masked, genotype, weights, logits, "float64")


def test_no_genotype_is_compiled_for():
    masked, _ = evaluators("kernels")
    first, *others = genotypes("kernels", samples=0)[:2]
    before = len(compilations)
    jax.jit(lambda x: x * 3.5)(np.ones(3)).block_until_ready()
    assert len(compilations) > before  # they are counted
    masked.score([first])
    before = len(compilations)
    more = [genotype.replace(resolution=9) for genotype in space("kernels").sample(20, seed=8)]
    scores = masked.score([*others, *more])
    for genotype in more[:3]:
        masked.finished_weights(genotype)
    assert len(compilations) == before
    assert len({score["loss"] for score in scores}) == len({*others, *more})


@pytest.fixture
def uneven(monkeypatch):
    """Chunks of 8, 8, 8, 8 and 5 images; groups of three images that cross no chunk."""
    monkeypatch.setattr(masked_evaluation, "CHUNK", 8)
    monkeypatch.setattr("bignas_tf.calibration.POSITIONS", 80)
    return MaskedEvaluator(supernet("kernels"), *splits())


def test_chunks_that_do_not_divide_evenly_change_nothing(uneven):
    sizes = [
        [(len(images), count) for images, count in chunks]
        for chunks in (uneven._calibration_chunks, uneven._validation_chunks)
    ]
    assert sizes == [[(8, 8)] * 4 + [(8, 5)], [(8, 8)] * 6 + [(8, 5)]]
    masked, _ = evaluators("kernels")
    for genotype in genotypes("kernels")[:3]:
        weights, logits = masked.finished_weights(genotype), masked.logits(genotype)
        assert logits.shape == (VALIDATION, 5)
        assert_same_child(uneven, genotype, weights, logits)


def test_what_exceeds_the_memory_limit_is_computed_again(uneven, monkeypatch):
    held_mb = []

    class Watched(masked_evaluation._Calibration):
        def _settle(self, index, pooled):
            super()._settle(index, pooled)
            tensors = [x for chunk in self._held for x in chunk.values()]
            held_mb.append(sum(x.nbytes for x in tensors) / 1e6)

    monkeypatch.setattr(masked_evaluation, "_Calibration", Watched)
    genotype = space("kernels").sample(1, seed=9)[0]
    weights, logits = uneven.finished_weights(genotype), uneven.logits(genotype)
    most = max(held_mb)
    before = len(compilations)
    for limit in (0.0, most / 3):
        held_mb.clear()
        uneven._memory_limit_mb = limit
        actual = uneven.finished_weights(genotype)
        for path, value in weights.items():
            np.testing.assert_array_equal(actual[path], value)
        np.testing.assert_array_equal(uneven.logits(genotype), logits)
        # One chunk, the one that runs, is not counted.
        assert max(held_mb) <= limit * 5 / 4
        assert (max(held_mb) > 0) == (limit > 0)
    assert len(compilations) == before


def test_groups_of_a_padded_chunk_pool_to_the_moments_of_its_images():
    x = np.random.default_rng(0).normal(3, 2, (70, 65, 65, 2)).astype("float32")
    x[67:] = np.nan  # padding
    pooled = PooledMoments()
    for real, mean, variance in zip(*map(np.asarray, group_moments(x, np.int32(67))), strict=True):
        if real:
            pooled.add_moments(int(real), mean, variance)
    assert pooled.count == 67 * 65 * 65
    exact = x[:67].astype("float64").reshape(-1, 2)
    np.testing.assert_allclose(pooled.mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(pooled.variance, exact.var(axis=0), rtol=1e-6)


@pytest.mark.slow
def test_statistics_keep_inactive_channels_at_zero(monkeypatch):
    found = {}

    class Recording(FinishedWalk):
        def batch_norm(self, index, op, x):
            found[op.name] = super().batch_norm(index, op, x)
            return found[op.name]

    masked, _ = evaluators("kernels")
    genotype = space("kernels").smallest()
    child = masked._calibrate(genotype)
    images = masked._programs.prepared(masked._validation_chunks[0][0], 9)
    ops = masked._programs.ops
    Recording(masked.supernet, child.table, child.statistics).masked_ops(
        0, len(ops), {"input": images}
    )
    cut = 0
    for op, row in zip(ops, child.table, strict=True):
        if isinstance(op, BatchNorm):
            np.testing.assert_array_equal(found[op.name][..., row[1] :], 0)
            assert np.abs(found[op.name][..., : row[1]]).max() > 0
            cut += row[1] < op.channels
    assert cut > 5


def test_later_training_does_not_change_an_evaluator():
    net = randomized(space("one_stage"), "float32")
    masked = MaskedEvaluator(net, *splits())
    genotype = genotypes("one_stage")[2]
    before = masked.finished_weights(genotype)
    net.assign(
        random_weights({path: value.shape for path, value in net.weight_arrays().items()}, 1)
    )
    for path, value in masked.finished_weights(genotype).items():
        np.testing.assert_array_equal(value, before[path])
    assert masked.supernet is net


def test_a_supernet_of_mixed_precision_is_evaluated_in_the_precision_of_its_weights():
    net = Supernet(space("one_stage"), dtype="mixed_bfloat16")
    net.assign(supernet("one_stage").weight_arrays())
    genotype = genotypes("one_stage")[2]
    reference, _ = evaluators("one_stage")
    masked = MaskedEvaluator(net, *splits())
    np.testing.assert_array_equal(masked.logits(genotype), reference.logits(genotype))


def test_the_evaluator_of_this_backend_is_masked():
    calibration, validation = splits()
    made = child_evaluator(supernet("kernels"), calibration, validation, "test", 7.5)
    assert isinstance(made, MaskedEvaluator)
    assert (made.split, made._memory_limit_mb) == ("test", 7.5)
    assert child_evaluator(supernet("kernels"), calibration, validation).split == (
        ChildEvaluator(supernet("kernels"), calibration, validation).split
    )


def test_arguments_are_refused_in_words(monkeypatch):
    some, none = split(3, seed=0), split(0, seed=0)
    with pytest.raises(ValueError, match="`validation` must be at least one image. Received: 0"):
        MaskedEvaluator(supernet("kernels"), some, none)
    with pytest.raises(ValueError, match="`calibration` must be at least one image. Received: 0"):
        MaskedEvaluator(supernet("kernels"), none, some)
    other = space("attentive").smallest()
    with pytest.raises(ValueError, match="`genotype` must be of space 'kernels'. Received: "):
        evaluators("kernels")[0].score([other])
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="`KERAS_BACKEND` must be jax .* Received: 'tensorflow'"):
        MaskedEvaluator(supernet("kernels"), some, some)
