import ast
import datetime
import importlib.util
import json
import os
import pathlib
import resource
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import bignas_tf.training.logs as logs
from bignas_tf.training.logs import JsonlLog, ScalarLog, run_record, write_record


def record(step):
    return {"step": step, "loss": np.float32(1 / (step + 1)), "genotypes": ["smallest", "biggest"]}


def write(path, steps, resume_step=None):
    with JsonlLog(path, resume_step) as log:
        for step in steps:
            log.write(record(step))


@pytest.fixture(autouse=True)
def said_nothing_yet():
    logs._say_once.cache_clear()


def test_each_record_is_one_line_on_the_disk_at_once(tmp_path):
    log = JsonlLog(tmp_path / "new" / "log.jsonl")
    for step in range(3):
        log.write(record(step))
        lines = (tmp_path / "new" / "log.jsonl").read_text().splitlines()
        assert len(lines) == step + 1
        assert json.loads(lines[-1]) == {**record(step), "loss": float(record(step)["loss"])}
    log.close()


@pytest.mark.parametrize("damage", [b"", b'{"step": 8, "lo', b'{"step": 8}', b"\xff\x00", b"{"])
@pytest.mark.parametrize("resume_step", [-1, 0, 4, 6, 7, 100])
def test_a_resumed_log_equals_an_uninterrupted_one(tmp_path, resume_step, damage):
    write(tmp_path / "whole", range(12))
    killed = tmp_path / "killed"
    write(killed, range(8))
    with killed.open("ab") as file:
        file.write(damage)
    # A checkpoint ahead of the log: every whole line is older.
    first = min(resume_step + 1, 9 if damage == b'{"step": 8}' else 8)
    write(killed, range(first, 12), resume_step)
    expected = (tmp_path / "whole").read_text().splitlines()
    if damage == b'{"step": 8}' and resume_step == 100:
        expected[8] = '{"step": 8}'
    assert killed.read_text().splitlines() == expected


def test_without_a_step_to_resume_from_every_whole_line_stays(tmp_path):
    write(tmp_path / "log", range(3))
    with (tmp_path / "log").open("a") as file:
        file.write('{"step":')
    write(tmp_path / "log", range(3, 5))
    write(tmp_path / "whole", range(5))
    assert (tmp_path / "log").read_text() == (tmp_path / "whole").read_text()


def test_several_records_of_one_step_stay_or_go_together(tmp_path):
    write(tmp_path / "log", [1, 1, 2, 2])
    write(tmp_path / "log", [], resume_step=1)
    write(tmp_path / "expected", [1, 1])
    assert (tmp_path / "log").read_text() == (tmp_path / "expected").read_text()


def test_a_failure_while_lines_are_dropped_leaves_the_log_alone(tmp_path, monkeypatch):
    write(tmp_path / "log", range(3))
    before = (tmp_path / "log").read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(os, "fsync", fail)
        JsonlLog(tmp_path / "log", resume_step=1)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"log": before}


@pytest.mark.parametrize("line", ["no json", "[1]", '{"loss": 1}', '{"step": "1"}', ""])
def test_a_whole_line_of_something_else_is_not_dropped_silently(tmp_path, line):
    (tmp_path / "log").write_text('{"step": 0}\n' + line + '\n{"step": 1}\n')
    with pytest.raises(ValueError, match="Line 2 of .*log must be a JSON object.*Received: "):
        JsonlLog(tmp_path / "log", resume_step=5)
    assert line in (tmp_path / "log").read_text()


@pytest.mark.parametrize("wrong", [{}, {"step": None}, {"step": 1.5}, {"step": -1}])
def test_a_record_without_its_step_is_refused(tmp_path, wrong):
    with JsonlLog(tmp_path / "log") as log, pytest.raises(ValueError, match="`step` must be an"):
        log.write({"loss": 1.0, **wrong})


def test_a_loss_that_is_not_finite_is_written_as_valid_json(tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    with JsonlLog(tmp_path / "log") as log:
        log.write({"step": np.int64(0), "losses": np.array([np.nan, -np.inf, 1.0], np.float32)})
    read = json.loads((tmp_path / "log").read_text(), parse_constant=refuse)
    assert read == {"step": 0, "losses": ["nan", "-inf", 1.0]}
    np.testing.assert_array_equal([float(x) for x in read["losses"]], [np.nan, -np.inf, 1.0])


def test_json_files_are_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "run.json"
    write_record(
        path, {"path": tmp_path, "sizes": (1, np.int32(2)), "rates": np.ones((1, 2)), 3: None}
    )
    expected = {"path": str(tmp_path), "sizes": [1, 2], "rates": [[1.0, 1.0]], "3": None}
    assert json.loads(path.read_text()) == expected
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
        write_record(path, {})
    with pytest.raises(TypeError):
        write_record(path, {"object": object()})
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]
    assert json.loads(path.read_text()) == expected


