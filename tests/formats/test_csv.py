"""CSV: typed strictly, quoted or not, and no record lost."""

from __future__ import annotations

import csv
import io
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import ConfigError
from lodestream.formats.csv import CsvFormat, CsvSettings
from lodestream.model.types import Column, Schema, parse_type
from lodestream.ports.source import Reading

SCHEMA = Schema(
    tuple(
        Column(n, parse_type(t))
        for n, t in [
            ("id", "bigint"), ("name", "string"), ("price", "double"), ("money", "decimal(10,2)"), ("day", "date"),
            ("at", "timestamp"), ("ok", "boolean"),
        ]
    )
)  # fmt: skip
HEAD = b"id,name,price,money,day,at,ok\n"
GOOD = b"1,x,1.5,2.50,2024-01-02,2024-01-02T03:04:05Z,true"


def made(schema=SCHEMA, drift="quarantine", keep_raw=False, **settings):
    return CsvFormat(CsvSettings(**settings), Reading(schema, keep_raw, drift, "/"))


def outcome(decoded):
    rows = {r.pop("_position"): {k: v for k, v in r.items() if k[0] != "_"} for r in decoded.rows.to_pylist()}
    rejects = {r["_position"]: r["_reasons"] for r in decoded.rejects.to_pylist()}
    assert not set(rows) & set(rejects)
    return rows | rejects


def test_good_rows_are_typed_and_keep_their_bytes():
    decoded = made(keep_raw=True).decode(GOOD + b"\r\n" + GOOD + b"\n", "f.csv", len(HEAD), HEAD)
    row = decoded.rows.to_pylist()[0]
    assert (row["id"], row["money"], row["day"], row["ok"]) == (1, Decimal("2.50"), date(2024, 1, 2), True)
    assert row["at"].isoformat() == "2024-01-02T03:04:05+00:00"
    assert decoded.rows["_raw"].to_pylist() == [GOOD, GOOD]
    assert decoded.rows["_position"].to_pylist() == [30, 30 + len(GOOD) + 2]


