"""Functions that take functions: `transform(values, x -> x + 1)`."""

from __future__ import annotations

from lodestream.expressions.functions.nested import array_of, element, map_of, parts
from lodestream.expressions.operators import boolean, comparable
from lodestream.expressions.registry import Call, Lambda, scalar
from lodestream.expressions.typed import VOID, Typed, any_of, duckdb_type, given, let, union
from lodestream.model.types import BOOLEAN, INT, DataType

_SECTION = "Functions as arguments"


def _made(
    call: Call, kind: DataType, duckdb: str, sources: tuple[Typed, ...], bodies: tuple[Typed, ...], own: str | None,
    *, nullable: bool = True,
) -> Typed:  # fmt: skip
    """A call that is NULL when a source is, and whose bodies may err."""
    functions = [f.spark(body) for f, body in zip(call.lambdas, bodies, strict=True)]
    spark = f"{call.name}({', '.join([*(a.spark for a in call.arguments), *functions])})"
    error = own
    for source in reversed(sources):
        error = any_of(source.error, given(source, error))
    every = (*sources, *bodies)
    return Typed(
        kind, duckdb, spark, error, nullable or error is not None or any(s.nullable for s in sources), union(every),
        portable=all(part.portable for part in every), masked=error is not None,
    )  # fmt: skip


def _function(call: Call, *counts: int) -> Lambda:
    """The only lambda of a call, with one of the given numbers of parameters."""
    if len(call.lambdas) != 1:
        raise call.error("the last argument is a function", nearest="x -> …")
    function = call.lambdas[0]
    if len(function.names) not in counts:
        raise call.error(f"the function takes {' or '.join(map(str, counts))} parameters, not {len(function.names)}")
    return function


def _element_wise(call: Call, function: Lambda) -> tuple[Typed, Typed, str]:
    """The array, the body over its elements, and the DuckDB parameters (the index counts from 1 there)."""
    value = call.array(0)
    names = [function.variable(index) for index in range(len(function.names))]
    bound = [(element(value), names[0])]
    if len(names) == 2:
        bound.append((INT, f"CAST({names[1]} - 1 AS INTEGER)"))
    return value, function.bind(*bound), ", ".join(names)


def _any_error(array: str, names: str, body: Typed) -> str | None:
    return None if body.error is None else f"(len(list_filter({array}, lambda {names}: {body.error})) > 0)"


@scalar(_SECTION, "transform", "array, x -> value or (x, i) -> value", "array", "i counts from 0", lambdas=1)
def _transform(call: Call) -> Typed:
    call.count(1)
    value, body, names = _element_wise(call, _function(call, 1, 2))
    if body.type == VOID:
        raise call.error("values without a type", "P106", "cast(null as string)")
    duckdb = f"list_transform({value.duckdb}, lambda {names}: {body.duckdb})"
    return _made(
        call, array_of(body.type), duckdb, (value,), (body,), _any_error(value.duckdb, names, body), nullable=False
    )


@scalar(
    _SECTION,
    "filter",
    "array, x -> condition or (x, i) -> condition",
    "array",
    "elements for which it is true",
    lambdas=1,
)
def _filter(call: Call) -> Typed:
    call.count(1)
    value, body, names = _element_wise(call, _function(call, 1, 2))
    body = boolean(body, "the function", call.offset)
    duckdb = f"list_filter({value.duckdb}, lambda {names}: {body.duckdb})"
    return _made(call, value.type, duckdb, (value,), (body,), _any_error(value.duckdb, names, body), nullable=False)


@scalar(
    _SECTION,
    "exists forall",
    "array, x -> condition",
    "boolean",
    "stops as soon as it knows; NULL when a NULL could decide",
    lambdas=1,
)
def _quantified(call: Call) -> Typed:
    call.count(1)
    value, body, names = _element_wise(call, _function(call, 1))
    body = boolean(body, "the function", call.offset)
    decides = "true" if call.name == "exists" else "false"
    test = f"CASE WHEN {body.error} THEN 3 ELSE " if body.error else ""
    code = f"{test}CASE WHEN {body.duckdb} IS NULL THEN 2 WHEN {body.duckdb} = {decides} THEN 1 ELSE 0 END"
    code += " END" if body.error else ""
    codes = f"list_transform({value.duckdb}, lambda {names}: {code})"
    found = f"WHEN list_contains({{c}}, 1) THEN {decides} WHEN list_contains({{c}}, 2) THEN NULL"
    other = "false" if decides == "true" else "true"
    duckdb = let(codes, lambda c: f"CASE WHEN {c} IS NULL THEN NULL {found.format(c=c)} ELSE {other} END", above=0)
    own = None
    if body.error:
        failed, decided = "list_position({c}, 3)", "list_position({c}, 1)"
        order = f"(coalesce({failed}, 0) > 0 AND (coalesce({decided}, 0) = 0 OR {failed} < {decided}))"
        own = let(codes, lambda c: order.format(c=c), above=0)
    return _made(call, BOOLEAN, duckdb, (value,), (body,), own)


