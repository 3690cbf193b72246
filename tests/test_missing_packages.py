"""What a command says where a package of an extra is not installed, before any work."""

import importlib
import shlex
import sys
from pathlib import Path

import keras
import pytest
from commands_fixture import WARNINGS, assert_refused, bignas, files

from bignas_tf.latency_table import BlockTime, LatencyTable, space_blocks
from bignas_tf.spaces import get_space

# Python 3.10 has it from pytest, under another name.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

pytestmark = WARNINGS
PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
REGRESSION = "The regression of a latency table needs sklearn"
SELECT = "select --workdir=run --budget=mmacs:1"
# Extra, missing package, command, the beginning of what it says.
CASES = [
    ("digits", "sklearn", "train --recipe=digits --workdir=run", "Source 'digits' needs sklearn"),
    (
        "digits",
        "sklearn",
        "convert --model=child.keras --output=child.tflite",
        "without a folder of images, scikit-learn's are used; name a folder, or",
    ),
    ("report", "jinja2", "report --workdir=run", "The report needs jinja2"),
    ("report", "matplotlib", "report --workdir=run", "The report needs matplotlib"),
    ("search", "moocore", f"{SELECT} --strategy=nsga2", "NSGA-II needs moocore"),
    ("search", "sklearn", f"{SELECT} --screen=4", "The accuracy predictor needs sklearn"),
    (
        "search",
        "keras_tuner",
        f"{SELECT} --workers=2",
        "A search with many workers needs keras_tuner",
    ),
    (
        "search",
        "sklearn",
        "show --space=digits biggest --latency_table=cifar.json",
        REGRESSION,
    ),
    ("search", "sklearn", "latency-table --space=digits --output=new.json", REGRESSION),
    (
        "search",
        "sklearn",
        "latency-table --from_csv=phones.csv --blocks_dir=blocks --output=new.json",
        REGRESSION,
    ),
    (
        "jax",
        "jax",
        "train --recipe=digits --workdir=run --backend=jax",
        "--backend=jax needs jax",
    ),
    (
        "tfmot",
        "tensorflow_model_optimization",
        "finetune --workdir=. --child=s --technique=quantize",
        "Finetuning needs TFMOT and tf_keras",
    ),
    (
        "onnx",
        "tf2onnx",
        "convert --model=child.keras --format=onnx --output=child.onnx",
        "An ONNX file needs tf2onnx",
    ),
    (
        "onnx",
        "onnxruntime",
        "evaluate --model=child.onnx --data=digits",
        "An ONNX file needs onnxruntime",
    ),
    (
        "tfds",
        "tensorflow_datasets",
        "train --recipe=cifar10 --data=tfds:cifar10 --workdir=run",
        "Source 'tfds:cifar10' needs tensorflow_datasets",
    ),
]
# No command ends for want of these: weights from a hub and models under torch are asked for in
# Python, TensorBoard's scalars are left out with a warning.
OTHERS = {"hf", "torch", "tensorboard", "docs", "dev"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model, a child that nobody reads and a table of another space, to work in."""
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(tmp_path / "child.keras")
    (tmp_path / "children").mkdir()
    (tmp_path / "children" / "s.keras").touch()
    blocks = {
        block.key: BlockTime(block.label, block.spec, 1.0)
        for block in space_blocks(get_space("cifar")).values()
    }
    LatencyTable({"space": "cifar"}, 0.0, blocks).write(tmp_path / "cifar.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("extra", "package", "command", "message"), CASES)
def test_a_missing_package_is_missed_before_work_and_its_extra_named(
    folder, monkeypatch, extra, package, command, message
):
    monkeypatch.setitem(sys.modules, package, None)
    # As in a process that has imported neither yet.
    monkeypatch.delitem(sys.modules, "bignas_tf.deploy.finetuning.tfmot", raising=False)
    if package == "jax":
        monkeypatch.setitem(sys.modules, "keras", None)
    before = files(folder)
    refused = bignas(*shlex.split(command))
    assert_refused(refused, rf"^error: {message}.* in a checkout .*: pip install '\.\[{extra}\]'$")
    assert files(folder) == before


def test_every_extra_that_a_command_needs_is_among_these():
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert {extra for extra, *_ in CASES} == extras.keys() - OTHERS
