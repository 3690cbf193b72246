"""`bignas finetune` on a tiny run."""

import shutil

import numpy as np
import pytest
from commands_fixture import WARNINGS, assert_refused, bignas, done, files, read, registered

from bignas_tf.deploy.finetuning import finetuned
from bignas_tf.deploy.finetuning.file_weights import read_file_weights
from bignas_tf.deploy.interpreter import predict
from bignas_tf.deploy.preprocessing import in_range
from bignas_tf.evaluation import prepared
from bignas_tf.training.recipe import Recipe, get_recipe
from bignas_tf.training.run_data import load_run_data
from bignas_tf.training.trainer import Trainer

pytestmark = [
    *WARNINGS,
    # Of TFMOT and tf_keras.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
FINETUNE = ("finetune", "--child=s", "--epochs=0.5", "--batch_size=32")


@pytest.fixture(autouse=True, scope="module")
def tiny_by_name():
    yield from registered()


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("extracted")
    # Of one step: what more training would make better is not asked here.
    fields = {"space": "tiny", "held_out": 1200, "calibration_images": 64, "zero_gamma": False}
    Trainer(get_recipe("digits").replace(**fields), workdir).run(stop_after=1)
    done("extract", f"--workdir={workdir}", "--genotype=smallest", "--name=s")
    return workdir


@pytest.fixture
def run(extracted, tmp_path):
    return shutil.copytree(extracted, tmp_path / "run")


def test_a_pruned_child_is_measured_on_held_out_images(run):
    said = done(*FINETUNE, f"--workdir={run}", "--technique=prune", "--sparsity=0.7")
    path = run / "s_pruned.tflite"
    described = read(path.with_suffix(".json"))
    finetuning = described["finetuning"]
    assert finetuning["technique"] == "prune" and finetuning["batch_size"] == 32
    assert finetuning["kernels"]["sparsity"] == read_file_weights(path).sparsity > 0.6
    recipe = Recipe.from_json(read(run / "run.json")["recipe"])
    held_out = load_run_data(recipe).held_out
    logits = predict(path, prepared(held_out, described["resolution"]))
    assert finetuning["images"] == len(held_out)
    assert finetuning["top1_file"] == pytest.approx(np.mean(logits.argmax(-1) == held_out.labels))
    assert f"file {finetuning['top1_file']:.2%}" in said
    assert read(run / "run.finetune.json")["seeds"] == {"finetune": 0}
    record = read(run / "finetune/s_prune/run.json")
    assert record["finetune"]["sparsity"] == 0.7
    # Its end is kept: the file can be written again, in another type too.
    again = ("--technique=prune", "--sparsity=0.7", "--quantization=int16x8")
    said = done(*FINETUNE, f"--workdir={run}", *again)
    assert read(run / "s_pruned_int16x8.json")["finetuning"]["kernels"]["sparsity"] > 0.6
    assert "warning: XNNPACK takes none of the operators" in said


def test_an_interrupted_measurement_leaves_nothing_and_is_made_up_for(run, monkeypatch):
    command = (*FINETUNE, f"--workdir={run}", "--technique=plain", "--preprocessing=inside")

    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuned, "read_file_weights", interrupted)
        status, _, err = bignas(*command)
    assert (status, err.splitlines()[-1]) == (130, "error: interrupted")
    assert not [path for path in run.iterdir() if "finetuned" in path.name or path.suffix == ".tmp"]
    log = (run / "finetune/s_plain/log.jsonl").read_text()
    done(*command)
    assert (run / "finetune/s_plain/log.jsonl").read_text() == log  # no step was made again
    path = run / "s_finetuned_inside.tflite"
    described = read(path.with_suffix(".json"))
    assert (described["input_range"], described["child"]) == ([0, 255], "s")
    recipe = Recipe.from_json(read(run / "run.json")["recipe"])
    held_out = load_run_data(recipe).held_out
    pixels = in_range(prepared(held_out, described["resolution"]), (0, 255))
    found = np.mean(predict(path, pixels).argmax(-1) == held_out.labels)
    assert described["finetuning"]["top1_file"] == pytest.approx(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--technique=quantize", "--child=z"), "`child` must be one of s. Received: 'z'"),
        (("--technique=quantize", "--epochs=0"), "`epochs` must be a positive number"),
        (("--technique=quantize", "--quantization=int8"), "`quantization` must be left out"),
        (("--technique=quantize", "--clusters=4"), "`clusters` must be left out to quantize"),
        (("--technique=plain", "--io=int8"), "`io` must be one of float32"),
        (("--technique=plain", "--quantization=qat_int8"), "`quantization` must be one of"),
        (("--technique=plain", "--batch_size=0"), "`batch_size` must be an integer of at least 1"),
        (("--technique=prune", "--sparsity=1"), "`sparsity` must be above 0 and below 1"),
        (("--technique=plain",), "s_finetuned.tflite"),
        (("--technique=cluster",), "the output exists already.*s_clustered.json"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(extracted, arguments, message):
    for name in ("s_finetuned.tflite", "s_clustered.json"):
        (extracted / name).write_bytes(b"")
    before = files(extracted)
    assert_refused(bignas(*FINETUNE, f"--workdir={extracted}", *arguments), message)
    assert files(extracted) == before
