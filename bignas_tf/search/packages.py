"""The packages of the extra `search`, loaded where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType


def search_package(name: str, purpose: str) -> ModuleType:
    """Imports a package that the extra `search` brings.

    Args:
        name: of the package.
        purpose: what needs it, as a message begins.

    Raises:
        ModuleNotFoundError: if it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise  # it is there; something that it needs itself is not
        raise ModuleNotFoundError(
            f"{purpose} needs {name}: pip install 'bignas-tf[search]'", name=name
        ) from error
