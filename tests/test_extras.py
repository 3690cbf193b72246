"""Every extra by itself, in an environment that has nothing but it, from the package index."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_packaging import PROJECT, packages, run  # noqa: F401 - packages is a fixture

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[1]
TRAIN = "bignas train --recipe=digits --data=folder:images --set=held_out=12 --set=batch_size=12"
SHORT = f"{TRAIN} --set=epochs=2 --set=calibration_images=12"
SELECT = "bignas select --workdir=run --budget=mmacs:2 --names=s"
LAYERS = """python -c "
import numpy
from bignas_tf.zoo import BigNASCifarS
print(BigNASCifarS(weights='cifar10')(numpy.zeros((1, 24, 24, 3), 'float32')).shape)"
"""
HUB = """python -c "
from bignas_tf.zoo import BigNASCifarS
try:
    BigNASCifarS(weights='hf://owner/repository/s.weights.h5#sha256=' + 64 * '0')
except ConnectionError as error:
    assert 'without a connection put the file at' in str(error), error"
"""
# A data set in the files that tfds reads, described by itself.
TFDS = """python -c "
import json, pathlib, tensorflow as tf, tensorflow_datasets as tfds
folder = pathlib.Path('tfds', 'shapes', '1.0.0')
folder.mkdir(parents=True)
features = tfds.features.FeaturesDict(
    {'image': tfds.features.Image(shape=(8, 8, 1)),
     'label': tfds.features.ClassLabel(names=['left', 'right'])})
splits = []
for split in ('train', 'test'):
    files = sorted(pathlib.Path('images', split).glob('*/*.png'))
    template = tfds.core.ShardedFileTemplate(
        folder, dataset_name='shapes', split=split, filetype_suffix='tfrecord')
    name = template.sharded_filepath(shard_index=0, num_shards=1)
    with tf.io.TFRecordWriter(str(name)) as writer:
        for file in files:
            example = {'image': str(file), 'label': file.parent.name}
            writer.write(features.serialize_example(features.encode_example(example)))
    splits.append(tfds.core.SplitInfo(name=split, shard_lengths=[len(files)], num_bytes=0,
                                      filename_template=template))
tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=splits,
                                   supervised_keys=('image', 'label'))"
"""
# What each is there for: commands, and the files that they leave.
CASES = {
    "": ([LAYERS, f"{SHORT} --workdir=new", "bignas convert --model=s.keras --images=images "
          "--output=s.tflite"], ["new/log.jsonl", "s.tflite"]),
    "digits": (["bignas train --recipe=digits --workdir=new --dry_run"], []),
    "report": (["bignas report --workdir=run"], ["run/report.html"]),
    "search": ([f"{SELECT} --strategy=nsga2 --overwrite"], ["run/select/front.csv"]),
    "jax": ([f"{SHORT} --backend=jax --workdir=new"], ["new/log.jsonl"]),
    "torch": ([f"KERAS_BACKEND=torch {LAYERS}"], []),
    "tfmot": (["bignas finetune --workdir=run --child=s --technique=quantize --epochs=1"],
              ["run/s_qat_int8.tflite"]),
    "onnx": (["bignas convert --model=s.keras --format=onnx --images=images --output=s.onnx",
              "bignas evaluate --model=s.onnx --data=folder:images"], ["s.onnx"]),
    "hf": ([f"HF_HUB_OFFLINE=1 {HUB}"], []),
    "tfds": ([TFDS, f"{SHORT.replace('folder:images', 'tfds:shapes,data_dir=tfds')} "
              "--workdir=new"], ["new/log.jsonl"]),
    "tensorboard": ([f"{SHORT} --workdir=new"], ["new/tensorboard"]),
    "docs": ([f"python -m sphinx -W -q -b html {ROOT}/docs site"], ["site/index.html"]),
}  # fmt: skip


def shell(commands, folder, **environment):
    for command in commands:
        done = subprocess.run(  # noqa: S602 - our own commands
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """Images of bright left and right halves, and a run on them with a child."""
    folder, rng = tmp_path_factory.mktemp("worked"), np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 10)):
        for number in range(2 * count):
            place = folder / "images" / split / ("left", "right")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 128, (8, 8), np.uint8)
            pixels[:, slice(4) if number % 2 == 0 else slice(4, 8)] += 100
            Image.fromarray(pixels).save(place / f"{number}.png")
    commands = [
        f"{SHORT} --workdir=run",
        f"{SELECT} --strategy=random --evaluations=4",
        "bignas extract --workdir=run",
        "bignas evaluate --workdir=run",
        "bignas convert --workdir=run",
        "bignas benchmark --workdir=run",
        "cp run/children/s.keras run/children/s.json .",
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell(commands, folder, **{**os.environ, "PATH": path})
    return folder


def test_there_is_a_case_for_every_extra():
    assert set(CASES) == {"", *PROJECT["optional-dependencies"]} - {"dev"}


@pytest.mark.parametrize("extra", CASES)
def test_an_extra_brings_all_that_its_commands_need(extra, packages, worked, tmp_path):  # noqa: F811
    commands, expected = CASES[extra]
    folder = shutil.copytree(worked, tmp_path / "work")
    run(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    programs = tmp_path / "venv" / "bin"
    wheel = f"{packages[1]}[{extra}]" if extra else packages[1]
    run(programs / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "KERAS"))
    }
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    shell(commands, folder, **{**environment, "PATH": path})
    assert [name for name in expected if not (folder / name).exists()] == []
    shutil.rmtree(tmp_path / "venv")  # two gigabytes
