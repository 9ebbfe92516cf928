"""Walks a syntax tree and admits, types and compiles each node, or refuses it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import ClassVar

from sqlglot import exp

from lodestream.expressions import conditionals, intervals, operators
from lodestream.expressions.casts import cast, parse_moment
from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError, nearest
from lodestream.expressions.forms import BITS, Forms
from lodestream.expressions.functions import AGGREGATES, REFUSED, SCALARS, Call, Function
from lodestream.expressions.lambdas import Written
from lodestream.expressions.shape import check_shape
from lodestream.expressions.typed import (
    Typed,
    decimal_literal,
    literal,
    quote,
    spark_name,
)  # fmt: skip
from lodestream.model.types import DATE, TIMESTAMP, DataType, Schema, parse_type

Describe = Callable[[str], DataType]
"""Asks the engine for the type of a DuckDB expression over the input's columns; raises ValueError if there is none."""


class Walker(Forms):
    """Compiles scalar syntax over the columns of one schema; subclasses admit more (aggregates, query columns)."""

    def __init__(self, schema: Schema, *, portable: bool = True, describe: Describe | None = None) -> None:
        self.schema = schema
        self.portable = portable
        self.describe = describe
        self.sorting = False
        self._scopes: list[dict[str, Typed]] = []
        self._by_lower: dict[str, list[str]] = {}
        for name in schema.names:
            self._by_lower.setdefault(name.lower(), []).append(name)

    def walk(self, node: exp.Expr) -> Typed:
        """The compiled node. Raises ExpressionError."""
        handler = self.HANDLERS.get(type(node))
        if handler is None:
            if isinstance(node, exp.CurrentDate | exp.CurrentTimestamp | exp.CurrentUser):
                raise ExpressionError("P107", "depends on when or by whom it is run", offset=offset_of(node))
            what = type(node).__name__.lower()
            raise ExpressionError("P101", f"not admitted in expressions: {what}", offset=offset_of(node))
        check_shape(node)
        return handler(self, node)

    @property
    def depth(self) -> int:
        """How many lambdas the walker is inside of."""
        return len(self._scopes)

    def within(self, scope: dict[str, Typed], node: exp.Expr) -> Typed:
        """The compiled body of a lambda whose parameters are `scope` (lower-case name -> value)."""
        self._scopes.append(scope)
        try:
            return self.walk(node)
        finally:
            self._scopes.pop()

    def bound(self, name: str) -> Typed | None:
        """The parameter of that name of the innermost lambda that has one."""
        return next((scope[name.lower()] for scope in reversed(self._scopes) if name.lower() in scope), None)

    # Columns and literals -------------------------------------------------------------------------------------------

    def column(self, node: exp.Column) -> Typed:
        """A column, or a field of a struct column (`a.b.c`)."""
        if isinstance(node.this, exp.Star):
            raise ExpressionError("P112", "name the columns instead of *", offset=offset_of(node))
        parts = [part.name for part in node.parts]
        parameter = self.bound(parts[0])
        if parameter is not None:
            return self.inside(parameter, parts[1:], offset_of(node))
        return self.fields(parts, offset_of(node))

    def parameter(self, node: exp.Identifier) -> Typed:
        """A parameter of a lambda, or a column that has the name of one in another case."""
        parameter = self.bound(node.name)
        return self.fields([node.name], offset_of(node)) if parameter is None else parameter

    def fields(self, parts: list[str], offset: int | None) -> Typed:
        """The column `parts[0]` and, inside it, the struct fields that follow."""
        value = self.named(parts[0], offset)
        return self.inside(value, parts[1:], offset)

    def named(self, name: str, offset: int | None) -> Typed:
        """The input column of that name; case does not matter."""
        found = self._by_lower.get(name.lower(), [])
        if len(found) != 1:
            problem = "ambiguous column" if found else "no such column"
            raise ExpressionError(
                "P110", f"{problem}: {name!r}", nearest=nearest(name, self.schema.names), offset=offset
            )
        column = self.schema[found[0]]
        return Typed(
            column.type, quote(column.name), spark_name(column.name), None, column.nullable,
            frozenset({("", column.name)}),
        )  # fmt: skip

    def literal(self, node: exp.Literal) -> Typed:
        """A string or number; its digits give its type."""
        if node.is_string:
            return self._text(node.this, node)
        text = node.this
        if "e" in text.lower():
            return literal(float(text))
        if "." in text:
            value = decimal_literal(text)
            if value.type.precision > 38:
                raise ExpressionError("P103", f"more than 38 digits: {text}", offset=offset_of(node))
            return value
        if len(text.lstrip("0")) > 38:
            raise ExpressionError("P103", f"more than 38 digits: {text}", offset=offset_of(node))
        number = int(text)
        return literal(number) if number < 2**63 else decimal_literal(text.lstrip("0"))

    def raw(self, node: exp.RawString) -> Typed:
        """r'…'."""
        return self._text(node.this, node)

    def _text(self, text: str, node: exp.Expr) -> Typed:
        if "\0" in text:
            raise ExpressionError("P111", "a string literal with a zero character", offset=offset_of(node))
        return literal(text)

    # Operators ------------------------------------------------------------------------------------------------------

    def binary(self, node: exp.Binary) -> Typed:
        """+ - * / % div."""
        symbol = _ARITHMETIC[type(node)]
        left, right = self.walk(node.left), self.walk(node.right)
        if symbol in ("+", "-") and (moved := intervals.shift(symbol, left, right, offset_of(node))):
            return moved
        return operators.arithmetic(symbol, left, right, offset_of(node))

    def comparison(self, node: exp.Binary) -> Typed:
        """= <> < <= > >= <=>."""
        left, right = self.walk(node.left), self.walk(node.right)
        left, right = self.moments(left, right, node)
        return operators.compare(_COMPARISON[type(node)], left, right, offset_of(node))

    def moments(self, left: Typed, right: Typed, node: exp.Expr) -> tuple[Typed, Typed]:
        """A string literal beside a date or timestamp is read as one, as Spark does."""
        return _as_moment(left, right, node), _as_moment(right, left, node)

    def logic(self, node: exp.Connector) -> Typed:
        """AND and OR."""
        word = "AND" if isinstance(node, exp.And) else "OR"
        return operators.logic(word, self.walk(node.left), self.walk(node.right), offset_of(node))

    def is_(self, node: exp.Is) -> Typed:
        """IS NULL, IS TRUE, IS FALSE."""
        return self._truth(node, negated=False)

    def not_(self, node: exp.Not) -> Typed:
        """NOT, and the NOT of IS NOT, NOT IN, NOT LIKE, NOT BETWEEN."""
        if isinstance(node.this, exp.Is):
            check_shape(node.this)
            return self._truth(node.this, negated=True)
        return operators.invert(self.walk(node.this), offset_of(node))

    def _truth(self, node: exp.Is, *, negated: bool) -> Typed:
        other = node.expression
        if isinstance(other, exp.Null):
            word = "NULL"
        elif isinstance(other, exp.Boolean):
            word = "TRUE" if other.this else "FALSE"
        else:
            raise ExpressionError("P101", "is takes null, true or false", nearest="<=>", offset=offset_of(node))
        return operators.truth(self.walk(node.this), word, negated, offset_of(node))

    def between(self, node: exp.Between) -> Typed:
        """Value BETWEEN low AND high."""
        parts = [self.walk(node.args[key]) for key in ("this", "low", "high")]
        low, high = (_as_moment(part, parts[0], node) for part in parts[1:])
        return conditionals.between(parts[0], low, high, offset_of(node))

    def in_(self, node: exp.In) -> Typed:
        """Value IN (…)."""
        if node.args.get("query") is not None or node.args.get("unnest") is not None:
            raise ExpressionError("P101", "a query inside in(…)", nearest="left semi join", offset=offset_of(node))
        value = self.walk(node.this)
        items = [_as_moment(self.walk(item), value, node) for item in node.expressions]
        return conditionals.in_list(value, items, offset_of(node))

    def negative(self, node: exp.Neg) -> Typed:
        """-value; a minus before digits is part of the literal."""
        inner = node.this
        if isinstance(inner, exp.Literal) and not inner.is_string:
            value = self.literal(inner)
            if isinstance(value.constant, int):
                number = -value.constant
                return literal(number)
            if isinstance(value.constant, Decimal):
                if value.type.scale == 0 and -value.constant >= -(2**63):
                    return literal(int(-value.constant))
                return literal(-value.constant, value.type)
        if isinstance(inner, exp.Cast) and inner.meta.get("suffix"):
            # the minus belongs to the digits: -9223372036854775808L has no positive counterpart
            return self._suffixed("-" + inner.this.name, self.type_of(inner.args["to"]), offset_of(node))
        return operators.negate(self.walk(inner), offset_of(node))

    def paren(self, node: exp.Paren) -> Typed:
        """(…)."""
        return self.walk(node.this)

    def case(self, node: exp.Case) -> Typed:
        """CASE in both forms."""
        subject = node.args.get("this")
        branches = []
        for branch in node.args["ifs"]:
            condition = self.walk(branch.this)
            if subject is not None:
                left, right = self.moments(self.walk(subject), condition, node)
                condition = operators.compare("=", left, right, offset_of(node))
            branches.append((condition, self.walk(branch.args["true"])))
        default = node.args.get("default")
        return conditionals.case(branches, self.walk(default) if default is not None else None, offset_of(node))

    def if_(self, node: exp.If) -> Typed:
        """IF(condition, then, else)."""
        if node.args.get("false") is None:
            raise ExpressionError("P111", "if: takes 3 arguments", offset=offset_of(node))
        then, otherwise = self.walk(node.args["true"]), self.walk(node.args["false"])
        return conditionals.if_(self.walk(node.this), then, otherwise, offset_of(node))

    def cast_(self, node: exp.Cast) -> Typed:
        """CAST, TRY_CAST, `::` and the literals DATE '…', TIMESTAMP '…', 1L, 1D."""
        kind = self.type_of(node.args["to"])
        inner = node.this
        attempt = isinstance(node, exp.TryCast)
        if attempt and "format" not in node.args:
            raise ExpressionError("P101", "not admitted: ?::", nearest="try_cast(… as …)", offset=offset_of(node))
        if isinstance(inner, exp.Literal) and inner.is_string and kind in (DATE, TIMESTAMP) and not attempt:
            return parse_moment(inner.this, kind, offset_of(node))
        if node.meta.get("suffix"):
            return self._suffixed(inner.name, kind, offset_of(node))
        value = self.walk(inner)
        return cast(value, kind, attempt=attempt, offset=offset_of(node))

    def _suffixed(self, digits: str, kind: DataType, offset: int | None) -> Typed:
        """A literal with a suffix: 1L, 1S, 1Y, 1D, 1F, 1BD."""
        if kind.name == "decimal":
            return decimal_literal(digits)
        if not kind.is_integer:
            return literal(float(digits), kind)
        bits = {"tinyint": 7, "smallint": 15, "bigint": 63}[kind.name]
        number = int(digits) if digits.removeprefix("-").isdigit() else 2**64
        if abs(number) > 2**bits - (not digits.startswith("-")):
            raise ExpressionError("P112", f"not a {kind}: {digits}", offset=offset)
        return literal(number, kind)

    def type_of(self, node: exp.DataType) -> DataType:
        """The Spark type of a type in CAST."""
        text = node.sql(dialect="databricks").lower().replace(" ", "") if isinstance(node, exp.DataType) else ""
        try:
            return parse_type(text)
        except ValueError:
            known = ("string", "int", "bigint", "double", "decimal(12,2)", "boolean", "date", "timestamp", "binary")
            code = "P105" if "timestamp" in text else "P106"
            raise ExpressionError(
                code, f"not a type of tables: {text!r}", nearest=nearest(text, known), offset=offset_of(node)
            ) from None

    # Functions ------------------------------------------------------------------------------------------------------

    def call(self, node: exp.Anonymous) -> Typed:
        """A function by Spark's name."""
        name, offset = node.name.lower(), offset_of(node)
        if name in AGGREGATES:
            return self.aggregate(name, node)
        function = SCALARS.get(name)
        if function is None:
            return self.unknown(name, node)
        plain = [argument for argument in node.expressions if not isinstance(argument, exp.Lambda)]
        functions = node.expressions[len(plain) :]
        if len(functions) > function.lambdas or any(not isinstance(argument, exp.Lambda) for argument in functions):
            raise ExpressionError("P111", f"{name}: takes no function there", offset=offset)
        arguments = tuple(self.argument(argument, function, node) for argument in plain)
        return function.build(Call(name, arguments, offset, tuple(Written.read(self, f) for f in functions)))

    def argument(self, node: exp.Expr, function: Function, call: exp.Anonymous) -> Typed:
        """An argument; the unit of some functions is a bare word."""
        if function.unit and len(call.expressions) == 3 and node is call.expressions[0]:
            if not isinstance(node, exp.Column) or len(node.parts) != 1:
                raise ExpressionError(
                    "P114", f"{function.name}: the unit is a bare word", nearest="month", offset=offset_of(node)
                )
            return literal(node.name)
        self.sorting = function.name in ("array_sort", "sort_array")
        try:
            return self.walk(node)
        finally:
            self.sorting = False

    def aggregate(self, name: str, node: exp.Expr) -> Typed:
        """An aggregate function; a scalar expression has none."""
        raise ExpressionError("P113", f"{name} is an aggregate", offset=offset_of(node))

    def unknown(self, name: str, node: exp.Anonymous) -> Typed:
        """A function that is not on the whitelist."""
        offset = offset_of(node)
        if not self.portable and self.describe is not None:
            return self._foreign(name, node)
        if name in REFUSED:
            code, why, near = REFUSED[name]
            raise ExpressionError(code, f"{name}: {why}", nearest=near, offset=offset)
        found = nearest(name, [*SCALARS, *AGGREGATES])
        raise ExpressionError("P101", f"unknown function: {name}", nearest=found, offset=offset)

    def _foreign(self, name: str, node: exp.Anonymous) -> Typed:
        """Any DuckDB scalar function, typed by DuckDB; NULL and an error where it raises."""
        assert self.describe
        offset = offset_of(node)
        arguments = [self.walk(argument) for argument in node.expressions]
        inner = f"{quote(name)}({', '.join(a.duckdb for a in arguments)})"
        try:
            kind = self.describe(f"TRY({inner})")
        except ValueError as error:
            found = nearest(name, [*SCALARS, *AGGREGATES])
            raise ExpressionError("P101", f"{name}: {error}", nearest=found, offset=offset) from error
        return conditionals.foreign(kind, inner, f"{name}({', '.join(a.spark for a in arguments)})", arguments)

    HANDLERS: ClassVar[dict[type[exp.Expr], Callable[..., Typed]]] = {}


