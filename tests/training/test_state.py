import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from tiny_run import TINY

from bignas_tf.calibration import calibrate
from bignas_tf.data import Split
from bignas_tf.evaluation import prepared
from bignas_tf.extract import extract
from bignas_tf.spaces import SPACES, Stage
from bignas_tf.supernet import Supernet
from bignas_tf.training.checkpoints import CheckpointError, CheckpointManager, write_checkpoint
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.recipe import get_recipe
from bignas_tf.training.state import (
    averaged,
    initialize_from,
    load_trained,
    pack,
    teacher_from,
    unpack,
)

NAMES = [str(digit) for digit in range(10)]


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    monkeypatch.setitem(SPACES, "tiny", lambda: TINY)


def optimizer_for(supernet):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(list(supernet.variables_by_path().values()))
    return optimizer


def trained_supernet(space=TINY, seed=0):
    """A supernet after one made-up update, so that no weight or slot is its initial value."""
    supernet = Supernet(space, seed=seed)
    optimizer = optimizer_for(supernet)
    rng = np.random.default_rng(seed)
    variables = list(supernet.variables_by_path().values())
    optimizer.apply([rng.normal(size=v.shape).astype("float32") for v in variables], variables)
    return supernet, optimizer


def metadata(space=TINY, classes=NAMES):
    recipe = get_recipe("digits").replace(name="tiny", space=space.name)
    return {
        "step": 7,
        "recipe": recipe.to_json(),
        "space": space.config(),
        "classes": list(classes),
        "data": "digits",
        "fingerprint": "0123456789abcdef",
    }


def save_run(folder, space=TINY, seed=0):
    supernet, optimizer = trained_supernet(space, seed)
    manager = CheckpointManager(folder / "checkpoints")
    manager.save(7, pack(supernet, optimizer), metadata(space))
    return supernet


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_unpacking_restores_every_weight_and_every_slot_of_the_optimizer():
    supernet, optimizer = trained_supernet()
    packed = pack(supernet, optimizer)
    other = Supernet(TINY, seed=1)
    fresh = optimizer_for(other)
    unpack(other, fresh, packed)
    assert_equal(pack(other, fresh), packed)
    weights = {name for name in packed if name.startswith("weights/")}
    assert {name.removeprefix("weights/") for name in weights} == set(supernet.roles())
    slots = set(packed) - weights
    assert "optimizer/iterations" in slots
    assert len(slots) > len(weights)


def test_a_state_of_another_network_changes_nothing():
    supernet, optimizer = trained_supernet()
    before = pack(supernet, optimizer)
    wider = dataclasses.replace(TINY, head_widths=(16,))
    with pytest.raises(CheckpointError, match="head_conv/kernel"):
        unpack(supernet, optimizer, pack(*trained_supernet(wider)))
    assert_equal(pack(supernet, optimizer), before)
    other = pack(*trained_supernet(seed=1))
    del other["optimizer/iterations"]  # of the weights all fit
    with pytest.raises(CheckpointError, match="missing iterations"):
        unpack(supernet, optimizer, other)
    assert_equal(pack(supernet, optimizer), before)


def test_a_supernet_loads_from_a_runs_folder_and_from_a_checkpoint_file(tmp_path):
    supernet = save_run(tmp_path)
    file = tmp_path / "checkpoints" / "step_00000007.safetensors"
    for path in (tmp_path, file, str(file)):
        trained = load_trained(path)
        assert_equal(trained.supernet.weight_arrays(), supernet.weight_arrays())
        assert trained.supernet.space == TINY
        assert trained.recipe.space == "tiny"
        assert (trained.step, trained.path, trained.classes) == (7, file, tuple(NAMES))
        assert (trained.data, trained.fingerprint) == ("digits", "0123456789abcdef")


def test_a_space_that_is_changed_later_does_not_change_what_a_checkpoint_holds(
    tmp_path, monkeypatch
):
    save_run(tmp_path)
    monkeypatch.setitem(SPACES, "tiny", lambda: dataclasses.replace(TINY, head_widths=(16,)))
    assert load_trained(tmp_path).supernet.space == TINY


def test_a_path_without_a_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="`workdir` must hold .*Received: .*empty"):
        load_trained(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="`workdir` must be a run's folder.*missing"):
        load_trained(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="`init_from` must be a run's folder.*missing"):
        initialize_from(Supernet(TINY), tmp_path / "missing")


def test_a_checkpoint_that_is_not_of_a_run_is_refused_by_what_it_lacks(tmp_path):
    write_checkpoint(tmp_path / "other", {"a": np.zeros(2)}, {"step": 3})
    with pytest.raises(CheckpointError, match="without space, recipe, classes, data, fingerprint"):
        load_trained(tmp_path / "other")


def test_a_cut_short_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    supernet = save_run(tmp_path)
    last = tmp_path / "checkpoints" / "step_00000009.safetensors"
    shutil.copy(tmp_path / "checkpoints" / "step_00000007.safetensors", last)
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="step_00000009.* is damaged"):
        trained = load_trained(tmp_path)
    assert trained.step == 7
    assert_equal(trained.supernet.weight_arrays(), supernet.weight_arrays())


def test_a_run_that_averages_its_weights_is_loaded_with_the_average(tmp_path):
    supernet = Supernet(TINY)
    variables = list(supernet.variables_by_path().values())
    optimizer = build_optimizer({"kind": "sgd"}, 0.1, ema=0.75)
    optimizer.build(variables)
    rng, seen = np.random.default_rng(0), []
    for _ in range(3):
        optimizer.apply([rng.normal(size=v.shape).astype("float32") for v in variables], variables)
        seen.append(supernet.weight_arrays())
    manager = CheckpointManager(tmp_path / "checkpoints")
    manager.save(7, pack(supernet, optimizer), metadata())
    for path, array in load_trained(tmp_path).supernet.weight_arrays().items():
        first, second, third = (weights[path] for weights in seen)
        average = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
        np.testing.assert_allclose(array, average, rtol=1e-5, atol=1e-6, err_msg=path)
        assert np.abs(average - third).max() > 1e-3


