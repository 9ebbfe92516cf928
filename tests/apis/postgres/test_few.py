"""A few rows are written byte by byte as many are."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.apis.postgres import few, rows
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import parse_type

VALUES = {
    "boolean": st.booleans(),
    "tinyint": st.integers(-128, 127),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "int": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats() | st.floats(-1e10, 1e10) | st.integers(-(10**12), 10**12).map(float),
    "string": st.text(),
    "binary": st.binary(),
    "date": st.dates(),
    "timestamp": st.datetimes(timezones=st.just(dt.UTC)),
    "decimal(12,2)": st.decimals(-(10**9), 10**9, places=2),
    "decimal(38,10)": st.decimals(-(10**20), 10**20, places=10) | st.just(Decimal("0E-10")),
    "decimal(5,0)": st.integers(-99999, 99999).map(Decimal),
    "array<bigint>": st.lists(st.none() | st.integers(-5, 5)),
    "array<string>": st.lists(st.none() | st.text(max_size=3)),
    "struct<a:int,b:string>": st.fixed_dictionaries({"a": st.none() | st.integers(-5, 5), "b": st.none() | st.text()}),
}


def as_many(batch, formats, monkeypatch):
    monkeypatch.setattr(few, "ROWS_MAX", -1)
    try:
        return rows.data_rows(batch, formats)
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("form", [0, 1])
def test_the_same_bytes(kind, form):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.none() | VALUES[kind], min_size=1, max_size=few.ROWS_MAX), st.integers(0, 2))
    def holds(values, skip):
        column = pa.array([None] * skip + values, to_arrow_type(parse_type(kind))).slice(skip)
        batch = pa.record_batch({"a": column, "b": column})
        with pytest.MonkeyPatch.context() as patch:
            assert few.data_rows(batch, [form, form]) == as_many(batch, [form, form], patch)

    holds()


def test_a_time_that_python_does_not_have_is_left_to_arrow(monkeypatch):
    batch = pa.record_batch({"a": pa.array([300_000_000_000_000_000], pa.timestamp("us", "UTC"))})
    assert few.data_rows(batch, [0]) is None
    assert rows.data_rows(batch, [0]) == as_many(batch, [0], monkeypatch)
