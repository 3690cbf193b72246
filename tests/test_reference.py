"""The reference has whatever pages and notebooks tell people to import."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

from bignas_tf import zoo

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("*.md", "docs/*.md", "zoo/**/*.md", "notebooks/*.ipynb")
PAGES = [path for place in PLACES for path in sorted(ROOT.glob(place))]
# The page of the zoo names them beside S, whose arguments they have.
ALIKE = [f"BigNAS{family}{size}" for family in ("Cifar", "Model") for size in ("M", "L", "XL")]
DIRECTIVE = re.compile(r"^\.\. (currentmodule|auto\w+):: (\S+)$", re.MULTILINE)


def found(name):
    """The module, class or function of a dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


@pytest.fixture(scope="module")
def documented():
    """Everything that a page of the reference documents."""
    objects = [getattr(zoo, name) for name in ALIKE]
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        module = ""
        for directive, name in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if directive == "currentmodule":
                module = f"{name}."
            else:
                objects.append(found(name if name.startswith("bignas_tf.") else module + name))
    return objects


def code_of(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    return ["".join(line for line in cell["source"] if line[0] not in "%!") for cell in cells]


def imported(page):
    """Dotted names that a page imports from the package."""
    nodes = (node for code in code_of(page) for node in ast.walk(ast.parse(code)))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "bignas_tf":
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name) for page in PAGES if list(imported(page))],
)
def test_what_a_page_imports_is_in_the_reference(page, documented):
    for name in imported(page):
        thing = found(name)
        assert inspect.ismodule(thing) or any(thing is one for one in documented), name


def test_the_public_names_of_the_zoo_are_in_the_reference(documented):
    for name in zoo.__all__:
        assert getattr(zoo, name) in documented, name