def test_an_average_that_is_interrupted_on_its_way_in_leaves_the_weights_alone(monkeypatch):
    supernet = Supernet(TINY)
    variables = list(supernet.variables_by_path().values())
    optimizer = build_optimizer({"kind": "sgd"}, 0.1, ema=0.75)
    optimizer.build(variables)
    for _ in range(2):
        optimizer.apply([np.ones(v.shape, "float32") for v in variables], variables)
    own, assign = supernet.weight_arrays(), supernet.assign

    def interrupted(arrays):
        monkeypatch.setattr(supernet, "assign", assign)
        variables[0].assign(next(iter(arrays.values())))
        raise KeyboardInterrupt

    monkeypatch.setattr(supernet, "assign", interrupted)
    with pytest.raises(KeyboardInterrupt), averaged(supernet, optimizer):
        raise AssertionError("it was interrupted before")
    assert_equal(supernet.weight_arrays(), own)


def test_weights_for_other_classes_are_all_taken_but_the_classifier(tmp_path):
    given = save_run(tmp_path).weight_arrays()
    supernet = Supernet(dataclasses.replace(TINY, classes=4), seed=5)
    own = supernet.weight_arrays()
    kept = initialize_from(supernet, tmp_path)
    heads = [path for path, role in supernet.roles().items() if role.role == "head"]
    assert kept == heads and len(heads) == 2
    assert_equal(supernet.weight_arrays(), {p: own[p] if p in heads else given[p] for p in own})


def test_weights_for_as_many_classes_are_all_taken(tmp_path):
    given = save_run(tmp_path).weight_arrays()
    supernet = Supernet(TINY, seed=5)
    assert initialize_from(supernet, tmp_path) == []
    assert_equal(supernet.weight_arrays(), given)


@pytest.mark.parametrize(
    ("change", "misfit"),
    [
        ({"head_widths": (16,)}, "`head_width` of space 'tiny' must keep .*16"),
        ({"stages": (Stage((4, 8), (1, 2, 3), (3,), (2,), 2),)}, "`stage1_depth` .* must keep"),
        ({"stages": (Stage((4, 8), (1, 2), (3,), (2,), 1),)}, "whose `stages` is another"),
        ({"stages": ()}, "whose `stages` is another"),
    ],
)
def test_weights_of_another_space_are_refused_by_what_differs(tmp_path, change, misfit):
    save_run(tmp_path)
    supernet = Supernet(dataclasses.replace(TINY, name="other", **change))
    before = supernet.weight_arrays()
    with pytest.raises(CheckpointError, match=f"space 'other'.* Received: .*{misfit}"):
        initialize_from(supernet, tmp_path)
    assert_equal(supernet.weight_arrays(), before)


def test_a_part_of_a_space_starts_from_the_slices_of_the_whole(tmp_path):
    whole = save_run(tmp_path)
    genotype = TINY.sample(1, seed=4)[0]
    assert genotype not in (TINY.smallest(), TINY.biggest())
    one = TINY.restricted({name: [value] for name, value in genotype.as_dict().items()})
    supernet = Supernet(one, seed=9)
    assert initialize_from(supernet, tmp_path) == []
    assert_equal(supernet.weight_arrays(), whole.child_weights(genotype))


def test_a_teacher_is_the_calibrated_biggest_child_of_a_run(tmp_path):
    whole = save_run(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    split = Split(np.zeros(40, np.int32), images=images)
    biggest = TINY.biggest()
    child = extract(whole, biggest)
    calibrate(child, prepared(split, biggest["resolution"]))
    expected = child.predict(prepared(split, biggest["resolution"]), verbose=0)
    found = teacher_from(tmp_path, split, NAMES)(images / np.float32(127.5) - 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_teacher_answers_images_of_fewer_bits_as_the_same_numbers_in_float32(tmp_path):
    save_run(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    teacher = teacher_from(tmp_path, Split(np.zeros(40, np.int32), images=images), NAMES)
    half = keras.ops.cast(images[:5] / np.float32(127.5) - 1, "bfloat16")
    found = teacher(half)
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, teacher(keras.ops.cast(half, "float32")))


def test_a_teacher_says_which_checkpoint_it_is(tmp_path):
    save_run(tmp_path)
    split = Split(np.zeros(2, np.int32), images=np.ones((2, 8, 8, 1), np.uint8))
    first = teacher_from(tmp_path, split, NAMES).source
    assert (first["file"], first["step"]) == ("step_00000007.safetensors", 7)
    path = tmp_path / "checkpoints" / "step_00000007.safetensors"
    assert teacher_from(path, split, NAMES).source == first == json.loads(json.dumps(first))
    save_run(tmp_path, seed=1)  # another run in its place
    again = teacher_from(tmp_path, split, NAMES).source
    assert {key for key in first if first[key] != again[key]} == {"crc32"}


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (["1", "0", *NAMES[2:]], "number 0 is '1', not '0'"),
        (NAMES[:9], "9, not 10"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(tmp_path, classes, difference):
    save_run(tmp_path)
    split = Split(np.zeros(2, np.int32), images=np.ones((2, 8, 8, 1), np.uint8))
    teacher_from(tmp_path, split, NAMES)
    with pytest.raises(CheckpointError, match=f"`teacher` must be .*: {difference}. Received: "):
        teacher_from(tmp_path, split, classes)
