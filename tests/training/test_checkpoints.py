import json
import math
import os
import pathlib
import resource

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from bignas_tf.training.checkpoints import (
    CheckpointError,
    CheckpointManager,
    read_checkpoint,
    read_metadata,
    write_checkpoint,
)

RNG = np.random.default_rng(0)
BITS = RNG.integers(0, 256, 240, dtype=np.uint8)
ARRAYS = {
    "bfloat16": np.array([1.0, np.nan, -0.0, 3e38], ml_dtypes.bfloat16),
    "float16": np.array([1.0, np.inf, -0.0, 6e-8], np.float16),
    "float32": BITS[:48].view(np.float32).reshape(3, 4),  # any bits, NaN payloads among them
    "float64": BITS.view(np.float64).reshape(5, 6),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "int32": np.arange(6, dtype=np.int32).reshape(1, 2, 3),
    "uint8": BITS[:5],
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "float scalar": np.array(0.1, np.float32),
    "int scalar": np.array(1234),
    "bfloat16 scalar": np.array(1.5, ml_dtypes.bfloat16),
}
FINITE = {name: array for name, array in ARRAYS.items() if np.isfinite(array).all()}
METADATA = {
    "step": 7,
    "seeds": {"data": 1},
    "space": "größer",
    "rates": [0.1, 1e-300],
    "none": None,
}


def assert_same(read, written):
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape), name
        assert read[name].tobytes() == array.tobytes(), name


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip_a_byte(path, offset=-1):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_arrays_and_metadata_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "new" / "one.safetensors"
    write_checkpoint(path, ARRAYS, METADATA)
    arrays, metadata = read_checkpoint(path)
    assert_same(arrays, ARRAYS)
    assert metadata == read_metadata(path) == METADATA
    assert snapshot(path.parent).keys() == {"one.safetensors"}


@pytest.mark.parametrize(
    "view",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(24.0).reshape(2, 3, 4)[:, ::-1, 1::2],
        np.broadcast_to(np.float32(2.0), (3, 4)),
        np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        np.arange(4).astype(ml_dtypes.bfloat16).reshape(2, 2).T,
        np.arange(3, dtype=">f4"),
    ],
)
def test_arrays_of_any_memory_layout_are_saved_as_they_read(tmp_path, view):
    write_checkpoint(tmp_path / "c", {"view": view}, {})
    read = read_checkpoint(tmp_path / "c")[0]["view"]
    np.testing.assert_array_equal(read, view)
    assert read.dtype == view.dtype.newbyteorder("=")


def test_a_checkpoint_is_a_plain_safetensors_file_with_a_format_version(tmp_path):
    write_checkpoint(tmp_path / "c", ARRAYS, METADATA)
    assert_same(safetensors.numpy.load_file(tmp_path / "c"), ARRAYS)
    with safetensors.safe_open(tmp_path / "c", framework="np") as file:
        envelope = json.loads(file.metadata()["bignas_tf"])
    assert envelope["format"] == 1
    assert envelope["metadata"] == METADATA


def test_a_checkpoint_is_as_readable_as_any_new_file(tmp_path):
    write_checkpoint(tmp_path / "c", ARRAYS, METADATA)
    (tmp_path / "plain").touch()
    assert (tmp_path / "c").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, share):
    path = tmp_path / "cut.safetensors"
    write_checkpoint(path, ARRAYS, METADATA)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for read in (read_checkpoint, read_metadata):
        with pytest.raises(CheckpointError, match="cut.safetensors") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_single_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "c"
    write_checkpoint(path, {"a": np.arange(6.0), "b": np.arange(3)}, {"step": 1})
    content = path.read_bytes()
    for offset in range(len(content)):
        flip_a_byte(path, offset)
        try:
            arrays, metadata = read_checkpoint(path)
        except CheckpointError:
            pass
        else:
            pytest.fail(f"byte {offset} of {content!r}: read {arrays}, {metadata}")
        path.write_bytes(content)


@pytest.mark.parametrize("content", [b"hello", b"\x10" + bytes(7) + b"{" + bytes(15), bytes(4096)])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(CheckpointError, match="other is damaged or no checkpoint"):
        read_checkpoint(tmp_path / "other")


