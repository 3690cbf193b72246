"""Three ways to run a child give one answer: with random weights, on batch statistics."""

import functools

import numpy as np
import pytest
from supernets import (
    MODES,
    SPACES,
    TOLERANCE,
    SlicedGraph,
    assert_agrees,
    ends_and_samples,
    noise,
    randomized,
    shared,
)

from bignas_tf.extract import extract
from bignas_tf.spaces import Genotype

SAMPLES = {"digits": 20, "cifar": 6, "kernels": 6, "attentive": 3}
BUILT = {"digits": 3, "cifar": 2, "kernels": 2, "attentive": 2}  # children built as models
TRACED = ("digits",)
MASKED = 8


def genotypes(name: str) -> list[Genotype]:
    return ends_and_samples(SPACES[name](), SAMPLES.get(name, 2))


@functools.cache
def static(name: str, genotype: Genotype) -> np.ndarray:
    return shared(name).run(noise(genotype), genotype).numpy()


@pytest.mark.parametrize("name", SPACES)
def test_the_extracted_child_equals_static_mode(name):
    for genotype in genotypes(name)[-BUILT.get(name, 1) :]:
        child = extract(shared(name), genotype)
        expected = child(noise(genotype), training=True)  # batch statistics on both sides
        assert_agrees(static(name, genotype), expected, TOLERANCE["float64"])


@pytest.mark.parametrize("name", ["cifar", "kernels", "attentive", "sigmoid"])
def test_sliced_mode_equals_static_mode(name):
    for genotype in genotypes(name):
        actual = shared(name).run(noise(genotype), genotype, "sliced")
        assert_agrees(actual, static(name, genotype), TOLERANCE["float64"])


@pytest.mark.parametrize("name", TRACED)
def test_one_trace_of_sliced_mode_equals_static_mode_for_every_genotype(name):
    graph = SlicedGraph(shared(name))
    for genotype in genotypes(name):
        actual = graph(noise(genotype), genotype)
        assert_agrees(actual, static(name, genotype), TOLERANCE["float64"])
    assert graph.traces == 1


@pytest.mark.parametrize("name", SPACES)
def test_masked_mode_equals_static_mode(name):
    for genotype in genotypes(name)[:MASKED]:
        actual = shared(name).run(noise(genotype), genotype, "masked")
        assert_agrees(actual, static(name, genotype), TOLERANCE["float64"])


@pytest.mark.parametrize("name", ["digits", "kernels"])
def test_float32_agrees_with_float64_in_every_mode_to_rounding(name):
    supernet = shared(name, "float32")
    for genotype in supernet.space.sample(2, seed=1):
        images = noise(genotype, dtype="float32")
        exact = shared(name).run(images.astype("float64"), genotype)
        outputs = [supernet.run(images, genotype, mode) for mode in MODES]
        for output in outputs:
            assert output.dtype == "float32"
            assert_agrees(output, exact, TOLERANCE["float32"])
    child = extract(supernet, genotype)
    assert_agrees(child(images, training=True), exact, TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 1e-2), ("mixed_bfloat16", 5e-2)]
)
def test_mixed_precision_agrees_with_float32_in_every_mode_to_rounding(policy, tolerance):
    supernet = randomized(SPACES["attentive"](), policy)
    (genotype,) = supernet.space.sample(1, seed=1)
    images = noise(genotype, batch=8, dtype="float32")
    expected = shared("attentive", "float32").run(images, genotype)
    for mode in MODES:
        output = supernet.run(images, genotype, mode)
        assert output.dtype == policy.removeprefix("mixed_")
        assert_agrees(np.asarray(output).astype("float32"), expected, tolerance)


@pytest.mark.parametrize("name", ["digits", "attentive"])
def test_a_batch_of_one_gives_one_answer_too(name):
    (genotype,) = SPACES[name]().sample(1, seed=5)
    images = noise(genotype, batch=1)
    expected = extract(shared(name), genotype)(images, training=True)
    for mode in MODES:
        assert_agrees(shared(name).run(images, genotype, mode), expected, TOLERANCE["float64"])


@pytest.mark.parametrize("mode", MODES)
def test_a_child_takes_the_first_channels_of_a_dropout_mask(mode):
    supernet = randomized(SPACES["attentive"](dropout=0.5))
    (genotype,) = supernet.space.sample(1, seed=2, restrict={"head_width": (24,)})
    images, row = noise(genotype), np.random.default_rng(0).integers(0, 2, 32) * 2.0
    weights = supernet.weight_arrays()
    # A mask that is the same for all images is a factor of the classifier's kernel.
    scaled = weights | {"head_classifier/kernel": weights["head_classifier/kernel"] * row[:, None]}
    actual = supernet.run(images, genotype, mode, np.tile(row, (4, 1)))
    plain = supernet.run(images, genotype, mode)
    supernet.assign(scaled)
    expected = supernet.run(images, genotype, mode)
    assert_agrees(actual, expected, TOLERANCE["float64"])
    assert np.abs(actual - plain).max() > 1e-2
