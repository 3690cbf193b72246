import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_run import TINY

import bignas_tf.cli as cli
import bignas_tf.training.layout as layout_module
from bignas_tf.commands.train import loop_options
from bignas_tf.supernet import Supernet
from bignas_tf.training.layout import build_strategy
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.rule import SandwichRule
from bignas_tf.training.tensorflow_loop import TensorflowLoop

SPACE = dataclasses.replace(TINY, dropout=0.5)
BATCH = 6
STEPS = (0, 1, 2)


def batches():
    rng = np.random.default_rng(2)
    return [
        {
            "images": rng.integers(0, 256, (BATCH, 8, 8, 1), dtype=np.uint8),
            "labels": rng.integers(0, 10, BATCH).astype(np.int32),
        }
        for _ in STEPS
    ]


def make_loop(strategy=None, synchronized=True, ema=0.0, dtype="float64", **options):
    with (strategy or tf.distribute.get_strategy()).scope():
        supernet = Supernet(SPACE, zero_gamma=False, synchronized=synchronized, dtype=dtype)
        rng = np.random.default_rng(1)
        for path, variable in supernet.variables_by_path().items():
            noise = rng.normal(0, 0.3, variable.shape)
            variable.assign(noise + (1.0 if path.endswith("gamma") else 0.0))
        optimizer = build_optimizer({"kind": "sgd", "momentum": 0.9}, 0.1, ema)
    rule = SandwichRule(SPACE, random_children=1, label_smoothing=0.1)
    shared = {"batch_size": BATCH, "weight_decay": 0.01, "seed": 5}
    return TensorflowLoop(supernet, rule, optimizer, strategy=strategy, **shared, **options)


def trained(strategy=None, **options):
    """Losses of three steps, and the weights and optimizer's variables after them."""
    loop = make_loop(strategy, **options)
    losses = [loop.step(batch, step) for step, batch in zip(STEPS, batches(), strict=True)]
    state = [np.asarray(v) for v in (*loop._variables, *loop.optimizer.variables)]
    return losses, state


def assert_close(found, expected, tolerance):
    for own, other in zip(found[0], expected[0], strict=True):
        assert own == pytest.approx(other, abs=tolerance)
    for own, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(own, other, atol=tolerance)


def test_the_steps_of_these_tests_lack_and_have_the_optional_block():
    rule = SandwichRule(SPACE, random_children=1)
    depths = {rule.plan(5, step)[-1].genotype["stage1_depth"] for step in STEPS}
    assert depths == {1, 2}


# Traced: eager collectives of replicas, which are threads, may meet in the wrong order.
def test_two_replicas_train_as_one_device_does(two_replicas):
    options = {"ema": 0.9, "clip_norm": 0.5}
    assert_close(trained(two_replicas, **options), trained(**options), 1e-11)


def test_clipping_bounds_the_norm_of_the_summed_gradients(eager):
    def change(**clip):
        loop = make_loop(**clip)
        before = [np.asarray(v).copy() for v in loop._variables]
        loop.step(batches()[0], 0)
        # Nesterov's first step is 1 + momentum times the gradient.
        return [(np.asarray(v) - b) / -0.19 for v, b in zip(loop._variables, before, strict=True)]

    free = change()
    norm = np.sqrt(sum((g**2).sum() for g in free))
    assert norm > 1
    for bound in (norm / 2, 2 * norm):
        expected = [g * min(1, bound / norm) for g in free]
        for own, other in zip(change(clip_norm=float(bound)), expected, strict=True):
            np.testing.assert_allclose(own, other, atol=1e-12)
    for own, other in zip(change(clip_value=0.01), free, strict=True):
        np.testing.assert_allclose(own, np.clip(other, -0.01, 0.01), atol=1e-12)


def test_a_batch_that_replicas_cannot_share_is_refused(two_replicas):
    loop = make_loop()
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of .* 2. Received: 5"):
        TensorflowLoop(
            loop.supernet, loop.rule, keras.optimizers.SGD(), batch_size=5, strategy=two_replicas
        )


@pytest.mark.parametrize(
    "name, replicas, message",
    [
        ("tpu", None, "`strategy` must be one of"),
        ("one_device", 2, "`replicas` must be left out"),
        ("mirrored", 0, "`replicas` must be"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(name, replicas, message):
    with pytest.raises(ValueError, match=message):
        build_strategy(name, replicas)


WORKERS, FIRST = {"worker": ["a:1"]}, {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        {"cluster": {}},
        {"cluster": WORKERS, "task": {"type": "ps"}},
        {"cluster": WORKERS, "task": FIRST | {"index": 1}},
        {"cluster": WORKERS | {"chief": ["b:1"]}, "task": FIRST},
    ],
)
def test_workers_without_a_cluster_are_refused(monkeypatch, config):
    text = config if config is None or isinstance(config, str) else json.dumps(config)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="`TF_CONFIG` must be set for a multi_worker strategy"):
        build_strategy("multi_worker")


def options_of(*flags):
    return loop_options(cli._parse(["bignas", "train", "--recipe=digits", "--workdir=x", *flags]))


def test_flags_choose_the_layout_and_how_children_that_vary_run(monkeypatch):
    monkeypatch.setattr(layout_module, "build_strategy", lambda *asked: asked)
    plain = {"strategy": ("one_device", None), "synchronized": True}
    assert options_of() == plain
    flags = ("--strategy=mirrored", "--replicas=2", "--no_sync_bn", "--varying=masked")
    asked = {"strategy": ("mirrored", 2), "synchronized": False, "varying": "masked"}
    assert options_of(*flags) == asked
    assert options_of("--steps_per_call=3", "--jit_compile") == plain | {
        "steps_per_call": 3,
        "jit_compile": True,
    }


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--backend=jax", "--strategy=mirrored"], "`strategy` must be left out without .*=tensor"),
        (["--backend=jax", "--no_sync_bn"], "`no_sync_bn` must be left out without .*=tensorflow"),
        (["--remat"], "`remat` must be left out without --backend=jax"),
    ],
)
def test_flags_of_the_other_backends_loop_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        options_of(*flags)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"varying": "masked", "steps_per_call": 2}, "`steps_per_call` must be 1 on several"),
        ({"jit_compile": True}, "`jit_compile` must be False unless"),
    ],
)
def test_options_of_the_loop_that_exclude_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_loop(**options)


@pytest.fixture(scope="module")
def straight():
    """`trained` on one device, eagerly."""
    tf.config.run_functions_eagerly(True)
    found = trained()
    tf.config.run_functions_eagerly(False)
    return found


def test_masked_children_train_as_sliced_ones_do(straight, eager):
    assert_close(trained(varying="masked"), straight, 1e-11)


def test_steps_of_one_call_are_those_of_a_call_each(straight):
    loop, given = make_loop(steps_per_call=2), batches()
    losses = [*loop.train(given[:2], 0), *loop.train(given[2:], 2)]
    state = [np.asarray(v) for v in (*loop._variables, *loop.optimizer.variables)]
    assert_close((losses, state), straight, 1e-11)


def test_replicas_that_normalize_alone_have_another_loss(straight, two_replicas, monkeypatch):
    plan = SandwichRule.plan
    monkeypatch.setattr(SandwichRule, "plan", lambda *given: plan(*given)[:1])  # one is traced
    alone = make_loop(two_replicas, synchronized=False).step(batches()[0], 0)
    assert abs(alone["biggest"] - straight[0][0]["biggest"]) > 1e-2
