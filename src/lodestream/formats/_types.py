"""Infers types from values and finds the type that holds two of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lodestream.formats._times import is_timestamp
from lodestream.formats._values import BadValueError, converter, from_text
from lodestream.model.types import BIGINT, BOOLEAN, DOUBLE, STRING, TIMESTAMP, Column, DataType, Schema

_RANK = {"tinyint": 0, "smallint": 1, "int": 2, "bigint": 3}
_DIGITS = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 19}
_BOUND = 1 << 63


def infer_type(value: Any) -> DataType | None:
    """The type of a value from `json.loads`; None when there is nothing to learn (null, empty) or nothing fits.

    Text becomes a timestamp only in full ISO 8601 form; whole numbers become bigint, or decimal(38,0) beyond it.
    """
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        if -_BOUND <= value < _BOUND:
            return BIGINT
        return DataType("decimal", 38, 0) if abs(value) < 10**38 else None
    if isinstance(value, float):
        return DOUBLE
    if isinstance(value, str):
        return TIMESTAMP if is_timestamp(value) else STRING
    if isinstance(value, Mapping):
        fields = [(name, infer_type(item)) for name, item in value.items()]
        known = tuple(Column(name, kind) for name, kind in fields if kind)
        return DataType("struct", fields=known) if known else None
    if isinstance(value, list):
        element: DataType | None = None
        for item in value:
            kind = infer_type(item)
            element = kind if element is None else (unify(element, kind) if kind else element)
            if kind and element is None:
                return None
        return DataType("array", element=element) if element else None
    return None


def infer_texts(columns: Mapping[str, Sequence[str]]) -> Schema:
    """Types that hold every text of a column: bigint, double, boolean, timestamp, else string; without texts none."""
    found: list[Column] = []
    for name, texts in columns.items():
        kind: DataType | None = None
        for text in texts:
            seen = _infer_text(text)
            kind = seen if kind is None else (unify(kind, seen) or STRING)
            if kind == STRING:
                break
        if kind:
            found.append(Column(name, kind))
    return Schema(tuple(found))


def _infer_text(text: str) -> DataType:
    for kind in (BIGINT, DOUBLE, BOOLEAN):
        try:
            converter(kind)(from_text(text, kind))
        except BadValueError:
            continue
        return kind
    return TIMESTAMP if is_timestamp(text) else STRING


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
    """All columns of all schemas in order of first sight; where types do not unify the column is left out."""
    kinds: dict[str, DataType | None] = {}
    for schema in schemas:
        for column in schema:
            if column.name not in kinds:
                kinds[column.name] = column.type
            elif (kind := kinds[column.name]) is not None:
                kinds[column.name] = unify(kind, column.type)
    return Schema(tuple(Column(name, kind) for name, kind in kinds.items() if kind))


def wider(declared: DataType, seen: DataType) -> DataType | None:
    """What `declared` would have to become to hold `seen` as well, when that is a widening of numbers; else None."""
    if not (declared.is_numeric and seen.is_numeric):
        return None
    kind = _unify_numbers(declared, seen)
    return kind if kind != declared else None


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
