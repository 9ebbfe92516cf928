"""Infers types from values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lodestream.formats._times import is_timestamp
from lodestream.formats._values import BadValueError, converter, from_text
from lodestream.model.types import BIGINT, BOOLEAN, DOUBLE, STRING, TIMESTAMP, Column, DataType, Schema
from lodestream.model.widening import unify, unify_schemas

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
        known = unify_schemas([Schema((Column(name, kind),)) for name, kind in fields if name and kind])
        return DataType("struct", fields=known.columns) if known else None
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