BAD = [
    (b"1,x", ["parse:columns"]),
    (b"1,x,1.5,2.50,2024-01-02,2024-01-02T03:04:05Z,true,more", ["parse:columns"]),
    (b"1.0,,,,,,", ["parse:id:type"]),
    (b"01,,,,,,", ["parse:id:type"]),
    (b"+1,,,,,,", ["parse:id:type"]),
    (b" 1,,,,,,", ["parse:id:type"]),
    (b"9223372036854775808,,,,,,", ["parse:id:range"]),
    (b",,NaN,,,,", ["parse:price:type"]),
    (b",,1e400,,,,", ["parse:price:range"]),
    (b",,,1.005,,,", ["parse:money:range"]),
    (b",,,,2023-02-29,,", ["parse:day:format"]),
    (b",,,,,2024-01-02,", ["parse:at:format"]),
    (b",,,,,,yes", ["parse:ok:type"]),
    (b"x,,y,,,,z", ["parse:id:type", "parse:price:type", "parse:ok:type"]),
    (b",a\"b,,,,,", ["parse:quote"]),
    (b',"a"b,,,,,', ["parse:quote"]),
    (b',"a,,,,,', ["parse:quote"]),
    (b",\xff,,,,,", ["parse:utf8"]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reasons"), BAD)
def test_a_bad_row_is_rejected_with_its_reasons_and_the_others_are_kept(line, reasons):
    decoded = made().decode(GOOD + b"\n" + line + b"\n" + GOOD + b"\n", "u", 0, HEAD)
    assert decoded.rows.num_rows == 2
    assert decoded.rejects.to_pylist() == [
        {"_source": "u", "_position": len(GOOD) + 1, "_reasons": reasons, "_raw": line, "_detail": None}
    ]


def test_nulls_are_unquoted_texts_of_the_list():
    data = b'NA,NA,NA,NA,NA,NA,NA\n,,,,,,\n1,"NA",,,,,\n1,"",,,,,\n'
    rows = made(nulls=("", "NA")).decode(data, "u", 0, HEAD).rows
    assert rows["id"].to_pylist() == [None, None, 1, 1]
    assert rows["name"].to_pylist() == [None, None, "NA", ""]
    assert rows["price"].null_count == rows["at"].null_count == rows["ok"].null_count == 4


def test_columns_are_found_by_name_in_any_order():
    schema = Schema((SCHEMA["price"], SCHEMA["id"]))
    assert outcome(made(schema).decode(b"1,2.5\n", "u", 0, b'\xef\xbb\xbfid, "price"\r\n')) == {0: ["parse:header"]}
    assert outcome(made(schema).decode(b"1,2.5\n", "u", 0, b'\xef\xbb\xbfid,"price"\r\n')) == {
        0: {"price": 2.5, "id": 1}
    }


@pytest.mark.parametrize(
    ("drift", "expected"),
    [("quarantine", {0: ["parse:name:missing", "drift:new"]}), ("add", {0: {"id": 1, "name": None}})],
)
def test_a_header_that_does_not_fit_follows_the_drift_policy(drift, expected):
    schema = Schema((SCHEMA["id"], SCHEMA["name"]))
    decoded = made(schema, drift).decode(b"1,2.5\n", "u", 0, b"id,new\n")
    assert outcome(decoded) == expected
    assert [(c.name, str(c.type)) for c in decoded.found] == ([("new", "double")] if drift == "add" else [])


def test_drift_stop_names_what_is_missing():
    with pytest.raises(ConfigError, match="missing=\\['name'\\]"):
        made(Schema((SCHEMA["id"], SCHEMA["name"])), "stop").decode(b"1\n", "u", 0, b"id\n")


@pytest.mark.parametrize("head", [b"", b"id,id\n", b"\xff\n", b'"id\n'])
def test_without_a_readable_header_every_row_is_rejected(head):
    assert outcome(made().decode(b"1\n2\n", "u", 0, head)) == {0: ["parse:header"], 2: ["parse:header"]}


def test_without_header_fields_are_in_declared_order():
    schema = Schema((SCHEMA["id"], SCHEMA["name"]))
    assert outcome(made(schema, header=False).decode(b"\xef\xbb\xbf1,x\n", "u", 0)) == {0: {"id": 1, "name": "x"}}


def test_other_delimiters_and_no_quotes():
    schema = Schema((SCHEMA["id"], SCHEMA["name"]))
    got = made(schema, delimiter="\t", quote=None).decode(b'1\t"x\n', "u", 0, b"id\tname\n")
    assert outcome(got) == {0: {"id": 1, "name": '"x'}}


def test_a_long_row_is_cut_and_rejected():
    line = b"1," + b"x" * 3000
    got = made(Schema((SCHEMA["id"], SCHEMA["name"])), row_bytes_max=1024).decode(line + b"\n1,y\n", "u", 0, b"id,name")
    assert got.rejects.to_pylist() == [
        {"_source": "u", "_position": 0, "_reasons": ["parse:size"], "_raw": line[:1024], "_detail": None}
    ]
    assert got.rows.num_rows == 1


TEXT = st.text(st.sampled_from('ab",\né0 '), max_size=6)


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), TEXT), min_size=1, max_size=30))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows):
    schema = Schema((SCHEMA["id"], SCHEMA["name"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "name"])
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text(out.getvalue(), newline="")
    whole = made(schema, multiline=True, nulls=())
    (part,) = whole.parts(str(path))
    assert part.rows == len(rows)
    cut = part.rows // 2
    pieces = [p for a, b in ((0, cut), (cut, part.rows)) for p in whole.read(str(path), "u", a, b)]
    got = [(r["id"], r["name"]) for p in pieces for r in p.rows.to_pylist()]
    assert got == rows
    flat = [(i, text.replace("\n", "")) for i, text in rows]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(flat)
    lines = made(schema, nulls=()).decode(out.getvalue().encode(), "u", 0, b"id,name\n")
    assert [(r["id"], r["name"]) for r in lines.rows.to_pylist()] == flat


LINE = st.one_of(
    st.just(GOOD), st.text(st.sampled_from('1,"x.é-'), max_size=12).map(str.encode), st.binary(max_size=8)
).map(lambda line: line.replace(b"\n", b""))


@settings(max_examples=60)
@given(lines=st.lists(LINE, max_size=25), cut=st.integers(0, 25))
def test_every_record_is_in_rows_or_rejects_once_however_the_data_is_split(lines, cut):
    data = b"".join(line + b"\n" for line in lines)
    expected, at = [], 100
    for line in lines:
        if line.strip(b" \t\r"):
            expected.append(at)
        at += len(line) + 1
    whole = outcome(made().decode(data, "u", 100, HEAD))
    assert sorted(whole) == expected
    at = sum(len(line) + 1 for line in lines[:cut])
    parts = [made().decode(data[:at], "u", 100, HEAD), made().decode(data[at:], "u", 100 + at, HEAD)]
    assert repr(sorted((outcome(parts[0]) | outcome(parts[1])).items())) == repr(sorted(whole.items()))


def test_columns_are_inferred_from_a_sample():
    found = made(nulls=("", "NA")).infer(b"1,x,NA,2024-01-01T00:00:00Z,true\n1.5,y,NA,,false\n", b"a,b,c,d,e\n")
    assert {c.name: str(c.type) for c in found} == {"a": "double", "b": "string", "d": "timestamp", "e": "boolean"}
