"""Functions that make arrays out of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lodestream.expressions.coercion import meet_all, widen
from lodestream.expressions.functions.arrays import searched
from lodestream.expressions.functions.nested import AT, EACH, array_of, column_name, element
from lodestream.expressions.operators import comparable
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import (
    VOID,
    Typed,
    duckdb_type,
    eager,
    in_turn,
    lazy,
    let,
    let_all,
    quote,
    strict,
    unless_null,
)
from lodestream.model.types import BOOLEAN, Column, DataType

_SECTION = "Arrays"
LONGEST = 10_000


@scalar(_SECTION, "array", "value, …", "array", "at least one value")
def _array(call: Call) -> Typed:
    call.count(1, 100)
    kind = meet_all(call.arguments, "array", call.offset)
    if kind == VOID:
        raise call.error("elements without a type", "P106", "array(cast(null as string))")
    values = [widen(value, kind) for value in call.arguments]
    made = eager(array_of(kind), f"[{', '.join(v.duckdb for v in values)}]", call.spark, values, nullable=False)
    return replace(made, members=tuple(values))


def _item(call: Call, value: Typed, index: int) -> Typed:
    """An argument that becomes an element."""
    item, kind = call[index], element(value)
    if item.type not in (VOID, kind) and not (item.type.is_numeric and kind.is_numeric and widens(item, kind)):
        raise call.error(f"cannot put {item.type} into {value.type}", nearest=f"cast(… as {kind})")
    return widen(item, kind)


def widens(item: Typed, kind: DataType) -> bool:
    """Whether an integer fits an integer element by itself, as Spark's rules have it."""
    order = ("tinyint", "smallint", "int", "bigint")
    if not (item.type.name in order and kind.name in order):
        return False
    return order.index(item.type.name) <= order.index(kind.name)


@scalar(_SECTION, "array_append array_prepend", "array, value", "array", "NULL is appended too")
def _append(call: Call) -> Typed:
    call.count(2)
    value = call.array(0)
    item = _item(call, value, 1)
    first = call.name == "array_prepend"
    return _placed(call, value, item, lambda a: f"([{item.duckdb}] || {a})" if first else f"({a} || [{item.duckdb}])")


def _placed(call: Call, value: Typed, item: Typed, build: Callable[[str], str]) -> Typed:
    duckdb = unless_null((value,), build)
    error = in_turn([value], item.error)
    return lazy(value.type, duckdb, call.spark, (value, item), error=error, nullable=value.nullable)


@scalar(
    _SECTION, "array_insert", "array, int, value", "array", "literal place from 1, or -1 for the end; gaps become NULL"
)
def _insert(call: Call) -> Typed:
    call.count(3)
    value, place = call.array(0), call.literal_int(1)
    if place == 0 or abs(place) > LONGEST:
        raise call.error(f"a place from 1 to {LONGEST}, or from -1 down", "P114")
    item = _item(call, value, 2)
    at = abs(place) - 1

    def build(a: str) -> str:
        made = let(
            a if place > 0 else f"list_reverse({a})",
            lambda b: f"(list_resize({b}, {at}) || [{item.duckdb}] || {b}[{at + 1}:])",
        )
        return made if place > 0 else f"list_reverse({made})"

    return _placed(call, value, item, build)


@scalar(_SECTION, "array_remove", "array, value", "array", "NULL elements stay")
def _remove(call: Call) -> Typed:
    call.count(2)
    value, item = searched(call)
    duckdb = unless_null((item,), lambda i: f"list_filter({value.duckdb}, lambda {EACH}: {EACH} IS DISTINCT FROM {i})")
    return strict(value.type, duckdb, call.spark, (value, item))


@scalar(_SECTION, "array_compact", "array", "array", "without NULL elements")
def _compact(call: Call) -> Typed:
    call.count(1)
    value = call.array(0)
    return strict(value.type, f"list_filter({value.duckdb}, lambda x: x IS NOT NULL)", call.spark, (value,))


def _firsts(array: str) -> str:
    """The first of equal elements, in their order; NULLs are equal."""

    def build(a: str) -> str:
        null = f"list_position(list_transform({a}, lambda n: n IS NULL), true)"
        first = f"CASE WHEN {EACH} IS NULL THEN {null} ELSE list_position({a}, {EACH}) END"
        return f"list_filter({a}, lambda {EACH}, {AT}: {AT} = {first})"

    return let(array, build, above=40)


