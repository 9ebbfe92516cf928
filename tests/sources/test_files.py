"""Files: taken once, in ranges between records, and never silently when they changed."""

from __future__ import annotations

import json
import os
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import AccessError, ConfigError, DataLossRefused, TransientError
from lodestream.formats.csv import CsvFormat, CsvSettings
from lodestream.formats.json import JsonFormat, JsonSettings
from lodestream.formats.parquet import ParquetFormat, ParquetSettings
from lodestream.model.batch import BatchLimit
from lodestream.model.types import BIGINT, STRING, Column, Schema
from lodestream.ports.source import Reading
from lodestream.sources.files import FilesSettings, FilesSource
from lodestream.testing.source_contract import check_resumes, check_source, drain

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
LIMIT = BatchLimit()
READING = Reading(Schema((Column("id", BIGINT), Column("name", STRING))), True, "quarantine", "/")
PLAIN = Reading(READING.schema, False, "quarantine", "/")


def source(path, format_=None, reading=PLAIN, **options):
    format_ = format_ or JsonFormat(JsonSettings(), reading)
    return FilesSource(FilesSettings(path=str(path), **{"settle": 0, **options}), format_, reading)


def line(i):
    return json.dumps({"id": i, "name": "n" * (i % 7)}).encode() + b"\n"


def fill(folder, files=3, rows=20):
    folder.mkdir(exist_ok=True)
    for f in range(files):
        (folder / f"{f:02d}.jsonl").write_bytes(b"".join(line(f * rows + i) for i in range(rows)))
    return folder


def take(made, consumed, limit=LIMIT, now=NOW):
    """Plan once, read all of it, and note it as consumed."""
    ids = []
    for planned in made.plan(consumed, limit, now):
        for piece in made.read(planned):
            ids += piece.rows["id"].to_pylist() if "id" in piece.rows.column_names else []
        consumed[planned.unit] = planned
    return ids


@pytest.mark.parametrize("options", [{}, {"append": True}], ids=str)
def test_json_files_keep_the_contract(tmp_path, options):
    fill(tmp_path / "in")
    (tmp_path / "in" / "03.jsonl").write_bytes(b'{"id":1}\nbroken\n\n\xff\n{"id":"x"}\r\n' * 5)
    (tmp_path / "in" / "04.jsonl").write_bytes(b"")

    def make():
        return source(tmp_path / "in", JsonFormat(JsonSettings(), READING), READING, **options)

    rows = check_source(make, READING, now_us=NOW)
    assert rows["id"].to_pylist()[:60] == list(range(60))
    assert rows.num_rows == 65
    check_resumes(make, now_us=NOW, limit=BatchLimit(rows_max=9))


@pytest.mark.parametrize("multiline", [False, True])
def test_csv_files_keep_the_contract(tmp_path, multiline):
    (tmp_path / "a.csv").write_bytes(
        b"\xef\xbb\xbfid,name\r\n" + b"".join(b'%d,"x, %d"\r\n' % (i, i) for i in range(50))
    )
    (tmp_path / "b.csv").write_bytes(b"name,id\nx,1\nx\nx,y\nlast,2")
    (tmp_path / "c.csv").write_bytes(b"id,name\n")

    def make():
        return source(tmp_path, CsvFormat(CsvSettings(multiline=multiline), READING), READING)

    rows = check_source(make, READING, now_us=NOW)
    assert rows["id"].to_pylist() == [*range(50), 1, 2]


