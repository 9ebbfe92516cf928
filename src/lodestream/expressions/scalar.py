"""Scalar expressions: text and schema in, compiled value out."""

from __future__ import annotations

from lodestream.expressions.dialect import parse_expression
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.typed import INTERVAL, VOID, Typed
from lodestream.expressions.walk import Describe, Walker
from lodestream.model.expression import Expression
from lodestream.model.types import Schema


def compile_scalar(text: str, schema: Schema, *, portable: bool = True, describe: Describe | None = None) -> Expression:
    """Check, type and compile one scalar expression of Spark ANSI SQL.

    Args:
        text: the expression as the user wrote it.
        schema: columns it may read.
        portable: False admits, beyond the whitelist, any DuckDB scalar function that `describe` can type.
        describe: gives the type of a DuckDB expression over the schema's columns, or raises ValueError.

    Raises:
        ExpressionError: the text is refused; see `errors.CODES`.
    """
    value = Walker(schema, portable=portable, describe=describe).walk(parse_expression(text))
    if value.type in (VOID, INTERVAL):
        what = "null without a type" if value.type == VOID else "an interval"
        raise ExpressionError("P106", f"the result is {what}", nearest="cast(null as string)", offset=0)
    return to_expression(value)


def to_expression(value: Typed) -> Expression:
    """The public form of a compiled value."""
    duckdb = f"CASE WHEN {value.error} THEN NULL ELSE {value.duckdb} END" if value.masked else bare(value.duckdb)
    return Expression(
        text=bare(value.spark), type=value.type, nullable=value.nullable or value.masked, duckdb=duckdb,
        error=bare(value.error) if value.error else None,
        columns=frozenset(column for _, column in value.columns), portable=value.portable,
    )  # fmt: skip


def bare(text: str) -> str:
    """The text without parentheses around the whole of it."""
    while text.startswith("(") and text.endswith(")"):
        depth, quoted = 0, ""
        for index, char in enumerate(text):
            if quoted:
                quoted = "" if char == quoted else quoted
            elif char in "'\"`":
                quoted = char
            elif char in "()":
                depth += 1 if char == "(" else -1
                if depth == 0 and index < len(text) - 1:
                    return text
        text = text[1:-1]
    return text
