import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bignas_tf.blocks import SqueezeExcitation
from bignas_tf.resize import resize
from bignas_tf.spaces import MBConvSpace, Stage
from bignas_tf.spaces.sizes import size_table
from bignas_tf.supernet import Supernet
from bignas_tf.training.rule import Rule, SandwichRule, Term
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


@pytest.fixture
def eager():
    """Every step runs as it is written: nothing is traced."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def gradients(loop, batch, step=STEP, weights=None, only=None):
    """The loop's summed gradients by weight, None as zeros, and its losses."""
    terms = loop.rule.plan(0, step)
    terms = [dataclasses.replace(t, weight=(weights or {}).get(t.name, 1.0)) for t in terms]
    terms = [t for t in terms if only is None or t.name in only]
    varying = [t.genotype for t in terms if not t.recurs]
    total, losses = loop.gradients(
        terms,
        tf.constant(batch["images"]),
        tf.constant(batch["labels"]),
        [tf.constant(size_table(g)) for g in varying],
        [tf.constant(g["resolution"]) for g in varying],
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


def test_the_step_of_these_tests_draws_children_of_both_resolutions():
    names = [term.genotype["resolution"] for term in SandwichRule(TINY).plan(0, STEP)[2:]]
    assert sorted(names) == [6, 8]


def test_the_gradient_of_a_step_is_the_sum_of_every_childs_own(eager):
    supernet = randomized_supernet()
    loop = make_loop(supernet, weight_decay=DECAY)
    batch = make_batch(0)
    plan = loop.rule.plan(0, STEP)
    mask = loop._dropout_mask(plan[0], tf.zeros([BATCH], tf.float64), tf.constant(STEP), 0)
    assert set(np.unique(mask)) == {0.0, 2.0}
    found, losses = gradients(loop, batch)
    parts, own_losses = separate_gradients(supernet, plan, batch, mask, DECAY)
    assert_same(found, added(list(parts.values())), 1e-10)
    assert losses == pytest.approx(own_losses, rel=1e-10)
    # No child's part is lost in the sum.
    for part in parts.values():
        assert max(np.abs(value).max() for value in part.values()) > 1e-3


def test_weight_decay_changes_the_gradient_of_the_biggest_child_only(eager):
    supernet = randomized_supernet()
    batch = make_batch(0)
    plain, decayed = (make_loop(supernet, weight_decay=decay) for decay in (0.0, DECAY))
    without = {"weights": {"biggest": 0.0}}
    students, losses = gradients(plain, batch, **without)
    assert_same(gradients(decayed, batch, **without)[0], students, 1e-15)
    assert losses["smallest"] > 1
    difference = added([gradients(decayed, batch)[0], negative(gradients(plain, batch)[0])])
    for path, variable in supernet.variables_by_path().items():
        expected = DECAY * variable.numpy() if "kernel" in path else np.zeros(variable.shape)
        np.testing.assert_allclose(difference[path], expected, atol=1e-12, err_msg=path)


def negative(found):
    return {path: -value for path, value in found.items()}


@pytest.mark.parametrize("regularize", ["biggest", "all"])
def test_dropout_and_decay_reach_other_children_only_where_all_are_regularized(eager, regularize):
    batch = make_batch(0)
    found = []
    for dropout, decay in ((0.0, 0.0), (0.5, DECAY)):
        supernet = randomized_supernet(space=dataclasses.replace(TINY, dropout=dropout))
        # Labels for all: with distillation the dropped-out teacher would change their target.
        rule = SandwichRule(supernet.space, distillation=False, regularize=regularize)
        loop = make_loop(supernet, rule, weight_decay=decay)
        found.append(gradients(loop, batch, weights={"biggest": 0.0}))
    (plain, losses), (regularized, other_losses) = found
    if regularize == "biggest":
        assert_same(regularized, plain, 1e-15)
        del losses["biggest"], other_losses["biggest"]
        assert losses == other_losses
    else:
        assert all(losses[name] != other_losses[name] for name in ("smallest", "random1"))
        largest = max(np.abs(regularized[path] - plain[path]).max() for path in plain)
        assert largest > 1e-3


def test_the_students_pass_no_gradient_to_their_teacher(eager):
    supernet = randomized_supernet()
    loop = make_loop(supernet)
    batch = make_batch(0)
    alone, _ = gradients(loop, batch, only={"biggest"})
    both, _ = gradients(loop, batch, only={"biggest", "smallest"})
    # The smallest child has one block in stage 2; the second is the biggest's alone.
    own = [path for path in alone if path.startswith("stage2_block2_")]
    assert len(own) > 5
    for path in own:
        np.testing.assert_array_equal(both[path], alone[path])
    assert not np.array_equal(both["stem_conv/kernel"], alone["stem_conv/kernel"])
    students, _ = gradients(loop, batch, only={"biggest", "smallest"}, weights={"biggest": 0.0})
    assert not any(np.any(students[path]) for path in own)


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


def test_every_child_sees_the_batch_at_its_own_resolution(eager):
    supernet = Calls(TINY, dtype="float64")
    loop = make_loop(supernet)
    batch = make_batch(0)
    loop.step(batch, STEP)
    plan = loop.rule.plan(0, STEP)
    calls = supernet.static + supernet.sliced
    assert len(calls) == len(plan) == 4
    full = batch["images"] / 127.5 - 1.0
    for (images, _, _), term in zip(calls, plan, strict=True):
        expected = resize(tf.constant(full), term.genotype["resolution"])
        np.testing.assert_allclose(images, expected, atol=1e-12)
    tables = [table for _, table, _ in supernet.sliced]
    for table, term in zip(tables, plan[2:], strict=True):
        np.testing.assert_array_equal(table, size_table(term.genotype))


def masks(seed, step, regularize="all"):
    supernet = Calls(TINY)
    loop = make_loop(supernet, SandwichRule(TINY, regularize=regularize), seed=seed)
    loop.step(make_batch(0), step)
    found = [mask for _, _, mask in supernet.static + supernet.sliced]
    return [None if mask is None else mask.numpy() for mask in found]


def test_dropout_masks_depend_on_seed_step_and_term_and_on_nothing_else(eager):
    first, again = masks(3, 7), masks(3, 7)
    np.testing.assert_array_equal(first, again)
    drawn = [*first, *masks(3, 8), *masks(4, 7)]
    assert len({mask.tobytes() for mask in drawn}) == 12
    assert all(mask.shape == (BATCH, 8) for mask in drawn)
    assert 0.4 < np.mean(np.array(drawn) > 0) < 0.6
    assert np.unique(drawn).tolist() == [0, 2]


def test_only_the_biggest_child_has_a_dropout_mask(eager):
    biggest, *others = masks(3, 7, regularize="biggest")
    np.testing.assert_array_equal(biggest, masks(3, 7)[0])
    assert others == [None, None, None]


@dataclasses.dataclass(frozen=True)
class Weighted(Rule):
    """Two children on the labels, one of them for little."""

    space: MBConvSpace

    def plan(self, seed, step):
        return [
            Term("low", "label", self.space.smallest(), weight=0.25, recurs=True),
            Term("high", "label", self.space.biggest(), recurs=True),
        ]

    def loss(self, role, logits, labels, outputs):
        return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    def regularized(self, role):
        return False


def test_another_rule_needs_no_other_loop_and_its_weights_scale_its_terms(eager):
    supernet = randomized_supernet()
    loop = make_loop(supernet, Weighted(TINY))
    batch = make_batch(0)
    parts = [
        gradients(loop, batch, only={name}, weights={name: 1.0})[0] for name in ("low", "high")
    ]
    before = supernet.weight_arrays()
    losses = loop.step(batch, 0)
    assert list(losses) == ["low", "high"]
    for path, value in supernet.weight_arrays().items():
        expected = before[path] - 0.1 * (0.25 * parts[0][path] + parts[1][path])
        np.testing.assert_allclose(value, expected, atol=1e-7, err_msg=path)  # float32 rate


@pytest.fixture(scope="module")
def traced():
    """Four traced steps: the supernet, its loop, and weights and losses around each."""
    supernet = Calls(TINY, zero_gamma=False)
    optimizer = keras.optimizers.SGD(0.1)
    loop = make_loop(supernet, optimizer=optimizer, weight_decay=DECAY)
    history = []
    for step in range(4):
        before = supernet.weight_arrays()
        losses = loop.step(make_batch(step), step)
        history.append(
            (step, before, supernet.weight_arrays(), losses, optimizer.iterations.numpy())
        )
    return supernet, loop, history


def test_a_step_is_exactly_one_update_by_the_summed_gradient(traced, eager):
    _, loop, history = traced
    assert [iterations for *_, iterations in history] == [1, 2, 3, 4]
    for step, before, after, losses, _ in history[1::2]:
        own = Supernet(TINY)
        own.assign(before)
        plan = loop.rule.plan(0, step)
        mask = loop._dropout_mask(plan[0], tf.zeros([BATCH]), tf.constant(step), 0)
        parts, own_losses = separate_gradients(own, plan, make_batch(step), mask, DECAY)
        assert losses == pytest.approx(own_losses, rel=1e-5)
        moved = {path: (before[path] - after[path]) / 0.1 for path in before}
        assert_same(moved, added(list(parts.values())), 1e-5)


def test_children_of_changing_sizes_share_one_trace(traced):
    supernet, loop, history = traced
    drawn = {term.genotype for step, *_ in history for term in loop.rule.plan(0, step)[2:]}
    assert len(drawn) > 4
    assert {genotype["resolution"] for genotype in drawn} == {6, 8}
    # Python runs while a trace is made, and only then.
    assert len(supernet.static) == 2
    assert len(supernet.sliced) == 1


def test_a_step_gives_the_loss_of_every_child_by_name(traced):
    *_, history = traced
    for _, _, _, losses, _ in history:
        assert list(losses) == ["biggest", "smallest", "random1", "random2"]
        assert all(type(loss) is float and loss > 0 for loss in losses.values())


def test_the_biggest_child_is_taught_by_what_the_rules_teacher_says_of_the_images(eager):
    space = dataclasses.replace(TINY, dropout=0.0)
    supernet = randomized_supernet(space=space)
    batch = make_batch(0)
    seen = []

    def teacher(images):
        seen.append(np.asarray(images))
        return tf.reshape(images, (BATCH, -1))[:, :10]

    rule = SandwichRule(space, random_children=0, teacher=teacher)
    _, losses = gradients(make_loop(supernet, rule), batch)
    images = batch["images"] / 127.5 - 1.0
    np.testing.assert_allclose(seen[0], images, atol=1e-12)
    logits = supernet.run(tf.constant(images), space.biggest())
    target = np.exp(images.reshape(BATCH, -1)[:, :10])
    target /= target.sum(-1, keepdims=True)
    expected = -(target * tf.nn.log_softmax(logits).numpy()).sum(-1).mean()
    np.testing.assert_allclose(losses["biggest"], expected, rtol=1e-9)
