"""Laws of the encoders: what is written is read back as it was, in text and in binary, whole batch or row by row."""

import datetime as dt
import struct
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.apis.postgres import encode, rows, types
from lodestream.apis.postgres.parameters import decode

TIMES = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def decimals(precision, scale):
    return st.integers(-(10**precision) + 1, 10**precision - 1).map(
        lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -scale))
    )


KINDS = [
    (pa.bool_(), st.booleans()),
    (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.string(), NAMES),
    (pa.time64("us"), st.times()),
    (pa.binary(), st.binary(max_size=12)),
    (pa.date32(), TIMES.map(dt.datetime.date)),
    (pa.timestamp("us", tz="UTC"), TIMES),
    (pa.decimal128(38, 10), decimals(38, 10)),
    (pa.decimal128(5, 2), decimals(5, 2)),
    (pa.decimal128(38, 0), decimals(38, 0)),
    (pa.decimal128(38, 38), decimals(38, 38)),
    (pa.decimal128(18, 9), decimals(18, 9)),
    (pa.list_(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=4)),
    (pa.list_(pa.string()), st.lists(st.none() | NAMES, max_size=4)),
    (pa.list_(pa.decimal128(9, 3)), st.lists(st.none() | decimals(9, 3), max_size=3)),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b", ""])),
    (pa.large_string(), NAMES),
    (pa.string_view(), NAMES),
]


@st.composite
def columns(draw, kind, values):
    found = draw(st.lists(st.none() | values, max_size=20))
    made = (
        pa.array(found, kind) if not pa.types.is_dictionary(kind) else pa.array(found, pa.string()).dictionary_encode()
    )
    start = draw(st.integers(0, len(found)))
    return made.slice(start), found[start:]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=lambda one: str(one) if isinstance(one, pa.DataType) else "")
def test_what_is_written_is_read_back(kind, values):
    oid = types.pg_type(kind).oid

    @given(columns(kind, values))
    def law(drawn):
        column, wanted = drawn
        for form, write in enumerate((encode.text, encode.binary)):
            told = write(column).view(pa.binary()) if len(column) else pa.array([], pa.binary())
            assert [decode(value, oid, form) for value in told.to_pylist()] == wanted

    law()


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_single_precision_has_as_many_digits_as_it_needs(values):
    column = pa.array(values, pa.float32())
    told = encode.text(column).to_pylist()
    assert pa.array([float(text) for text in told], pa.float32()) == column


def test_numbers_that_are_none():
    column = pa.array([float("inf"), float("-inf"), float("nan")])
    assert encode.text(column).to_pylist() == ["Infinity", "-Infinity", "NaN"]
    told = encode.binary(column).to_pylist()
    assert [struct.unpack(">d", one)[0] for one in told[:2]] == [float("inf"), float("-inf")]


@given(
    st.lists(
        st.tuples(*[st.none() | values for _, values in KINDS[:12]]), min_size=1, max_size=12
    ),
    st.lists(st.integers(0, 1), min_size=12, max_size=12),
)  # fmt: skip
def test_a_batch_is_its_rows_one_after_the_other(table, formats):
    arrays = [pa.array([row[place] for row in table], kind) for place, (kind, _) in enumerate(KINDS[:12])]
    batch = pa.record_batch(arrays, names=[str(place) for place in range(12)])
    whole = rows.data_rows(batch, formats)
    assert whole == b"".join(rows.data_rows(batch.slice(n, 1), formats) for n in range(len(table)))
    at, seen = 0, 0
    while at < len(whole):
        tag, length, count = struct.unpack(">cIH", whole[at : at + 7])
        assert (tag, count) == (b"D", 12)
        inner, end = at + 7, at + 1 + length
        for place, form in enumerate(formats):
            (size,) = struct.unpack(">i", whole[inner : inner + 4])
            value = None if size < 0 else whole[inner + 4 : inner + 4 + size]
            inner += 4 + max(size, 0)
            assert decode(value, types.pg_type(KINDS[place][0]).oid, form) == table[seen][place]
        assert inner == end
        at, seen = end, seen + 1
    assert seen == len(table)


def test_a_large_batch_is_built_in_parts():
    batch = pa.record_batch([pa.array(["x" * 100_000] * 2_000)], names=["a"])
    parts = list(rows.pieces_of(batch, batch.num_rows))
    assert len(parts) > 1
    assert sum(part.num_rows for part in parts) == 2_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-05-01 12:00:00+02", dt.datetime(2024, 5, 1, 10)), ("2024-05-01T12:00:00Z", dt.datetime(2024, 5, 1, 12)),
        ("2024-05-01 12:00:00.123456-04:30", dt.datetime(2024, 5, 1, 16, 30, 0, 123_456)),
        ("2024-05-01", dt.datetime(2024, 5, 1)),
        ("2024-05-01 24:00:00", dt.datetime(2024, 5, 2)),
    ],
)  # fmt: skip
def test_times_are_read_in_utc(text, value):
    assert decode(text.encode(), types.TIMESTAMPTZ.oid, 0) == value


def test_a_date_of_jdbc_has_a_zone():
    assert decode(b"2024-05-01 +02", types.DATE.oid, 0) == dt.date(2024, 5, 1)