@pytest.mark.parametrize("metadata", [None, {"bignas_tf": "["}, {"bignas_tf": "[1]"}])
def test_a_safetensors_file_of_another_program_is_refused(tmp_path, metadata):
    safetensors.numpy.save_file({"a": np.ones(2)}, tmp_path / "other", metadata=metadata)
    for read in (read_checkpoint, read_metadata):
        with pytest.raises(CheckpointError, match="other is damaged or no checkpoint"):
            read(tmp_path / "other")


def write_of_a_later_format(path):
    envelope = {"format": 2, "crc32": 0, "metadata": {}}
    metadata = {"bignas_tf": json.dumps(envelope)}
    safetensors.numpy.save_file({"a": np.ones(2)}, path, metadata=metadata)


def test_a_checkpoint_of_a_later_format_is_refused(tmp_path):
    write_of_a_later_format(tmp_path / "c")
    for read in (read_checkpoint, read_metadata):
        with pytest.raises(CheckpointError, match="must have format 1, .* reads. Received: 2"):
            read(tmp_path / "c")


@pytest.mark.parametrize("name", ["step_00000020", "best"])
def test_a_checkpoint_of_a_later_format_is_neither_passed_over_nor_replaced(tmp_path, name):
    manager = CheckpointManager(tmp_path, keep=1)
    manager.save(10, FINITE, {})
    write_of_a_later_format(tmp_path / f"{name}.safetensors")
    before = snapshot(tmp_path)
    with pytest.raises(CheckpointError, match=f"{name}.* must have format 1"):
        manager.restore_latest()
    with pytest.raises(CheckpointError, match=f"{name}.* must have format 1"):
        manager.save_best(FINITE, {"score": 1.0}) if name == "best" else manager.save(15, {}, {})
    assert snapshot(tmp_path) == before


def test_a_checkpoint_named_after_another_step_than_its_own_is_refused(tmp_path):
    manager = CheckpointManager(tmp_path)
    path = manager.save(16, FINITE, {"step": 16})
    renamed = path.rename(tmp_path / "step_00000099.safetensors")
    message = "step_00000099.* must be named after its step, 16. Received: 99"
    with pytest.raises(CheckpointError, match=message):
        manager.restore_latest()
    renamed.rename(path)
    assert manager.restore_latest().step == 16
    with pytest.raises(ValueError, match=r"`metadata\['step'\]` must be 17.* Received: 16"):
        manager.save(17, FINITE, {"step": 16})


def test_a_missing_checkpoint_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none")


@pytest.mark.parametrize(
    ("arrays", "metadata", "message"),
    [
        ({"a": np.array(["text"])}, {}, r"`arrays\['a'\]` must be bool, int, float"),
        ({"a": np.array([None])}, {}, "Received: 'object'"),
        ({}, {"loss": float("nan")}, "`metadata` must be plain JSON"),
        ({}, {"array": np.ones(2)}, "`metadata` must be plain JSON"),
    ],
)
def test_what_cannot_come_back_is_not_written(tmp_path, arrays, metadata, message):
    with pytest.raises(ValueError, match=message):
        write_checkpoint(tmp_path / "c", arrays, metadata)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failure_while_writing_leaves_the_older_checkpoint_alone(tmp_path, monkeypatch, broken):
    manager = CheckpointManager(tmp_path)
    manager.save(1, FINITE, {"step": 1})
    before = snapshot(tmp_path)

    def fail(*_):
        raise OSError("no space left on device")

    for step in (1, 2):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
            patch.setattr(os, broken, fail)
            manager.save(step, {"a": np.ones(3)}, {})
        assert snapshot(tmp_path) == before
    assert manager.restore_latest().step == 1


def test_a_process_killed_while_writing_leaves_the_older_checkpoint_alone(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path)
    manager.save(1, FINITE, {"step": 1})

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", die)
        patch.setattr(pathlib.Path, "unlink", lambda *_, **__: None)  # the dead do not clean up
        manager.save(2, {"a": np.ones(3)}, {})
    assert len(snapshot(tmp_path)) == 2
    assert manager.paths() == [tmp_path / "step_00000001.safetensors"]
    assert manager.restore_latest().step == 1
    manager.save(3, {}, {})
    assert snapshot(tmp_path).keys() == {"step_00000001.safetensors", "step_00000003.safetensors"}


