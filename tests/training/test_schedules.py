import importlib.util
import json
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bignas_tf.training.losses import label_cross_entropy, soft_cross_entropy
from bignas_tf.training.optimizer_state import optimizer_arrays
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.schedules import (
    ExponentialDecayWithConstantEnding,
    build_schedule,
    cosine_decay,
)

BIGNAS = {"kind": "exponential", "initial": 0.256, "warmup_epochs": 5}


def exponential(step, initial, decay_steps, rate, ending, warmup, staircase=False):
    if step < warmup:
        return initial * step / warmup
    periods = step / decay_steps
    return max(initial * rate ** (int(periods) if staircase else periods), ending * initial)


def cosine(step, initial, decay_steps, warmup, ending):
    if step < warmup:
        return initial * step / warmup
    progress = min((step - warmup) / decay_steps, 1.0)
    return initial * (ending + (1 - ending) * 0.5 * (1 + math.cos(math.pi * progress)))


def rates(schedule, steps):
    """The schedule as an optimizer evaluates it: traced once, on an int64 step."""
    traced = tf.function(schedule, input_signature=[tf.TensorSpec([], tf.int64)])
    return [float(traced(np.int64(step))) for step in steps]


@pytest.mark.parametrize("staircase", [False, True])
@pytest.mark.parametrize("ending", [0.05, 0.0])
@pytest.mark.parametrize("warmup", [0, 25])
def test_exponential_decay_follows_its_formula_at_every_step(warmup, ending, staircase):
    schedule = ExponentialDecayWithConstantEnding(0.256, 8, 0.9, ending, warmup, staircase)
    steps = range(400)
    expected = [exponential(t, 0.256, 8, 0.9, ending, warmup, staircase) for t in steps]
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5, atol=0)


def test_the_constant_ending_is_reached_once_and_kept():
    values = rates(ExponentialDecayWithConstantEnding(1.0, 8, 0.9, 0.05), range(400))
    first = values.index(np.float32(0.05))
    assert first == math.ceil(8 * math.log(0.05) / math.log(0.9))
    assert set(values[first:]) == {np.float32(0.05)}
    assert all(a > b for a, b in zip(values[: first - 1], values[1:first], strict=True))


def test_no_constant_ending_decays_on():
    values = rates(ExponentialDecayWithConstantEnding(1.0, 8, 0.9, 0.0), range(400))
    assert all(a > b for a, b in zip(values[:-1], values[1:], strict=True))


def test_the_constant_ending_does_not_lift_the_warm_up():
    schedule = ExponentialDecayWithConstantEnding(1.0, 8, 0.9, 0.5, warmup_steps=10)
    assert float(schedule(0)) == 0.0
    assert float(schedule(2)) == pytest.approx(0.2)


@pytest.mark.parametrize("step", [30, 30.0, np.int32(30), np.float32(30), tf.constant(30)])
@pytest.mark.parametrize("kind", ["exponential", "cosine"])
def test_any_type_of_step_gives_the_same_rate(kind, step):
    schedule = build_schedule({"kind": kind, "initial": 0.4, "warmup_epochs": 2}, 10, 6)
    expected = schedule(tf.constant(30, tf.int64))
    assert float(schedule(step)) == float(expected)
    assert expected.dtype == tf.float32


@pytest.mark.parametrize("warmup", [0, 30])
@pytest.mark.parametrize("ending", [0.0, 0.05])
def test_cosine_decay_follows_its_formula_at_every_step(warmup, ending):
    schedule = cosine_decay(0.4, 170, warmup, ending)
    steps = range(220)
    expected = [cosine(t, 0.4, 170, warmup, ending) for t in steps]
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5, atol=1e-8)


def test_a_recipe_in_epochs_gives_the_published_schedule_in_steps():
    schedule = build_schedule(BIGNAS, steps_per_epoch=312, epochs=360)
    steps = range(0, 312 * 360, 97)
    expected = [exponential(t, 0.256, 2.4 * 312, 0.97, 0.05, 5 * 312) for t in steps]
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=2e-5)


