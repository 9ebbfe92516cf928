"""Reads the recorded answers of Spark and shows results of DuckDB in the same form."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import Column, DataType, Schema, parse_type

ROWS = Path(__file__).parent / "rows"


def load(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    head, *cases = (json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text("utf-8").splitlines())
    return head, cases


def naive(kind: pa.DataType) -> pa.DataType:
    """The type as the engine hands it to DuckDB: timestamps without a zone."""
    return pa.timestamp("us") if pa.types.is_timestamp(kind) else kind


def decode(value: Any, kind: DataType) -> Any:
    """A recorded input as Arrow takes it."""
    if value is None:
        return None
    if kind.name == "array":
        assert kind.element
        return [decode(item, kind.element) for item in value]
    if kind.name == "map":
        key, item = kind.key, kind.element
        assert key
        assert item
        return [(decode(k, key), decode(v, item)) for k, v in value]
    if kind.name == "struct":
        return {name: decode(v, field.type) for (name, v), field in zip(value, kind.fields, strict=True)}
    if kind.name == "binary":
        return bytes.fromhex(value)
    if kind.name in ("double", "float"):
        return float(value)
    if kind.name == "decimal":
        return Decimal(value)
    if kind.name == "date":
        return dt.date.fromisoformat(value)
    if kind.name == "timestamp":
        return dt.datetime.fromisoformat(value).replace(tzinfo=None)
    return value


def table(columns: list[list[str]], rows: list[list[Any]]) -> tuple[Schema, pa.Table]:
    kinds = [parse_type(kind) for _, kind in columns]
    arrays = [
        pa.array([decode(row[i], kind) for row in rows], naive(to_arrow_type(kind))) for i, kind in enumerate(kinds)
    ]
    schema = Schema(tuple(Column(name, kind) for (name, _), kind in zip(columns, kinds, strict=True)))
    return schema, pa.table(arrays, names=[name for name, _ in columns])


def seen(value: Any, kind: DataType) -> Any:
    """A DuckDB result in the form in which Spark's is recorded."""
    if value is None:
        return None
    if kind.name == "array":
        assert kind.element
        return [seen(item, kind.element) for item in value]
    if kind.name == "map":
        assert kind.key
        assert kind.element
        return [[seen(key, kind.key), seen(item, kind.element)] for key, item in value]
    if kind.name == "struct":
        return [seen(value[field.name], field.type) for field in kind.fields]
    if kind.name == "binary":
        return bytes(value).hex()
    if kind.name in ("date", "timestamp") and not isinstance(value, int):
        return value.isoformat()
    if kind.name in ("double", "float"):
        return repr(value)
    return str(value) if kind.name == "decimal" else value


def results(column: pa.ChunkedArray, kind: DataType) -> list[Any]:
    """A result column in the recorded form: days, microseconds, texts of decimals and doubles."""
    if kind.name == "date":
        column = column.cast(pa.int32())
    if kind.name == "timestamp":
        column = column.cast(pa.int64())
    return [seen(value, kind) for value in column.to_pylist()]


WILD_SCHEMA = Schema(
    tuple(
        Column(name, parse_type(kind))
        for name, kind in {
            "a": "int",
            "b": "int",
            "l": "bigint",
            "x": "double",
            "m": "decimal(12,2)",
            "w": "decimal(38,2)",
            "s": "string",
            "u": "string",
            "d": "date",
            "t": "timestamp",
            "p": "boolean",
            "r": "array<int>",
            "q": "struct<c:int,n:struct<v:string>>",
            "y": "binary",
        }.items()
    )
)
"""One column of every kind."""
