"""Literal intervals and what moves by them."""

from __future__ import annotations

import re
from dataclasses import replace

from sqlglot import exp

from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError, nearest
from lodestream.expressions.typed import INTERVAL, NOT_CONSTANT, IntervalValue, Typed, is_null, strict
from lodestream.model.types import DATE, TIMESTAMP

_MONTHS = {"month": 1, "year": 12}
_MICROS = {"microsecond": 1, "millisecond": 1000, "second": 10**6, "minute": 60 * 10**6, "hour": 3600 * 10**6}
_DAYS = {"day": 1, "week": 7}
_UNITS = (*_MONTHS, *_DAYS, *_MICROS)


def interval(node: exp.Interval) -> Typed:
    """INTERVAL 5 MINUTES and the like: one whole number, one unit.

    Raises:
        ExpressionError: P114, not a literal; P101, a unit or a form that is not admitted.
    """
    offset = offset_of(node)
    amount, unit = node.this, node.args.get("unit")
    if isinstance(amount, exp.Neg):
        amount = exp.Literal.string("-" + amount.this.name) if isinstance(amount.this, exp.Literal) else amount
    if not isinstance(amount, exp.Literal) or not re.fullmatch(r"\s*[+-]?\d{1,9}\s*", amount.name):
        raise ExpressionError(
            "P114", "an interval is a whole number and a unit", nearest="interval 1 day", offset=offset
        )
    name = unit.name.lower().removesuffix("s") if isinstance(unit, exp.Var) else ""
    if name not in _UNITS:
        raise ExpressionError("P101", f"interval unit: {name!r}", nearest=nearest(name, _UNITS), offset=offset)
    count = int(amount.name)
    value = IntervalValue(
        _MONTHS.get(name, 0) * count, _DAYS.get(name, 0) * count, _MICROS.get(name, 0) * count,
        f"INTERVAL '{count}' {name.upper()}",
    )  # fmt: skip
    return Typed(INTERVAL, "", value.text, nullable=False, constant=value)


def shift(symbol: str, left: Typed, right: Typed, offset: int | None) -> Typed | None:
    """A date or timestamp moved by an interval; None when neither side is an interval.

    Raises:
        ExpressionError: P111, the other side is neither date nor timestamp.
    """
    if INTERVAL not in (left.type, right.type):
        return None
    moment, step = (left, right) if right.type == INTERVAL else (right, left)
    if not isinstance(step.constant, IntervalValue) or moment.type not in (DATE, TIMESTAMP):
        raise ExpressionError("P111", f"no {left.type} {symbol} {right.type}", offset=offset)
    if symbol == "-" and step is left:
        raise ExpressionError("P111", "an interval minus something", offset=offset)
    spark = f"({left.spark} {symbol} {right.spark})"
    sign = -1 if symbol == "-" else 1
    return move(moment, step.constant, sign, spark)


def move(moment: Typed, step: IntervalValue, sign: int, spark: str) -> Typed:
    """`moment` plus `sign` times `step`; a date stays a date unless the step has hours or less."""
    months, days, micros = sign * step.months, sign * step.days, sign * step.micros
    moment = replace(moment, constant=NOT_CONSTANT)
    if moment.type == DATE and micros:
        base, kind = f"TRY_CAST({moment.duckdb} AS TIMESTAMP)", TIMESTAMP
    else:
        base, kind = moment.duckdb, moment.type
    if months:
        duckdb = f"TRY({base} + to_months({months}))"
    elif kind == DATE:
        duckdb = f"TRY({base} + ({days}))"
    else:
        duckdb = f"TRY({base} + to_microseconds({days * 86400 * 10**6 + micros}))"
    if kind == DATE and months:
        duckdb = f"TRY_CAST({duckdb} AS DATE)"
    return strict(kind, duckdb, spark, (moment,), own=is_null(duckdb))
