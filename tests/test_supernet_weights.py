"""Weights of the supernet: shared by slicing, known by role, saved and refused."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
from supernets import MODES, SPACES, ends_and_samples, noise, randomized, shared

from bignas_tf.ops import Conv, Dense, DepthwiseConv
from bignas_tf.spaces import get_space
from bignas_tf.supernet import Supernet
from bignas_tf.weights import slice_weights


def part_of(array: np.ndarray, op) -> np.ndarray:
    """What `op` uses of a bigger op's weight, by plain indexing."""
    if array.ndim == 1:
        return array[: op.channels]
    if isinstance(op, Dense):
        return array[: op.in_channels, : op.channels]
    middle, radius = array.shape[0] // 2, op.kernel_size // 2
    rows = [middle + offset for offset in range(-radius, radius + 1)]
    centre = array[rows][:, rows]
    if isinstance(op, DepthwiseConv):
        return centre[:, :, : op.channels]
    return centre[:, :, : op.in_channels, : op.channels]


@pytest.mark.parametrize("name", ["digits", "kernels", "attentive"])
def test_child_weights_are_first_channels_and_centre_kernels(name):
    weights = shared(name).weight_arrays()
    for genotype in ends_and_samples(shared(name).space, 5):
        child = shared(name).child_weights(genotype)
        ops = {op.name: op for op in genotype.spec().ops()}
        assert {path.partition("/")[0] for path in child} <= set(ops)
        kernels = {op.name for op in ops.values() if isinstance(op, (Conv, Dense, DepthwiseConv))}
        assert {path for path in child if path.endswith("/kernel")} == {
            f"{op}/kernel" for op in kernels
        }
        for path, array in child.items():
            expected = part_of(weights[path], ops[path.partition("/")[0]])
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("name", ["digits", "kernels", "attentive"])
def test_a_slice_of_a_slice_is_the_slice(name):
    space = shared(name).space
    weights = shared(name).weight_arrays()
    nested = 0
    for one, two in itertools.pairwise(space.sample(40, seed=6)):
        pairs = list(zip(one.values, two.values, strict=True))
        small, big = (space.genotype([pick(pair) for pair in pairs]) for pick in (min, max))
        ops = {op.name for op in big.spec().ops()}
        if not {op.name for op in small.spec().ops()} <= ops:
            continue  # equal widths in the bigger one: a shortcut convolution that it lacks
        nested += 1
        direct = slice_weights(weights, small.spec().ops())
        twice = slice_weights(slice_weights(weights, big.spec().ops()), small.spec().ops())
        assert list(direct) == list(twice)
        for path, array in direct.items():
            np.testing.assert_array_equal(array, twice[path])
    assert nested > 10


def test_child_weights_are_copies():
    supernet, genotype = shared("digits"), shared("digits").space.biggest()
    before = supernet.weight_arrays()
    for array in supernet.child_weights(genotype).values():
        array += 1
    for path, array in supernet.weight_arrays().items():
        np.testing.assert_array_equal(array, before[path])


def test_every_weight_has_its_op_block_and_role():
    supernet = shared("digits")
    roles = supernet.roles()
    assert list(roles) == list(supernet.variables_by_path())
    assert len(roles) == len(supernet.trainable_variables) == len(supernet.variables)
    last = {path for path, role in roles.items() if role.role == "last_gamma"}
    # A shortcut in each of the 2 + 3 + 2 blocks.
    depths = {1: 2, 2: 3, 3: 2}
    assert last == {
        f"stage{stage}_block{block}_project_bn/gamma"
        for stage, depth in depths.items()
        for block in range(1, depth + 1)
    }
    head = {path for path, role in roles.items() if role.role == "head"}
    assert head == {"head_classifier/kernel", "head_classifier/bias"}
    for path, role in roles.items():
        assert path == role.path == f"{role.op}/{role.weight}"
        assert role.op.startswith("head" if role.block == "top" else f"{role.block}_")
        if role.role not in ("last_gamma", "head"):
            assert role.role == role.weight in ("kernel", "bias", "gamma", "beta")


def test_both_dense_layers_of_attentivenas_are_its_head():
    roles = shared("attentive").roles()
    head = {path for path, role in roles.items() if role.role == "head"}
    assert head == {"head_features/kernel", "head_classifier/kernel", "head_classifier/bias"}


