"""Upper and lower case as ICU has them, where DuckDB maps one code point to one."""

from __future__ import annotations

from lodestream.expressions.typed import let


def upper(text: str) -> str:
    """DuckDB text of `upper` as Spark has it."""
    return f"upper({text})"


def lower(text: str) -> str:
    """DuckDB text of `lower` as Spark has it."""
    return f"lower({text})"


_ = let
