import contextlib
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from tiny_run import image_folder

import bignas_tf
import bignas_tf.cli as cli
from bignas_tf.backend import tune_tensorflow

# The command as it is installed, with a space small enough to be traced in seconds; `disk`
# keeps images on disk, as a data set larger than memory would be.
PRELUDE = """
import sys
from bignas_tf.spaces import SPACES, MBConvSpace, Stage
SPACES["tiny"] = lambda: MBConvSpace(
    name="tiny", resolution_choices=(8,), stem_widths=(4,), stem_strides=1,
    stages=(Stage((4,), (1,), (3,), (2,), 2),), head_widths=(8,), classes=10, input_channels=1,
)
if sys.argv[1] == "disk":
    import functools
    import bignas_tf.data as data
    data.load_source = functools.partial(data.load_source, memory_limit_mb=0)
del sys.argv[1]
from bignas_tf.cli import run
run()
"""
TINY_RUN = (
    "train",
    "--recipe=digits",
    "--set=space=tiny",
    "--set=random_children=0",
    "--set=batch_size=8",
    "--set=calibration_images=16",
    '--set=schedule={"kind": "cosine", "initial": 0.05}',
)


def program(*arguments, images="memory"):
    # TensorFlow sets this where it loads, as it may have here; a user's shell has not.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", PRELUDE, images, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def bignas(*arguments):
    """Runs a command in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with pytest.raises(SystemExit) as stop:
            cli._main(cli._parse(["bignas", *map(str, arguments)]))
    return stop.value.code, out.getvalue(), err.getvalue()


def assert_refused(result, message):
    status, _, err = result
    assert status == 2
    assert re.search(message, err.splitlines()[-1]), err.splitlines()[-1]
    assert "Traceback" not in err


def examples(text):
    return [line.strip() for line in text.splitlines() if line.strip().startswith("bignas ")]


def test_help_shows_every_command_and_the_whole_way():
    status, out, _ = bignas("--help")
    assert status == 0
    for name in cli.COMMANDS:
        assert re.search(rf"^ +{name}\s+[A-Z]\w+", out, re.MULTILINE), name
    # From training to the report, every command once; the others are no part of the way.
    assert [line.split()[1] for line in examples(out)] == list(cli.COMMANDS[:7])


def test_the_version_is_that_of_the_package():
    assert bignas("--version") == (0, f"bignas_tf {bignas_tf.__version__}\n", "")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_shows_examples_that_the_command_understands(name):
    status, out, _ = bignas(name, "--help")
    assert status == 0
    assert "Example" in out
    lines = [line for line in examples(out) if line.startswith(f"bignas {name}")]
    assert lines
    for line in lines:
        assert cli._parse(shlex.split(line)).command == name
    # argparse shows every option; each that takes a value says what for, or has a plain name.
    module = importlib.import_module(f"bignas_tf.commands.{name.replace('-', '_')}")
    assert module.__doc__.splitlines()[0] in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--recipe=digits"], "required: --workdir"),
        (["train", "--recipe=digits", "--workdir=x", "--epochs=3"], "unrecognized arguments"),
        (["benchmark", "--model=x.tflite", "--threads=two"], "--threads: invalid int value: 'two'"),
        (["convert", "--workdir=x", "--quantization=int4"], "--quantization: invalid choice"),
        (["select", "--workdir=x", "--budget=mmacs:1", "--strategy=x"], "--strategy: invalid"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_refused(arguments, message):
    assert_refused(bignas(*arguments), message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs=abc", "`epochs` must be an integer.*'abc'"),
        ("epochs=1.5", "`epochs` must be an integer.*1.5"),
        ("epoch=1", "`set` must be one of name, space.*'epoch'"),
        ("epochs", "`set` must be FIELD=JSON.*epochs"),
        ("space=cifar100", "`space` must be one of .*'cifar100'"),
        ("distillation=no", "`distillation` must be true or false.*'no'"),
        ("weight_decay=small", "`weight_decay` must be a number.*'small'"),
        ("optimizer=sgd", "`optimizer` must be an object.*'sgd'"),
        ('optimizer={"kind": "adam"}', "`kind` must be one of rmsprop, sgd.*'adam'"),
        ('schedule={"kind": "cosine", "initial": "x"}', r"`schedule\['initial'\]` must be a num"),
        ("epochs=1", '`warmup_epochs` must be below `epochs`.*0.05, "warmup_epochs": 0.1}.* 1$'),
        ("augmentation=3", "`augmentation` must be an object.*3"),
        ("held_out=5000", "`held_out` of recipe 'digits' must .* at most 1428. Received: 5000"),
        ("batch_size=5000", "`batch_size` must be at most .*5000"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_written(tmp_path, setting, message):
    workdir = tmp_path / "run"
    result = bignas("train", "--recipe=digits", f"--workdir={workdir}", f"--set={setting}")
    assert_refused(result, f"^error: {message}")
    assert not workdir.exists() or list(workdir.iterdir()) == []


def test_settings_are_json_or_bare_words():
    module = importlib.import_module("bignas_tf.commands.train")
    found = module.overrides(["epochs=5", "regularize=all", "data=null", 'optimizer={"kind": "x"}'])
    expected = {"epochs": 5, "regularize": "all", "data": None, "optimizer": {"kind": "x"}}
    assert found == expected


def train(tmp_path, data, **settings):
    arguments = [f"--set={field}={value}" for field, value in settings.items()]
    return bignas(*TINY_RUN[:2], f"--workdir={tmp_path / 'run'}", f"--data={data}", *arguments)


def test_data_that_cannot_be_used_are_refused(tmp_path):
    assert_refused(train(tmp_path, "mnist"), "^error: .* must be 'digits', 'folder:PATH'.*'mnist'")
    missing = f"folder:{tmp_path / 'missing'}"
    assert_refused(train(tmp_path, missing), "^error: .* must name an existing folder.*missing'")
    (tmp_path / "empty").mkdir()
    message = "^error: '.*empty' must hold at least 2 folders"
    assert_refused(train(tmp_path, f"folder:{tmp_path / 'empty'}"), message)
    data = image_folder(tmp_path / "images", count=10)
    (tmp_path / "images" / "none").mkdir()
    message = "^error: Class folder '.*none' must hold images"
    assert_refused(train(tmp_path, data), message)
    (tmp_path / "images" / "none").rmdir()
    (tmp_path / "images" / "a" / "0.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    message = "^error: Cannot decode image '.*images/a/0.jpg': .*; --on_bad_image=skip puts "
    assert_refused(train(tmp_path, data), message)


def test_a_workdir_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        result = bignas("train", "--recipe=digits", f"--workdir={workdir}")
        assert_refused(result, f"^error: `workdir` must be a folder .*Received: {workdir}$")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tflite", b"no", "not a TFLite file.*a.tflite"),
        ("a.tflite", b"", "the TFLite file is empty.*a.tflite"),
        ("a.tflite", b"0000TFL3 and nothing else", "LiteRT cannot run the file.*a.tflite"),
        ("a.tflite", None, "no such TFLite file.*a.tflite"),
        ("a.keras", b"no", "the `model` file is not a Keras file.*a.keras"),
        ("a.h5", b"no", "`model` must be a .keras file or .*a.h5"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert_refused(bignas("evaluate", f"--model={path}", "--data=digits"), f"^error: {message}")
    if path.suffix == ".tflite":
        result = bignas("benchmark", f"--model={path}", f"--csv={tmp_path / 'out.csv'}")
        assert_refused(result, f"^error: {message}")
        assert not (tmp_path / "out.csv").exists()


def test_an_unknown_recipe_is_one_line_and_exit_code_2_in_a_terminal():
    command = [sys.executable, "-m", "bignas_tf.cli", "train", "--recipe=nope", "--workdir=x"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: `recipe` must be one of cifar10, digits, imagenet, photos. Received: 'nope'\n"
    )
    assert done.stdout == ""


def test_a_debugging_variable_lets_the_traceback_through(monkeypatch):
    monkeypatch.setenv("BIGNAS_DEBUG", "1")
    with pytest.raises(ValueError, match="`recipe` must be"):
        cli._main(cli._parse(["bignas", "train", "--recipe=nope", "--workdir=x"]))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("two\n  lines"), 2),
        (ImportError("two lines"), 2),
        (FileNotFoundError(2, "two", "lines"), 2),
        (RuntimeError("two lines"), 1),
        (ArithmeticError("two lines"), 1),
        (MemoryError("two lines"), 1),
    ],
)
def test_an_error_becomes_one_line_and_an_exit_code(capsys, error, status):
    def main(arguments):
        raise error

    arguments = cli._parse(["bignas", "show"])
    arguments.main = main
    with pytest.raises(SystemExit) as stop:
        cli._main(arguments)
    assert stop.value.code == status
    assert re.fullmatch("error: two:? lines\n", capsys.readouterr().err)


def log_lines(workdir):
    path = workdir / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.usefixtures("heeding_signals")
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path):
    # 1,438 digits, of which 238 are left: 29 steps an epoch, 145 in all.
    command = (*TINY_RUN, f"--workdir={tmp_path}", "--set=held_out=1200", "--set=epochs=5")
    first = program(*command)
    deadline = time.monotonic() + 120
    while len(log_lines(tmp_path)) < 2 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    found = re.search(r"stopped and saved at step (\d+) of 145; the same command resumes\n$", out)
    assert found, out
    step = int(found[1])
    assert 20 <= step < 145
    assert (tmp_path / "checkpoints" / f"step_{step:08d}.safetensors").is_file()
    assert "Traceback" not in err

    second = program(*command)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert re.search(r"trained 145 steps; checkpoint .*step_00000145.safetensors\n$", out)
    run = json.loads((tmp_path / "run.json").read_text())
    assert [again["step"] for again in run["resumed"]] == [step]
    assert [line["step"] for line in log_lines(tmp_path)] == [*range(10, 141, 10), 145]


@pytest.mark.slow
def test_a_broken_image_met_in_training_is_named_last_and_what_was_trained_is_kept(tmp_path):
    images = tmp_path / "images"
    data = image_folder(images, count=50)
    # The last bytes of a file are read when it is trained on, not when the folder is scanned.
    for number in range(3):
        path = images / "a" / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:200])
    run = program(
        *TINY_RUN,
        f"--workdir={tmp_path / 'run'}",
        f"--data={data}",
        "--set=held_out=0",
        "--set=seed=1",
        images="disk",
    )
    out, err = run.communicate(timeout=120)
    assert run.returncode == 2, err
    last = err.splitlines()[-1]
    assert re.fullmatch(rf"error: Cannot decode image '{images}/a/[012].jpg': .+", last), last
    assert "Traceback" not in err
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert 0 <= int(saved.stem[5:]) < 10


def test_tensorflow_is_set_up_except_where_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("TF_CPU_ALLOCATOR_USE_BFC", "false")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    tune_tensorflow()
    assert os.environ["TF_CPU_ALLOCATOR_USE_BFC"] == "false"
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"


def test_onednn_is_left_alone_on_other_processors(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    tune_tensorflow()
    assert "TF_ENABLE_ONEDNN_OPTS" not in os.environ
