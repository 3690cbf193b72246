"""Files of one JSON object per line, which survive a kill.

A last line that lacks its end is what a killed process leaves: it counts if it is whole, and is
left out otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bignas_tf.files import replacing


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads the objects; none if there is no file.

    Raises:
        ValueError: if any but a half-written last line is no JSON object.
    """
    if not path.exists():
        return []
    *ended, last = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(ended, 1):
        record = _object(line)
        if record is None:
            raise ValueError(
                f"Line {number} of {path} must be a JSON object. Received: {line[:80]!r}"
            )
        records.append(record)
    whole = _object(last)
    return records if whole is None else [*records, whole]


def mend(path: Path) -> None:
    """Makes a file fit to be appended to: its last line gets its end, or goes."""
    if not path.exists():
        return
    data = path.read_bytes()
    last = data.rpartition(b"\n")[2]
    if _object(last) is not None:
        with path.open("ab") as file:
            file.write(b"\n")
    elif last:
        os.truncate(path, len(data) - len(last))


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


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