def _sets(call: Call, count: int) -> list[Typed]:
    call.count(count)
    values = [call.array(index) for index in range(count)]
    kinds = {str(element(value)) for value in values}
    kind = element(values[0])
    if len(kinds) > 1 or not comparable(kind) or kind.name in ("float", "double"):
        raise call.error(f"takes arrays of one type that is compared exactly, not {' and '.join(sorted(kinds))}")
    return values


@scalar(_SECTION, "array_distinct", "array", "array", "the first of equal elements; not of float or double")
def _distinct(call: Call) -> Typed:
    [value] = _sets(call, 1)
    return strict(value.type, unless_null((value,), _firsts), call.spark, (value,))


@scalar(
    _SECTION,
    "array_union array_intersect array_except",
    "array, array",
    "array",
    "without repetition, in order of the first; NULLs are equal",
)
def _set_operation(call: Call) -> Typed:
    a, b = _sets(call, 2)
    negated = "" if call.name == "array_intersect" else "NOT "

    def build(left: str, right: str) -> str:
        if call.name == "array_union":
            return _firsts(f"({left} || {right})")
        null = f"list_contains(list_transform({right}, lambda n: n IS NULL), true)"
        inside = f"CASE WHEN {EACH} IS NULL THEN {null} ELSE list_contains({right}, {EACH}) END"
        return _firsts(f"list_filter({left}, lambda {EACH}: {negated}{inside})")

    return strict(a.type, unless_null((a, b), build), call.spark, (a, b))


@scalar(_SECTION, "arrays_overlap", "array, array", "boolean", "NULL when only a NULL element could be common")
def _overlap(call: Call) -> Typed:
    a, b = _sets(call, 2)

    def build(left: str, right: str) -> str:
        kept = [f"list_filter({side}, lambda n: n IS NOT NULL)" for side in (left, right)]
        nulls = " OR ".join(f"len({short}) < len({side})" for short, side in zip(kept, (left, right), strict=True))
        unknown = f"len({left}) > 0 AND len({right}) > 0 AND ({nulls})"
        return f"CASE WHEN list_has_any({', '.join(kept)}) THEN true WHEN {unknown} THEN NULL ELSE false END"

    return strict(BOOLEAN, unless_null((a, b), build), call.spark, (a, b), nullable=True)


@scalar(_SECTION, "array_repeat", "value, int", "array", f"literal number up to {LONGEST}")
def _repeat(call: Call) -> Typed:
    call.count(2)
    value, count = call[0], call.literal_int(1)
    if value.type == VOID or count > LONGEST:
        raise call.error(f"takes a typed value and at most {LONGEST}", "P114")
    duckdb = f"list_transform(range({max(count, 0)}), lambda {AT}: {value.duckdb})"
    return lazy(array_of(value.type), duckdb, call.spark, (value,), error=value.error, nullable=False)


@scalar(
    _SECTION,
    "arrays_zip",
    "array, array, …",
    "array<struct>",
    "by place; the shorter are filled with NULL; fields are named after columns, else 0, 1, …",
)
def _zip(call: Call) -> Typed:
    call.count(1, 20)
    values = [call.array(index) for index in range(len(call))]
    names = [column_name(value) or str(index) for index, value in enumerate(values)]
    if len({name.lower() for name in names}) < len(names):
        raise call.error("two fields of one name")
    kind = DataType("struct", fields=tuple(Column(n, element(v)) for n, v in zip(names, values, strict=True)))

    def build(*arrays: str) -> str:
        sizes = ", ".join(f"len({a})" for a in arrays)
        fields = ", ".join(f"{quote(n)} := {a}[{AT} + 1]" for n, a in zip(names, arrays, strict=True))
        return f"list_transform(range(greatest({sizes})), lambda {AT}: struct_pack({fields}))"

    return strict(array_of(kind), unless_null(values, build), call.spark, values)


@scalar(_SECTION, "array_sort", "array", "array", "ascending, NULLs last; no comparator")
def _array_sort(call: Call) -> Typed:
    call.count(1)
    value = _sorted(call)
    return strict(value.type, f"list_sort({value.duckdb}, 'ASC', 'NULLS LAST')", call.spark, (value,))


@scalar(
    _SECTION,
    "sort_array",
    "array[, boolean]",
    "array",
    "ascending with NULLs first, or descending with NULLs last; literal",
)
def _sort_array(call: Call) -> Typed:
    call.count(1, 2)
    value = _sorted(call)
    up = call[1].constant if len(call) == 2 else True
    if not isinstance(up, bool):
        raise call.error("argument 2 must be true or false", "P114")
    order = "'ASC', 'NULLS FIRST'" if up else "'DESC', 'NULLS LAST'"
    return strict(value.type, f"list_sort({value.duckdb}, {order})", call.spark, (value,))


