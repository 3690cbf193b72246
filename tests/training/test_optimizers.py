import keras
import numpy as np
import pytest
import tensorflow as tf

from bignas_tf.training.checkpoints import (
    CheckpointError,
    read_checkpoint,
    write_checkpoint,
)
from bignas_tf.training.optimizer_state import optimizer_arrays, restore_optimizer
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


class Run:
    """A small network in training; `dtype` is that of its second layer."""

    def __init__(self, config, rate=None, widths=(4, 4, 2), dtype="float32"):
        layers = [keras.layers.Dense(w, activation="tanh", dtype=dtype) for w in widths]
        self.model = keras.Sequential([keras.Input((3,)), *layers])
        rate = rate or build_schedule({"kind": "exponential", "initial": 0.1}, 2, 4)
        self.optimizer = build_optimizer(config, rate)
        self.weights = self.model.trainable_variables
        self.optimizer.build(self.weights)

    def train(self, first, last):
        for step in range(first, last):
            images = np.random.default_rng(step).normal(size=(8, 3)).astype("float32")
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self.model(images) - 1.0))
            self.optimizer.apply(tape.gradient(loss, self.weights), self.weights)

    def everything(self):
        variables = [*self.weights, *self.optimizer.variables]
        return [np.asarray(variable).tobytes() for variable in variables]


CONFIGS = [
    {"kind": "rmsprop"},
    {"kind": "rmsprop", "momentum": 0.0},
    {"kind": "sgd"},
    {"kind": "sgd", "momentum": 0.0},
]


@pytest.mark.parametrize("rate", [None, 0.1])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_restored_optimizer_continues_as_if_never_stopped(tmp_path, config, rate):
    uninterrupted = Run(config, rate)
    uninterrupted.train(0, 3)
    arrays = {f"optimizer/{k}": v for k, v in optimizer_arrays(uninterrupted.optimizer).items()}
    weights = {str(i): np.asarray(v) for i, v in enumerate(uninterrupted.weights)}
    write_checkpoint(tmp_path / "c", {**arrays, **weights}, {})
    uninterrupted.train(3, 6)

    read, _ = read_checkpoint(tmp_path / "c")
    resumed = Run(config, rate)  # Keras numbers its layers on
    for i, variable in enumerate(resumed.weights):
        variable.assign(read[str(i)])
    slots = {k.removeprefix("optimizer/"): v for k, v in read.items() if k not in weights}
    restore_optimizer(resumed.optimizer, slots)
    assert resumed.optimizer.iterations.value == 3
    resumed.train(3, 6)
    assert resumed.everything() == uninterrupted.everything()


def test_names_of_optimizer_arrays_depend_on_no_counter_of_keras():
    first, second = Run(CONFIGS[0]), Run(CONFIGS[0])
    assert first.weights[0].path != second.weights[0].path
    names = list(optimizer_arrays(second.optimizer))
    assert names == list(optimizer_arrays(first.optimizer))
    assert names[:2] == ["iterations", "momentums/0000/sequential/dense/kernel"]
    assert "velocities/0005/sequential/dense/bias" in names
    assert len(names) == 1 + 2 * 6


def test_optimizer_arrays_are_copies():
    run = Run(CONFIGS[0])
    arrays = optimizer_arrays(run.optimizer)
    before = {name: array.copy() for name, array in arrays.items()}
    run.train(0, 1)
    for name, array in before.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_a_lone_weight_and_a_plain_optimizer_are_not_confused():
    # As many variables as weights: the list of all of them looks like a slot.
    optimizer = build_optimizer(
        {"kind": "sgd", "momentum": 0.0}, build_schedule({"kind": "cosine", "initial": 0.1}, 2, 4)
    )
    optimizer.build([keras.Variable(np.zeros(()), dtype="float32")])
    assert list(optimizer_arrays(optimizer)) == ["iterations"]


def refused(run, arrays, *messages):
    before = run.everything()
    with pytest.raises(CheckpointError) as caught:
        restore_optimizer(run.optimizer, arrays)
    for message in messages:
        assert message in str(caught.value)
    assert run.everything() == before


def test_state_of_another_optimizer_is_refused_by_name():
    arrays = optimizer_arrays(Run({"kind": "sgd"}, 0.1).optimizer)
    refused(
        Run({"kind": "rmsprop"}),
        arrays,
        "missing velocities/0003/sequential/dense/bias",
        "unexpected learning_rate",
    )


def test_state_of_another_network_is_refused_by_name():
    arrays = optimizer_arrays(Run(CONFIGS[2], widths=(4, 5, 2)).optimizer)
    name = "momentums/0002/sequential/dense/kernel"
    refused(Run(CONFIGS[2]), arrays, f"{name} of ('float32', (4, 5)) where ('float32', (4, 4))")


def test_state_of_another_precision_is_refused_by_name():
    arrays = optimizer_arrays(Run(CONFIGS[2], dtype="float64").optimizer)
    refused(
        Run(CONFIGS[2]), arrays, "dense/kernel of ('float64', (3, 4)) where ('float32', (3, 4))"
    )


def test_an_optimizer_without_variables_is_refused():
    optimizer = build_optimizer({"kind": "sgd"}, 0.1)
    with pytest.raises(ValueError, match="`optimizer` must be built"):
        optimizer_arrays(optimizer)


def test_an_optimizer_with_state_elsewhere_is_refused():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    optimizer.build([keras.Variable(np.zeros(2), dtype="float32")])
    with pytest.raises(ValueError, match="`optimizer` must be one whose.*LossScaleOptimizer"):
        optimizer_arrays(optimizer)
