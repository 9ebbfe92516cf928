"""JSON lines: strict on every odd record, equal on both paths, and no record lost."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import ConfigError
from lodestream.formats.json import JsonFormat, JsonSettings
from lodestream.model.types import Column, Schema, parse_type
from lodestream.ports.source import Decoded, Reading
from tests.formats.corpus import RECORDS, SCHEMA
from tests.formats.records import messy_lines, messy_schema
from tests.native import FORMS

FORM: list[object] = [None]
"""The kernels that the tests run with: all of them run with each form."""


@pytest.fixture(params=FORMS, autouse=True, scope="module")
def form(request):
    FORM[0] = request.param


def made(schema: Schema = SCHEMA, drift: str = "quarantine", keep_raw: bool = False, fast: bool = True, **settings):
    reading = Reading(schema, keep_raw, drift, "/")
    return JsonFormat(JsonSettings(**settings), reading, fast=fast, kernels=FORM[0])


def outcome(decoded: Decoded) -> dict[int, object]:
    rows = {r.pop("_position"): {k: v for k, v in r.items() if k[0] != "_"} for r in decoded.rows.to_pylist()}
    rejects = {r["_position"]: r["_reasons"] for r in decoded.rejects.to_pylist()}
    assert not set(rows) & set(rejects)
    return dict(sorted((rows | rejects).items()))


@pytest.mark.parametrize(("record", "expected"), [r[1:] for r in RECORDS], ids=[r[0] for r in RECORDS])
def test_an_odd_record_is_decoded_exactly_or_rejected_with_its_reason(record, expected):
    got = outcome(made().decode(record + b"\n", "u", 1))
    assert repr(got) == repr({1: expected})


def test_the_whole_corpus_among_good_rows_gives_the_same():
    lines, expected, at = [], {}, 1
    for _, record, want in RECORDS:
        for line, becomes in [(b'{"id":7,"name":"x"}', {c.name: None for c in SCHEMA} | {"id": 7, "name": "x"})] * 3 + [
            (record, want)
        ]:
            lines.append(line)
            expected[at] = becomes
            at += len(line) + 1
    assert len(RECORDS) >= 60
    assert repr(outcome(made().decode(b"\n".join(lines), "u", 1))) == repr(expected)


def test_rejects_keep_their_bytes_and_positions():
    decoded = made().decode(b'{"id":1}\r\n\n  \n{"id":x}\r\n{"id":2}', "f.jsonl", 100)
    assert decoded.rows["_position"].to_pylist() == [100, 124]
    assert decoded.rejects.to_pylist() == [
        {"_source": "f.jsonl", "_position": 114, "_reasons": ["parse:json"], "_raw": b'{"id":x}', "_detail": None}
    ]


def test_keep_raw_gives_the_line_without_its_end():
    for data in (b'{"id":1}\r\n{"id":2}\n', b'{"id":1}\n' * 100):
        decoded = made(keep_raw=True).decode(data, "u", 0)
        assert decoded.rows["_raw"].to_pylist()[:2] == [b'{"id":1}', data.split(b"\n")[1]]


def test_a_byte_order_mark_is_passed_over_at_the_start_of_a_file_only():
    assert outcome(made().decode(b'\xef\xbb\xbf{"id":1}\n', "u", 0))[0]["id"] == 1
    assert outcome(made().decode(b"\xef\xbb\xbf\n", "u", 0)) == {}
    assert outcome(made().decode(b"\xef\xbb\xbf", "u", 0)) == {}
    assert outcome(made().decode(b'\xef\xbb\xbf{"id":1}\n', "u", 5)) == {5: ["parse:json"]}


def test_no_bytes_give_no_rows():
    assert outcome(made().decode(b"", "u", 0)) == {}
    assert outcome(made().decode(b"\n\r\n \t\n", "u", 0)) == {}


def test_a_long_row_is_cut_and_rejected():
    line = b'{"name":"' + b"x" * 5000 + b'"}'
    decoded = made(row_bytes_max=1024).decode(b'{"id":1}\n' * 50 + line + b"\n", "u", 0)
    assert decoded.rows.num_rows == 50
    assert decoded.rejects["_reasons"].to_pylist() == [["parse:size"]]
    assert decoded.rejects["_raw"].to_pylist() == [line[:1024]]


def check_paths_agree(seed, **options):
    chance = random.Random(f"{seed}{options}")
    data = messy_lines(chance, chance.choice([40, 200, 900]))
    fast, exact = made(messy_schema(), **options), made(messy_schema(), **options, fast=False)
    want = exact.decode(data, "u", 0)
    for _ in range(2):  # with templates learnt, too
        got = fast.decode(data, "u", 0)
        assert got.rows.equals(want.rows)
        assert got.rejects.equals(want.rejects)
        assert got.found == want.found


OPTIONS = [
    {"drift": drift, "keep_raw": keep_raw, "timestamps": timestamps}
    for drift in ("quarantine", "add", "widen")
    for keep_raw in (False, True)
    for timestamps in ("iso", "millis")
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_the_fast_path_decodes_what_the_exact_path_decodes(options):
    for seed in range(4):
        check_paths_agree(seed, **options)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4, 204))
def test_the_fast_path_decodes_what_the_exact_path_decodes_on_many_streams(seed):
    check_paths_agree(seed, **OPTIONS[seed % len(OPTIONS)])


@pytest.mark.parametrize(
    ("good", "bad", "reasons"),
    [
        (b'{"id":1,"name":"aaaa"}', b'{"id":1,"name":"x","name":"y"}', ["parse:duplicate_key"]),
        (b'{"id":1,"name":"aaaaaaaaaaaaaaa"}', b'{"id":1,"name":"x","id":2,"a":"y"}', ["parse:duplicate_key"]),
        (b'{"name":"aaaaaaaaaa","id":1}', b'{"name":"a","new":"b","id":1}', ["drift:new"]),
        (b"{}", b"{}}", ["parse:json"]),
        (b"{}", b"{}x{}", ["parse:json"]),
        (b'{"id":12}', b'{"id":1}2}', ["parse:json"]),
        (b'{"id":12}', b'{"id":}', ["parse:json"]),
        (b'{"id":12,"ok":true}', b'{"id":1,"small":2,"ok":true}', None),
    ],
)
def test_a_record_that_looks_like_the_others_is_told_from_them(good, bad, reasons):
    decoded = made().decode((good + b"\n") * 100 + bad + b"\n" + (good + b"\n") * 100, "u", 1)
    assert decoded.rows.num_rows == (200 if reasons else 201)
    assert decoded.rejects["_reasons"].to_pylist() == ([reasons] if reasons else [])
    if not reasons:
        assert decoded.rows.to_pylist()[100]["small"] == 2


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_most_clean_rows_take_the_fast_path(monkeypatch, end):
    schema = Schema((Column("id", parse_type("bigint")), Column("at", parse_type("timestamp"))))
    lines = [b'{"id":%d,"at":"2024-01-01T00:00:%02dZ"}' % (i, i % 60) for i in range(500)]
    lines[3:400:40] = [b'{"id":%d}' % i for i in range(10)]
    decoder = made(schema)
    seen = []
    exact = decoder._exact.decode
    monkeypatch.setattr(decoder._exact, "decode", lambda b, s, *rest: seen.append(len(s)) or exact(b, s, *rest))
    assert decoder.decode(end.join(lines), "u", 0).rows.num_rows == 500
    assert sum(seen) <= 10


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT, st.lists(st.integers(), max_size=2)
)
RECORD = st.one_of(
    st.dictionaries(st.sampled_from([c.name for c in SCHEMA]), VALUE, max_size=4).map(lambda d: json.dumps(d).encode()),
    st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")),
    st.just(b'{"id":1,"name":"x"}'),
)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(RECORD, max_size=80), cut=st.integers(0, 80), tail=st.sampled_from([b"", b"\n", b"\r\n"]))
def test_every_record_is_in_rows_or_rejects_once_however_the_data_is_split(lines, cut, tail):
    ends = [b"\n"] * max(0, len(lines) - 1) + [tail]
    data = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    expected, at = [], 7
    for line in data.split(b"\n"):
        if line.strip(b" \t\r"):
            expected.append(at)
        at += len(line) + 1
    whole = made().decode(data, "u", 7)
    assert sorted(outcome(whole)) == expected
    at = len(b"".join(line + end for line, end in zip(lines[:cut], ends, strict=False)))
    parts = [made().decode(data[:at], "u", 7), made().decode(data[at:], "u", 7 + at)]
    assert pa.concat_tables([p.rows for p in parts]).equals(whole.rows)
    assert pa.concat_tables([p.rejects for p in parts]).equals(whole.rejects)


def test_numbers_are_timestamps_only_when_asked():
    for unit, value in [("seconds", 1_700_000_000), ("millis", 1_700_000_000_000), ("micros", 1_700_000_000_000_000)]:
        data = b'{"at":%d}\n' % value * 60 + b'{"at":"2024-01-01T00:00:00Z"}\n{"at":1.5}\n'
        decoded = made(timestamps=unit).decode(data, "u", 0)
        assert {t.timestamp() for t in decoded.rows["at"].to_pylist()} == {1_700_000_000.0}
        assert decoded.rejects["_reasons"].to_pylist() == [["parse:at:type"]] * 2


def test_missing_values_of_a_column_that_has_no_null_are_rejected():
    schema = Schema((Column("id", parse_type("bigint"), nullable=False), Column("name", parse_type("string"))))
    data = b'{"id":1,"name":"x"}\n' * 50 + b'{"name":"x"}\n{"id":null}\n'
    decoded = made(schema).decode(data, "u", 0)
    assert decoded.rows.num_rows == 50
    assert decoded.rejects["_reasons"].to_pylist() == [["parse:id:null"]] * 2


def test_drift_add_reports_new_columns_and_decodes_the_others():
    data = b'{"id":1}\n' * 40 + b'{"id":2,"new":1,"on":"2024-01-01T00:00:00Z","x":null}\n{"id":3,"new":1.5,"on":"z"}\n'
    decoded = made(drift="add").decode(data, "u", 0)
    assert decoded.rows.num_rows == 42
    assert {c.name: str(c.type) for c in decoded.found} == {"new": "double", "on": "string"}


def test_drift_widen_reports_the_type_that_would_hold_the_value():
    schema = Schema((Column("n", parse_type("int")), Column("s", parse_type("string"))))
    decoded = made(schema, drift="widen").decode(b'{"n":3000000000}\n{"n":1}\n{"s":1}\n', "u", 0)
    assert outcome(decoded) == {0: ["drift:n"], 17: {"n": 1, "s": None}, 25: ["parse:s:type"]}
    assert {c.name: str(c.type) for c in decoded.found} == {"n": "bigint"}


def test_drift_stop_names_the_field_and_the_fix():
    with pytest.raises(ConfigError, match=r"declare the column.*field='new'"):
        made(drift="stop").decode(b'{"id":1}\n' * 40 + b'{"new":1}\n', "u", 0)


def test_columns_are_inferred_from_a_sample():
    sample = (
        b'{"a":1,"b":"x","c":null,"d":"2024-01-01T00:00:00Z"}\n{"a":1.5,"c":true,"e":{"f":[1]},"g":1}\nx\n{"g":"t"}\n'
    )
    found = made().infer(sample)
    assert {c.name: str(c.type) for c in found} == {
        "a": "double", "b": "string", "d": "timestamp", "c": "boolean", "e": "struct<f:array<bigint>>",
    }  # fmt: skip


@pytest.mark.parametrize("count", [3, 100])
def test_messages_are_records_with_positions_of_their_own(count):
    values = [b'{"id": %d, "name": "n%d"}' % (i, i) for i in range(count)]
    values[1] = b'{"id": 1,\n "name": "over two lines"}'
    values[2] = b'{"id": 2, "name": "a line\nend in a string"}'
    values += [b"", b'{"id": 7}{"id": 8}']
    form = made(Schema((Column("id", parse_type("bigint")), Column("name", parse_type("string")))), keep_raw=True)
    decoded = form.decode_messages(pa.array(values, pa.binary())[1:], "t/0", np.arange(len(values) - 1) * 2 + 10)
    good = [i for i in range(1, count) if i != 2]
    assert decoded.rows["_position"].to_pylist() == [8 + 2 * i for i in good]
    assert decoded.rows["id"].to_pylist() == good
    assert decoded.rows["_raw"].to_pylist() == [values[i] for i in good]
    assert decoded.rejects["_position"].to_pylist() == [12, 8 + 2 * count, 10 + 2 * count]
    assert {reason for reasons in decoded.rejects["_reasons"].to_pylist() for reason in reasons} == {"parse:json"}
