"""Rows set aside come back exactly as they went."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from lodestream.engines.embedded.rejects import decode_rows, encode_rows
from lodestream.model.arrow import to_arrow
from lodestream.model.types import Column, Schema, parse_type


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("string", ["", "a", "ü\u0301🙂", None]),
        ("bigint", [-(2**63), 2**63 - 1, None]),
        ("decimal(38,10)", [Decimal("-1234567890123456789012345678.0123456789"), None]),
        ("double", [0.1, -0.0, 1e308, float("inf"), None]),
        ("boolean", [True, False, None]),
        ("date", [date(1, 1, 1), date(9999, 12, 31), None]),
        ("timestamp", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), None]),
        ("binary", [b"", b"\x00\xff", None]),
        ("array<struct<a:int,b:timestamp>>", [[{"a": 1, "b": datetime(2024, 1, 1, tzinfo=UTC)}, None], [], None]),
        ("map<string,decimal(5,2)>", [[("k", Decimal("1.25"))], [], None]),
    ],
)
def test_every_type_survives(kind: str, values: list[object]) -> None:
    schema = Schema((Column("v", parse_type(kind)),))
    rows = pa.table([pa.array(values, to_arrow(schema).field("v").type)], names=["v"])
    assert decode_rows(encode_rows(rows), schema).column("v").to_pylist() == rows.column("v").to_pylist()


def test_times_beyond_the_calendar_survive() -> None:
    schema = Schema((Column("v", parse_type("timestamp")),))
    micros = [2**62, -(2**62), 0, None]
    rows = pa.table([pa.array(micros, pa.timestamp("us", tz="UTC"))], names=["v"])
    assert decode_rows(encode_rows(rows), schema).column("v").cast(pa.int64()).to_pylist() == micros