def test_the_manager_keeps_the_newest(tmp_path):
    manager = CheckpointManager(tmp_path / "checkpoints", keep=2)
    assert (manager.latest(), manager.restore_latest()) == (None, None)
    for step in (0, 5, 100_000_000, 100_000_001):
        path = manager.save(step, {"step": np.array(step)}, {"step": step})
        assert manager.latest() == path
    names = ["step_100000000.safetensors", "step_100000001.safetensors"]
    assert [p.name for p in manager.paths()] == names
    (tmp_path / "checkpoints" / "step_best.safetensors").touch()
    restored = manager.restore_latest()
    assert (restored.path, restored.step) == (path, 100_000_001)
    assert (restored.arrays["step"], restored.metadata) == (100_000_001, {"step": 100_000_001})
    assert restored.skipped == ()


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path):
    manager = CheckpointManager(tmp_path, keep=2)
    first = manager.save(1, FINITE, {"step": 1})
    second = manager.save(2, FINITE, {"step": 2})
    flip_a_byte(second)
    with pytest.warns(RuntimeWarning, match="step_00000002.safetensors is damaged.*one before"):
        restored = manager.restore_latest()
    assert (restored.path, restored.step, restored.skipped) == (first, 1, (second,))
    assert_same(restored.arrays, FINITE)


def test_a_damaged_later_checkpoint_never_outlives_the_resumed_run(tmp_path):
    manager = CheckpointManager(tmp_path, keep=1)
    flip_a_byte(manager.save(20, FINITE, {}))
    path = manager.save(15, FINITE, {})
    assert manager.paths() == [path]


def test_a_sound_later_checkpoint_is_not_overtaken(tmp_path):
    manager = CheckpointManager(tmp_path, keep=1)
    path = manager.save(20, FINITE, {})
    with pytest.raises(ValueError, match="`step` must be at least 20.*Received: 15"):
        manager.save(15, FINITE, {})
    assert manager.paths() == [path]


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    manager = CheckpointManager(tmp_path)
    flip_a_byte(manager.save(1, FINITE, {}))
    with pytest.warns(RuntimeWarning), pytest.raises(CheckpointError, match="step_00000001"):
        manager.restore_latest()


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`keep` must be an integer of at least 1. Received: 0"):
        CheckpointManager(tmp_path, keep=0)


def test_the_best_checkpoint_outlives_the_newest(tmp_path):
    manager = CheckpointManager(tmp_path, keep=2)
    assert manager.best_score() == -math.inf
    scores = {1: 0.2, 2: 0.5, 4: 0.5, 5: 0.4}
    for step in range(1, 6):
        manager.save(step, {"x": np.float32(step)}, {})
        if step in scores:
            better = manager.save_best({"x": np.float32(step)}, {"score": scores[step]})
            assert better == (step in (1, 2))
    arrays, metadata = read_checkpoint(manager.best)
    assert (float(arrays["x"]), metadata) == (2.0, {"score": 0.5})
    assert [path.stem for path in manager.paths()] == ["step_00000004", "step_00000005"]
    assert CheckpointManager(tmp_path).best_score() == 0.5
    manager.best.write_bytes(b"noise")
    assert manager.save_best({"x": np.float32(6)}, {"score": 0.1})


def test_a_disk_that_is_full_is_said_and_leaves_older_checkpoints(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(1, {"x": np.zeros(10, np.float32)}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(
            OSError, match="step_00000002.* cannot be written: .* large.* step_00000001.safetensors"
        ):
            manager.save(2, {"x": np.zeros(10_000, np.float32)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.safetensors"]
    assert manager.restore_latest().step == 1


def test_what_is_not_finite_never_becomes_the_newest_or_the_best(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(1, {"x": np.ones(2)}, {})
    with pytest.raises(FloatingPointError, match="x is not finite"):
        manager.save(2, {"x": np.array([1.0, np.inf])}, {})
    with pytest.raises(FloatingPointError, match="x is not finite"):
        manager.save_best({"x": np.array([1.0, np.nan])}, {"score": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.safetensors"]
