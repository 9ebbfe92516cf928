"""Functions of maps and structs."""

from __future__ import annotations

from dataclasses import replace

from lodestream.expressions.coercion import meet_all, widen
from lodestream.expressions.functions.nested import array_of, column_name, element, keyed, map_of, parts
from lodestream.expressions.operators import comparable
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import VOID, Typed, duckdb_text, eager, let, let_all, quote, strict, unless_null
from lodestream.model.types import BOOLEAN, STRING, Column, DataType

_SECTION = "Maps and structs"


def _keys(call: Call, kind: DataType) -> DataType:
    if not comparable(kind) or kind.name in ("float", "double", "void", "binary"):
        raise call.error(f"{kind} cannot be a key", "P106", "cast(… as string)")
    return kind


@scalar(_SECTION, "map", "key, value, …", "map", "raises for a NULL key or one key twice")
def _map(call: Call) -> Typed:
    call.count(2, 100)
    if len(call) % 2:
        raise call.error("takes pairs of key and value")
    key = _keys(call, meet_all(call.arguments[::2], "map", call.offset))
    value = meet_all(call.arguments[1::2], "map", call.offset)
    if value == VOID:
        raise call.error("values without a type", "P106", "cast(null as string)")
    keys, values = [widen(k, key) for k in call.arguments[::2]], [widen(v, value) for v in call.arguments[1::2]]
    lists = [f"[{', '.join(p.duckdb for p in side)}]" for side in (keys, values)]
    duckdb = f"TRY(MAP({lists[0]}, {lists[1]}))"
    made = eager(map_of(key, value), duckdb, call.spark, [*keys, *values], own=f"{duckdb} IS NULL", nullable=True)
    return replace(made, members=(*keys, *values))


@scalar(_SECTION, "map_from_arrays", "array, array", "map", "raises for a NULL key, one key twice or unlike lengths")
def _from_arrays(call: Call) -> Typed:
    call.count(2)
    a, b = call.array(0), call.array(1)
    duckdb = let_all([a.duckdb, b.duckdb], lambda k, v: f"CASE WHEN len({k}) = len({v}) THEN TRY(MAP({k}, {v})) END")
    return strict(map_of(_keys(call, element(a)), element(b)), duckdb, call.spark, (a, b), own=f"{duckdb} IS NULL")


@scalar(
    _SECTION,
    "map_from_entries",
    "array<struct of two>",
    "map",
    "NULL when an entry is; raises for a NULL key or one key twice",
)
def _from_entries(call: Call) -> Typed:
    call.count(1)
    value = call.array(0)
    pair = element(value)
    if pair.name != "struct" or len(pair.fields) != 2:
        raise call.error(f"takes an array of structs of two fields, not {value.type}")
    key, item = pair.fields

    def whole(made: str, hole: str) -> str:
        test = "len(list_filter({a}, lambda x: x IS NULL)) > 0"
        return let(value.duckdb, lambda a: f"CASE WHEN {test.format(a=a)} THEN {hole} ELSE {made.format(a=a)} END")

    duckdb = whole("TRY(map_from_entries({a}))", "NULL")
    own = whole("TRY(map_from_entries({a})) IS NULL", "false")
    kind = map_of(_keys(call, key.type), item.type)
    return strict(kind, duckdb, call.spark, (value,), own=own, nullable=True)


@scalar(_SECTION, "map_keys map_values", "map", "array", "in the map's order")
def _side(call: Call) -> Typed:
    call.count(1)
    value = call.map(0)
    key, item = parts(value.type)
    return strict(
        array_of(key if call.name == "map_keys" else item), f"{call.name}({value.duckdb})", call.spark, (value,)
    )


def pair_type(kind: DataType) -> DataType:
    """The struct of one entry of a map."""
    key, item = parts(kind)
    return DataType("struct", fields=(Column("key", key), Column("value", item)))