@pytest.mark.parametrize("constant_from", [0.5, 0.8, 1.0])
def test_exponential_to_ending_reaches_its_ending_where_told(constant_from):
    config = {"kind": "exponential_to_ending", "initial": 0.4, "constant_from": constant_from}
    values = rates(build_schedule(config, steps_per_epoch=20, epochs=10), range(201))
    there = int(constant_from * 200)
    assert values[there - 1] > 0.4 * 0.05 * 1.01
    np.testing.assert_allclose(values[there:], 0.4 * 0.05, rtol=1e-5)
    assert values[there // 2] == pytest.approx(0.4 * math.sqrt(0.05), rel=1e-5)


def test_exponential_to_ending_without_its_constant_keeps_the_pace():
    config = {"kind": "exponential_to_ending", "initial": 0.4, "constant_ending": False}
    schedule = build_schedule(config, steps_per_epoch=20, epochs=10)
    expected = [0.4 * 0.05 ** (t / 160) for t in range(201)]
    np.testing.assert_allclose(rates(schedule, range(201)), expected, rtol=1e-5)


def test_a_cosine_recipe_ends_with_the_run():
    config = {"kind": "cosine", "initial": 0.4, "warmup_epochs": 2, "ending_fraction": 0.01}
    values = rates(build_schedule(config, steps_per_epoch=10, epochs=12), range(121))
    assert values[0] == 0.0
    assert values[20] == max(values) == np.float32(0.4)
    assert values[119] > values[120] == pytest.approx(0.004, rel=1e-5)


@pytest.mark.parametrize("kind", ["exponential", "exponential_to_ending", "cosine"])
def test_a_schedule_survives_serialization_inside_its_optimizer(kind):
    schedule = build_schedule({"kind": kind, "initial": 0.4, "warmup_epochs": 1}, 10, 6)
    optimizer = keras.optimizers.SGD(schedule)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    for step in (0, 5, 30, 60):
        copy.iterations.assign(step)
        assert float(copy.learning_rate) == float(schedule(step))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "`kind` must be one of exponential, exponential_to_ending, cosine"),
        ({"kind": "linear"}, "Received: 'linear'"),
        ({**BIGNAS, "every": 2}, r"every_epochs.*Received: \['every'\]"),
        ({"kind": "cosine", "initial": 0.4, "rate": 0.9}, r"Received: \['rate'\]"),
        ({"kind": "exponential"}, "`initial` must be given"),
        ({**BIGNAS, "initial": 0}, "`initial_learning_rate` must be positive"),
        ({**BIGNAS, "rate": 1.1}, r"`decay_rate` must be in \(0, 1\]"),
        ({**BIGNAS, "every_epochs": 0}, "`decay_steps` must be positive"),
        ({**BIGNAS, "ending_fraction": 5}, r"`ending_fraction` must be in \[0, 1\]"),
        ({**BIGNAS, "warmup_epochs": -1}, "`warmup_steps` must be 0 or more"),
        (
            {**BIGNAS, "warmup_epochs": 10},
            '`warmup_epochs` must be below `epochs`, which is 10: .*"warmup_epochs": 1.0}. .*: 10',
        ),
        (
            {"kind": "exponential_to_ending", "initial": 1, "ending_fraction": 0},
            r"`ending_fraction` must be in \(0, 1\)",
        ),
        (
            {"kind": "exponential_to_ending", "initial": 1, "constant_from": 1.2},
            r"`constant_from` must be in \(0, 1\]",
        ),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(config, steps_per_epoch=10, epochs=10)


JITTED = """
import json, sys
import jax, keras, numpy as np
import bignas_tf.training.logs
from bignas_tf.training.optimizer_state import optimizer_arrays
from bignas_tf.training.losses import label_cross_entropy, soft_cross_entropy
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.schedules import build_schedule
problem = json.loads(sys.stdin.read())
weights = [keras.Variable(np.array(w), dtype="float64") for w in problem["weights"]]
optimizer = build_optimizer({"kind": problem["kind"]}, build_schedule(problem["rate"], 2, 4))
optimizer.build(weights)
values, state = [w.value for w in weights], [v.value for v in optimizer.variables]
step = jax.jit(optimizer.stateless_apply)
for grads in problem["gradients"]:
    values, state = step(state, [np.array(g) for g in grads], values)
for variable, value in zip(optimizer.variables, state):
    variable.assign(value)
arrays = optimizer_arrays(optimizer)
logits = np.array(values[0])
to_student = jax.grad(lambda x: soft_cross_entropy(logits[::-1], x).sum())(logits)
to_teacher = jax.grad(lambda x: soft_cross_entropy(x, logits).sum())(logits)
assert "tensorflow" not in sys.modules
print(json.dumps({
    "weights": [np.asarray(v).tolist() for v in values],
    "slots": {name: a.tolist() for name, a in arrays.items()},
    "to_student": to_student.tolist(),
    "to_teacher": to_teacher.tolist(),
    "label_loss": label_cross_entropy(np.array([0, 3, 1]), logits, 0.1).tolist(),
}))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
@pytest.mark.slow  # tests/jax_backend trains with both
@pytest.mark.parametrize("kind", ["rmsprop", "sgd"])
def test_jax_trains_as_tensorflow_does_without_importing_it(kind):
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (4,), ()]
    weights = [keras.Variable(rng.normal(size=shape), dtype="float64") for shape in shapes]
    steps = [[rng.normal(size=shape).tolist() for shape in shapes] for _ in range(4)]
    rate = {"kind": "exponential", "initial": 0.25, "warmup_epochs": 1}
    start = [np.asarray(w).tolist() for w in weights]
    problem = {"kind": kind, "weights": start, "gradients": steps, "rate": rate}
    answer = subprocess.run(  # noqa: S603
        [sys.executable, "-c", JITTED],
        input=json.dumps(problem),
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    jax = json.loads(answer.stdout)
    optimizer = build_optimizer({"kind": kind}, build_schedule(rate, 2, 4))
    for step in steps:
        optimizer.apply([tf.constant(g, tf.float64) for g in step], weights)
    for weight, array in zip(weights, jax["weights"], strict=True):
        np.testing.assert_allclose(np.asarray(weight), array, rtol=1e-6, atol=1e-7)
    slots = optimizer_arrays(optimizer)
    assert slots.keys() == jax["slots"].keys()
    for name, array in slots.items():
        np.testing.assert_allclose(array, jax["slots"][name], rtol=1e-6, atol=1e-7)
    logits = np.array(jax["weights"][0])
    student = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = soft_cross_entropy(logits[::-1], student)
    np.testing.assert_allclose(tape.gradient(loss, student), jax["to_student"], atol=1e-9)
    np.testing.assert_array_equal(jax["to_teacher"], np.zeros_like(logits))
    label_loss = label_cross_entropy(np.array([0, 3, 1]), logits, 0.1)
    np.testing.assert_allclose(label_loss, jax["label_loss"], rtol=1e-9)
