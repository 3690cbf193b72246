"""The rooms of `bignas_tf.deploy`: which may import which."""

import ast
from pathlib import Path

from bignas_tf import deploy

FOLDER = Path(deploy.__file__).parent
ABOVE = {  # each room, and the rooms that it may import
    "conversion": set(),
    "latency": set(),
    "android": {"latency"},
    "finetuning": {"conversion"},
    "block_latency": {"android", "conversion", "latency"},
}


def rooms_imported(paths):
    """Rooms that modules import, wherever they do."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    room = f"{name}.".removeprefix(f"{deploy.__name__}.").partition(".")[0]
                    if room in ABOVE:
                        yield room


def test_rooms_import_each_other_in_one_direction_only():
    assert {path.parent.name for path in FOLDER.glob("*/__init__.py")} == set(ABOVE)
    found = {room: set(rooms_imported((FOLDER / room).glob("*.py"))) - {room} for room in ABOVE}
    assert found == ABOVE


def test_of_the_rooms_what_lies_outside_imports_conversion_only():
    assert set(rooms_imported(FOLDER.glob("*.py"))) == {"conversion"}
