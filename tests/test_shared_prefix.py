"""Children that go on from each other's prefixes, against each evaluated alone."""

import numpy as np
import pytest
from supernets import SPACES, shared
from test_evaluation import split

from bignas_tf.calibration import SequentialCalibration
from bignas_tf.evaluation import ChildEvaluator, predict, prepared
from bignas_tf.search.strategy import prefix_order
from bignas_tf.shared_prefix import SharedPrefixes


def evaluator(name, **options):
    channels = SPACES[name]().input_channels
    splits = [split(30, seed=0, channels=channels), split(70, seed=1, channels=channels)]
    return ChildEvaluator(shared(name, "float32"), *splits, **options)


def alone(name, genotype):
    """Logits by the statistics of the whole network at once."""
    fresh = evaluator(name)
    images = prepared(fresh._validation, genotype["resolution"])
    return predict(genotype.spec(), fresh.finished_weights(genotype), images)


@pytest.fixture
def advances(monkeypatch):
    """Blocks that were calibrated and run."""
    made = []
    advance = SharedPrefixes._advance

    def counted(self, state, group, needed):
        made.append(group)
        return advance(self, state, group, needed)

    monkeypatch.setattr(SharedPrefixes, "_advance", counted)
    return made


def genotypes(name, count):
    """Random children and their neighbours, which begin alike."""
    space = SPACES[name]()
    found = space.sample(2, seed=1)
    found += [neighbour for parent in found for neighbour in space.neighbours(parent)]
    return list(dict.fromkeys(found))[:count]


@pytest.mark.parametrize("name", ["digits", pytest.param("kernels", marks=pytest.mark.slow)])
def test_logits_are_bit_for_bit_those_of_the_child_alone(name, advances):
    chosen = sorted(genotypes(name, 12), key=prefix_order)
    together = evaluator(name)
    for genotype in chosen:
        np.testing.assert_array_equal(together.logits(genotype), alone(name, genotype))
    blocks = sum(len({op.block for op in g.spec().ops()}) for g in chosen)
    assert len(advances) < 0.9 * blocks


def test_the_order_changes_the_work_and_not_the_result(advances):
    chosen = genotypes("digits", 10)
    shuffled = [chosen[i] for i in np.random.default_rng(3).permutation(len(chosen))]
    expected = dict(zip(chosen, evaluator("digits").score(chosen), strict=True))
    advances.clear()
    found = dict(zip(shuffled, evaluator("digits").score(shuffled), strict=True))
    unsorted = len(advances)
    advances.clear()
    in_order = sorted(chosen, key=prefix_order)
    again = dict(zip(in_order, evaluator("digits").score(in_order), strict=True))
    assert found == again == expected
    assert len(advances) < unsorted


def test_a_repeated_child_costs_nothing(advances):
    (genotype,) = genotypes("digits", 1)
    together = evaluator("digits")
    first = together.logits(genotype)
    made = len(advances)
    np.testing.assert_array_equal(together.logits(genotype), first)
    assert len(advances) == made


@pytest.mark.parametrize("limit", [0.3, 0.0])
def test_a_memory_limit_shares_less_and_changes_nothing(advances, limit):
    chosen = sorted(genotypes("digits", 6), key=prefix_order)
    free = [evaluator("digits").logits(genotype) for genotype in chosen]
    advances.clear()
    together = evaluator("digits")
    for genotype in chosen:
        together.logits(genotype)
    shared_blocks = len(advances)
    advances.clear()
    limited = evaluator("digits")
    limited._prefixes = SharedPrefixes(limited._weights, limit, (30, 70))
    for genotype, expected in zip(chosen, free, strict=True):
        np.testing.assert_array_equal(limited.logits(genotype), expected)
        assert sum(state.megabytes((30, 70)) for state in limited._prefixes._states) <= limit
    assert len(advances) > shared_blocks


def test_a_child_above_the_limit_is_evaluated_block_by_block(advances, monkeypatch):
    (genotype,) = genotypes("digits", 1)
    expected = alone("digits", genotype)
    monkeypatch.setattr(SequentialCalibration, "walk", None)  # holds too much
    found = evaluator("digits", memory_limit_mb=1e-6).logits(genotype)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not advances
