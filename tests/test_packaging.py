"""What pyproject.toml tells an installer."""

import importlib
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

# Python 3.10 has it from pytest, under another name.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("3.12.3", False),
        ("3.12.4", True),  # the last for Python 3.10
        ("3.13.2", False),
        ("3.14.1", False),
        ("3.15.0", False),
        ("3.15.1", True),
    ],
)
def test_only_releases_of_keras_with_the_fixes_that_security_md_names_are_taken(version, taken):
    (keras,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "keras")
    assert (version in keras.specifier) is taken
