"""A typed, compiled piece of an expression, and how errors of its parts add up."""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lodestream.model.types import BIGINT, BOOLEAN, DATE, DOUBLE, INT, STRING, TIMESTAMP, DataType

VOID: Final = DataType("void")
"""The type of a bare NULL; it becomes whatever stands beside it."""
INTERVAL: Final = DataType("interval")
"""A literal interval; it only ever stands beside a plus or minus."""


class NotConstant:
    """Marks a value that is only known when the row is."""


NOT_CONSTANT: Final = NotConstant()
Value = None | bool | int | float | str | decimal.Decimal | dt.date | dt.datetime


@dataclass(frozen=True, slots=True)
class IntervalValue:
    """A literal interval: months, or days and microseconds. `text` is its Spark form."""

    months: int
    days: int
    micros: int
    text: str


@dataclass(frozen=True, slots=True)
class Typed:
    """One node of a compiled expression.

    Attributes:
        type: Spark type, or `VOID`, or `INTERVAL`.
        duckdb: DuckDB SQL that never raises and is NULL where Spark raises; safe to put beside any operator.
        spark: canonical Spark SQL; safe to put beside any operator.
        error: DuckDB boolean that is never NULL, true exactly where Spark raises; None when it cannot.
        nullable: whether Spark's value may be NULL.
        columns: (table, column) pairs it reads; the table is empty in scalar expressions.
        constant: the value of a literal.
        portable: whether Spark knows every function in it.
        masked: whether `duckdb` may be other than NULL where it errs.
        members: what a struct, array or map was just made of: Spark takes a part of it without making the whole.
    """

    type: DataType
    duckdb: str
    spark: str
    error: str | None = None
    nullable: bool = True
    columns: frozenset[tuple[str, str]] = frozenset()
    constant: Value | IntervalValue | NotConstant = NOT_CONSTANT
    portable: bool = True
    masked: bool = False
    members: tuple[Typed, ...] = ()

    @property
    def is_literal(self) -> bool:
        """Whether the value is known at plan time."""
        return self.constant is not NOT_CONSTANT

    def with_spark(self, text: str) -> Typed:
        """The same value under another Spark text."""
        return replace(self, spark=text)


def any_of(*errors: str | None) -> str | None:
    """True where one of the errors is."""
    found = list(dict.fromkeys(error for error in errors if error))
    if len(found) < 2:
        return found[0] if found else None
    return "(" + " OR ".join(found) + ")"


def all_of(*conditions: str | None) -> str | None:
    """True where all hold; None stands for an error that cannot happen."""
    if any(condition is None for condition in conditions):
        return None
    found = [condition for condition in conditions if condition]
    return found[0] if len(found) == 1 else "(" + " AND ".join(found) + ")"


def given(value: Typed, error: str | None) -> str | None:
    """The error, where `value` is not NULL: Spark skips what comes after a NULL operand."""
    if error is None or not value.nullable:
        return error
    return f"({value.duckdb} IS NOT NULL AND {error})"


def in_turn(operands: Sequence[Typed], own: str | None = None) -> str | None:
    """Errors of operands that Spark evaluates left to right until one is NULL, then `own` (all are non-NULL then)."""
    error = own
    for operand in reversed(operands):
        error = any_of(operand.error, given(operand, error))
    return error


def strict(
    kind: DataType, duckdb: str, spark: str, operands: Sequence[Typed], *,
    own: str | None = None, nullable: bool = False, order: Sequence[Typed] | None = None,
) -> Typed:  # fmt: skip
    """A call that is NULL when an operand is.

    Args:
        kind: result type.
        duckdb: value, non-raising.
        spark: Spark text.
        operands: every argument.
        own: true where the call itself raises, given that no operand is NULL.
        nullable: whether it can be NULL though no operand is.
        order: operands in the order in which Spark evaluates them, if that differs.
    """
    return Typed(
        kind, duckdb, spark, in_turn(operands if order is None else order, own),
        nullable or own is not None or any(o.nullable for o in operands),
        union(operands), portable=all(o.portable for o in operands), masked=any(o.masked for o in operands),
    )  # fmt: skip


def eager(
    kind: DataType, duckdb: str, spark: str, operands: Sequence[Typed], *, own: str | None = None, nullable: bool
) -> Typed:
    """A call of which Spark evaluates every operand."""
    return lazy(kind, duckdb, spark, operands, error=any_of(*(o.error for o in operands), own), nullable=nullable)


def lazy(
    kind: DataType, duckdb: str, spark: str, operands: Sequence[Typed], *, error: str | None, nullable: bool
) -> Typed:
    """A call that decides by itself which operands count, and so may have a value although one of them erred."""
    return Typed(
        kind, duckdb, spark, error, nullable, union(operands), portable=all(o.portable for o in operands),
        masked=error is not None,
    )  # fmt: skip


def union(operands: Sequence[Typed]) -> frozenset[tuple[str, str]]:
    """The columns that any operand reads."""
    return frozenset().union(*(operand.columns for operand in operands))


def is_null(duckdb: str) -> str:
    """An own error: the non-raising value came out NULL though its operands are not."""
    return f"{duckdb} IS NULL"


LET_ABOVE = 160
"""Characters from which on a value that is used twice is bound to a name; shorter ones DuckDB computes once itself."""


def let(value: str, body: Callable[[str], str], *, above: int = LET_ABOVE) -> str:
    """DuckDB text of `body` over `value`, in which a `value` longer than `above` is written (and computed) once."""
    if len(value) <= above:
        return body(value)
    name = "v" + hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"list_transform([{value}], lambda {name}: {body(name)})[1]"


