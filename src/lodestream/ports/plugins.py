"""Finds a component by its name: the file name in its room, or an entry point of another package."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from lodestream.errors import ConfigError, MissingDriverError


@functools.cache
def _entries(room: str) -> EntryPoints:
    """Components of other packages; installed packages are searched once, for that takes milliseconds."""
    return entry_points(group=f"lodestream.{room}")


def names(room: str) -> list[str]:
    """Names of all components in a room (`sources`, `formats`, …); imports none of them."""
    package = importlib.import_module(f"lodestream.{room}")
    own = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    return sorted({*own, *(e.name for e in _entries(room))})


def load(room: str, name: str) -> Any:
    """The component class of that name: the `component` attribute of its module.

    Raises:
        ConfigError: there is none of that name.
        MissingDriverError: it needs a package that is not installed.
    """
    for entry in _entries(room):
        if entry.name == name:
            return entry.load()
    if name not in names(room):
        nearest = difflib.get_close_matches(name, names(room), 1)
        raise ConfigError(f"no such component in {room}", name=name, nearest=nearest[0] if nearest else None)
    try:
        return importlib.import_module(f"lodestream.{room}.{name}").component
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lodestream"):
            raise
        raise MissingDriverError(
            f"{room} component needs a package: pip install 'lodestream[{name}]'",
            name=name,
            missing=error.name,
        ) from error
