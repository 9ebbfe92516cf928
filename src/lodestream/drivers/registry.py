"""Schema registries of a project, by name or URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lodestream.errors import ConfigError
from lodestream.ports.registry import SchemaRegistry

DEFAULT_URL = "http://127.0.0.1:8081"


def registries(declared: Mapping[str, Mapping[str, Any]], cache: str | None) -> Callable[[str], SchemaRegistry]:
    """Opens a schema registry by name or URL; `default` is the one that `lodestream registry` serves here.

    Args:
        declared: settings by name: `url`, and for those who ask for it `user`, `password`, `ca`, `certificate`, `key`.
        cache: folder in which schemas are kept for an outage; None for nowhere.
    """

    def opened(name: str) -> SchemaRegistry:
        raise ConfigError("schema registries cannot be reached yet", registry=name)

    return opened
