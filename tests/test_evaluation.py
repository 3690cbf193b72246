"""Evaluation: the accuracy of the extracted, calibrated child, with honest intervals."""

import concurrent.futures
import functools
import itertools
import threading

import numpy as np
import pytest
from supernets import SPACES, assert_agrees, noise, randomized, shared

from bignas_tf import cost
from bignas_tf.calibration import calibrate
from bignas_tf.data import Split
from bignas_tf.evaluation import ChildEvaluator, correct, evaluation_mb, forward, prepared
from bignas_tf.extract import extract
from bignas_tf.resize import prepare


def split(count: int, seed: int, channels: int = 1) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.int32)
    return Split(labels, rng.integers(0, 256, (count, 8, 8, channels)).astype(np.uint8))


@functools.cache
def evaluator() -> ChildEvaluator:
    return ChildEvaluator(shared("digits", "float32"), split(30, seed=0), split(300, seed=1))


def test_forward_is_the_built_childs_inference():
    genotype = shared("attentive").space.sample(1, seed=4)[0]
    child = extract(shared("attentive"), genotype)
    rng = np.random.default_rng(0)
    for variable in child.non_trainable_variables:  # moving statistics far from 0 and 1
        variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    weights = {variable.path: np.asarray(variable) for variable in child.variables}
    images = noise(genotype)
    assert_agrees(forward(genotype.spec(), weights, images), child(images, training=False), 1e-9)


def test_a_score_is_the_accuracy_of_the_extracted_and_calibrated_child():
    calibration, validation = split(30, seed=0), split(300, seed=1)
    space = SPACES["digits"]()
    genotypes = [space.smallest(), *space.sample(1, seed=3)]
    scores = evaluator().score(genotypes)
    for genotype, score in zip(genotypes, scores, strict=True):
        resolution = genotype["resolution"]
        child = extract(shared("digits", "float32"), genotype)
        calibrate(child, np.asarray(prepare(calibration.images, resolution)))
        logits = child.predict(prepare(validation.images, resolution), verbose=0)
        right = logits.argmax(1) == validation.labels
        assert 0 < right.sum() < len(right)
        # One image may lie between two classes.
        assert abs(score["accuracy"] - right.mean()) < 1.5 / len(right)
        counted = cost.count(genotype.spec())
        assert (score["mmacs"], score["params_m"]) == (counted.mmacs, counted.params_m)
        for path, value in evaluator().finished_weights(genotype).items():
            variable = next(v for v in child.variables if v.path == path)
            np.testing.assert_allclose(value, variable, rtol=1e-4, atol=1e-4)


def test_scores_do_not_depend_on_what_was_scored_before():
    space = SPACES["digits"]()
    genotypes = [space.smallest().replace(resolution=size) for size in (8, 10, 12, 8)]
    together = evaluator().score(genotypes)
    assert together[0] == together[-1]
    assert [evaluator().score([genotype])[0] for genotype in genotypes] == together


@pytest.mark.parametrize("method", ["logits", "finished_weights"])
def test_a_genotype_of_another_space_is_refused(method):
    other = SPACES["attentive"]().smallest()
    with pytest.raises(ValueError, match="`genotype` must be of space 'digits'"):
        getattr(evaluator(), method)(other)


def test_later_training_does_not_change_an_evaluator():
    supernet = randomized(SPACES["digits"](), dtype="float32")
    evaluated = ChildEvaluator(supernet, split(10, seed=0), split(10, seed=1))
    genotype = supernet.space.smallest()
    before = evaluated.finished_weights(genotype)
    for variable in supernet.trainable_variables:
        variable.assign(variable * 2)
    for path, value in evaluated.finished_weights(genotype).items():
        np.testing.assert_array_equal(value, before[path])


def test_images_are_prepared_in_batches_as_in_one():
    images = split(300, seed=1)
    actual = prepared(images, 10)
    assert actual.shape == (300, 10, 10, 1)
    np.testing.assert_allclose(actual, prepare(images.images, 10), atol=1e-6)


