"""BigNASCifar S, M, L and XL: the children that their supernet gives, as accurate as said."""

import os
import pathlib
import re

import keras
import numpy as np
import pytest
from commands_fixture import WARNINGS, done, read
from PIL import ExifTags, Image

from bignas_tf import zoo
from bignas_tf.zoo.trained import list_supernets

BUDGETS = {  # MMACs at most
    "bignascifar_s": "3.4",
    "bignascifar_m": "5",
    "bignascifar_l": "7",
    "bignascifar_xl": "10",
}
# Where CIFAR-10 lies, such as folder:PATH.
CIFAR10 = os.environ.get("BIGNAS_CIFAR10")
CARD = pathlib.Path(__file__).parents[2] / "zoo" / "cards" / "BigNASCifar.md"
pytestmark = WARNINGS


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """The files of the children that the supernet gives under the models' budgets."""
    assert list_supernets() == ("cifar10",)
    folder = tmp_path_factory.mktemp("extracted")
    budgets = ",".join(BUDGETS.values())
    done("extract", "--supernet=cifar10", f"--budget=mmacs:{budgets}", f"--output={folder}")
    paths = sorted(folder.glob("*.keras"), key=lambda p: read(p.with_suffix(".json"))["macs"])
    return dict(zip(BUDGETS, paths, strict=True))


@pytest.mark.parametrize("name", BUDGETS)
def test_the_child_that_the_supernet_gives_under_the_same_budget_is_the_model(
    name, extracted, built
):
    path, model = extracted[name], built(name)
    assert read(path.with_suffix(".json"))["genotype"] == zoo.get_preset(name)["genotype"]
    child = keras.models.load_model(path, compile=False)
    assert [v.path for v in child.weights] == [v.path for v in model.weights]
    for ours, theirs in zip(model.weights, child.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)
    if name == "bignascifar_s":
        shape = (4, *model.input_shape[1:])
        bytes_ = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
        expected = keras.ops.softmax(child(bytes_ / 127.5 - 1))
        np.testing.assert_allclose(model(bytes_), expected, atol=1e-5)


def test_the_code_of_the_card_names_the_classes_of_a_picture(built, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", CARD.read_text(), re.DOTALL)
    assert code in (CARD.parents[1] / "publish_cifar.py").read_text()  # which writes the card
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    sideways = Image.Exif()
    sideways[ExifTags.Base.Orientation] = 6  # a quarter turn clockwise is to be made
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "picture.png", exif=sideways)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("picture.jpg", "picture.png"), {})  # noqa: S102 - our own documentation
    scores = np.array(built("bignascifar_xl")(pixels[None, :, 8:40].astype("float32")))[0]
    labels = zoo.get_preset("bignascifar_xl")["labels"]
    found = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [label for label, _ in found] == [labels[i] for i in np.argsort(-scores)[:3]]
    np.testing.assert_allclose(
        [float(score) for _, score in found], np.sort(scores)[:-4:-1], atol=6e-4
    )


@pytest.mark.long
@pytest.mark.skipif(not CIFAR10, reason="BIGNAS_CIFAR10 must say where CIFAR-10 lies")
@pytest.mark.parametrize("name", BUDGETS)
def test_a_model_has_the_accuracy_of_its_preset_to_a_hundredth_of_a_point(name, tmp_path):
    path = tmp_path / "figures.json"
    done("evaluate", f"--model={name}", f"--data={CIFAR10}", f"--json={path}")
    published = zoo.get_preset(name)["accuracy"]["cifar10"]["top1"]
    assert abs(read(path)["top1"] - published) < 1.5e-4  # an image more or less