def let_all(values: Sequence[str], body: Callable[..., str]) -> str:
    """`let` over several values at once."""
    if not values:
        return body()
    return let(values[0], lambda first: let_all(values[1:], lambda *rest: body(first, *rest)))


def unless_null(operands: Sequence[Typed], body: Callable[..., str]) -> str:
    """DuckDB text of `body` over the operands; NULL where one is NULL, whatever `body` makes of it."""

    def build(*texts: str) -> str:
        known = [f"{text} IS NOT NULL" for text, operand in zip(texts, operands, strict=True) if operand.nullable]
        return f"CASE WHEN {' AND '.join(known)} THEN {body(*texts)} END" if known else body(*texts)

    return let_all([operand.duckdb for operand in operands], build)


# Names and literals -------------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")
_RESERVED = frozenset(
    """
    all and anti any array as authorization between both by case cast check collate column constraint create
    cross current_date current_time current_timestamp current_user date distinct else end escape except exists
    extract false fetch filter for foreign from full grant group having if in inner intersect interval into is
    join lateral leading left like map minus natural not null offset on only or order outer overlaps percentile
    primary references right select semi session_user some struct table then time timestamp to trailing true
    union unique unknown user using values when where window with
    """.split()  # noqa: SIM905
)


def quote(name: str) -> str:
    """A DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


def spark_name(name: str) -> str:
    """A Spark identifier, in backticks only when it needs them."""
    return name if _PLAIN.match(name) and name not in _RESERVED else "`" + name.replace("`", "``") + "`"


def duckdb_text(text: str) -> str:
    """A DuckDB string literal."""
    return "'" + text.replace("'", "''") + "'"


def spark_text(text: str) -> str:
    """A Spark string literal; control characters are written as escapes."""
    body = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f"'{body}'"


def duckdb_type(kind: DataType) -> str:
    """The DuckDB name of a Spark type; timestamps are naive."""
    if kind.name == "array":
        assert kind.element
        return duckdb_type(kind.element) + "[]"
    if kind.name == "map":
        assert kind.key
        assert kind.element
        return f"MAP({duckdb_type(kind.key)}, {duckdb_type(kind.element)})"
    if kind.name == "struct":
        return "STRUCT(" + ", ".join(f"{quote(f.name)} {duckdb_type(f.type)}" for f in kind.fields) + ")"
    if kind.name == "decimal":
        return f"DECIMAL({kind.precision},{kind.scale})"
    return {
        "int": "INTEGER", "string": "VARCHAR", "binary": "BLOB", "void": "INTEGER",
    }.get(kind.name, kind.name.upper())  # fmt: skip


def literal(value: Value, kind: DataType | None = None) -> Typed:
    """A constant of the given (else its natural) type."""
    kind = kind or _natural(value)
    duckdb, spark = _literal(value, kind)
    return Typed(kind, duckdb, spark, nullable=value is None, constant=value)


def decimal_literal(text: str) -> Typed:
    """A literal such as `1.50`, whose digits give its type: decimal(3,2)."""
    value = decimal.Decimal(text)
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    scale = max(0, -exponent)
    kind = DataType("decimal", precision=max(len(digits), scale, 1), scale=scale)
    return literal(value, kind)


def _natural(value: Value) -> DataType:
    if value is None:
        return VOID
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return INT
        return BIGINT if -(2**63) <= value < 2**63 else DataType("decimal", precision=len(str(abs(value))))
    if isinstance(value, float):
        return DOUBLE
    if isinstance(value, dt.datetime):
        return TIMESTAMP
    return DATE if isinstance(value, dt.date) else STRING


def _literal(value: Value, kind: DataType) -> tuple[str, str]:
    name = kind.name
    if value is None:
        return ("NULL", "NULL") if kind == VOID else (f"CAST(NULL AS {duckdb_type(kind)})", f"CAST(NULL AS {kind})")
    if name == "boolean":
        return (str(value).lower(),) * 2
    if name == "string":
        return duckdb_text(str(value)), spark_text(str(value))
    if name == "date" and isinstance(value, dt.date):
        return (f"DATE '{value.isoformat()}'",) * 2
    if name == "timestamp" and isinstance(value, dt.datetime):
        return (f"TIMESTAMP '{value.isoformat(sep=' ')}'",) * 2
    if name == "int":
        plain = str(value) if isinstance(value, int) and value >= 0 else f"({value})"
        return plain if value != -(2**31) else f"CAST({value} AS INTEGER)", plain
    if name == "bigint":
        return f"CAST({value} AS BIGINT)", f"{value}L" if str(value)[0] != "-" else f"(-{str(value)[1:]}L)"
    if name in ("double", "float"):
        number = repr(float(value))  # type: ignore[arg-type]
        exact = f"CAST('{number}' AS {name.upper()})"
        finite = math.isfinite(float(number))
        return exact, _spark_double(number, name) if finite else f"CAST('{number}' AS {name})"
    if name == "decimal":
        body = format(value, "f")
        body_spark = body if "." in body else body + "BD"
        return f"CAST({body} AS {duckdb_type(kind)})", body_spark if not body.startswith("-") else f"({body_spark})"
    plain = f"{value}{'S' if name == 'smallint' else 'Y'}"
    return f"CAST({value} AS {duckdb_type(kind)})", plain if not plain.startswith("-") else f"({plain})"


def _spark_double(number: str, name: str) -> str:
    text = number + ("D" if name == "double" else "F")
    return text if not number.startswith("-") else f"({text})"
