"""The code of docs/extending.md."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from bignas_tf import blocks
from bignas_tf.calibration import calibrate
from bignas_tf.extract import extract
from bignas_tf.spaces import (
    SPACES,
    GenotypeError,
    Space,
    catalog,
    get_space,
    register_space,
    space_from_config,
)
from bignas_tf.training.recipe import get_recipe
from bignas_tf.training.state import load_trained
from bignas_tf.training.trainer import Trainer

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def code(monkeypatch, tmp_path):
    """The page's snippets, run one after the other in a folder that is empty at first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blocks, "_BLOCK_TYPES", dict(blocks._BLOCK_TYPES))
    for known in (SPACES, catalog._CLASSES):
        for name in set(known):
            monkeypatch.setitem(known, name, known[name])
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "page"}

    def run(*numbers):
        for number in numbers:
            exec(snippets[number], names)  # noqa: S102 - our own documentation
        return names

    yield run
    for name in ("slim_digits", "plain_digits"):
        SPACES.pop(name, None)
    catalog._CLASSES.pop("PlainSpace", None)


def test_a_space_and_a_rule_of_the_docs_train_a_run_that_can_be_loaded(code, tmp_path):
    code(0, 2, 3)
    trained = load_trained(tmp_path / "runs" / "ladder")
    space = get_space("slim_digits")
    assert trained.supernet.space == space
    assert space.size() == 2 * 4 * 8 * 2
    lines = (tmp_path / "runs" / "ladder" / "log.jsonl").read_text()
    assert '"loss/middle"' in lines
    assert '"loss/random1"' not in lines


def plain_recipe(**fields):
    recipe = get_recipe("digits").replace(space="plain_digits", epochs=1, batch_size=64)
    schedule = {**recipe.schedule, "warmup_epochs": 0}
    return recipe.replace(schedule=schedule, held_out=1300, calibration_images=64, **fields)


def test_a_space_of_other_blocks_trains_and_its_children_are_cut_out(code, tmp_path):
    code(0, 1)
    Trainer(plain_recipe(), tmp_path / "run").run()
    assert Trainer(plain_recipe(epochs=2), tmp_path / "run").run() > 0  # goes on
    supernet = load_trained(tmp_path / "run").supernet
    space = get_space("plain_digits")
    assert supernet.space == space
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 1)).astype("float32")
    for genotype in space.all_genotypes():
        child = extract(supernet, genotype)
        calibrate(child, images)  # the supernet's statistics are those of its batch
        for mode in ("static", "sliced", "masked"):
            own = supernet.run(images, genotype, mode)
            np.testing.assert_allclose(own, child(images), atol=1e-4)


def test_a_part_of_a_space_of_other_blocks_starts_from_its_weights(code, tmp_path):
    code(0, 1)
    Trainer(plain_recipe(), tmp_path / "run").run()
    part = plain_recipe(restrict={"width": [8], "depth": [3]}, init_from=str(tmp_path / "run"))
    child = Trainer(part, tmp_path / "part")
    kernel = child.supernet.weight_arrays()["conv2_conv/kernel"]
    whole = load_trained(tmp_path / "run").supernet.weight_arrays()["conv2_conv/kernel"]
    np.testing.assert_array_equal(kernel, whole[:, :, :8, :8])


def test_a_saved_supernet_names_the_class_of_its_space(code):
    code(0, 1)
    config = json.loads(json.dumps(get_space("plain_digits").config()))
    assert space_from_config(config) == get_space("plain_digits")
    catalog._CLASSES.pop("PlainSpace")
    with pytest.raises(ValueError, match="register_space.*MBConvSpace. Received: 'PlainSpace'"):
        space_from_config(config)


def test_what_a_space_of_other_blocks_lacks_is_refused(code):
    names = code(0, 1)
    with pytest.raises(ValueError, match="`shortcut` must be None for space 'plain_digits'"):
        plain_recipe(shortcut="identity").build_space()

    class Whole(names["PlainSpace"]):
        with_choices = Space.with_choices

    with pytest.raises(GenotypeError, match="must define `with_choices`.*Received: a Whole"):
        Whole("whole").restricted({"width": [8]})
    assert Whole("whole").restricted({"width": [8, 16]}) == Whole("whole")
    with pytest.raises(ValueError, match="`space` must be an instance of a dataclass"):
        register_space("plain")


def test_a_class_of_another_space_cannot_take_its_name(code):
    names = code(0, 1)
    other = type("PlainSpace", (names["PlainSpace"],), {})
    with pytest.raises(ValueError, match="of a class whose name is not taken by another"):
        register_space(other("other"))
    assert "other" not in SPACES


def test_a_name_cannot_be_taken_by_another_space(code):
    code(0)
    register_space(get_space("slim_digits"))
    with pytest.raises(ValueError, match="not taken by another. Received: 'slim_digits'"):
        register_space(get_space("slim_digits", classes=11))


def test_the_block_of_the_docs_is_counted_and_built(code, capsys):
    names = code(4)
    macs = 32 * 32 * 27 * 16  # stem
    macs += 16 * 16 * (9 * 16 + 16 * 32)
    macs += 8 * 8 * (25 * 32 + 32 * 64)
    macs += 64 * 10
    assert capsys.readouterr().out == f"{macs} True\n"
    assert names["model"](np.zeros((2, 32, 32, 3))).shape == (2, 10)
