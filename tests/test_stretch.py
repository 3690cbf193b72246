"""Stretches of networks against their ops one by one."""

import numpy as np
import pytest
from keras import ops as K

from bignas_tf import stretch as module
from bignas_tf.ops import INPUT, BatchNorm
from bignas_tf.primitives import apply_finished
from bignas_tf.spaces import get_space
from bignas_tf.stretch import stretch
from bignas_tf.supernet import Supernet
from bignas_tf.weights import slice_weights


@pytest.fixture(scope="module")
def supernet():
    return Supernet(get_space("digits"), seed=0, zero_gamma=False)


def parts(supernet, genotype):
    """Ops and finished weights of a child, and images."""
    ops = genotype.spec().ops()
    arrays = slice_weights(supernet.weight_arrays(), ops)
    rng = np.random.default_rng(0)
    for op in ops:
        if isinstance(op, BatchNorm):
            arrays[f"{op.name}/moving_mean"] = rng.normal(size=op.channels).astype("float32")
            arrays[f"{op.name}/moving_variance"] = rng.uniform(0.5, 2, op.channels).astype(
                "float32"
            )
    weights = {path: K.convert_to_tensor(value) for path, value in arrays.items()}
    return ops, weights, rng.normal(size=(5, *genotype.spec().input_shape)).astype("float32")


def one_by_one(ops, weights, images):
    tensors = {INPUT: K.convert_to_tensor(images)}
    for op in ops:
        tensors[op.name] = apply_finished(op, weights, *(tensors[name] for name in op.inputs))
    return tensors


@pytest.mark.parametrize("size", ["smallest", "biggest"])
def test_a_stretch_gives_what_its_ops_give_one_by_one(supernet, size):
    ops, weights, images = parts(supernet, getattr(supernet.space, size)())
    expected = one_by_one(ops, weights, images)
    for start, end in ((0, len(ops)), (0, 3), (4, len(ops) - 2)):
        some = ops[start:end]
        read = {name for op in some for name in op.inputs} - {op.name for op in some}
        needed = {some[0].name, some[-1].name, "elsewhere"}
        given = {name: expected[name] for name in read} | {"elsewhere": images, "done": images}
        found = stretch(some, weights, needed)(given)
        assert found.keys() == needed
        assert found.pop("elsewhere") is images
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_stretch_is_traced_once_for_all_networks_and_numbers_of_images(supernet, monkeypatch):
    traced, run = [], module._run

    def counted(ops, *arguments):
        traced.append(ops)
        return run(ops, *arguments)

    monkeypatch.setattr(module, "_run", counted)
    module._traced.cache_clear()
    small, big = supernet.space.smallest(), supernet.space.biggest()
    other = small.replace(head_width=big["head_width"])
    assert other.spec().ops() != small.spec().ops()
    for images in (5, 3, 4):
        for genotype in (small, other):
            ops, weights, rows = parts(supernet, genotype)
            block = [op for op in ops if op.block == ops[0].block]
            run_block = stretch(block, weights, {block[-1].name})
            (found,) = run_block({INPUT: K.convert_to_tensor(rows[:images])}).values()
            assert found.shape[0] == images
    assert len(traced) == 1
    module._traced.cache_clear()
