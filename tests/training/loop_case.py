"""A loop in a tiny space, the gradients of its steps, and the same written out from the paper."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from bignas_tf.blocks import SqueezeExcitation
from bignas_tf.resize import resize
from bignas_tf.spaces import MBConvSpace, Stage
from bignas_tf.spaces.sizes import size_table
from bignas_tf.supernet import Supernet
from bignas_tf.training.rule import SandwichRule
from bignas_tf.training.tensorflow_loop import TensorflowLoop

TINY = MBConvSpace(
    name="tiny",
    resolution_choices=(6, 8),
    stem_widths=(4,),
    stem_strides=1,
    stages=(
        Stage((4,), (1,), (3,), (2,), 1),
        Stage((4, 8), (1, 2), (3, 5), (2,), 2, SqueezeExcitation(divisor=2)),
    ),
    head_widths=(8,),
    dropout=0.5,
    classes=10,
    input_channels=1,
)
BATCH = 8
DECAY = 0.01
STEP = 4  # its two random children differ in resolution


def make_batch(seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, 8, 8, 1), dtype=np.uint8)
    return {"images": images, "labels": rng.integers(0, 10, BATCH).astype(np.int32)}


def randomized_supernet(dtype="float64", space=TINY):
    supernet = Supernet(space, zero_gamma=False, dtype=dtype)
    rng = np.random.default_rng(1)
    for path, variable in supernet.variables_by_path().items():
        noise = rng.normal(0, 0.3, variable.shape)
        variable.assign(noise + (1.0 if path.endswith("gamma") else 0.0))
    return supernet


def make_loop(supernet, rule=None, optimizer=None, **arguments):
    rule = rule or SandwichRule(supernet.space, label_smoothing=0.1)
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    return TensorflowLoop(supernet, rule, optimizer, batch_size=BATCH, **arguments)


def gradients(loop, batch, step=STEP, weights=None, only=None):
    """The loop's summed gradients by weight, None as zeros, and its losses."""
    terms = loop.rule.plan(0, step)
    terms = [dataclasses.replace(t, weight=(weights or {}).get(t.name, 1.0)) for t in terms]
    terms = [t for t in terms if only is None or t.name in only]
    varying = [t.genotype for t in terms if not t.recurs]
    total, losses = loop.gradients(
        terms,
        [tf.constant(batch[name]) for name in ("images", "labels")],
        (
            [tf.constant(size_table(g)) for g in varying],
            [tf.constant(g["resolution"]) for g in varying],
        ),
        tf.constant(step),
    )
    return dense(loop.supernet, total), {name: float(loss) for name, loss in losses.items()}


def dense(supernet, found):
    variables = supernet.variables_by_path()
    return {
        path: np.zeros(variable.shape) if gradient is None else gradient.numpy()
        for (path, variable), gradient in zip(variables.items(), found, strict=True)
    }


def separate_gradients(supernet, plan, batch, mask, decay):
    """Losses written out from the paper, a tape and a static run for each child."""
    variables = [v.value for v in supernet.variables_by_path().values()]
    images = tf.cast(batch["images"], supernet.compute_dtype) / 127.5 - 1.0
    one_hot = tf.one_hot(batch["labels"], 10, dtype=images.dtype)
    target = 0.9 * one_hot + 0.01
    found, losses = {}, {}
    for term in plan:
        biggest = term.name == "biggest"
        with tf.GradientTape() as tape:
            at_resolution = resize(images, term.genotype["resolution"])
            logits = supernet.run(
                at_resolution, term.genotype, dropout_mask=mask if biggest else None
            )
            loss = -tf.reduce_sum(target * tf.nn.log_softmax(logits)) / BATCH
            if biggest:
                kernels = [v for v in variables if "kernel" in path_of(supernet, v)]
                loss += decay * sum(tf.reduce_sum(k**2) / 2 for k in kernels)
        found[term.name] = dense(supernet, tape.gradient(loss, variables))
        losses[term.name] = float(loss)
        if biggest:
            target = tf.constant(tf.nn.softmax(logits).numpy())
    return found, losses


def path_of(supernet, value):
    (path,) = [p for p, v in supernet.variables_by_path().items() if v.value is value]
    return path


def assert_same(found, expected, scale_tolerance):
    assert found.keys() == expected.keys()
    scale = max(np.abs(value).max() for value in expected.values())
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, atol=scale_tolerance * scale, err_msg=path)


def added(parts):
    return {path: sum(part[path] for part in parts) for path in parts[0]}


class Calls(Supernet):
    """Notes what every child was run on."""

    def __init__(self, *arguments, **kwargs):
        self.static, self.sliced = [], []
        super().__init__(*arguments, **kwargs)

    def run(self, images, genotype, mode="static", dropout_mask=None):
        self.static.append((images, genotype, dropout_mask))
        return super().run(images, genotype, mode, dropout_mask)

    def run_table(self, images, table, mode, dropout_mask=None):
        self.sliced.append((images, table, dropout_mask))
        return super().run_table(images, table, mode, dropout_mask)
