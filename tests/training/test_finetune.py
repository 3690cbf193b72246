"""The loop that finetunes: exact after a resume, its record, what it refuses."""

import json

import numpy as np
import pytest

from bignas_tf.blocks import ConvBlock, HeadBlock
from bignas_tf.child import build_child
from bignas_tf.data import AugmentationPolicy, Split
from bignas_tf.data.batches import BatchPlan
from bignas_tf.deploy.finetuning.finetuned import finetunable
from bignas_tf.deploy.finetuning.folded import folded_weights
from bignas_tf.files import FolderInUse, only_writer
from bignas_tf.spec import NetworkSpec
from bignas_tf.training.checkpoints import CheckpointError, read_checkpoint
from bignas_tf.training.finetune import Finetuner
from bignas_tf.training.finetune_settings import FinetuneSettings
from bignas_tf.training.loop import NonFiniteLossError

# Of TFMOT, tf_keras and Keras's conversion of variables.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SPEC = NetworkSpec(
    (6, 6, 1), (ConvBlock(name="stem", channels=4), HeadBlock(name="head")), classes=3
)
OWN = {"quantize": {}, "prune": {"sparsity": 0.5}, "cluster": {"clusters": 4}}


def finetuner(folder, technique="plain", rate=1e-2, origin=0, **own):
    settings = FinetuneSettings(
        technique, 1.5, rate, batch_size=8, seed=3, label_smoothing=0.1, **own
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (34, 8, 8, 1)).astype(np.uint8)
    split = Split(rng.integers(0, 3, 34).astype(np.int32), images=images)
    policy = AugmentationPolicy(shift=1, mixup=0.2)
    plan = BatchPlan(split, batch_size=8, policy=policy, seed=3)
    child = build_child(SPEC, seed=0)
    arrays = {variable.path: np.asarray(variable) for variable in child.variables}
    network = finetunable(settings, SPEC, folded_weights(SPEC, arrays), 6)
    return Finetuner(network, plan, settings, folder, {"child": origin}, ["bignas", "finetune"])


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("prune", "cluster")]


@pytest.mark.parametrize("technique", ["quantize", *SLOW])
def test_a_resumed_finetuning_equals_an_uninterrupted_one(technique, tmp_path):
    own = OWN[technique]
    whole = finetuner(tmp_path / "whole", technique, **own)
    assert whole.run() == whole.total_steps == 6
    first = finetuner(tmp_path / "parts", technique, **own)
    assert first.run(stop_after=4) == 4
    second = finetuner(tmp_path / "parts", technique, **own)
    assert second.step == 4
    assert second.run() == 6
    last = [
        tmp_path / part / "checkpoints/step_00000006.safetensors" for part in ("whole", "parts")
    ]
    (expected, _), (found, _) = (read_checkpoint(path) for path in last)
    start, _ = read_checkpoint(last[1].with_name("step_00000004.safetensors"))
    assert expected.keys() == found.keys() == start.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert any(not np.array_equal(start[name], found[name]) for name in found)
    logs = [
        [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]
        for lines in (
            (tmp_path / p / "log.jsonl").read_text().splitlines() for p in ("whole", "parts")
        )
    ]
    assert logs[0][-1] == logs[1][-1]
    assert logs[0][-1]["step"] == 6
    record = json.loads((tmp_path / "parts/run.json").read_text())
    assert record["finetune"]["technique"] == technique
    assert [entry["step"] for entry in record["resumed"]] == [4]


def test_a_folder_of_another_finetuning_is_refused(tmp_path):
    finetuner(tmp_path).run(stop_after=1)
    for changed, message in [
        ({"rate": 2e-2}, "another learning_rate.*Received: 0.02, was: 0.01"),
        ({"origin": 1}, "another child; .*Received: 1, was: 0"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            finetuner(tmp_path, **changed)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    stopped = finetuner(tmp_path, rate=1e37)  # finite weights, whose loss is not
    assert stopped.run(stop_after=1) == 1
    with pytest.raises(NonFiniteLossError, match="finetuned child.* after step 1"):
        stopped.run()
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert path.name == "step_00000001.safetensors"
    assert all(np.isfinite(array).all() for array in read_checkpoint(path)[0].values())


def test_two_processes_do_not_finetune_into_one_folder(tmp_path):
    second = finetuner(tmp_path)
    with only_writer(tmp_path, "finetuned into"):
        with pytest.raises(FolderInUse, match="by one process.*being finetuned into by process"):
            second.run()
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "run.json").exists()  # which the first one writes
    assert second.run(stop_after=1) == 1
    assert second.run(stop_after=2) == 2


def test_a_finetuning_that_another_process_has_overtaken_takes_nothing_back(tmp_path):
    late = finetuner(tmp_path)
    finetuner(tmp_path).run(stop_after=1)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FolderInUse, match="`folder` .*another one has saved in .* since this one"):
        late.run()
    assert all(path.read_bytes() == content for path, content in files.items())
    assert finetuner(tmp_path).run(stop_after=2) == 2
