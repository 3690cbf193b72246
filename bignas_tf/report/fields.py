"""JSON and CSV of a run folder, checked value by value."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bignas_tf import files
from bignas_tf.checks import is_int, is_number
from bignas_tf.json_lines import read_lines


class ReportError(ValueError):
    """A file that the report cannot be made from; the message says which, where and why."""


class Fields:
    """A JSON object, or a row of CSV, that knows where it came from. A null counts as absent.

    Args:
        value: what should be the object.
        file: the file that it is in.
        where: place in the file, such as "line 3" or "child 's'".

    Raises:
        ReportError: if `value` is no object.
    """

    def __init__(self, value: Any, file: Path, where: str = "") -> None:
        self.file = file
        self.where = where
        if not isinstance(value, Mapping):
            raise self.error("an object is needed here", value)
        self._values = value

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def error(self, problem: str, received: Any) -> ReportError:
        """The error for a problem at this place."""
        place = f"{self.file}, {self.where}" if self.where else str(self.file)
        shown = repr(received)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ReportError(f"{place}: {problem}. Received: {shown}")

    def value(self, key: str) -> Any:
        """The value as it is.

        Raises:
            ReportError: if there is none. All methods below raise it then, and for a value
                of another form.
        """
        if key not in self:
            raise self.error(f"`{key}` is missing", list(self._values))
        return self._values[key]

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number of `low` to `high`."""
        value = self.value(key)
        if not is_number(value) or not low <= value <= high:
            bounds = [f"at least {low:g}"] * (low > -math.inf) + [f"at most {high:g}"] * (
                high < math.inf
            )
            raise self.error(
                " ".join([f"`{key}` must be a number", " and ".join(bounds)]).strip(), value
            )
        return float(value)

    def given(self, key: str) -> bool:
        """Whether there is a string that is not empty, as in CSV."""
        return key in self and self.text(key) != ""

    def written(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number of `low` to `high` that is written as a string, as in CSV."""
        text = self.text(key)
        try:
            value = float(text)
        except ValueError:
            raise self.error(f"`{key}` must be a number", text) from None
        return Fields({key: value}, self.file, self.where).number(key, low, high)

    def share(self, key: str) -> float:
        """A number of 0 to 1, such as an accuracy."""
        return self.number(key, 0, 1)

    def integer(self, key: str, low: int = 0) -> int:
        """An integer of at least `low`."""
        value = self.value(key)
        if not is_int(value, low):
            raise self.error(f"`{key}` must be an integer of at least {low}", value)
        return value

    def logged(self, key: str) -> float:
        """A number, or one of the strings that logs write for NaN and the infinities."""
        value = self.value(key)
        if value in ("nan", "inf", "-inf"):
            return float(value)
        return self.number(key)

    def text(self, key: str) -> str:
        """A string."""
        value = self.value(key)
        if not isinstance(value, str):
            raise self.error(f"`{key}` must be a string", value)
        return value

    def items(self, key: str) -> list[Any]:
        """A list."""
        value = self.value(key)
        if not isinstance(value, list):
            raise self.error(f"`{key}` must be a list", value)
        return value

    def object(self, key: str) -> Fields:
        """An object."""
        where = f"{self.where}, `{key}`" if self.where else f"`{key}`"
        return Fields(self.value(key), self.file, where)

    def plain(self) -> dict[str, Any]:
        """The object as a dict."""
        return dict(self._values)


def read_json(path: Path) -> Any:
    """`bignas_tf.files.read_json` with an error of reports.

    Raises:
        ReportError: if it is damaged.
    """
    try:
        return files.read_json(path)
    except ValueError as error:
        raise ReportError(str(error)) from error


def read_json_lines(path: Path) -> list[Fields]:
    """`bignas_tf.json_lines.read_lines` with an error of reports; none if there is no file.

    Raises:
        ReportError: if it is damaged.
    """
    try:
        records = read_lines(path)
    except ValueError as error:
        raise ReportError(str(error)) from error
    return [Fields(record, path, f"line {n}") for n, record in enumerate(records, start=1)]


def read_csv(path: Path) -> list[Fields]:
    """Reads the rows of a CSV file, whose values are all strings; none if there is no file.

    Raises:
        ReportError: if it is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as text:
            rows = csv.DictReader(text)
            return [Fields(row, path, f"line {rows.line_num}") for row in rows]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is not CSV: {error}") from error
