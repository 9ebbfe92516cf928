"""Functions of arrays."""

from __future__ import annotations

from lodestream.expressions.coercion import meet, widen
from lodestream.expressions.functions.nested import column_name, element, looked_up
from lodestream.expressions.operators import comparable
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import VOID, Typed, duckdb_text, let, strict, unless_null
from lodestream.model.types import BIGINT, BOOLEAN, INT, STRING

_SECTION = "Arrays"


@scalar(_SECTION, "size cardinality array_size", "array; map, not for array_size", "int", "NULL for NULL")
def _size(call: Call) -> Typed:
    call.count(1)
    if call[0].type.name == "map" and call.name != "array_size":
        return strict(INT, f"CAST(cardinality({call[0].duckdb}) AS INTEGER)", call.spark, (call[0],))
    value = call.array(0)
    return strict(INT, f"CAST(len({value.duckdb}) AS INTEGER)", call.spark, (value,))


@scalar(
    _SECTION,
    "element_at",
    "array, int; map, key",
    "its element",
    "from 1, from the end below 0; raises outside; NULL for no such key",
)
def _element_at(call: Call) -> Typed:
    call.count(2)
    if call[0].type.name == "map":
        return looked_up(call, call.spark)
    value, index = _indexed(call)
    own = f"(abs(CAST({index.duckdb} AS BIGINT)) > len({value.duckdb}) OR {index.duckdb} = 0)"
    return strict(element(value), f"{value.duckdb}[{index.duckdb}]", call.spark, (value, index), own=own, nullable=True)


@scalar(_SECTION, "try_element_at", "array, int; map, key", "its element", "NULL outside; raises for 0")
def _try_element_at(call: Call) -> Typed:
    call.count(2)
    if call[0].type.name == "map":
        return looked_up(call, call.spark)
    value, index = call.array(0), call.int_(1)
    own = None if index.constant not in (0, None) and index.is_literal else f"{index.duckdb} = 0"
    return strict(element(value), f"{value.duckdb}[{index.duckdb}]", call.spark, (value, index), own=own, nullable=True)


@scalar(_SECTION, "get", "array, int", "its element", "from 0; NULL outside")
def _get(call: Call) -> Typed:
    call.count(2)
    value, index = call.array(0), call.int_(1)
    duckdb = f"CASE WHEN {index.duckdb} >= 0 THEN {value.duckdb}[CAST({index.duckdb} AS BIGINT) + 1] END"
    return strict(element(value), duckdb, call.spark, (value, index), nullable=True)


def _indexed(call: Call) -> tuple[Typed, Typed]:
    """An array and a place in it. Raises P101 where Spark 4.2 would read a wrong element."""
    value, index = call.array(0), call.int_(1)
    if index.nullable and not (value.columns and column_name(value)):
        # an array that has no NULL in Spark's eyes gives 0 at a NULL place there
        raise call.error("a place that may be NULL, in an array that is no column", "P101", "get(…, …)")
    return value, index


def subscript(value: Typed, index: Typed, offset: int | None) -> Typed:
    """`array[index]`: from 0; raises outside. `map[key]`: NULL when it is absent."""
    call = Call("[…]", (value, index), offset)
    if value.members:
        raise call.error("a part of what is just made", "P101", "element_at(…, …)")
    if value.type.name == "map":
        return looked_up(call, f"{value.spark}[{index.spark}]")
    value, index = _indexed(call)
    own = f"({index.duckdb} < 0 OR {index.duckdb} >= len({value.duckdb}))"
    duckdb = f"CASE WHEN {index.duckdb} >= 0 THEN {value.duckdb}[CAST({index.duckdb} AS BIGINT) + 1] END"
    spark = f"{value.spark}[{index.spark}]"
    return strict(element(value), duckdb, spark, (value, index), own=own, nullable=True)


@scalar(_SECTION, "array_contains", "array, value", "boolean", "NULL when absent beside a NULL element")
def _contains(call: Call) -> Typed:
    call.count(2)
    value, item = searched(call)

    def build(a: str) -> str:
        unknown = f"len(list_filter({a}, lambda x: x IS NULL)) > 0"
        return f"CASE WHEN list_contains({a}, {item.duckdb}) THEN true WHEN {unknown} THEN NULL ELSE false END"

    duckdb = f"CASE WHEN {value.duckdb} IS NOT NULL AND {item.duckdb} IS NOT NULL THEN {let(value.duckdb, build)} END"
    return strict(BOOLEAN, duckdb, call.spark, (value, item), nullable=True)


@scalar(_SECTION, "array_position", "array, value", "bigint", "from 1; 0 when absent")
def _position(call: Call) -> Typed:
    call.count(2)
    value, item = searched(call)
    found = f"coalesce(list_position({value.duckdb}, {item.duckdb}), 0)"
    duckdb = f"CASE WHEN {value.duckdb} IS NOT NULL AND {item.duckdb} IS NOT NULL THEN CAST({found} AS BIGINT) END"
    return strict(BIGINT, duckdb, call.spark, (value, item))


def searched(call: Call) -> tuple[Typed, Typed]:
    """An array and what is looked for in it. Raises P111."""
    value, item = call.array(0), call[1]
    kind = element(value)
    if item.type == VOID or not comparable(kind) or meet(kind, item.type) != kind:
        raise call.error(f"cannot look for {item.type} in {value.type}", nearest=f"cast(… as {kind})")
    return value, widen(item, kind)


@scalar(_SECTION, "array_min array_max", "array", "its element", "NULL elements are skipped")
def _extreme(call: Call) -> Typed:
    call.count(1)
    value = call.array(0)
    if not comparable(element(value)):
        raise call.error(f"{element(value)} has no order")
    name = call.name.replace("array", "list")
    return strict(element(value), f"{name}({value.duckdb})", call.spark, (value,), nullable=True)


@scalar(
    _SECTION,
    "array_join",
    "array<string>, string[, string]",
    "string",
    "NULL elements are skipped, or become the third",
)
def _join(call: Call) -> Typed:
    call.count(2, 3)
    value = call.array(0)
    if element(value) != STRING:
        raise call.error("takes an array of strings")
    mark, filler = duckdb_text(call.literal_text(1)), call.literal_text(2) if len(call) == 3 else None

    def build(a: str) -> str:
        kept = f"list_filter({a}, lambda x: x IS NOT NULL)"
        if filler is not None:
            kept = f"list_transform({a}, lambda x: coalesce(x, {duckdb_text(filler)}))"
        return f"coalesce(array_to_string({kept}, {mark}), '')"

    return strict(STRING, unless_null((value,), build), call.spark, (value,))