def test_parquet_files_keep_the_contract(tmp_path):
    table = pa.table({"id": list(range(40)), "name": ["x"] * 40})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=13)
    pq.write_table(table.slice(0, 0), tmp_path / "b.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(whole[: len(whole) // 2])

    def make():
        return source(tmp_path, ParquetFormat(ParquetSettings(), READING), READING)

    rows = check_source(make, READING, now_us=NOW)
    assert rows["id"].to_pylist() == list(range(40))
    _, read = drain(make(), BatchLimit(), NOW)
    assert [r for p in read for r in p.rejects["_reasons"].to_pylist()] == [["parse:file"]]


CHUNK = st.one_of(
    st.just(b'{"id":1}\n'), st.binary(max_size=20), st.sampled_from([b"\n", b"\r\n", b'{"id":2,"name":"x"}\n'])
)


@settings(max_examples=40)
@given(data=st.lists(CHUNK, max_size=30).map(b"".join), rows_max=st.integers(1, 9), bytes_max=st.integers(1, 200))
def test_every_line_comes_once_whatever_the_limits(tmp_path_factory, data, rows_max, bytes_max):
    path = tmp_path_factory.mktemp("in") / "x.jsonl"
    path.write_bytes(data)
    expected, at = [], 0
    for i, text in enumerate(data.split(b"\n")):
        bare = text.removeprefix(b"\xef\xbb\xbf") if i == 0 else text
        if bare.strip(b" \t\r"):
            expected.append(at)
        at += len(text) + 1
    _, read = drain(source(path), BatchLimit(rows_max=rows_max, bytes_max=bytes_max), NOW)
    got = [p for piece in read for t in (piece.rows, piece.rejects) for p in t["_position"].to_pylist()]
    assert sorted(got) == expected


def test_many_small_files_fit_in_one_plan_in_order_of_name(tmp_path):
    fill(tmp_path, files=30, rows=3)
    planned = source(tmp_path).plan({}, BatchLimit(), NOW)
    assert [p.unit for p in planned] == [f"{i:02d}.jsonl" for i in range(30)]
    planned = source(tmp_path).plan({}, BatchLimit(rows_max=10), NOW)
    assert [p.unit for p in planned] == ["00.jsonl", "01.jsonl", "02.jsonl", "03.jsonl"]


def test_temporary_names_and_what_is_no_file_are_left_alone(tmp_path):
    fill(tmp_path, files=1)
    for name in [".hidden", "_x.json", "a.tmp", "b.PART", "c~", "d.crdownload", "e.jsonl.swp"]:
        (tmp_path / name).write_bytes(line(1))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "z.jsonl").write_bytes(line(99))
    assert [p.unit for p in source(tmp_path).plan({}, BatchLimit(), NOW)] == ["00.jsonl"]
    assert [p.unit for p in source(tmp_path, recursive=True).plan({}, BatchLimit(), NOW)] == ["00.jsonl", "sub/z.jsonl"]


