"""Training under JAX: the same numbers as under TensorFlow, on any layout."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import training_case
from jax.sharding import Mesh
from training_case import BATCH, SPACE, STEPS, make_loop, make_plan, make_supernet, run

from bignas_tf.data import AugmentationPolicy
from bignas_tf.spaces.sizes import size_table
from bignas_tf.training.chunks import prepared_chunks
from bignas_tf.training.jax_data import DeviceData
from bignas_tf.training.jax_loop import JaxLoop
from bignas_tf.training.optimizer_state import optimizer_arrays
from bignas_tf.training.rule import SandwichRule
from bignas_tf.training.state import OPTIMIZER, _averages, averaged

ONE = jax.devices()[:1]
# The next batch norm takes a shift of all its inputs away: its gradient is rounding alone.
SHIFTS = {"stage1_block1_project_bn/beta", "stage1_block2_project_bn/beta"}
NOISE = 1e-2  # what stands for the scale of such a tensor where it starts at 0


def by_tensorflow(folder, *cases):
    """What TensorFlow's loop does on the same batches, in a process of its own."""
    path = folder / "tensorflow.npz"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, training_case.__file__, str(path), *cases]
    subprocess.run(command, env=environment, check=True)  # noqa: S603
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory):
    return by_tensorflow(tmp_path_factory.mktemp("reference"), "sliced", "rmsprop", "taught")


def trained(steps=STEPS, policy=training_case.POLICY, supernet=None, start=0, **options):
    """Losses, `(steps, terms)`, weights by path and the loop, under JAX."""
    supernet = supernet or make_supernet()
    loop = make_loop(JaxLoop, supernet, **{"devices": ONE, **options})
    losses = run(loop, make_plan(policy), start, steps)
    return np.array([list(step.values()) for step in losses]), supernet.weight_arrays(), loop


@pytest.fixture(scope="module")
def straight():
    return trained()


def assert_same_weights(actual, expected, tolerance=1e-4, floor=0.0):
    """Each within `tolerance` of the tensor's largest absolute value, or of `floor`."""
    for path, array in expected.items():
        scale = max(np.abs(array).max(), floor)
        np.testing.assert_allclose(
            actual[path], array, rtol=0, atol=tolerance * scale, err_msg=path
        )


def weights_of(reference, name):
    prefix = f"{name}/weights/"
    return {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}


def assert_twenty_steps_agree(straight, reference, mode):
    losses, weights, _ = straight
    np.testing.assert_allclose(losses, reference[f"{mode}/losses"], rtol=0, atol=1e-4)
    assert_same_weights(weights, weights_of(reference, mode))


def test_twenty_steps_agree_with_sliced_tensorflow(tensorflow, straight):
    assert_twenty_steps_agree(straight, tensorflow, "sliced")


@pytest.mark.slow
def test_twenty_steps_agree_with_masked_tensorflow(straight, tmp_path):
    assert_twenty_steps_agree(straight, by_tensorflow(tmp_path, "masked"), "masked")


def test_the_weights_have_moved_far_beyond_the_tolerance(straight):
    before = make_supernet().weight_arrays()
    moved = {k: np.abs(v - before[k]).max() / np.abs(v).max() for k, v in straight[1].items()}
    assert {path for path, change in moved.items() if change < 1e-3} <= SHIFTS


def test_a_step_of_rmsprop_agrees_with_tensorflow(tensorflow):
    losses, weights, loop = trained(1, optimizer="rmsprop", ema=0.8)
    np.testing.assert_allclose(losses, tensorflow["rmsprop/losses"], rtol=0, atol=1e-4)
    assert_same_weights(weights, weights_of(tensorflow, "rmsprop"))
    state = {str(i): np.asarray(v.value) for i, v in enumerate(loop.optimizer.variables)}
    expected = {k: tensorflow[f"rmsprop/optimizer/{k}"] for k in state}
    assert_same_weights(state, expected, floor=NOISE)


def test_a_teacher_teaches_the_same_as_under_tensorflow(tensorflow):
    losses, weights, _ = trained(2, rule=training_case.taught_rule())
    np.testing.assert_allclose(losses, tensorflow["taught/losses"], rtol=0, atol=1e-4)
    assert_same_weights(weights, weights_of(tensorflow, "taught"))


