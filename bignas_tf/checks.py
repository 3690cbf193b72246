"""Argument checks with one form of message: what is allowed, then what was received."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def require(ok: bool, argument: str, allowed: str, received: Any) -> None:
    """Raises a `ValueError` in the common form unless `ok`."""
    if not ok:
        raise ValueError(f"`{argument}` must be {allowed}. Received: {received!r}")


def is_int(value: Any, low: int = 1) -> bool:
    """Whether `value` is an int (no bool) of at least `low`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def require_int(argument: str, value: Any, low: int = 1) -> None:
    """Requires an int of at least `low`."""
    require(is_int(value, low), argument, f"an integer of at least {low}", value)


def require_kernel(argument: str, value: Any) -> None:
    """Requires an odd positive int."""
    require(is_int(value) and value % 2 == 1, argument, "an odd positive integer", value)


def require_choice(argument: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Requires one of `allowed`."""
    require(value in allowed, argument, f"one of {', '.join(allowed)}", value)


def require_rate(argument: str, value: Any) -> None:
    """Requires a number in [0, 1)."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(is_number and 0 <= value < 1, argument, "a number in [0, 1)", value)


def from_json(cls: type, data: Any, what: str) -> Any:
    """Builds the dataclass `cls` from a JSON object, refusing unknown and missing keys."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} must be a JSON object. Received: {data!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    unknown = sorted(set(data) - set(fields))
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
        raise ValueError(f"{what} lacks required keys: {', '.join(missing)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})
