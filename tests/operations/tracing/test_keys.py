"""Keys are read as people write them, typed by the table's columns."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.errors import ConfigError
from lodestream.model.arrow import to_arrow
from lodestream.model.types import Column, Schema, parse_type
from lodestream.operations.tracing.keys import PositionKey, ValueKey, all_of, equal, parse_key
from lodestream.operations.tracing.plain import pairs

KINDS = {
    "id": "string", "n": "int", "at": "timestamp", "day": "date", "price": "decimal(12,2)", "ratio": "double",
    "ok": "boolean", "data": "binary", "tags": "array<string>", "_source": "string", "_position": "bigint",
}  # fmt: skip
SCHEMA = Schema(tuple(Column(name, parse_type(kind)) for name, kind in KINDS.items()))


def values(text: str) -> dict[str, object]:
    key = parse_key(text, SCHEMA, "silver.t")
    assert isinstance(key, ValueKey)
    return {test.column: test.value.as_py() for test in key.tests}


@pytest.mark.parametrize(
    ("text", "source", "position"),
    [
        ("2013-01.jsonl:204", "2013-01.jsonl", 204),
        ("a/b c.jsonl:0", "a/b c.jsonl", 0),
        ("year=2013/x.jsonl:7", "year=2013/x.jsonl", 7),
        ("a:b:9", "a:b", 9),
        ("_source=id=1.jsonl,_position=3", "id=1.jsonl", 3),
        ("_position=3,_source='x,_position=4'", "x,_position=4", 3),
    ],
)
def test_positions(text: str, source: str, position: int) -> None:
    assert parse_key(text, SCHEMA, "silver.t") == PositionKey(source, position)


def test_values_have_the_types_of_their_columns() -> None:
    found = values("id=a b, c,n=-7,at=2013-01-01T05:00:00Z,day=2013-01-01,price=1.5,ratio=0.1,ok=True,data=00ff")
    assert [str(value) for value in found.values()] == [
        "a b, c", "-7", "2013-01-01 05:00:00+00:00", "2013-01-01", "1.50", "0.1", "True", "b'\\x00\\xff'",
    ]  # fmt: skip
    assert values("at=2013-01-01T07:00:00+02:00") == values("at=2013-01-01T05:00") == values("at=2013-01-01 05:00:00")
    assert values("id=null,n=null") == {"id": None, "n": None}
    assert values("id='null'") == {"id": "null"}
    assert values("id='it''s, n=1',n=2") == {"id": "it's, n=1", "n": 2}
    assert values("id=") == {"id": ""}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "SOURCE:POSITION"),
        ("x.jsonl:", "window_start="),
        ("=1", "write one of the forms"),
        ("", "write one of the forms"),
        ("idd=1", "nearest='id'"),
        ("n=1.5", "type='int'"),
        ("n=3000000000", "type='int'"),
        ("price=1.005", r"decimal\(12,2\)"),
        ("ok=maybe", "example='true'"),
        ("day=January", "2013-01-01"),
        ("tags=a", "no key"),
        ("x:99999999999999999999", "too large"),
        ("\udcff.jsonl:1", "not UTF-8"),
    ],
)
def test_other_texts_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_key(text, SCHEMA, "silver.t")


TEXT = st.text(max_size=8) | st.sampled_from(["null", "'", '"', "a,n=2", " x ", "a=b"])
ROWS = st.fixed_dictionaries(
    {
        "id": st.none() | TEXT,
        "n": st.none() | st.integers(-(2**31), 2**31 - 1),
        "at": st.none() | st.datetimes(timezones=st.just(__import__("datetime").UTC)),
        "price": st.none() | st.decimals(-999, 999, places=2),
        "ratio": st.none() | st.floats(),
        "ok": st.none() | st.booleans(),
        "data": st.none() | st.binary(max_size=4),
    }
)


@given(ROWS)
def test_the_key_that_is_shown_for_a_row_finds_it(row: dict[str, object]) -> None:
    columns = Schema(tuple(column for column in SCHEMA if column.name in row))
    table = pa.Table.from_pylist([row], to_arrow(columns))
    key = parse_key(pairs(table.to_pylist()[0], columns.names), SCHEMA, "silver.t")
    assert isinstance(key, ValueKey)
    assert all_of(key.tests, table).to_pylist() == [True]
    tests = [equal(column.name, table.to_pylist()[0][column.name], column.type) for column in columns]
    assert all_of(tests, table).to_pylist() == [True]
    other = table.set_column(1, "n", pa.array([None if row["n"] == 1 else 1], pa.int32()))
    assert all_of(key.tests, other).to_pylist() == [False]
