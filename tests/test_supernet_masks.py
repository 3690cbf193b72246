"""Masked mode keeps every tensor zero beyond the child's own channels."""

import numpy as np
import pytest
from supernets import SPACES, ends_and_samples, noise, shared

from bignas_tf import supernet as module
from bignas_tf.spaces.sizes import CHANNELS, size_table


@pytest.fixture
def outputs(monkeypatch):
    """Outputs of the ops of the next walk, by name."""
    found = {}

    class Recording(module.TableWalk):
        def block(self, ops, tensors, dropout_mask=None):
            super().block(ops, tensors, dropout_mask)
            found.update((op.name, np.asarray(tensors[op.name])) for _, op in ops)

        def optional_block(self, ops, tensors):
            super().optional_block(ops, tensors)
            last = ops[-1][1].name
            found[f"{last} or input"] = np.asarray(tensors[last])

    monkeypatch.setattr(module, "TableWalk", Recording)
    return found


@pytest.mark.parametrize("name", [name for name in SPACES if name not in ("cifar", "relu6")])
def test_every_tensor_is_zero_beyond_its_channels(name, outputs):
    supernet = shared(name)
    for genotype in ends_and_samples(supernet.space, 2, seed=7):
        outputs.clear()
        supernet.run(noise(genotype), genotype, "masked")
        rows = dict(
            zip((op.name for op in supernet.space.ops()), size_table(genotype), strict=True)
        )
        # A gate may be nonzero: the other factor of its product is zero.
        gates = {op.name for op in supernet.space.ops() if getattr(op, "gate", False)}
        assert len(outputs) > len(rows)
        for op, output in outputs.items():
            row = rows[op.removesuffix(" or input")]
            if op in gates:
                continue
            np.testing.assert_array_equal(output[..., row[CHANNELS] :], 0, err_msg=op)


def test_what_is_absent_returns_its_input(outputs):
    supernet = shared("kernels")
    # Equal widths all the way: no shortcut convolution; one block a stage.
    genotype = supernet.space.smallest().replace(
        stem_width=8, stage1_width=8, stage2_width=8, stage3_width=8
    )
    supernet.run(noise(genotype), genotype, "masked")
    ops = {op.name: op for op in supernet.space.ops()}
    for name in supernet.space.optional_ops:
        (source,) = ops[name].inputs
        source = outputs.get(f"{source} or input", outputs[source])
        np.testing.assert_array_equal(outputs[name][..., :8], source[..., :8])
        assert np.abs(source[..., :8]).max() > 0
    for stage, last in enumerate((2, 3, 2), 1):
        for block in range(2, last + 1):
            name = f"stage{stage}_block{block}_add or input"
            np.testing.assert_array_equal(outputs[name], outputs[f"stage{stage}_block1_add"])
