"""Aggregates of statistics: central moments of one value or two, bits, and what needs every value of a group.

Moments are kept as Spark keeps them (count, mean, sums of powers of deviations) and merge by the formulas of
Chan, Golub and LeVeque (1979), so that nothing is lost to cancellation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from lodestream.expressions.coercion import widen
from lodestream.expressions.operators import comparable
from lodestream.expressions.pieces import OVER, Made, Piece
from lodestream.expressions.typed import Typed, duckdb_type
from lodestream.model.types import BIGINT, DOUBLE, Column, DataType

if TYPE_CHECKING:
    from lodestream.expressions.aggregates import Aggregation

# DuckDB parameters beside names of columns: no column has such a name
EACH, _G, _L, _R = '"→x"', '"→g"', '"→l"', '"→r"'


def _struct(*names: str) -> DataType:
    return DataType("struct", fields=(Column("n", BIGINT), *(Column(name, DOUBLE) for name in names)))


_ONE, _FOUR, _TWO = _struct("a", "m"), _struct("a", "m", "c", "q"), _struct("x", "y", "k", "s", "t")


def _number(call: Aggregation, value: Typed | None) -> Typed:
    if value is None or not (value.type.is_numeric or value.type.name == "void"):
        raise call.refuse(f"takes a number, not {value.type if value else '*'}")
    if call.distinct:
        raise call.refuse("takes no distinct")
    return widen(value, DOUBLE)


def _merge(kind: DataType, formulas: dict[str, str]) -> str:
    """Two states into one, over and over; an empty state changes nothing."""
    fields = [f"n := {_L}.n + {_R}.n", *(f"{name} := {formula}" for name, formula in formulas.items())]
    both = f"struct_pack({', '.join(fields)})"
    step = f"CASE WHEN {_L}.n = 0 THEN {_R} WHEN {_R}.n = 0 THEN {_L} ELSE {both} END"
    blank = ", ".join(["n := 0::BIGINT", *(f"{name} := 0::DOUBLE" for name in formulas)])
    return f"list_reduce(list({{}}), lambda {_L}, {_R}: {step}, CAST(struct_pack({blank}) AS {duckdb_type(kind)}))"


_SHARE = f"(({_R}.a - {_L}.a) / ({_L}.n + {_R}.n))"
_MOMENTS = {
    "a": f"{_L}.a + {_SHARE} * {_R}.n",
    "m": f"{_L}.m + {_R}.m + ({_R}.a - {_L}.a) * {_SHARE} * {_L}.n * {_R}.n",
    "c": f"{_L}.c + {_R}.c + {_SHARE} * {_SHARE} * ({_R}.a - {_L}.a) * {_L}.n * {_R}.n * ({_L}.n - {_R}.n)"
    f" + 3 * {_SHARE} * ({_L}.n * {_R}.m - {_R}.n * {_L}.m)",
    "q": f"{_L}.q + {_R}.q + {_SHARE} * {_SHARE} * {_SHARE} * ({_R}.a - {_L}.a) * {_L}.n * {_R}.n"
    f" * ({_L}.n::DOUBLE * {_L}.n - {_L}.n::DOUBLE * {_R}.n + {_R}.n::DOUBLE * {_R}.n)"
    f" + 6 * {_SHARE} * {_SHARE} * ({_L}.n::DOUBLE * {_L}.n * {_R}.m + {_R}.n::DOUBLE * {_R}.n * {_L}.m)"
    f" + 4 * {_SHARE} * ({_L}.n * {_R}.c - {_R}.n * {_L}.c)",
}
_PAIRS = {
    "x": f"{_L}.x + ({_R}.x - {_L}.x) / ({_L}.n + {_R}.n) * {_R}.n",
    "y": f"{_L}.y + ({_R}.y - {_L}.y) / ({_L}.n + {_R}.n) * {_R}.n",
    "k": f"{_L}.k + {_R}.k + ({_R}.x - {_L}.x) * (({_R}.y - {_L}.y) / ({_L}.n + {_R}.n)) * {_L}.n * {_R}.n",
    "s": f"{_L}.s + {_R}.s + ({_R}.x - {_L}.x) * (({_R}.x - {_L}.x) / ({_L}.n + {_R}.n)) * {_L}.n * {_R}.n",
    "t": f"{_L}.t + {_R}.t + ({_R}.y - {_L}.y) * (({_R}.y - {_L}.y) / ({_L}.n + {_R}.n)) * {_L}.n * {_R}.n",
}


def _mean(value: str, where: str) -> str:
    """The mean; of equal values exactly these, whatever their sum rounds to."""
    low, high = f"min({value}){where}", f"max({value}){where}"
    return f"coalesce(CASE WHEN {low} = {high} THEN {low} ELSE avg({value}){where} END, 0)"


def _bounded(power_sum: str, product: str) -> str:
    """A sum of powers; NaN where the square of the mean overflows, as in Spark."""
    return f"CASE WHEN isfinite({product}) THEN coalesce({power_sum}, 0) ELSE CAST('nan' AS DOUBLE) END"


def _deviations(value: str, where: str, power: int) -> str:
    mean = _mean(value, where)
    term = " * ".join([f"({EACH} - {_G}.a)"] * power)
    row = f"struct_pack(l := list({value}){where}, a := {mean})"
    total = f"list_sum(list_transform(list_filter({_G}.l, lambda {EACH}: {EACH} IS NOT NULL), lambda {EACH}: {term}))"
    return f"coalesce(list_transform([{row}], lambda {_G}: {total})[1], 0)"


def _moments(call: Aggregation, final: Callable[[str], str], *, shape: bool = False) -> Made:
    """An aggregate over the moments of one value; `final` reads the state by the name it is given."""
    value = _number(call, call.argument).duckdb
    where = call.filter.replace(OVER, "")
    count, mean = f"count({value}){where}", _mean(value, where)
    squares = _bounded(f"var_pop({value}){where} * {count}", f"{mean} * {mean}")
    fields = [f"n := {count}", f"a := {mean}", f"m := {squares}"]
    if shape:
        fields += [f"c := {_deviations(value, where, 3)}", f"q := {_deviations(value, where, 4)}"]
    kind = _FOUR if shape else _ONE
    names = ("a", "m", "c", "q") if shape else ("a", "m")
    piece = Piece(f"struct_pack({', '.join(fields)})", _merge(kind, {n: _MOMENTS[n] for n in names}), kind)
    return call.made([piece], DOUBLE, lambda p: f"CASE WHEN {p}.n > 0 THEN {final(p)} END")


def variance(call: Aggregation) -> Made:
    """VAR_POP, VAR_SAMP, STDDEV_POP, STDDEV_SAMP and their other names."""
    root = call.name.startswith("std")
    below = "{p}.n" if call.name.endswith("_pop") else "nullif({p}.n - 1, 0)"

    def final(p: str) -> str:
        spread = f"({p}.m / {below.format(p=p)})"
        return f"sqrt({spread})" if root else spread

    return _moments(call, final)


def shape(call: Aggregation) -> Made:
    """SKEWNESS and KURTOSIS."""
    if call.name == "skewness":
        final = "CASE WHEN {p}.m <> 0 THEN sqrt({p}.n) * {p}.c / sqrt({p}.m * {p}.m * {p}.m) END"
    else:
        final = "CASE WHEN {p}.m <> 0 THEN {p}.n * {p}.q / ({p}.m * {p}.m) - 3 END"
    return _moments(call, lambda p: final.format(p=p), shape=True)


_PAIRED: dict[str, str] = {
    "covar_pop": "{p}.k / {p}.n",
    "covar_samp": "{p}.k / nullif({p}.n - 1, 0)",
    "corr": "CASE WHEN {p}.n > 1 THEN {p}.k / sqrt({p}.s * {p}.t) END",
    "regr_sxx": "{p}.s",
    "regr_syy": "{p}.t",
    "regr_sxy": "{p}.k",
    "regr_slope": "CASE WHEN {p}.s <> 0 THEN {p}.k / {p}.s END",
    "regr_intercept": "CASE WHEN {p}.s <> 0 THEN {p}.y - {p}.k / {p}.s * {p}.x END",
    "regr_r2": "CASE WHEN {p}.s = 0 THEN NULL WHEN {p}.t = 0 THEN 1 ELSE {p}.k * {p}.k / ({p}.s * {p}.t) END",
}


def paired(call: Aggregation) -> Made:
    """COVAR_POP, COVAR_SAMP, CORR and the REGR functions: over rows in which both values are known."""
    first, second = _number(call, call.argument), _number(call, call.second)
    # the REGR functions name the dependent value first
    y, x = (v.duckdb for v in (first, second))
    x, y = (f"CASE WHEN {b} IS NOT NULL THEN {a} END" for a, b in ((x, y), (y, x)))
    where = call.filter.replace(OVER, "")
    count, a, b = f"count({x}){where}", _mean(x, where), _mean(y, where)
    fields = [
        f"n := {count}",
        f"x := {a}",
        f"y := {b}",
        f"k := {_bounded(f'covar_pop({y}, {x}){where} * {count}', f'{a} * {b}')}",
        f"s := {_bounded(f'var_pop({x}){where} * {count}', f'{a} * {a}')}",
        f"t := {_bounded(f'var_pop({y}){where} * {count}', f'{b} * {b}')}",
    ]
    piece = Piece(f"struct_pack({', '.join(fields)})", _merge(_TWO, _PAIRS), _TWO)
    if call.name == "regr_count":
        return call.made([piece], BIGINT, lambda p: f"coalesce({p}.n, 0)", nullable=False)
    final = _PAIRED[call.name]
    error = None
    if call.name == "corr":
        error = "coalesce({p}.n > 1 AND {p}.s * {p}.t = 0, false)"
        final = "CASE WHEN {p}.n > 1 THEN {p}.k / nullif(sqrt({p}.s * {p}.t), 0) END"
    return call.made(
        [piece], DOUBLE, lambda p: f"CASE WHEN {p}.n > 0 THEN {final.format(p=p)} END",
        error=(lambda p: error.format(p=p)) if error else None,
    )  # fmt: skip


def bits(call: Aggregation) -> Made:
    """BIT_AND, BIT_OR and BIT_XOR."""
    value = call.argument
    if value is None or not value.type.is_integer:
        raise call.refuse(f"takes an integer, not {value.type if value else '*'}")
    piece = Piece(f"{call.name}({value.duckdb}){call.filter}", f"{call.name}({{}})", value.type)
    # over no value at all DuckDB's bit_and is all ones
    known = Piece(f"count({value.duckdb}){call.filter}", "CAST(sum({}) AS BIGINT)", BIGINT)
    return call.made([piece, known], value.type, lambda p, n: f"CASE WHEN {n} > 0 THEN {p} END")


def percentile(call: Aggregation) -> Made:
    """PERCENTILE with a literal share, and MEDIAN: interpolated between the two values beside it."""
    share = 0.5
    if call.name == "percentile":
        found = call.second.constant if call.second is not None else None
        if isinstance(found, bool) or not isinstance(found, int | float | Decimal) or not 0 <= found <= 1:
            raise call.refuse("the share is a literal from 0 to 1", "P114", "percentile(…, 0.5)")
        share = float(found)
    value = _number(call, call.argument)
    kept = _every(call, value)

    def final(p: str) -> str:
        place = f"((len({p}) - 1) * CAST('{share!r}' AS DOUBLE))"
        low, high = f"{p}[CAST(floor({place}) AS BIGINT) + 1]", f"{p}[CAST(ceil({place}) AS BIGINT) + 1]"
        between = f"((ceil({place}) - {place}) * {low} + ({place} - floor({place})) * {high})"
        return f"CASE WHEN len({p}) > 0 THEN CASE WHEN {low} = {high} THEN {low} ELSE {between} END END"

    return replace(call.made([kept], DOUBLE, final), merges=False)


def collected(call: Aggregation) -> Made:
    """COLLECT_LIST and COLLECT_SET inside of a sort."""
    value = call.argument
    if value is None or not comparable(value.type) or value.type.name in ("float", "double"):
        raise call.refuse(f"takes a value that is compared exactly, not {value.type if value else '*'}")
    piece = _every(call, value)
    distinct = call.name == "collect_set"
    kind = DataType("array", element=value.type)
    made = call.made([piece], kind, lambda p: f"list_sort(list_distinct({p}))" if distinct else p, nullable=False)
    return replace(made, merges=False)


def _every(call: Aggregation, value: Typed) -> Piece:
    kind = DataType("array", element=value.type)
    where = call.filter.replace(OVER, "")
    values = f"list_filter(coalesce(list({value.duckdb}){where}, []), lambda x: x IS NOT NULL)"
    return Piece(f"list_sort({values})", "list_sort(flatten(list({})))", kind)


BUILDERS: dict[str, Callable[[Aggregation], Made]] = {
    **dict.fromkeys(
        ("stddev", "std", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop"), variance
    ),
    **dict.fromkeys(("skewness", "kurtosis"), shape),
    **dict.fromkeys((*_PAIRED, "regr_count"), paired),
    **dict.fromkeys(("bit_and", "bit_or", "bit_xor"), bits),
    **dict.fromkeys(("percentile", "median"), percentile),
    **dict.fromkeys(("collect_list", "collect_set"), collected),
}  # fmt: skip
"""The aggregates of this module by name."""

PAIRS: Sequence[str] = (*_PAIRED, "regr_count", "regr_avgx", "regr_avgy", "percentile")
"""Those that take two arguments."""

SORTED = ("collect_list", "collect_set")
"""Those whose order only a sort around them decides."""
