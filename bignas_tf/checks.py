"""Argument checks with one form of message: what is allowed, then what was received."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import Any


def require(ok: bool, argument: str, allowed: str, received: Any) -> None:
    """Raises a `ValueError` in the common form unless `ok`."""
    if not ok:
        raise ValueError(f"`{argument}` must be {allowed}. Received: {_shown(received)}")


def _shown(received: Any) -> str:
    """`repr`; of an array or tensor what it is, without its numbers."""
    rank = getattr(received, "ndim", None)
    if isinstance(rank, int) and rank > 0 and hasattr(received, "dtype"):
        shape = tuple(received.shape)
        return f"{type(received).__name__} of shape {shape} and dtype {received.dtype}"
    return repr(received)


def is_int(value: Any, low: int = 1) -> bool:
    """Whether `value` is an int (no bool) of at least `low`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def as_int(value: Any) -> Any:
    """The int that an integer of another library stands for, such as NumPy's; or else `value`."""
    if isinstance(value, bool):
        return value
    try:
        return int(operator.index(value))
    except TypeError:
        return value


def is_number(value: Any) -> bool:
    """Whether `value` is a finite int or float (no bool)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) < math.inf


def require_int(argument: str, value: Any, low: int = 1) -> None:
    """Requires an int of at least `low`."""
    require(is_int(value, low), argument, f"an integer of at least {low}", value)


def require_choice(argument: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Requires one of `allowed`."""
    ok = isinstance(value, str) and value in allowed
    require(ok, argument, f"one of {', '.join(allowed)}", value)


def require_rate(argument: str, value: Any) -> None:
    """Requires a number in [0, 1)."""
    require(is_number(value) and 0 <= value < 1, argument, "a number in [0, 1)", value)


def from_json(cls: type, data: Any, what: str) -> Any:
    """Builds the dataclass `cls` from a JSON object, refusing unknown and missing keys."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} must be a JSON object. Received: {data!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    unknown = sorted(str(key) for key in set(data) - set(fields))
    if unknown:
        raise ValueError(
            f"{what} has unknown keys; allowed are {', '.join(fields)}. "
            f"Received: {', '.join(unknown)}"
        )
    required = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(data))
    if missing:
        raise ValueError(
            f"{what} lacks required keys: {', '.join(missing)}. "
            f"Received: {', '.join(map(str, data)) or 'none'}"
        )
    return cls(**{key: _tuples(value) for key, value in data.items()})


def _tuples(value: Any) -> Any:
    """Lists of JSON as tuples, which can be hashed, at every depth."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
