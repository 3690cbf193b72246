"""BigNASCifar S, M, L and XL are the children that their supernet gives, and as accurate as said."""

import os

import keras
import numpy as np
import pytest
from commands_fixture import WARNINGS, done, read

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


@pytest.mark.long
@pytest.mark.skipif(not CIFAR10, reason="BIGNAS_CIFAR10 must say where CIFAR-10 lies")
@pytest.mark.parametrize("name", BUDGETS)
def test_a_model_has_the_accuracy_of_its_preset_to_a_hundredth_of_a_point(name, tmp_path):
    path = tmp_path / "figures.json"
    done("evaluate", f"--model={name}", f"--data={CIFAR10}", f"--json={path}")
    published = zoo.get_preset(name)["accuracy"]["cifar10"]["top1"]
    assert abs(read(path)["top1"] - published) < 1.5e-4  # an image more or less