@pytest.mark.slow
def test_averages_of_the_weights_follow_their_decay():
    supernet, averages = make_supernet(), None
    loop = make_loop(JaxLoop, supernet, "rmsprop", ema=0.8, devices=ONE)
    for step in range(3):
        run(loop, make_plan(), step, step + 1)
        weights = supernet.weight_arrays()
        averages = averages or weights  # the average starts with the first weights
        averages = {path: 0.8 * averages[path] + 0.2 * weights[path] for path in weights}
        slots = {OPTIMIZER + k: v for k, v in optimizer_arrays(loop.optimizer).items()}
        assert_same_weights(_averages(supernet, slots), averages, 1e-6, floor=NOISE)
    with averaged(supernet, loop.optimizer):
        assert_same_weights(supernet.weight_arrays(), averages, 1e-6, floor=NOISE)
    assert_same_weights(supernet.weight_arrays(), weights, 0)


@pytest.mark.slow
def test_several_steps_a_call_are_the_same_steps(straight):
    losses, weights, _ = trained(steps_per_call=3)  # epochs of four steps: some calls make one
    np.testing.assert_allclose(losses, straight[0], rtol=0, atol=1e-5)
    assert_same_weights(weights, straight[1], 1e-5, floor=NOISE)


def test_a_run_in_two_parts_equals_one_without_a_break(straight):
    supernet = make_supernet()
    first, _, loop = trained(7, supernet=supernet, steps_per_call=3)
    state = [np.asarray(v.value) for v in loop.optimizer.variables]
    again = make_loop(JaxLoop, supernet, devices=ONE, steps_per_call=3)
    for variable, array in zip(again.optimizer.variables, state, strict=True):
        variable.assign(array)
    second = run(again, make_plan(), 7)
    losses = np.array([list(step.values()) for step in second])
    np.testing.assert_allclose(np.concatenate([first, losses]), straight[0], rtol=0, atol=1e-5)
    assert_same_weights(supernet.weight_arrays(), straight[1], 1e-5, floor=NOISE)


def ends_only(space=SPACE, **options):
    """Biggest and smallest alone: half of the program to compile."""
    return SandwichRule(space, random_children=0, **options)


@pytest.mark.slow
def test_images_read_by_the_host_train_as_images_on_the_device_do():
    expected_losses, expected, _ = trained(6, rule=ends_only())
    losses, weights, loop = trained(6, rule=ends_only(), data_limit_mb=0, steps_per_call=3)
    assert not loop._data.resident
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)
    assert_same_weights(weights, expected, 1e-5, floor=NOISE)


def test_two_devices_train_as_one_does(straight):
    assert len(jax.devices()) == 2
    losses, weights, loop = trained(devices=None)
    (program,) = loop._programs.values()
    assert program._cache_size() == 1
    (chunk,) = loop.chunks(loop._data.plan, 0, 1)
    shared, alone = (each.compile(chunk).cost_analysis()["flops"] for each in (loop, straight[2]))
    assert shared < 0.6 * alone  # of one device
    np.testing.assert_allclose(losses, straight[0], rtol=0, atol=1e-5)
    assert_same_weights(weights, straight[1], 1e-5, floor=NOISE)


def test_a_batch_that_devices_cannot_share_is_refused():
    supernet = make_supernet()
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of .* 3. Received: 16"):
        make_loop(JaxLoop, supernet, devices=[*jax.devices(), ONE[0]])


@pytest.mark.slow
def test_rematerialized_blocks_train_the_same():
    expected_losses, expected, _ = trained(6, rule=ends_only())
    losses, weights, _ = trained(6, rule=ends_only(), remat=True)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)
    assert_same_weights(weights, expected, 1e-5, floor=NOISE)


@pytest.mark.slow
def test_half_precision_keeps_weights_and_losses_in_float32():
    expected, _, _ = trained(6, rule=ends_only())
    losses, _, loop = trained(6, supernet=make_supernet(dtype="mixed_bfloat16"), rule=ends_only())
    np.testing.assert_allclose(losses, expected, rtol=0.03)
    assert not np.allclose(losses, expected, rtol=1e-5)
    assert {array.dtype.name for array in loop._state["weights"]} == {"float32"}