@scalar(_SECTION, "map_entries", "map", "array<struct<key,value>>", "in the map's order")
def _entries(call: Call) -> Typed:
    call.count(1)
    value = call.map(0)
    return strict(array_of(pair_type(value.type)), f"map_entries({value.duckdb})", call.spark, (value,))


@scalar(_SECTION, "map_contains_key", "map, key", "boolean", "")
def _contains_key(call: Call) -> Typed:
    call.count(2)
    value, key = keyed(call)
    duckdb = unless_null((value, key), lambda m, k: f"list_contains(map_keys({m}), {k})")
    return strict(BOOLEAN, duckdb, call.spark, (value, key))


@scalar(_SECTION, "map_concat", "map, map, …", "map", "raises for one key twice")
def _concat(call: Call) -> Typed:
    call.count(1, 20)
    values = [call.map(index) for index in range(len(call))]
    kind = values[0].type
    if any(value.type != kind for value in values):
        raise call.error("takes maps of one type")
    duckdb = unless_null(
        values, lambda *maps: f"TRY(map_from_entries({' || '.join(f'map_entries({m})' for m in maps)}))"
    )
    return strict(kind, duckdb, call.spark, values, own=f"{duckdb} IS NULL")


@scalar(
    _SECTION,
    "str_to_map",
    "string[, string[, string]]",
    "map<string,string>",
    "literal delimiters of one plain character, , and : by default; raises for one key twice",
)
def _str_to_map(call: Call) -> Typed:
    call.count(1, 3)
    value = call.text(0)
    outer, inner = (call.literal_text(i) if len(call) > i else default for i, default in ((1, ","), (2, ":")))
    if any(len(mark) != 1 or mark in "\\^$.|?*+()[]{}" for mark in (outer, inner)):
        raise call.error(
            "a delimiter must be one character without a meaning in patterns", "P101", "str_to_map(…, ',', ':')"
        )
    a, b = duckdb_text(outer), duckdb_text(inner)
    tail = f"CASE WHEN contains(x, {b}) THEN substring(x, instr(x, {b}) + 1) END"
    pair = f"struct_pack(key := split_part(x, {b}, 1), value := {tail})"
    pairs = f"list_transform(string_split({value.duckdb}, {a}), lambda x: {pair})"
    duckdb = f"TRY(map_from_entries({pairs}))"
    return strict(map_of(STRING, STRING), duckdb, call.spark, (value,), own=f"{duckdb} IS NULL")


# Structs ------------------------------------------------------------------------------------------------------------


@scalar(_SECTION, "named_struct", "name, value, …", "struct", "literal names")
def _named_struct(call: Call) -> Typed:
    call.count(2, 100)
    if len(call) % 2:
        raise call.error("takes pairs of name and value")
    return _struct(call, [call.literal_text(i) for i in range(0, len(call), 2)], call.arguments[1::2])


@scalar(_SECTION, "struct", "value, …", "struct", "fields are named after columns, else col1, col2, …")
def _plain_struct(call: Call) -> Typed:
    call.count(1, 50)
    names = [column_name(value) or f"col{index}" for index, value in enumerate(call.arguments, 1)]
    return _struct(call, names, call.arguments)


def _struct(call: Call, names: list[str], values: tuple[Typed, ...]) -> Typed:
    if len({name.lower() for name in names}) < len(names) or any(
        set(name) & set("`:,<> ") or not name for name in names
    ):
        raise call.error("fields need distinct plain names")
    if any(value.type == VOID for value in values):
        raise call.error("a field without a type", "P106", "cast(null as string)")
    kind = DataType("struct", fields=tuple(Column(n, v.type) for n, v in zip(names, values, strict=True)))
    fields = ", ".join(f"{quote(n)} := {v.duckdb}" for n, v in zip(names, values, strict=True))
    return replace(eager(kind, f"struct_pack({fields})", call.spark, values, nullable=False), members=values)
