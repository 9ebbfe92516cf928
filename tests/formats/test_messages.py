"""Messages of CSV, JSON and Avro: each is one record or a reject, whatever its bytes and whatever stands around it."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import ConfigError
from lodestream.formats.csv import CsvFormat, CsvSettings
from lodestream.formats.json import JsonFormat, JsonSettings
from lodestream.formats.parquet import ParquetFormat, ParquetSettings
from lodestream.ports.source import Reading
from tests.formats.avro_cases import outcome
from tests.formats.avro_values import columns

WANTED = columns(a="string", b="int")
CSV = CsvFormat, CsvSettings
JSON = JsonFormat, JsonSettings


def decode(form, messages, wanted=WANTED, kind=pa.binary(), **given_):  # noqa: B008
    made = form[0](form[1](**given_), Reading(wanted, True, "quarantine", "/"))
    around = [b'junk",\n', *messages, b'"junk']
    values = pa.array(around, kind).slice(1, len(messages))
    return made.decode_messages(values, "t-0", np.arange(len(messages)) * 3 + 5)


ONE = {"a": "x", "b": 1}
CSV_MESSAGES = [
    (b"x,1", ONE),
    (b"x,1\n", ONE),
    (b"x,1\r\n", ONE),
    (b'"p\nq",2', {"a": "p\nq", "b": 2}),
    (b'"p\r\nq",2\r\n', {"a": "p\r\nq", "b": 2}),
    (b'"x""y",1', {"a": 'x"y', "b": 1}),
    (b" x,1", {"a": " x", "b": 1}),
    (b",", {"a": None, "b": None}),
    (b'"",', {"a": "", "b": None}),
    (b"p\nq,2", ["parse:columns"]),
    (b"x,1\nx,2", ["parse:columns"]),
    (b"x,1\n\n", ["parse:columns"]),
    (b"x,1\r", ["parse:b:type"]),
    (b'"a",3"', ["parse:quote"]),
    (b'"', ["parse:quote"]),
    (b'"a', ["parse:quote"]),
    (b',4"', ["parse:quote"]),
    (b"", ["parse:columns"]),
    (b"\n", ["parse:columns"]),
    (b"\xef\xbb\xbfx,1", ["parse:bom"]),
    (b"\xff,1", ["parse:utf8"]),
    (b"\xc3", ["parse:utf8"]),
    (b"\xa4,1", ["parse:utf8"]),
    (b"a\0b,1", {"a": "a\0b", "b": 1}),
]
JSON_MESSAGES = [
    (b'{"a":"x","b":1}', ONE),
    (b'{"a":"x",\r\n"b":1}\r\n', ONE),
    (b' {"a":"x","b":1} ', ONE),
    (b"{}", {"a": None, "b": None}),
    (b"", ["parse:json"]),
    (b" ", ["parse:json"]),
    (b"\xef\xbb\xbf{}", ["parse:json"]),
    (b'{"a":"', ["parse:json"]),
    (b'","b":1}', ["parse:json"]),
    (b'{"a":"\n"}', ["parse:json"]),
    (b"{}{}", ["parse:json"]),
    (b"{}\n{}", ["parse:json"]),
    (b'{"a":"\xff"}', ["parse:utf8"]),
    (b'{"a":"\xc3', ["parse:utf8"]),
    (b'\xa4"}', ["parse:utf8"]),
    (b"[]", ["parse:object"]),
]


@pytest.mark.parametrize("around", [0, 1, 40])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
@pytest.mark.parametrize(("form", "cases"), [(CSV, CSV_MESSAGES), (JSON, JSON_MESSAGES)], ids=["csv", "json"])
def test_an_odd_message_is_exact_or_a_reject_and_touches_no_other(form, cases, kind, around):
    good = cases[0]
    messages, expected = [], {}
    for case in cases:
        for body, becomes in [good] * around + [case]:
            expected[len(messages)] = becomes
            messages.append(body)
    decoded = decode(form, messages, kind=kind)
    assert outcome(decoded) == expected
    raw = {
        p: r
        for t in (decoded.rows, decoded.rejects)
        for p, r in zip(*(t[c].to_pylist() for c in ("_position", "_raw")), strict=True)
    }
    assert [raw[i * 3 + 5] for i in range(len(messages))] == messages


@pytest.mark.parametrize("form", [CSV, JSON], ids=["csv", "json"])
def test_a_message_of_16_mib_and_more_is_exact_or_cut(form):
    text = "ä" * (8 << 20)
    body = f"{text},1".encode() if form is CSV else json.dumps({"a": text, "b": 1}, ensure_ascii=False).encode()
    small = b"x,1" if form is CSV else b'{"a":"x","b":1}'
    got = outcome(decode(form, [small, body, small], row_bytes_max=20 << 20))
    assert got == {0: ONE, 1: {"a": text, "b": 1}, 2: ONE}
    decoded = decode(form, [small] * 40 + [body] + [small] * 40, row_bytes_max=1 << 20)
    assert outcome(decoded) == {i: ONE if i != 40 else ["parse:size"] for i in range(81)}
    assert len(decoded.rejects["_raw"][0].as_py()) == 1 << 20


TEXT = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), st.sampled_from('",\n\\{')), max_size=6
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(TEXT, st.integers(-5, 5)), min_size=1, max_size=40),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
)
def test_csv_messages_equal_what_python_wrote(records, quoting):
    messages = []
    for text, number in records:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n", quoting=quoting).writerow([text, number])
        messages.append(out.getvalue().encode())
    got = outcome(decode(CSV, messages, nulls=[]))
    bom = "\ufeff"
    assert got == {
        i: ["parse:bom"]
        if text.startswith(bom) and quoting == csv.QUOTE_MINIMAL and messages[i][:1] == b"\xef"
        else {"a": text, "b": number}
        for i, (text, number) in enumerate(records)
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXT, st.integers(-5, 5)), min_size=1, max_size=60), st.sampled_from([None, 1]))
def test_json_messages_equal_what_python_wrote(records, indent):
    messages = [
        json.dumps({"a": text, "b": number}, indent=indent, ensure_ascii=number > 0).encode()
        for text, number in records
    ]
    assert outcome(decode(JSON, messages)) == {i: {"a": text, "b": number} for i, (text, number) in enumerate(records)}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=8), st.sampled_from([m for m, _ in CSV_MESSAGES + JSON_MESSAGES])),
        min_size=2,
        max_size=50,
    )
)
def test_any_bytes_alone_give_what_they_give_among_others(messages):
    for form in (CSV, JSON):
        together = outcome(decode(form, messages))
        assert together == {i: outcome(decode(form, [message]))[0] for i, message in enumerate(messages)}


def test_one_column_of_csv_has_no_empty_message():
    wanted = columns(a="string")
    got = outcome(decode(CSV, [b"x", b"", b"\n", b'""', b"a\nb", b'"a\nb"'], wanted))
    assert got == {
        0: {"a": "x"},
        1: ["parse:columns"],
        2: ["parse:columns"],
        3: {"a": ""},
        4: ["parse:columns"],
        5: {"a": "a\nb"},
    }


def test_parquet_has_no_messages():
    with pytest.raises(ConfigError, match="parquet is for files"):
        decode((ParquetFormat, ParquetSettings), [b"PAR1"])
