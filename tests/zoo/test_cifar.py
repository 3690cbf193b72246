"""BigNASCifar S, M, L and XL are the children that their supernet gives, without CIFAR-10."""

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
