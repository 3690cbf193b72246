import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bignas_tf.training.checkpoints import optimizer_arrays
from bignas_tf.training.losses import label_cross_entropy, soft_cross_entropy
from bignas_tf.training.optimizers import RMSPropTF1, build_optimizer
from bignas_tf.training.schedules import ExponentialDecayWithConstantEnding, build_schedule

SHAPES = [(3, 4), (4,), ()]


def gradients(step):
    rng = np.random.default_rng(step)
    return [rng.normal(scale=10.0 ** rng.integers(-4, 2), size=shape) for shape in SHAPES]


def variables(dtype="float64"):
    rng = np.random.default_rng(99)
    return [keras.Variable(rng.normal(size=shape), dtype=dtype) for shape in SHAPES]


def array_of(variable):
    return np.asarray(variable)


class RMSPropOfTensorFlow1:
    """TensorFlow 1's rule, one weight at a time: `ms`, `mom` and `var` as its kernel calls them."""

    def __init__(self, rho, momentum, epsilon):
        self.rho, self.momentum, self.epsilon = rho, momentum, epsilon
        self.ms = self.mom = None

    def step(self, weights, grads, rate):
        if self.ms is None:
            self.ms = [np.ones_like(w) for w in weights]
            self.mom = [np.zeros_like(w) for w in weights]
        for i, (var, grad) in enumerate(zip(weights, grads, strict=True)):
            self.ms[i] = self.ms[i] + (grad * grad - self.ms[i]) * (1 - self.rho)
            root = np.sqrt(self.ms[i] + self.epsilon)
            self.mom[i] = self.momentum * self.mom[i] + rate * grad / root
            weights[i] = var - self.mom[i]


@pytest.mark.parametrize(("rho", "momentum"), [(0.9, 0.9), (0.99, 0.5), (0.9, 0.0)])
def test_rmsprop_follows_the_rule_of_tensorflow_1(rho, momentum):
    weights = variables()
    expected = [array_of(w) for w in weights]
    reference = RMSPropOfTensorFlow1(rho, momentum, 1e-3)
    config = {"kind": "rmsprop", "rho": rho, "momentum": momentum}
    # Powers of two: Keras holds the rate in float32.
    optimizer = build_optimizer(config, 0.25)
    for step in range(6):
        optimizer.apply([tf.constant(g) for g in gradients(step)], weights)
        reference.step(expected, gradients(step), 0.25)
        for weight, array in zip(weights, expected, strict=True):
            np.testing.assert_allclose(array_of(weight), array, rtol=1e-12, atol=1e-14)


def test_rmsprop_takes_the_rate_of_each_step_from_its_schedule():
    schedule = ExponentialDecayWithConstantEnding(0.256, 2.0, 0.9, 0.5, warmup_steps=2)
    weights = variables("float32")
    expected = [array_of(w).astype(np.float64) for w in weights]
    reference = RMSPropOfTensorFlow1(0.9, 0.9, 1e-3)
    optimizer = build_optimizer({"kind": "rmsprop"}, schedule)
    for step in range(6):
        optimizer.apply([tf.constant(g, tf.float32) for g in gradients(step)], weights)
        reference.step(expected, gradients(step), float(schedule(step)))
    for weight, array in zip(weights, expected, strict=True):
        np.testing.assert_allclose(array_of(weight), array, rtol=1e-5, atol=1e-6)


def test_the_first_update_is_small_where_that_of_keras_is_not():
    def moved(optimizer):
        weight = keras.Variable(np.zeros(1), dtype="float32")
        optimizer.apply([tf.constant([1.0])], [weight])
        return -float(array_of(weight)[0])

    stock = keras.optimizers.RMSprop(0.256, rho=0.9, momentum=0.9, epsilon=1e-3)
    assert moved(stock) == pytest.approx(0.256 / np.sqrt(0.1 + 1e-3), rel=1e-5)  # 0.805
    assert moved(RMSPropTF1(0.256)) == pytest.approx(0.256 / np.sqrt(1.0 + 1e-3), rel=1e-5)


