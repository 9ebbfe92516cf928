"""`lodestream version`: which software this is."""

from __future__ import annotations

import platform

from lodestream.cli.call import Call
from lodestream.version import VERSION

_PARTS = ("pyarrow", "duckdb", "deltalake", "sqlglot")


def version(call: Call) -> None:
    """Show the version of Lodestream and of what it stands on."""
    from importlib.metadata import version as installed

    from lodestream.native import STATE

    parts = {
        "lodestream": VERSION, "python": platform.python_version(), "native": STATE,
        **{name: installed(name) for name in _PARTS},
    }  # fmt: skip
    if call.json:
        call.emit(parts)
    else:
        call.print(f"lodestream {VERSION}")
        call.print("  ".join(f"{name} {text}" for name, text in parts.items() if name != "lodestream"))