def _as_moment(value: Typed, beside: Typed, node: exp.Expr) -> Typed:
    if isinstance(value.constant, str) and beside.type in (DATE, TIMESTAMP):
        return parse_moment(value.constant, beside.type, offset_of(node))
    return value


_ARITHMETIC: dict[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.IntDiv: "div",
}
_COMPARISON: dict[type[exp.Expr], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.NullSafeEQ: "<=>",
}  # fmt: skip

Walker.HANDLERS.update(
    {
        exp.Column: Walker.column,
        exp.Identifier: Walker.parameter,
        exp.Literal: Walker.literal,
        exp.RawString: Walker.raw,
        exp.Null: lambda _walker, _node: literal(None),
        exp.Boolean: lambda _walker, node: literal(bool(node.this)),
        exp.Paren: Walker.paren,
        exp.And: Walker.logic,
        exp.Or: Walker.logic,
        exp.Not: Walker.not_,
        exp.Is: Walker.is_,
        exp.In: Walker.in_,
        exp.Between: Walker.between,
        exp.Neg: Walker.negative,
        exp.Case: Walker.case,
        exp.If: Walker.if_,
        exp.Cast: Walker.cast_,
        exp.TryCast: Walker.cast_,
        exp.Interval: lambda _walker, node: intervals.interval(node),
        exp.Anonymous: Walker.call,
        exp.DPipe: Walker.pipes,
        exp.Like: Walker.like,
        exp.ILike: Walker.like,
        exp.Escape: Walker.escaped,
        exp.RegexpLike: Walker.rlike,
        exp.Trim: Walker.trim,
        exp.Extract: Walker.extract,
        exp.StrPosition: Walker.position,
        exp.Bracket: Walker.bracket,
        exp.BitwiseNot: Walker.flip,
        exp.Dot: Walker.dot,
    }
)
Walker.HANDLERS.update(dict.fromkeys(_ARITHMETIC, Walker.binary))
Walker.HANDLERS.update(dict.fromkeys(BITS, Walker.bits))
Walker.HANDLERS.update(dict.fromkeys(_COMPARISON, Walker.comparison))
