"""Lines of a search's file that survive a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bignas_tf.files import replacing


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a file of one JSON object per line and makes it fit to be appended to.

    A last line that a killed process left half-written is cut off.

    Raises:
        ValueError: if any other line is no JSON object.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    records = []
    *whole, last = data.split(b"\n")
    for number, line in enumerate(whole, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(_message(path, number, line)) from error
        if not isinstance(record, dict):
            raise ValueError(_message(path, number, line))
        records.append(record)
    if last:
        os.truncate(path, len(data) - len(last))
    return records


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one JSON object, which is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON objects, one a line, to a file that is replaced whole."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)


def _message(path: Path, number: int, line: bytes) -> str:
    return f"Line {number} of {path} must be a JSON object. Received: {line[:80]!r}"
