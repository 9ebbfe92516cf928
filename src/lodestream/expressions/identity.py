"""Expressions of row filters and masks: scalar expressions that may also ask who reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from sqlglot import exp

from lodestream.expressions.casts import cast
from lodestream.expressions.dialect import offset_of, parse_expression
from lodestream.expressions.errors import ExpressionError, nearest
from lodestream.expressions.functions import SCALARS
from lodestream.expressions.registry import Call
from lodestream.expressions.scalar import to_expression
from lodestream.expressions.typed import NOT_CONSTANT, VOID, Typed, duckdb_type, literal
from lodestream.expressions.walk import Walker
from lodestream.model.access import Principal
from lodestream.model.expression import Expression
from lodestream.model.types import BOOLEAN, STRING, Column, Schema

FUNCTIONS = {
    "current_user": "current_user()",
    "is_member": "is_member('group')",
    "attribute": "attribute('name')",
}
"""What a policy may ask of whoever reads, and how it is written."""

VALUE = "value"
"""The function that gives what the masked column holds, so that one mask serves many columns."""


def compile_filter(text: str, schema: Schema, reader: Principal) -> Expression:
    """The condition of a row filter for one reader: a row is shown where its DuckDB form is true.

    Args:
        text: Spark SQL that may call `FUNCTIONS`.
        schema: columns of the table.
        reader: an attribute that they do not have is NULL, which hides every row that is compared with it.

    Raises:
        ExpressionError: the text is refused, or is no condition (P111).
    """
    value = _Walker(schema, reader).walk(parse_expression(text))
    if value.type == VOID:
        value = cast(value, BOOLEAN)
    if value.type != BOOLEAN:
        raise ExpressionError("P111", f"a row filter is a condition, not {value.type}", offset=0)
    return to_expression(value)


def compile_mask(text: str, schema: Schema, column: Column, reader: Principal) -> Expression:
    """What one reader sees in place of a column, in the column's type; NULL where it errs or does not fit the type.

    Args:
        text: Spark SQL that may call `FUNCTIONS`, and `value()` for what the column holds.
        schema: columns of the table.
        column: the masked one of them.
        reader: whose view it is.

    Raises:
        ExpressionError: the text is refused, or its type cannot become the column's (P111).
    """
    value = _Walker(schema, reader, column.name).walk(parse_expression(text))
    return to_expression(value if value.type == column.type else cast(value, column.type, attempt=True, offset=0))


def nothing(column: Column) -> str:
    """DuckDB text of a column that is not shown at all: NULL of its type."""
    return f"CAST(NULL AS {duckdb_type(column.type)})"


class _Walker(Walker):
    """Admits what asks for the reader, and puts the answer in its place."""

    def __init__(self, schema: Schema, reader: Principal, masked: str | None = None) -> None:
        super().__init__(schema)
        self.reader = reader
        self.masked = masked

    def call(self, node: exp.Anonymous) -> Typed:
        """A function by Spark's name, or one of `FUNCTIONS`."""
        name, offset = node.name.lower(), offset_of(node)
        if name == VALUE and self.masked is not None:
            Call(name, tuple(self.walk(argument) for argument in node.expressions), offset).count(0)
            return self.named(self.masked, offset)
        if name not in FUNCTIONS:
            return super().call(node)
        call = Call(name, tuple(self.walk(argument) for argument in node.expressions), offset)
        if name == "current_user":
            call.count(0)
            return _text(self.reader.name, call)
        call.count(1)
        asked = call.literal_text(0)
        if name == "is_member":
            return literal(asked in self.reader.groups)
        return _text(self.reader.attributes.get(asked), call)

    def unknown(self, name: str, node: exp.Anonymous) -> Typed:
        """Not on the whitelist; one of `FUNCTIONS` may have been meant."""
        found = nearest(name, FUNCTIONS)
        if found is not None and nearest(name, [*SCALARS, *FUNCTIONS]) == found:
            raise ExpressionError("P101", f"unknown function: {name}", nearest=FUNCTIONS[found], offset=offset_of(node))
        return super().unknown(name, node)

    def user(self, node: exp.Expr) -> Typed:
        """`current_user`, which SQL lets be written without parentheses."""
        return _text(self.reader.name, Call("current_user", (), offset_of(node)))

    HANDLERS: ClassVar[dict[type[exp.Expr], Callable[..., Typed]]] = {}


_Walker.HANDLERS = Walker.HANDLERS | {exp.Anonymous: _Walker.call, exp.CurrentUser: _Walker.user}


def _text(value: str | None, call: Call) -> Typed:
    """A fact about the reader, as a column of text would be: what it is must not change what is admitted."""
    if value is not None and "\0" in value:
        raise call.error("a value with a zero character")
    return replace(literal(value, STRING), nullable=True, constant=NOT_CONSTANT)