def test_building_inside_a_traced_function_starts_the_mean_squares_once():
    weight = keras.Variable(np.zeros(2), dtype="float32")
    optimizer = RMSPropTF1(0.5)
    traced = tf.function(lambda g: optimizer.apply([g], [weight]))
    expected = [np.zeros(2)]
    reference = RMSPropOfTensorFlow1(0.9, 0.9, 1e-3)
    for step in range(3):
        gradient = np.array([1.0, 10.0], np.float32) * (step + 1)
        traced(tf.constant(gradient))
        reference.step(expected, [gradient], 0.5)
    np.testing.assert_allclose(array_of(weight), expected[0], rtol=1e-6)


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_has_momentum(nesterov):
    weights = variables()
    expected = [array_of(w) for w in weights]
    velocity = [np.zeros_like(w) for w in expected]
    optimizer = build_optimizer({"kind": "sgd", "nesterov": nesterov}, 0.25)
    for step in range(5):
        optimizer.apply([tf.constant(g) for g in gradients(step)], weights)
        for i, gradient in enumerate(gradients(step)):
            velocity[i] = 0.9 * velocity[i] - 0.25 * gradient
            ahead = 0.9 * velocity[i] - 0.25 * gradient
            expected[i] = expected[i] + (ahead if nesterov else velocity[i])
    for weight, array in zip(weights, expected, strict=True):
        # Keras holds the momentum in float32 until it casts it.
        np.testing.assert_allclose(array_of(weight), array, rtol=1e-6)


@pytest.mark.parametrize("kind", ["rmsprop", "sgd"])
def test_neither_optimizer_decays_weights(kind):
    weight = keras.Variable(np.ones(2), dtype="float32")
    build_optimizer({"kind": kind}, 0.5).apply([tf.zeros(2)], [weight])
    np.testing.assert_array_equal(array_of(weight), [1.0, 1.0])


def test_rmsprop_survives_serialization():
    optimizer = RMSPropTF1(0.125, rho=0.8, momentum=0.7, epsilon=0.01, clipnorm=1.0)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(copy) is RMSPropTF1
    assert copy.get_config() == optimizer.get_config()


JITTED = """
import json, sys
import jax, keras, numpy as np
import bignas_tf.training.logs
from bignas_tf.training.checkpoints import optimizer_arrays
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
@pytest.mark.parametrize("kind", ["rmsprop", "sgd"])
def test_jax_trains_as_tensorflow_does_without_importing_it(kind):
    steps = [[g.tolist() for g in gradients(step)] for step in range(4)]
    weights = variables()
    rate = {"kind": "exponential", "initial": 0.25, "warmup_epochs": 1}
    start = [array_of(w).tolist() for w in weights]
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
        np.testing.assert_allclose(array_of(weight), array, rtol=1e-6, atol=1e-7)
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


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "`kind` must be one of rmsprop, sgd. Received: None"),
        ({"kind": "adam"}, "Received: 'adam'"),
        ({"kind": "sgd", "rho": 0.9}, r"among \['momentum', 'nesterov'\]. Received: \['rho'\]"),
        ({"kind": "rmsprop", "weight_decay": 1e-5}, r"Received: \['weight_decay'\]"),
        ({"kind": "sgd", "momentum": 1.0}, r"`momentum` must be a number in \[0, 1\)"),
        ({"kind": "rmsprop", "rho": -0.1}, r"`rho` must be a number in \[0, 1\)"),
        ({"kind": "rmsprop", "epsilon": 0}, "`epsilon` must be positive"),
    ],
)
def test_an_optimizer_that_makes_no_sense_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(config, 0.1)


def test_whole_numbers_are_taken_for_floats():
    optimizer = build_optimizer({"kind": "sgd", "momentum": 0}, 1)
    assert float(optimizer.learning_rate) == 1.0
