"""The code of docs/extending.md."""

import re
from pathlib import Path

import numpy as np
import pytest

from bignas_tf import blocks
from bignas_tf.spaces import SPACES, get_space, register_space
from bignas_tf.training.state import load_trained

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def code(monkeypatch, tmp_path):
    """The page's snippets, run one after the other in a folder that is empty at first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blocks, "_BLOCK_TYPES", dict(blocks._BLOCK_TYPES))
    for name in set(SPACES):
        monkeypatch.setitem(SPACES, name, SPACES[name])
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "page"}

    def run(*numbers):
        for number in numbers:
            exec(snippets[number], names)  # noqa: S102 - our own documentation
        return names

    yield run
    SPACES.pop("slim_digits", None)


def test_a_space_and_a_rule_of_the_docs_train_a_run_that_can_be_loaded(code, tmp_path):
    code(0, 1, 2)
    trained = load_trained(tmp_path / "runs" / "ladder")
    space = get_space("slim_digits")
    assert trained.supernet.space == space
    assert space.size() == 2 * 4 * 8 * 2
    lines = (tmp_path / "runs" / "ladder" / "log.jsonl").read_text()
    assert '"loss/middle"' in lines
    assert '"loss/random1"' not in lines


def test_a_name_cannot_be_taken_by_another_space(code):
    code(0)
    register_space(get_space("slim_digits"))
    with pytest.raises(ValueError, match="not taken by another. Received: 'slim_digits'"):
        register_space(get_space("slim_digits", classes=11))


def test_the_block_of_the_docs_is_counted_and_built(code, capsys):
    names = code(3)
    macs = 32 * 32 * 27 * 16  # stem
    macs += 16 * 16 * (9 * 16 + 16 * 32)
    macs += 8 * 8 * (25 * 32 + 32 * 64)
    macs += 64 * 10
    assert capsys.readouterr().out == f"{macs} True\n"
    assert names["model"](np.zeros((2, 32, 32, 3))).shape == (2, 10)
