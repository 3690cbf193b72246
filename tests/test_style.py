"""What CONTRIBUTING.md asks of code and no linter checks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("bignas_tf", "export", "benchmarks", "docs", "tests", "zoo")  # with code
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULE, FUNCTION = 350, 60  # lines at most


def too_long(text):
    """Lines of a module, and of its functions without their docstrings, that are too many."""
    found = {}
    if (lines := len(text.splitlines())) > MODULE:
        found["module"] = lines
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            if lines > FUNCTION:
                found[node.name] = lines
    return found


def test_modules_and_functions_are_as_short_as_contributing_asks():
    assert len(MODULES) > 200
    found = {path.relative_to(ROOT).as_posix(): too_long(path.read_text()) for path in MODULES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("lines", "found"), [(58, {}), (59, {"f": 61}), (400, {"f": 402, "module": 404})]
)
def test_what_is_too_long_is_found_and_a_docstring_does_not_count(lines, found):
    text = 'def f():\n    """One.\n    """\n    a = 1\n' + "    b = 2\n" * lines
    assert too_long(text) == found