def _sorted(call: Call) -> Typed:
    value = call.array(0)
    if not comparable(element(value)):
        raise call.error(f"{element(value)} has no order")
    return value


@scalar(_SECTION, "flatten", "array<array>", "array", "one level; NULL when an inner array is NULL")
def _flatten(call: Call) -> Typed:
    call.count(1)
    value = call.array(0)
    kind = element(value)
    if kind.name != "array":
        raise call.error(f"takes an array of arrays, not {value.type}")
    whole = let(
        value.duckdb, lambda a: f"CASE WHEN len(list_filter({a}, lambda n: n IS NULL)) = 0 THEN flatten({a}) END"
    )
    return strict(kind, whole, call.spark, (value,), nullable=True)


@scalar(
    _SECTION,
    "sequence",
    "integer, integer[, integer]",
    "array",
    f"both ends belong to it; raises for a step that leads away, and beyond {LONGEST} elements",
)
def _sequence(call: Call) -> Typed:
    call.count(2, 3)
    kind = meet_all(call.arguments, "sequence", call.offset)
    if not kind.is_integer:
        raise call.error(f"takes integers, not {kind}")
    parts = [widen(value, kind) for value in call.arguments]

    def fits(*bounds: str) -> str:
        start, stop, step = _steps(*bounds)
        forward, back = f"({step} > 0 AND {start} <= {stop})", f"({step} < 0 AND {start} >= {stop})"
        leads = f"({forward} OR {back} OR ({step} = 0 AND {start} = {stop}))"
        return f"({leads} AND coalesce(({stop} - {start}) // nullif({step}, 0), 0) < {LONGEST})"

    def build(*bounds: str) -> str:
        start, stop, step = _steps(*bounds)
        count = f"CAST(coalesce(({stop} - {start}) // nullif({step}, 0), 0) AS BIGINT)"
        item = f"CAST({start} + {AT} * {step} AS {duckdb_type(kind)})"
        return f"CASE WHEN {fits(*bounds)} THEN list_transform(range({count} + 1), lambda {AT}: {item}) END"

    own = f"NOT {let_all([p.duckdb for p in parts], fits)}"
    return strict(array_of(kind), unless_null(parts, build), call.spark, parts, own=own)


def _steps(start: str, stop: str, step: str | None = None) -> tuple[str, str, str]:
    """The bounds and the step with room to compute."""
    low, high = f"CAST({start} AS HUGEINT)", f"CAST({stop} AS HUGEINT)"
    return low, high, f"CAST({step} AS HUGEINT)" if step else f"(CASE WHEN {low} <= {high} THEN 1 ELSE -1 END)"


@scalar(
    _SECTION,
    "slice",
    "array, int, int",
    "array",
    "from a place that counts from 1, or from the end below 0; raises for place 0 or a length below 0",
)
def _slice(call: Call) -> Typed:
    call.count(3)
    value, start, size = call.array(0), call.int_(1), call.int_(2)
    own = f"({start.duckdb} = 0 OR {size.duckdb} < 0)"

    def build(a: str, s: str, n: str) -> str:
        first = f"CASE WHEN {s} > 0 THEN {s}::BIGINT ELSE len({a}) + {s} + 1 END"
        cut = f"CASE WHEN {{f}} < 1 OR {{f}} > len({a}) THEN {a}[1:0] ELSE {a}[{{f}}:{{f}} + {n} - 1] END"
        return f"CASE WHEN {s} <> 0 AND {n} >= 0 THEN {let(first, lambda f: cut.format(f=f), above=0)} END"

    duckdb = unless_null((value, start, size), build)
    return strict(value.type, duckdb, call.spark, (value, start, size), own=own)


def concatenated(call: Call) -> Typed:
    """CONCAT of arrays."""
    values = [call.array(index) for index in range(len(call))]
    kind = values[0].type
    if any(value.type != kind for value in values):
        raise call.error("takes arrays of one type")
    return strict(kind, unless_null(values, lambda *arrays: f"({' || '.join(arrays)})"), call.spark, values)


def reversed_(call: Call) -> Typed:
    """REVERSE of an array."""
    value = call.array(0)
    return strict(value.type, f"list_reverse({value.duckdb})", call.spark, (value,))
