"""`lodestream version`: which software this is."""

from __future__ import annotations

import platform

from lodestream.cli.call import Call
from lodestream.version import VERSION

_PARTS = ("pyarrow", "duckdb", "deltalake", "sqlglot")


def version(call: Call) -> None:
    """Show the version of Lodestream and of what it stands on."""
    from importlib.metadata import version as installed

    parts = {"lodestream": VERSION, "python": platform.python_version(), **{name: installed(name) for name in _PARTS}}
    if call.json:
        call.emit(parts)
    else:
        call.print(f"lodestream {VERSION}")
        call.print("  ".join(f"{name} {text}" for name, text in parts.items() if name != "lodestream"))
