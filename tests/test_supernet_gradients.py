"""Gradients and the L2 term are those of the child, whichever way it runs."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from supernets import MODES, noise, shared

from bignas_tf.ops import Conv, Dense, DepthwiseConv
from bignas_tf.spaces.sizes import PRESENT, optional_blocks, size_table


@functools.cache
def gradients(name, genotype, mode) -> dict[str, np.ndarray]:
    """Of a loss that weighs every output differently; None is zero."""
    supernet = shared(name)
    variables = supernet.variables_by_path()
    images = noise(genotype)
    factors = np.random.default_rng(9).normal(size=(len(images), supernet.space.classes))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(supernet.run(images, genotype, mode) * factors)
    found = tape.gradient(loss, [variable.value for variable in variables.values()])
    return {
        path: np.zeros(variable.shape) if gradient is None else np.asarray(gradient)
        for (path, variable), gradient in zip(variables.items(), found, strict=True)
    }


def absent(genotype) -> set[str]:
    """Ops of the space that the genotype lacks."""
    rows = zip(genotype.space.ops(), size_table(genotype), strict=True)
    return {op.name for op, row in rows if not row[PRESENT]}


def probes(name: str):
    """A genotype that lacks some blocks and a shortcut convolution, and the biggest."""
    space = shared(name).space
    blocks = {op.name: op.block for op in space.ops()}

    def lacks_both(genotype) -> bool:
        lost = absent(genotype)
        return bool(
            lost & space.optional_ops and {blocks[op] for op in lost} & optional_blocks(space)
        )

    return next(filter(lacks_both, space.sample(100, seed=3))), space.biggest()


@pytest.mark.parametrize("name", ["digits", "kernels", "sigmoid", "attentive"])
def test_gradients_of_every_mode_equal_those_of_static_mode(name):
    for genotype in probes(name)[: 2 if name == "kernels" else 1]:
        expected = gradients(name, genotype, "static")
        scale = max(np.abs(value).max() for value in expected.values())
        for mode in MODES[1:]:
            for path, actual in gradients(name, genotype, mode).items():
                np.testing.assert_allclose(
                    actual, expected[path], rtol=0, atol=1e-9 * scale, err_msg=f"{mode} {path}"
                )


@pytest.mark.parametrize("mode", MODES)
def test_what_a_child_does_not_use_gets_no_gradient(mode):
    genotype = probes("kernels")[0]
    found = gradients("kernels", genotype, mode)
    used = {f"{op.name}/kernel": op for op in genotype.spec().ops()}
    assert any(path not in used for path in found if path.endswith("/kernel"))
    for path, gradient in found.items():
        if path.rpartition("/")[0] in absent(genotype):
            np.testing.assert_array_equal(gradient, 0)
        elif path in used and gradient.ndim == 4:
            op = used[path]
            start = (gradient.shape[0] - op.kernel_size) // 2
            centre = slice(start, start + op.kernel_size)
            inner = op.channels if isinstance(op, DepthwiseConv) else op.in_channels
            outer = 1 if isinstance(op, DepthwiseConv) else op.channels
            part = (centre, centre, slice(inner), slice(outer))
            assert np.abs(gradient[part]).max() > 0
            beyond = np.array(gradient)
            beyond[part] = 0
            np.testing.assert_array_equal(beyond, 0)


@pytest.mark.parametrize("name", ["digits", "kernels", "attentive"])
def test_half_square_norm_is_that_of_the_childs_own_kernels(name):
    supernet = shared(name)
    for genotype in (*probes(name), supernet.space.smallest()):
        weights = supernet.child_weights(genotype)
        kinds = (Conv, DepthwiseConv, Dense)
        names = [op.name for op in genotype.spec().ops() if isinstance(op, kinds)]
        expected = sum((weights[f"{op}/kernel"] ** 2).sum() for op in names) / 2
        static = supernet.half_square_norm(genotype)
        table = supernet.half_square_norm(table=size_table(genotype))
        np.testing.assert_allclose([static, table], expected, rtol=1e-12)


def test_the_gradient_of_half_square_norm_is_the_childs_kernels():
    supernet, genotype = shared("kernels"), probes("kernels")[0]
    variables = {path: v.value for path, v in supernet.variables_by_path().items()}
    own = supernet.child_weights(genotype)
    for norm in ({"genotype": genotype}, {"table": size_table(genotype)}):
        with tf.GradientTape() as tape:
            half = supernet.half_square_norm(**norm)
        found = tape.gradient(half, variables, unconnected_gradients="zero")
        for path, gradient in found.items():
            # Its own values where the child uses them, and zero elsewhere.
            gradient, used = np.asarray(gradient), np.asarray(gradient) != 0
            np.testing.assert_array_equal(gradient[used], np.asarray(variables[path])[used])
            expected = own[path].size if path in own and path.endswith("/kernel") else 0
            assert used.sum() == expected