@pytest.mark.parametrize("zero_gamma", [True, False])
def test_a_block_starts_as_its_shortcut_only_with_zero_gamma(zero_gamma):
    supernet = Supernet(SPACES["kernels"](), zero_gamma=zero_gamma, dtype="float64")
    gammas = {
        path: variable.numpy()
        for path, variable in supernet.variables_by_path().items()
        if path.endswith("/gamma")
    }
    roles = supernet.roles()
    for path, gamma in gammas.items():
        zero = zero_gamma and roles[path].role == "last_gamma"
        np.testing.assert_array_equal(gamma, 0.0 if zero else 1.0)

    genotype = supernet.space.sample(1, seed=8)[0]
    images = noise(genotype)
    before = supernet.run(images, genotype).numpy()
    rng = np.random.default_rng(0)
    for path, variable in supernet.variables_by_path().items():
        inside = "_block" in path and "shortcut_conv" not in path
        if inside and roles[path].role != "last_gamma" and "project_bn" not in path:
            variable.assign(rng.normal(size=variable.shape))
    changed = np.abs(supernet.run(images, genotype).numpy() - before).max()
    assert changed == 0 if zero_gamma else changed > 1e-2


def test_initial_weights_follow_from_the_seed_and_the_ops_name_alone():
    space = SPACES["digits"]()
    wider = dataclasses.replace(space, stages=(*space.stages[:2], SPACES["kernels"]().stages[2]))
    first, again, other = (
        Supernet(s, seed=seed).weight_arrays() for s, seed in ((space, 1), (wider, 1), (space, 2))
    )
    shared_paths = [path for path in first if path.startswith(("stem", "stage1", "stage2"))]
    for path in shared_paths:
        np.testing.assert_array_equal(first[path], again[path])
        if path.endswith("/kernel"):
            assert np.abs(first[path] - other[path]).max() > 1e-2


# Configuration and files -------------------------------------------------------------


def test_a_supernet_equals_itself_after_json():
    supernet = Supernet(SPACES["attentive"](), seed=3, zero_gamma=False, dtype="float64", name="a")
    config = json.loads(json.dumps(supernet.get_config()))
    again = Supernet.from_config(config)
    assert again.get_config() == supernet.get_config()
    assert again.space == supernet.space
    assert (again.seed, again.zero_gamma, again.name) == (3, False, "a")
    weights = again.weight_arrays()
    for path, array in supernet.weight_arrays().items():
        np.testing.assert_array_equal(array, weights[path])
        assert array.dtype == weights[path].dtype == "float64"


# Keras 3.15 converts its variables in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_saved_supernet_comes_back_with_its_weights(tmp_path):
    supernet = randomized(SPACES["kernels"](), dtype="float32")
    supernet.save(tmp_path / "supernet.keras")
    supernet.save_weights(tmp_path / "supernet.weights.h5")
    loaded = keras.models.load_model(tmp_path / "supernet.keras")
    filled = Supernet(SPACES["kernels"](), seed=9)
    filled.load_weights(tmp_path / "supernet.weights.h5")
    for weights in (loaded.weight_arrays(), filled.weight_arrays()):
        for path, array in supernet.weight_arrays().items():
            np.testing.assert_array_equal(array, weights[path])
    genotype = supernet.space.biggest()
    images = noise(genotype, dtype="float32")
    assert loaded.space == supernet.space
    np.testing.assert_array_equal(loaded(images), supernet.run(images, genotype))


# Refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_genotypes_of_other_spaces_and_images_of_other_sizes_are_refused(mode):
    supernet = shared("digits")
    genotype = supernet.space.smallest()
    other = get_space("digits", classes=3).smallest()  # the same name and values
    with pytest.raises(
        ValueError, match="`genotype` must be of space 'digits' with 10 classes. Received: Genotype"
    ):
        supernet.run(noise(other), other, mode)
    for bad in ((2, 10, 10, 1), (2, 8, 8, 3), (2, 8, 10, 1), (8, 8, 1)):
        with pytest.raises(ValueError, match=r"`images` must be \(batch, 8, 8, 1\).* Received: \("):
            supernet.run(np.zeros(bad), genotype, mode)


def test_an_unknown_mode_is_refused():
    genotype = shared("digits").space.smallest()
    for bad in ("dynamic", None, 3):
        with pytest.raises(ValueError, match=r"`mode` must be one of static, sliced, masked\. Rec"):
            shared("digits").run(noise(genotype), genotype, bad)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_are_refused_before_anything_changes(change):
    supernet = Supernet(SPACES["kernels"]())
    before = supernet.weight_arrays()
    arrays = {path: array + 1 for path, array in before.items()}
    if change == "missing":
        del arrays["head_bn/beta"]
        message = r"space 'kernels'\. Received: missing \['head_bn/beta'\], unknown \[\]"
    elif change == "unknown":
        arrays["head_bn/delta"] = arrays["head_bn/beta"]
        message = r"Received: missing \[\], unknown \['head_bn/delta'\]"
    else:
        arrays["head_bn/beta"] = np.zeros(15)
        message = r"'head_bn/beta' .* the shape \(16,\)\. Received: \(15,\)"
    with pytest.raises(ValueError, match=message):
        supernet.assign(arrays)
    for path, array in supernet.weight_arrays().items():
        np.testing.assert_array_equal(array, before[path])
