"""JSON values: what the `json` format reads back, and what strangers' parsers make of them."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa

from lodestream.formats._json_text import json_objects, texts
from lodestream.formats.json import component as JsonFormat  # noqa: N812 - a class under its room's name
from lodestream.model.arrow import from_arrow
from lodestream.ports.source import Reading

ROWS = pa.table({
    "flag": pa.array([True, False, None]),
    "small": pa.array([1, -128, None], pa.int8()),
    "big": pa.array([2**62, -(2**62), None]),
    "ratio": pa.array([0.1, -1e300, None]),
    "money": pa.array([Decimal("12345678901234567890.1200"), Decimal("-0.0001"), None], pa.decimal128(38, 4)),
    "text": pa.array(['"quotes" \\ and \n lines', "é\u2028 plain", None]),
    "day": pa.array([dt.date(2024, 2, 29), dt.date(1, 1, 1), None]),
    "at": pa.array([0, 1_700_000_000_123_456, None], pa.timestamp("us", tz="UTC")),
    "many": pa.array([[1, None], [], None], pa.list_(pa.int64())),
    "inside": pa.array([{"a": 1, "b": "x"}, {"a": None, "b": None}, None]),
})  # fmt: skip


def test_the_json_format_reads_back_what_was_written():
    lines = json_objects(ROWS)
    schema = from_arrow(ROWS.schema)
    form = JsonFormat(JsonFormat.settings(), Reading(schema, False, "quarantine", "/"))
    decoded = form.decode_messages(pa.array(lines, pa.binary()), "u", np.arange(len(lines)))
    assert not len(decoded.rejects), decoded.rejects.to_pylist()
    assert decoded.rows.select(ROWS.column_names).to_pylist() == ROWS.to_pylist()


def test_any_parser_reads_it():
    first, second, third = map(json.loads, json_objects(ROWS))
    assert first["text"] == '"quotes" \\ and \n lines'
    assert json.loads(json_objects(ROWS)[0], parse_float=str)["money"] == "12345678901234567890.1200"
    assert (first["at"], second["at"]) == ("1970-01-01T00:00:00Z", "2023-11-14T22:13:20.123456Z")
    assert set(third.values()) == {None}


def test_what_json_does_not_have_is_text():
    odd = pa.table({
        "x": [float("nan"), float("inf"), 1.0],
        "raw": pa.array([b"\x00\xff", b"", None], pa.binary()),
        "map": pa.array([[("k", Decimal("1.10"))], [], None], pa.map_(pa.string(), pa.decimal128(5, 2))),
        "deep": pa.array([[dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], None, []], pa.list_(pa.timestamp("us", tz="UTC"))),
    })  # fmt: skip
    assert json_objects(odd) == [
        b'{"x":"nan","raw":"AP8=","map":{"k":1.10},"deep":["2024-01-01T00:00:00Z"]}',
        b'{"x":"inf","raw":"","map":[],"deep":null}',
        b'{"x":1,"raw":null,"map":null,"deep":[]}',
    ]


def test_no_rows_and_no_columns():
    assert json_objects(ROWS.slice(0, 0)) == []
    assert json_objects(pa.table({"a": [1, 2]}).select([])) == [b"{}", b"{}"]


def test_texts_are_bare():
    assert texts(pa.chunked_array([["null", "a", None]])) == ["null", "a", None]
    assert texts(pa.chunked_array([[1.5, None]])) == ["1.5", None]
    assert texts(pa.chunked_array([[dt.date(2024, 1, 2), None]])) == ["2024-01-02", None]