def test_a_run_record_says_how_and_where_it_started(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    command = ["bignas", "train", "--workdir=my runs"]
    found = run_record(command, {"data": 1, "init": np.int64(2)}, {"epochs": 3, "widths": (8, 16)})
    write_record(tmp_path / "run.json", found)
    assert json.loads((tmp_path / "run.json").read_text()) == found
    assert found["command"] == "bignas train '--workdir=my runs'"
    assert found["seeds"] == {"data": 1, "init": 2}
    assert found["recipe"] == {"epochs": 3, "widths": [8, 16]}
    versions = found["versions"]
    assert versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert (versions["keras"], versions["numpy"]) == (keras.__version__, np.__version__)
    assert (versions["backend"], versions["tensorflow"]) == ("tensorflow", tf.__version__)
    assert versions["bignas_tf"]
    assert found["threads"] == {
        "cpus": os.cpu_count(),
        "OMP_NUM_THREADS": "2",
        "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
    }
    started = datetime.datetime.fromisoformat(found["started"])
    age = datetime.datetime.now(datetime.timezone.utc) - started
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)
    assert found["machine"]["cpu"]


def test_versions_that_nothing_was_installed_for_come_from_the_module(monkeypatch):
    assert logs._version("tensorflow.keras.nowhere") == "unknown"
    monkeypatch.setattr(json, "__version__", "9.9", raising=False)
    assert logs._version("json") == "9.9"


def test_threads_of_tensorflow_are_not_asked_for_before_it_is_loaded(monkeypatch):
    monkeypatch.setattr(logs, "device", lambda: "")  # asks the backend, which is TensorFlow here
    monkeypatch.delitem(sys.modules, "tensorflow")
    threads = run_record([], {}, {})["threads"]
    assert threads.keys() == {"cpus", "OMP_NUM_THREADS"}
    assert "tensorflow" not in sys.modules


def test_scalars_reach_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    log = ScalarLog(tmp_path / "scalars")
    for step in (3, 5):
        log.write(step, {"train/loss": 1.0 / step, "rate": np.float32(0.5)})
    log.close()
    (events,) = (tmp_path / "scalars").iterdir()
    found = {}
    for serialized in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(serialized.numpy())
        for value in event.summary.value:
            found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    assert found == {
        ("train/loss", 3): float(np.float32(1 / 3)),
        ("train/loss", 5): float(np.float32(1 / 5)),
        ("rate", 3): 0.5,
        ("rate", 5): 0.5,
    }


@pytest.mark.parametrize(
    ("module", "name", "value", "message"),
    [
        (importlib.util, "find_spec", None, r"pip install '\.\[tensorboard\]'"),
        (keras.backend, "backend", "jax", "need the TensorFlow backend"),
    ],
)
def test_without_tensorboard_scalars_are_dropped_after_one_word(
    tmp_path, monkeypatch, module, name, value, message
):
    monkeypatch.setattr(module, name, lambda *_: value)
    with pytest.warns(UserWarning, match=message) as caught:
        for _ in range(2):
            log = ScalarLog(tmp_path / "scalars")
            log.write(1, {"loss": 1.0})
            log.close()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert not (tmp_path / "scalars").exists()


def test_only_writing_scalars_imports_tensorflow():
    found = []
    names = ("losses", "schedules", "optimizers", "checkpoints", "logs")
    folder = pathlib.Path(logs.__file__).parent
    for name in names:
        tree = ast.parse((folder / f"{name}.py").read_text())
        for function in ast.walk(tree):
            for node in ast.iter_child_nodes(function):
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                else:
                    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(module.split(".")[0] == "tensorflow" for module in modules):
                    found.append((name, getattr(function, "name", "module")))
    assert found == [("logs", "write")]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    log = JsonlLog(tmp_path / "log.jsonl")
    log.write(record(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "log.jsonl").stat().st_size + 5, hard))
    try:
        with log, pytest.raises(OSError, match="log.jsonl cannot be written: .*checkpoints are"):
            log.write(record(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write(tmp_path / "log.jsonl", [1], resume_step=0)
    write(tmp_path / "whole", range(2))
    assert (tmp_path / "log.jsonl").read_text() == (tmp_path / "whole").read_text()


def test_a_resumed_log_knows_what_was_logged_of_its_step(tmp_path):
    with JsonlLog(tmp_path / "log") as log:
        for step in (1, 2, 3):
            log.write({"step": step, f"loss{step}": 1.0})
        log.write({"step": 2, "accuracy": 0.5})
    with JsonlLog(tmp_path / "log", 2) as log:
        assert log.logged == {"step", "loss2", "accuracy"}
