"""Expressions that do not raise on Spark: a value, and a condition that is true where ANSI mode would raise."""

from __future__ import annotations

import functools

import sqlglot
from sqlglot import exp

from lodestream.model.expression import Aggregate, Expression
from lodestream.model.types import DataType


def error(text: str, kind: DataType | None = None) -> str:
    """Spark SQL that is true where evaluating `text` raises, else false; it never raises.

    `try_to_binary` catches whatever its argument raises, and `hash` makes Spark evaluate all of the argument: an
    `IS NULL` would be answered from the type alone where the value can never be NULL. `kind` is the type of `text`,
    where it is known; maps have no hash, but a text.
    """
    if kind is not None and "map<" in str(kind):
        text = f"string({text})"
    return f"(try_to_binary(string(hash({text})), 'utf-8') IS NULL)"


def can_raise(expression: Expression) -> bool:
    """Whether it is more than a column, which never raises."""
    return expression.error is not None


def value(expression: Expression) -> str:
    """Spark SQL of the expression, NULL where it raises."""
    if not can_raise(expression):
        return expression.text
    return f"(CASE WHEN NOT {error(expression.text, expression.type)} THEN {expression.text} END)"


def quoted(name: str) -> str:
    """A Spark identifier."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A Spark string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@functools.lru_cache(maxsize=256)
def row_error(measure: Aggregate) -> str | None:
    """Spark SQL that is true for an input row on which an argument of the measure raises; None when none can.

    A row that a filter leaves out is not evaluated.
    """
    if measure.initial_error is None:
        return None
    found: list[str] = []
    for call in sqlglot.parse_one(measure.text, dialect="spark").find_all(exp.AggFunc):
        arguments = [node.sql("spark") for node in call.iter_expressions() if not isinstance(node, exp.Star)]
        arguments = [text.removeprefix("DISTINCT ") for text in arguments]
        condition = call.parent.expression.this.sql("spark") if isinstance(call.parent, exp.Filter) else None
        for text in arguments:
            if condition is None:
                found.append(error(text))
            else:
                found += [error(condition), error(f"CASE WHEN {condition} THEN {text} END")]
    return "(" + " OR ".join(dict.fromkeys(found)) + ")" if found else None
