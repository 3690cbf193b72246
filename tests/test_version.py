"""The version is written in `bignas_tf/__init__.py`, and the papers have the same."""

import importlib
import re
import sys
from pathlib import Path

import pytest

import bignas_tf

# Python 3.10 has it from pytest, under another name.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).resolve().parents[1]
PLACES = {
    "MODULE.bazel": r'^module\(\n    name = "bignas_tf",\n    version = "(.*)",$',
    "CITATION.cff": r"^version: (.*)$",
    "CHANGELOG.md": r"^## \[(.*)\] - (?:Unreleased|\d{4}-\d\d-\d\d)$",
}


def test_the_package_is_built_with_the_version_that_it_says():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    dynamic = settings["tool"]["setuptools"]["dynamic"]
    assert dynamic["version"] == {"attr": "bignas_tf.__version__"}


@pytest.mark.parametrize("place", PLACES)
def test_the_version_is_the_same_in(place):
    first = re.search(PLACES[place], (ROOT / place).read_text(), re.MULTILINE)
    assert first[1] == bignas_tf.__version__
