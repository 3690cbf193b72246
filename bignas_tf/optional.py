"""Packages that an extra of this one brings."""

from __future__ import annotations

import importlib.util


def require_package(name: str, extra: str, purpose: str) -> None:
    """Requires a package to be installed, without importing it.

    Args:
        name: that it is imported by.
        extra: of this package, which brings it.
        purpose: what needs it, as a message begins.

    Raises:
        ModuleNotFoundError: if it is not; the message says how to install it.
    """
    if importlib.util.find_spec(name) is None:
        message = f"{purpose} needs {name}: pip install 'bignas-tf[{extra}]'"
        raise ModuleNotFoundError(message, name=name)