def test_glob_patterns_name_units_from_their_fixed_part(tmp_path):
    fill(tmp_path / "a", files=2)
    fill(tmp_path / "b", files=1)
    (tmp_path / "a" / "x.csv").write_bytes(b"id\n1\n")
    assert [p.unit for p in source(tmp_path / "*" / "*.jsonl").plan({}, BatchLimit(), NOW)] == [
        "a/00.jsonl", "a/01.jsonl", "b/00.jsonl",
    ]  # fmt: skip
    assert [p.unit for p in source(tmp_path / "**" / "00.jsonl").plan({}, BatchLimit(), NOW)] == [
        "a/00.jsonl",
        "b/00.jsonl",
    ]
    assert [p.unit for p in source(tmp_path / "a" / "0[!0].jsonl").plan({}, BatchLimit(), NOW)] == ["01.jsonl"]
    assert [p.unit for p in source(tmp_path / "a" / "01.jsonl").plan({}, BatchLimit(), NOW)] == ["01.jsonl"]


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    fill(tmp_path / "in", files=1)
    (tmp_path / "secret").write_bytes(line(1))
    (tmp_path / "in" / "near.jsonl").symlink_to(tmp_path / "in" / "00.jsonl")
    assert len(source(tmp_path / "in").plan({}, BatchLimit(), NOW)) == 2
    (tmp_path / "in" / "far.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(AccessError, match=r"far\.jsonl"):
        source(tmp_path / "in").plan({}, BatchLimit(), NOW)


def test_a_missing_folder_is_said_and_one_that_went_away_is_waited_for(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        source(tmp_path / "none").plan({}, BatchLimit(), NOW)
    made, consumed = source(fill(tmp_path / "in", files=1)), {}
    take(made, consumed)
    (tmp_path / "in").rename(tmp_path / "away")
    with pytest.raises(TransientError):
        made.plan(consumed, BatchLimit(), NOW)


def test_a_file_is_taken_when_it_has_settled(tmp_path):
    made = source(tmp_path, settle=2)
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(1))
    os.utime(path, ns=(NOW * 1000, NOW * 1000))
    assert not made.plan({}, BatchLimit(), NOW)
    assert not made.finished({}, NOW)
    path.write_bytes(line(1) + line(2))
    os.utime(path, ns=(NOW * 1000 + SECOND * 1000, NOW * 1000 + SECOND * 1000))
    assert not made.plan({}, BatchLimit(), NOW + 2 * SECOND)
    assert take(made, {}, now=NOW + 3 * SECOND) == [1, 2]


def test_a_clock_behind_the_files_still_lets_them_settle(tmp_path):
    made = source(tmp_path, settle="2 s")
    (tmp_path / "a.jsonl").write_bytes(line(1))
    assert not made.plan({}, BatchLimit(), 1_000)
    assert made.plan({}, BatchLimit(), 1_000 + 2 * SECOND)


@pytest.mark.parametrize(
    ("text", "value"), [("2 s", 2), ("500 ms", 0.5), ("1 minute", 60), (3, 3), ("2 seconds", 2), ("1.5", 1.5)]
)
def test_settle_is_seconds_or_text(text, value):
    assert FilesSettings(path="x", settle=text).settle == value


def test_unknown_settings_and_negative_times_are_refused():
    for bad in ({"settle": -1}, {"settle": "soon"}, {"nonsense": 1}):
        with pytest.raises(ValueError, match=r"settle|nonsense"):
            FilesSettings(path="x", **bad)


def test_changed_content_under_a_consumed_name_is_refused(tmp_path):
    made, consumed = source(fill(tmp_path, files=2)), {}
    take(made, consumed)
    path = tmp_path / "01.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"id": 21', b'"id": 91'))
    with pytest.raises(DataLossRefused, match=r"01\.jsonl"):
        made.plan(consumed, BatchLimit(), NOW)
    with pytest.raises(DataLossRefused, match=r"01\.jsonl"):
        list(source(tmp_path).read(consumed["01.jsonl"]))
    path.write_bytes(data)  # the old content again: only its time differs
    assert not made.plan(consumed, BatchLimit(), NOW)
    assert sum(p.rows.num_rows for p in made.read(consumed["01.jsonl"])) == 20


def test_a_consumed_file_that_grew_is_refused_unless_it_is_tailed(tmp_path):
    fill(tmp_path, files=1)
    for append in (False, True):
        made, consumed = source(tmp_path, append=append), {}
        take(made, consumed)
        with (tmp_path / "00.jsonl").open("ab") as file:
            file.write(line(100))
        if append:
            assert take(made, consumed) == [100]
        else:
            with pytest.raises(DataLossRefused):
                made.plan(consumed, BatchLimit(), NOW)


def test_a_deleted_file_matters_only_when_it_was_not_read_to_its_end(tmp_path):
    made, consumed = source(fill(tmp_path, files=2)), {}
    take(made, consumed, BatchLimit(rows_max=25))
    (tmp_path / "00.jsonl").unlink()
    assert not made.finished(consumed, NOW)
    (tmp_path / "01.jsonl").rename(tmp_path / "gone")
    with pytest.raises(DataLossRefused, match=r"01\.jsonl"):
        made.plan(consumed, BatchLimit(), NOW)
    with pytest.raises(DataLossRefused, match=r"01\.jsonl"):
        list(made.read(consumed["01.jsonl"]))
    (tmp_path / "gone").rename(tmp_path / "01.jsonl")
    assert take(made, consumed) == list(range(25, 40))
    assert made.finished(consumed, NOW)


def test_a_parquet_file_that_changed_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "name": ["x", "y"]}), path)
    made, consumed = source(tmp_path, ParquetFormat(ParquetSettings(), PLAIN)), {}
    assert take(made, consumed) == [1, 2]
    pq.write_table(pa.table({"id": [1, 3], "name": ["x", "y"]}), path)
    with pytest.raises(DataLossRefused):
        made.plan(consumed, BatchLimit(), NOW)
    with pytest.raises(DataLossRefused):
        list(made.read(consumed["a.parquet"]))