def test_in_half_precision_an_image_of_one_colour_keeps_it_at_every_resolution():
    loop = make_loop(JaxLoop, make_supernet(dtype="mixed_bfloat16"), devices=ONE)
    colours = np.array([3, 60, 100, 121, 140, 170, 200, 254])
    pixels = np.broadcast_to(colours[:, None, None, None], (8, 10, 10, 3)).astype(np.uint8)
    weights = [variable.value for variable in loop._variables]
    seen = []

    class Seen(Exception):
        pass

    def run(images, *_, **__):
        seen.append(np.asarray(images, np.float32))
        raise Seen

    loop.supernet.run = loop.supernet.run_table = run
    for term in loop.rule.plan(4, 2):
        position = loop._resolutions.index(term.genotype["resolution"])
        varying = np.asarray([size_table(term.genotype)]), np.asarray([position])
        with pytest.raises(Seen), jax.disable_jit():  # so that what is seen are numbers
            loop.gradients([term], weights, (pixels, np.zeros(8)), varying, 0)
    assert [each.shape[1] for each in seen] == [10, 6, 10, 6]
    for each in seen:
        exact = np.broadcast_to(colours[:, None, None, None] / 127.5 - 1, each.shape)
        # Half a unit in the last of eight places, and what float32 adds to it.
        np.testing.assert_allclose(each, exact, rtol=1.001 * 2**-8)


@pytest.mark.slow
def test_dropout_depends_on_seed_step_and_term():
    supernet = make_supernet(dataclasses.replace(SPACE, dropout=0.5))
    rule = ends_only(supernet.space, regularize="all")
    losses, _, loop = trained(1, supernet=supernet, rule=rule, devices=None)
    without, _, _ = trained(6, rule=ends_only())
    assert (np.abs(losses[0] - without[0]) > 1e-3).all()
    term = loop.rule.plan(0, 0)[0]
    masks = [np.asarray(loop._dropout_mask(term, step, n)) for step, n in ((0, 0), (0, 1), (1, 0))]
    assert masks[0].shape == (BATCH, 24)
    assert set(np.unique(masks[0])) == {0.0, 2.0}
    assert not any(np.array_equal(a, b) for a, b in zip(masks, [*masks[1:], masks[0]], strict=True))
    one = make_loop(JaxLoop, make_supernet(supernet.space), rule=rule, devices=ONE)
    np.testing.assert_array_equal(one._dropout_mask(term, 0, 1), masks[1])


def test_a_rule_whose_terms_change_between_steps_is_refused():
    class Changing(SandwichRule):
        def plan(self, seed, step):
            return [dataclasses.replace(t, weight=1.0 + step) for t in super().plan(seed, step)]

    loop = make_loop(JaxLoop, make_supernet(), rule=Changing(SPACE), steps_per_call=3)
    with pytest.raises(ValueError, match="`rule` must be one whose terms are the same in every"):
        next(loop.chunks(make_plan(), 0, 3))


def test_genotypes_never_compile_again(straight):
    _, _, loop = straight
    (program,) = loop._programs.values()
    assert program._cache_size() == 1


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_what_only_the_host_can_augment_reaches_a_step_as_the_plan_reads_it(mixup):
    policy = AugmentationPolicy(crop=0.3, flip=True, operations="autoaugment", mixup=mixup)
    plan = make_plan(policy)
    data = DeviceData(plan, SPACE.classes, Mesh(np.array(jax.devices()), ("batch",)))
    assert not data.resident
    chunks = prepared_chunks(
        SandwichRule(SPACE), plan, 3, 6, seed=4, steps=2,
        resolutions=SPACE.training_resolutions, with_images=True,
    )  # fmt: skip
    batch, step = jax.jit(data.batch), 3
    for chunk in chunks:  # the first ends with its epoch
        for position in range(chunk.count):
            inputs = {name: array[position] for name, array in chunk.inputs.items()}
            images, labels = batch(data.arrays, inputs)
            expected = plan.read(step)
            np.testing.assert_array_equal(images, expected["images"])
            one_hot = np.eye(SPACE.classes)[expected["labels"]]
            if mixup:
                share = expected["shares"][:, None] / 256
                one_hot = share * one_hot + (1 - share) * one_hot[::-1]
                np.testing.assert_allclose(labels, one_hot, atol=1e-6)
            else:
                np.testing.assert_array_equal(labels, expected["labels"])
            step += 1
    assert step == 6
