"""Real-time analytics from raw events to gold Delta tables, exactly once, on one machine.

The public names below are imported when first used, so that `import lodestream` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lodestream.errors import (
        AccessError,
        ConfigError,
        ConflictError,
        CorruptionError,
        DataLossRefused,
        LodestreamError,
        TransientError,
    )
    from lodestream.model.project import Project
    from lodestream.model.table import Table, TableName
    from lodestream.planning.compile import compile_project
    from lodestream.project.build import define_project, table
    from lodestream.project.load import load_project, read_project
    from lodestream.project.mistakes import ProjectError

_HOMES = {
    "AccessError": "errors",
    "ConfigError": "errors",
    "ConflictError": "errors",
    "CorruptionError": "errors",
    "DataLossRefused": "errors",
    "LodestreamError": "errors",
    "Project": "model.project",
    "ProjectError": "project.mistakes",
    "Table": "model.table",
    "TableName": "model.table",
    "TransientError": "errors",
    "compile_project": "planning.compile",
    "define_project": "project.build",
    "load_project": "project.load",
    "read_project": "project.load",
    "table": "project.build",
}

__all__ = [
    "AccessError",
    "ConfigError",
    "ConflictError",
    "CorruptionError",
    "DataLossRefused",
    "LodestreamError",
    "Project",
    "ProjectError",
    "Table",
    "TableName",
    "TransientError",
    "compile_project",
    "define_project",
    "load_project",
    "read_project",
    "table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