def test_a_tailed_file_gives_complete_lines_only(tmp_path):
    made, consumed = source(tmp_path, append=True), {}
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1) + line(2)[:5])
    assert take(made, consumed) == [1]
    assert take(made, consumed) == []
    assert made.finished(consumed, NOW)
    path.write_bytes(line(1) + line(2) + line(3)[:1])
    assert not made.finished(consumed, NOW)
    assert take(made, consumed) == [2]
    assert take(source(tmp_path, append=True), consumed) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_tailed_file_that_shrank_or_was_rewritten_is_refused(tmp_path, restarted):
    path = tmp_path / "log.jsonl"
    for change in (lambda data: data[: len(data) // 2], lambda data: data[:3] + b"9" + data[4:] + line(5)):
        path.write_bytes(b"".join(line(i) for i in range(10)))
        made, consumed = source(tmp_path, append=True), {}
        take(made, consumed)
        with path.open("ab") as file:
            file.write(line(10))
        take(made, consumed)
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(DataLossRefused):
            (source(tmp_path, append=True) if restarted else made).plan(consumed, BatchLimit(), NOW)


def test_a_planned_range_of_a_file_that_has_grown_since_reads_the_same(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1) + line(2))
    made = source(tmp_path, append=True)
    (planned,) = made.plan({}, BatchLimit(), NOW)
    with path.open("ab") as file:
        file.write(line(3))
    assert [i for p in made.read(planned) for i in p.rows["id"].to_pylist()] == [1, 2]
    path.write_bytes(path.read_bytes().replace(b'"id": 1', b'"id": 7'))
    with pytest.raises(DataLossRefused):
        list(made.read(planned))
    path.write_bytes(line(1))
    with pytest.raises(DataLossRefused):
        list(made.read(planned))


def test_append_needs_lines(tmp_path):
    with pytest.raises(ConfigError, match="append"):
        source(tmp_path, ParquetFormat(ParquetSettings(), PLAIN), append=True)


def test_a_row_of_50_mb_is_rejected_in_bounded_memory(tmp_path):
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.write(line(1) + b'{"id":2,"name":"')
        for _ in range(50):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + line(3) + b'{"name":"' + b"y" * (3 << 20))
    made = source(tmp_path, JsonFormat(JsonSettings(row_bytes_max=2 << 20), PLAIN))
    tracemalloc.start()
    try:
        _, read = drain(made, BatchLimit(), NOW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20
    assert [i for p in read for i in p.rows["id"].to_pylist()] == [1, 3]
    rejects = pa.concat_tables([p.rejects for p in read])
    assert rejects["_reasons"].to_pylist() == [["parse:size"]] * 2
    assert [len(raw) for raw in rejects["_raw"].to_pylist()] == [2 << 20, 2 << 20]


def test_a_limit_smaller_than_a_line_still_takes_it(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(line(1) * 3)
    ranges, _ = drain(source(tmp_path), BatchLimit(bytes_max=1), NOW)
    assert [r.end - r.start for r in ranges] == [len(line(1))] * 3


def test_a_long_line_after_short_ones_waits_for_its_own_range(tmp_path):
    long = b'{"id":2,"name":"' + b"x" * 700_000 + b'"}\n'
    (tmp_path / "a.jsonl").write_bytes(line(1) + long + line(3) + long)
    ranges, read = drain(source(tmp_path), BatchLimit(bytes_max=600_000), NOW)
    assert [r.end - r.start for r in ranges] == [len(line(1)), len(long), len(line(3)), len(long)]
    ranges, read = drain(source(tmp_path), BatchLimit(bytes_max=800_000), NOW)
    assert [r.end - r.start for r in ranges] == [len(line(1) + long + line(3)), len(long)]
    assert [i for p in read for i in p.rows["id"].to_pylist()] == [1, 2, 3, 2]


def test_columns_are_learnt_from_the_first_file(tmp_path):
    with pytest.raises(ConfigError, match="declare `columns:`"):
        source(tmp_path).sample()
    fill(tmp_path, files=1)
    assert [(c.name, str(c.type)) for c in source(tmp_path).sample()] == [("id", "bigint"), ("name", "string")]
    assert FilesSource.declares(FilesSettings(path="x")) is None


def test_listing_thousands_of_consumed_files_opens_none(tmp_path, monkeypatch):
    fill(tmp_path, files=1)
    first = (tmp_path / "00.jsonl").read_bytes()
    for i in range(2000):
        (tmp_path / f"x{i:04d}.jsonl").write_bytes(first[:20])
    made, consumed = source(tmp_path), {}
    take(made, consumed)
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail("opened a consumed file"))
    assert not made.plan(consumed, BatchLimit(), NOW)
    assert made.finished(consumed, NOW)