@scalar(
    _SECTION, "aggregate reduce", "array, start, (sum, x) -> sum[, sum -> value]", "type of the start, or of the last",
    "from the first element to the last; the sum keeps the type of the start", lambdas=2,
)  # fmt: skip
def _aggregate(call: Call) -> Typed:
    call.count(2)
    if not 1 <= len(call.lambdas) <= 2 or len(call.lambdas[0].names) != 2:
        raise call.error("takes a function of the sum and the element", nearest="(sum, x) -> …")
    value, start = call.array(0), call[1]
    if start.type == VOID:
        raise call.error("a start without a type", "P106", "cast(null as int)")
    merge = call.lambdas[0]
    state, item = merge.variable(0), merge.variable(1)
    target = duckdb_type(start.type)
    body = merge.bind((start.type, f"struct_extract({state}, 'v')"), (element(value), f"struct_extract({item}, 'x')"))
    if body.type != start.type:
        raise call.error(
            f"the function gives {body.type}, the start is {start.type}", nearest=f"cast(… as {body.type})"
        )
    failed = f"(struct_extract({state}, 'e') OR {body.error})" if body.error else "false"
    blank = f"struct_pack(v := CAST(NULL AS {target}), e := false, x := {item})"
    rows = f"list_transform({value.duckdb}, lambda {item}: {blank})"
    nothing = f"CAST(NULL AS {duckdb_type(element(value))})"
    zero = f"struct_pack(v := CAST({start.duckdb} AS {target}), e := false, x := {nothing})"
    step = f"struct_pack(v := CAST({body.duckdb} AS {target}), e := {failed}, x := struct_extract({item}, 'x'))"
    folded = f"list_reduce({rows}, lambda {state}, {item}: {step}, {zero})"
    own = f"struct_extract({folded}, 'e')" if body.error else None
    result = f"struct_extract({folded}, 'v')"
    bodies: tuple[Typed, ...] = (body,)
    kind = start.type
    if len(call.lambdas) == 2:
        final = call.lambdas[1]
        name = final.variable(0)
        last = final.bind((kind, name))
        bodies, kind = (body, last), last.type
        late = f"list_transform([{result}], lambda {name}: {last.error})[1]" if last.error else None
        own = any_of(own, late)
        result = f"list_transform([{result}], lambda {name}: {last.duckdb})[1]"
    duckdb = f"CASE WHEN {value.duckdb} IS NOT NULL THEN {result} END"
    if own:
        own = f"coalesce({own}, false)"
    return _made(call, kind, duckdb, (value,), bodies, any_of(given(value, start.error), own))


@scalar(
    _SECTION,
    "zip_with",
    "array, array, (x, y) -> value",
    "array",
    "by place; the shorter is filled with NULL",
    lambdas=1,
)
def _zip_with(call: Call) -> Typed:
    call.count(2)
    function = _function(call, 2)
    a, b = call.array(0), call.array(1)
    pair = function.variable(0)
    sides = [f"{side.duckdb}[{pair}]" for side in (a, b)]
    body = function.bind((element(a), sides[0]), (element(b), sides[1]))
    if body.type == VOID:
        raise call.error("values without a type", "P106", "cast(null as string)")
    places = f"range(1, greatest(len({a.duckdb}), len({b.duckdb})) + 1)"
    known = f"{a.duckdb} IS NOT NULL AND {b.duckdb} IS NOT NULL"
    duckdb = f"CASE WHEN {known} THEN list_transform({places}, lambda {pair}: {body.duckdb}) END"
    return _made(call, array_of(body.type), duckdb, (a, b), (body,), _any_error(places, pair, body), nullable=False)


def _entry_wise(call: Call) -> tuple[Typed, Typed, str, str]:
    """The map, the body over its keys and values, the DuckDB parameter and the map's entries."""
    call.count(1)
    function = _function(call, 2)
    value = call.map(0)
    key, item = parts(value.type)
    name = function.variable(0)
    body = function.bind((key, f"struct_extract({name}, 'key')"), (item, f"struct_extract({name}, 'value')"))
    if body.type == VOID:
        raise call.error("values without a type", "P106", "cast(null as string)")
    return value, body, name, f"map_entries({value.duckdb})"


@scalar(_SECTION, "map_filter", "map, (k, v) -> condition", "map", "entries for which it is true", lambdas=1)
def _map_filter(call: Call) -> Typed:
    value, body, name, entries = _entry_wise(call)
    body = boolean(body, "the function", call.offset)
    kept = f"map_from_entries(list_filter({entries}, lambda {name}: {body.duckdb}))"
    duckdb = f"CASE WHEN {value.duckdb} IS NOT NULL THEN {kept} END"
    return _made(call, value.type, duckdb, (value,), (body,), _any_error(entries, name, body), nullable=False)


@scalar(_SECTION, "transform_values", "map, (k, v) -> value", "map", "", lambdas=1)
def _transform_values(call: Call) -> Typed:
    value, body, name, entries = _entry_wise(call)
    values = f"list_transform({entries}, lambda {name}: {body.duckdb})"
    duckdb = f"CASE WHEN {value.duckdb} IS NOT NULL THEN MAP(map_keys({value.duckdb}), {values}) END"
    kind = map_of(parts(value.type)[0], body.type)
    return _made(call, kind, duckdb, (value,), (body,), _any_error(entries, name, body), nullable=False)


@scalar(_SECTION, "transform_keys", "map, (k, v) -> key", "map", "raises for a NULL key or one key twice", lambdas=1)
def _transform_keys(call: Call) -> Typed:
    value, body, name, entries = _entry_wise(call)
    if not comparable(body.type) or body.type.name in ("float", "double", "binary"):
        raise call.error(f"{body.type} cannot be a key", "P106", "cast(… as string)")
    keys = f"list_transform({entries}, lambda {name}: {body.duckdb})"
    made = f"TRY(MAP({keys}, map_values({value.duckdb})))"
    duckdb = f"CASE WHEN {value.duckdb} IS NOT NULL THEN {made} END"
    kind = map_of(body.type, parts(value.type)[1])
    own = any_of(_any_error(entries, name, body), f"{made} IS NULL")
    return _made(call, kind, duckdb, (value,), (body,), own, nullable=False)
