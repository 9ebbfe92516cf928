"""Which type holds the values of two others: what drift and inference agree on."""

from __future__ import annotations

from collections.abc import Container, Iterable

from lodestream.model.types import DOUBLE, STRING, Column, DataType, Schema

_RANK = {"tinyint": 0, "smallint": 1, "int": 2, "bigint": 3}
_DIGITS = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 19}


def unify(one: DataType, other: DataType) -> DataType | None:
    """The narrowest type that holds every value of both exactly (double for whole numbers with fractions), or None."""
    if one == other:
        return one
    a, b = one.name, other.name
    if one.is_numeric and other.is_numeric:
        return _unify_numbers(one, other)
    if {a, b} == {"timestamp", "string"} or {a, b} == {"date", "string"}:
        return STRING
    if a == b == "array":
        assert one.element
        assert other.element
        element = unify(one.element, other.element)
        return DataType("array", element=element) if element else None
    if a == b == "struct":
        merged = unify_schemas([Schema(one.fields), Schema(other.fields)])
        return DataType("struct", fields=merged.columns)
    return None


def _unify_numbers(one: DataType, other: DataType) -> DataType:
    a, b = one.name, other.name
    if a in _RANK and b in _RANK:
        return one if _RANK[a] >= _RANK[b] else other
    if "double" in (a, b) or "float" in (a, b):
        return DOUBLE
    scale = max(one.scale, other.scale)
    whole = max(_DIGITS.get(a, one.precision - one.scale), _DIGITS.get(b, other.precision - other.scale))
    return DataType("decimal", whole + scale, scale) if whole + scale <= 38 else DOUBLE


def unify_schemas(schemas: Iterable[Schema]) -> Schema:
    """All columns of all schemas in order of first sight; where types do not unify the column is left out.

    Tables know no two names that differ in case only, so that of such names the first one stays.
    """
    kinds: dict[str, DataType | None] = {}
    spelled: dict[str, str] = {}
    for schema in schemas:
        for column in schema:
            if spelled.setdefault(column.name.lower(), column.name) != column.name:
                continue
            if column.name not in kinds:
                kinds[column.name] = column.type
            elif (kind := kinds[column.name]) is not None:
                kinds[column.name] = unify(kind, column.type)
    return Schema(tuple(Column(name, kind) for name, kind in kinds.items() if kind))


def may_become_column(name: str, taken: Container[str]) -> bool:
    """Whether drift may make a column of a field with this name.

    Args:
        name: the field.
        taken: names that the table has already, in lower case.
    """
    return bool(name) and name.isprintable() and name == name.strip() and name[0] != "_" and name.lower() not in taken


def wider(declared: DataType, seen: DataType) -> DataType | None:
    """What `declared` would have to become to hold `seen` too, when that changes no number it holds already; else None.

    A bigint never becomes a double: beyond 2^53 its values would change.
    """
    if not (declared.is_numeric and seen.is_numeric):
        return None
    kind = _unify_numbers(declared, seen)
    return kind if kind != declared and widens(declared, kind) else None


def widens(seen: DataType, declared: DataType) -> bool:
    """Whether every value of `seen` is a value of `declared`, unchanged."""
    if seen == declared:
        return True
    a, b = seen.name, declared.name
    if a in _RANK and b in _RANK:
        return _RANK[a] <= _RANK[b]
    if b == "double":
        return a in ("tinyint", "smallint", "int", "float")
    if b == "float":
        return a in ("tinyint", "smallint")
    if b == "decimal":
        whole = _DIGITS.get(a, seen.precision - seen.scale if a == "decimal" else 99)
        return whole <= declared.precision - declared.scale and seen.scale <= declared.scale
    if a == b == "array":
        assert seen.element
        assert declared.element
        return widens(seen.element, declared.element)
    if a == b == "struct":
        return [f.name for f in seen.fields] == [f.name for f in declared.fields] and all(
            widens(x.type, y.type) for x, y in zip(seen.fields, declared.fields, strict=True)
        )
    return False
