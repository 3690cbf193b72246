import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from commands_fixture import WARNINGS, assert_refused, bignas, done
from PIL import Image

from bignas_tf.data import load_source
from bignas_tf.deploy import file_evaluation
from bignas_tf.deploy.file_evaluation import evaluate, judged
from bignas_tf.deploy.runner import Runner

pytestmark = WARNINGS
COLOURS = (0, 40, 80, 120, 160, 200, 240)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """Seven classes of evenly grey images, told apart by their brightness."""
    root = tmp_path_factory.mktemp("grey")
    for split, count in (("train", 1), ("test", 3)):
        for label, colour in enumerate(COLOURS):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), colour + number).save(folder / f"{number}.png")
    return root


def nearest(images):
    """Scores by the distance of the mean brightness, images being of -1 to 1."""
    brightness = (images.mean(axis=(1, 2, 3)) + 1) * 127.5
    return -np.abs(brightness[:, None] - np.array(COLOURS))


def test_top_1_top_5_and_every_class_are_counted():
    scores = np.zeros((4, 7))
    scores[0, 2] = scores[1, 2] = 1  # the second is wrong, its class among the best five
    scores[2] = [6, 5, 4, 3, 2, 1, 0]  # wrong, its class the last
    found = judged(scores, np.array([2, 0, 6, 0]), [f"c{i}" for i in range(7)])
    assert (found.images, found.top1, found.top5) == (4, 0.5, 0.75)
    assert found.per_class["c0"] == {"images": 2, "top1": 0.5, "taken_for": 1}
    assert found.per_class["c2"] == {"images": 1, "top1": 1.0, "taken_for": 1}
    assert found.per_class["c3"] == {"images": 0, "top1": None, "taken_for": 0}
    assert "50.00% (" in found.summary() and "top 5 75.00% of 4 test" in found.summary()
    lines = found.table().splitlines()
    assert lines[1].split() == ["c0", "2", "50.00%", "1"]
    assert judged(scores[:, :5], np.zeros(4, int), list("abcde")).top5 is None


def test_of_many_classes_the_table_shows_the_worst():
    labels = np.arange(100)
    scores = np.eye(101)[labels]
    scores[50] = scores[0]
    table = judged(scores, labels, [f"c{i}" for i in range(101)]).table().splitlines()
    assert len(table) == 1 + 40 + 1
    assert table[1].split() == ["c50", "1", "0.00%", "0"]
    assert table[-1] == "the 40 lowest of 101 classes"


@pytest.mark.parametrize("input_range", [(-1, 1), (0, 1), (0, 255)])
def test_images_are_preprocessed_as_the_json_says(grey, input_range):
    source = load_source(f"folder:{grey}", image_size=8, channels=1)
    low, high = input_range
    seen = []

    def run(images):
        seen.append(images)
        return nearest((images - low) / (high - low) * 2 - 1)

    found = evaluate(Runner(Path("a"), (8, 8, 1), {"input_range": [low, high]}, run), source)
    assert found.top1 == 1.0
    assert np.min(seen[0]) == low and low < np.max(seen[0]) <= high
    if input_range == (0, 255):
        np.testing.assert_array_equal(
            np.unique(seen[0]), [c + n for c in COLOURS for n in range(3)]
        )


def test_other_classes_are_refused_before_the_second_batch(grey, monkeypatch):
    monkeypatch.setattr(file_evaluation, "BATCH", 8)
    source = load_source(f"folder:{grey}", image_size=8, channels=1)
    batches = []

    def six(images):
        batches.append(len(images))
        return nearest(images)[:, :6]

    with pytest.raises(ValueError, match="classes of a, x. Received: class0"):
        evaluate(Runner(Path("a"), (8, 8, 1), {"labels": ["x"]}, six), source)
    assert not batches
    with pytest.raises(ValueError, match="as many classes as a, 6. Received: 7"):
        evaluate(Runner(Path("a"), (8, 8, 1), {}, six), source)
    assert batches == [8]


@pytest.fixture
def child(tmp_path):
    """A Keras file that tells the classes of `grey` apart."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(inputs))
    dense = keras.layers.Dense(7)
    model = keras.Model(inputs, dense(x))
    # Lines through brightness whose upper hull is each class at its own colour.
    centres = np.array(COLOURS) / 127.5 - 1
    dense.set_weights([2 * centres[None], -(centres**2)])
    model.save(tmp_path / "child.keras")
    (tmp_path / "child.json").write_text(json.dumps({"input_range": [-1, 1], "image_size": 8}))
    return tmp_path / "child.keras"


def test_the_command_decodes_test_images_only_and_compares_classes_first(grey, child, tmp_path):
    images = shutil.copytree(grey, tmp_path / "images")
    command = ("evaluate", f"--model={child}", f"--data=folder:{images}")
    (images / "train" / "class0" / "0.png").write_bytes(b"no image")
    (images / "train" / "class1" / "0.png").write_bytes(b"")
    assert "100.00% (" in done(*command)
    (images / "test" / "class0" / "0.png").write_bytes(b"no image")
    assert_refused(bignas(*command), r"^error: Cannot decode image '.*test/class0/0\.png': [^;]+$")
    child.with_suffix(".json").write_text(json.dumps({"labels": ["x", "y"]}))
    assert_refused(bignas(*command), "^error: `data` must have the classes of .*, x, y. Received: ")


def test_the_commands_carry_preprocessing_from_conversion_to_evaluation(grey, child, tmp_path):
    # Eight bits cannot tell every two parabolas apart; wrong preprocessing leaves one class right.
    for name, least, arguments in (
        ("inside.tflite", 1.0, ("--preprocessing=inside",)),
        ("bytes.tflite", 0.8, ("--preprocessing=inside", "--quantization=int8", "--io=uint8")),
        ("inside_saved_model", 1.0, ("--preprocessing=inside", "--format=saved_model")),
    ):
        output = tmp_path / name
        said = done(
            "convert",
            f"--model={child}",
            f"--output={output}",
            f"--images={grey / 'train'}",
            *arguments,
        )
        assert f"{output}: " in said
        figures = tmp_path / "figures.json"
        said = done("evaluate", f"--model={output}", f"--data=folder:{grey}", f"--json={figures}")
        found = json.loads(figures.read_text())
        assert found["top1"] >= least
        assert f"{output}: {found['top1']:.2%} (" in said and "class6" in said
        assert (found["images"], found["model"]) == (21, str(output))
        assert found["per_class"]["class3"]["images"] == 3
    assert_refused(
        bignas("evaluate", f"--workdir={tmp_path}", f"--json={figures}"),
        "`json` must be given with `model`",
    )
