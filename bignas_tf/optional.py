"""Packages that an extra of this one brings."""

from __future__ import annotations

import importlib.util

CHECKOUT = "in a checkout of bignas-tf"  # which is on no package index


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
        message = f"{purpose} needs {name}; {installing(extra)}"
        raise ModuleNotFoundError(message, name=name)


def pip_install(extra: str) -> str:
    """The command that installs an extra of this package, in a checkout."""
    return f"pip install '.[{extra}]'"


def installing(extra: str) -> str:
    """How to install an extra of this package, as a message ends."""
    return f"{CHECKOUT}: {pip_install(extra)}"