@pytest.mark.parametrize("donor", [False, True])
def test_images_beyond_the_memory_limit_are_streamed_with_the_same_logits(monkeypatch, donor):
    supernet = shared("digits", "float32")
    genotype = supernet.space.smallest()
    donor = supernet.space.smallest() if donor else None
    parts = split(300, seed=0), split(600, seed=1)
    side = genotype["resolution"]
    images_mb = 600 * side * side * 4 / 1e6
    small = ChildEvaluator(supernet, *parts, memory_limit_mb=images_mb * 1.01)
    expected = small.logits(genotype, donor)
    largest = []
    read = Split.read
    monkeypatch.setattr(
        Split, "read", lambda self, rows: largest.append(len(rows)) or read(self, rows)
    )
    streaming = ChildEvaluator(supernet, *parts, memory_limit_mb=images_mb * 0.99)
    for _ in range(2):
        np.testing.assert_array_equal(streaming.logits(genotype, donor), expected)
    # Calibration images once, the others for each child, never more than a batch.
    assert largest == [256, 44] + 2 * [256, 256, 88]


def test_the_memory_of_an_evaluation_is_that_of_images_and_of_what_lives():
    spec = SPACES["digits"]().biggest().spec()
    image = 4 * np.prod(spec.input_shape) / 1e6
    profile = cost.profile(spec)
    peak = profile.total.peak_activation_bytes / 1e6
    # Within the limit: images, activations of all of them, and no more than the limit again.
    within = evaluation_mb(spec, 10, 20, memory_limit_mb=peak * 30)
    assert 30 * (image + peak) < within <= 30 * (image + 2 * peak)
    # Beyond: calibration images, the blocks' ends of all of them, and one chunk.
    ends = [list(ops)[-1] for _, ops in itertools.groupby(profile.ops, key=lambda op: op.block)]
    largest = max(op.output_bytes for op in ends) / 1e6
    limit = 10_000 * peak
    beyond = evaluation_mb(spec, 10_000, int(limit / image) + 1, memory_limit_mb=limit)
    assert beyond > 10_000 * (image + largest) + 256 * peak
    assert beyond < 10_000 * (image + 2 * peak)
    # Within a limit that they do not fit into, only what does of them.
    least = evaluation_mb(spec, 10_000, 20_000, memory_limit_mb=1)
    assert least == pytest.approx(10_000 * image + 256 * peak)


def test_right_answers_are_counted_over_all_batches():
    genotype = SPACES["digits"]().smallest()
    child = extract(shared("digits", "float32"), genotype)
    weights = {variable.path: np.asarray(variable) for variable in child.variables}
    images = np.random.default_rng(0).uniform(-1, 1, (300, 8, 8, 1)).astype("float32")
    labels = np.asarray(child(images)).argmax(1)
    wrong = np.arange(300) % 7 == 0
    labels[wrong] = (labels[wrong] + 1) % 10
    np.testing.assert_array_equal(correct(genotype.spec(), weights, images, labels), ~wrong)


def test_workers_with_a_part_of_the_images_each_score_as_one_with_all():
    calibration, validation = split(30, seed=0), split(300, seed=1)
    genotypes = SPACES["digits"]().sample(2, seed=5)
    given, barrier = [None, None, None], threading.Barrier(3)

    def worker(number):
        def gather(values):
            given[number] = values
            barrier.wait(60)
            found = np.stack(given)
            barrier.wait(60)
            return found

        own = (each.take(np.arange(len(each))[number::3]) for each in (calibration, validation))
        return ChildEvaluator(shared("digits", "float32"), *own, gather=gather).score(genotypes)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        scores = list(pool.map(worker, range(3)))
    assert scores[0] == scores[1] == scores[2]
    for own, expected in zip(scores[0], evaluator().score(genotypes), strict=True):
        assert own == pytest.approx(expected, rel=1e-5)
