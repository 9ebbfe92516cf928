"""Names and texts as DuckDB's SQL has them; imports nothing, so that a worker may."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | None) -> str:
    """A DuckDB string literal, or NULL."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"
