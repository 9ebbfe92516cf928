"""Records come out of the log as they went in: each once, in order, decoded by what they are."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from lodestream.drivers.record_log.disk import LocalLogDisk
from lodestream.drivers.record_log.frame import Entry
from lodestream.drivers.record_log.layout import durable_path, log_folder, reader_path, segments
from lodestream.drivers.record_log.marks import Mark
from lodestream.drivers.record_log.writer import LogWriter
from lodestream.errors import CorruptionError, DataLossRefused
from lodestream.formats.csv import CsvFormat, CsvSettings
from lodestream.formats.json import JsonFormat, JsonSettings
from lodestream.model.batch import BatchLimit
from lodestream.model.types import BIGINT, STRING, Column, Schema
from lodestream.ports.source import Reading
from lodestream.sources.http import HttpSettings, HttpSource
from lodestream.testing.source_contract import check_resumes, check_source, drain

SCHEMA = Schema((Column("id", BIGINT), Column("name", STRING)))
NOW_US = 1_700_000_000_000_000


def entry(records, kind="json", head=b"", time_us=NOW_US):
    ends = np.cumsum([len(record) for record in records]).astype(np.uint32)
    return Entry(kind, b"".join(records), ends, time_us, head=head)


def writer(lake, **settings):
    return LogWriter(log_folder(str(lake), "orders"), LocalLogDisk(), lambda: NOW_US, "1" * 32, **settings)


def write(lake, *entries, **settings):
    log = writer(lake, **settings)
    for one in entries:
        log.append(one).result(30)
    log.close()


def reading(lake, **changes):
    given = {"schema": SCHEMA, "keep_raw": True, "drift": "quarantine", "root": "/", "lake": str(lake)}
    return Reading(**(given | {"table": "bronze.orders"} | changes))


def source(lake, form=JsonFormat, settings=None, **changes):
    given = reading(lake, **changes)
    settings = settings or (JsonSettings() if form is JsonFormat else CsvSettings())
    return HttpSource(HttpSettings(stream="orders"), form(settings, given), given)


def line(i):
    return json.dumps({"id": i, "name": f"n{i}"}).encode()


def many():
    """Entries of every kind, of one and of many records, with bad ones among them."""
    at, found = 0, []
    for size in (1, 1, 3, 1, 40, 2):
        found.append(entry([line(at + i) for i in range(size)]))
        at += size
    found.append(entry([b"{bad", line(at + 1)]))
    found.append(entry([f"a{i},{at + 2 + i}".encode() for i in range(5)] + [b"x,y,z"], "csv", b"name,id"))
    found.append(entry([line(at + 8)], "rows"))
    return found


@pytest.mark.parametrize("segment_bytes", [300, 64 << 20])
def test_contract(tmp_path, segment_bytes):
    write(tmp_path, *many(), segment_bytes=segment_bytes)
    assert (
        len(segments(log_folder(str(tmp_path), "orders"))) == (9 if segment_bytes == 300 else 1) or segment_bytes == 300
    )
    rows = check_source(lambda: source(tmp_path), reading(tmp_path), now_us=NOW_US)
    assert rows["id"].to_pylist() == [i for i in range(57) if i not in (48, 55)]
    assert rows["_raw"].to_pylist()[0] == b'{"id": 0, "name": "n0"}'
    for limit in (BatchLimit(), BatchLimit(rows_max=7), BatchLimit(bytes_max=1)):
        check_resumes(lambda: source(tmp_path), now_us=NOW_US, limit=limit)


def test_rejects_are_decoded_again_by_what_they_are(tmp_path):
    write(tmp_path, *many())
    _, read = drain(source(tmp_path), BatchLimit(), NOW_US)
    rejects = [row for piece in read for row in piece.rejects.to_pylist()]
    assert [(r["_position"], r["_raw"]) for r in rejects] == [(48, b"{bad"), (55, b"x,y,z")]
    again = source(tmp_path)
    for reject in rejects:
        one = again.decode_raw(reject["_raw"], reject["_source"], reject["_position"], reject["_detail"])
        assert one.rejects.to_pylist() == [reject]
    repaired = again.decode_raw(b"x,7", "http/orders", 55, rejects[1]["_detail"])
    assert repaired.rows.select(["id", "name", "_position"]).to_pylist() == [{"id": 7, "name": "x", "_position": 55}]


def test_a_body_of_another_kind_than_the_table_s_format(tmp_path):
    write(tmp_path, entry([line(1)]), entry([b"2;two"], "csv", b"id;name"))
    _, read = drain(source(tmp_path, CsvFormat, CsvSettings(delimiter=";")), BatchLimit(), NOW_US)
    assert [row["id"] for piece in read for row in piece.rows.to_pylist()] == [1, 2]


def test_columns_are_learnt_from_the_first_records(tmp_path):
    assert source(tmp_path, table="").sample() == Schema()
    write(tmp_path, entry([line(1)]))
    assert source(tmp_path, table="").sample() == SCHEMA


def test_what_is_not_durable_is_not_read(tmp_path):
    log = writer(tmp_path)
    log.append(entry([line(0)])).result(30)
    path = Path(log.folder, "0" * 20 + ".log")
    path.write_bytes(path.read_bytes() * 2)
    ranges, _ = drain(source(tmp_path), BatchLimit(), NOW_US)
    assert [(r.start, r.end) for r in ranges] == [(0, 1)]
    log.close()


def test_a_log_that_nobody_serves_is_read_to_its_end(tmp_path):
    """After a power loss the mark may be older than the log; the reader brings it into order."""
    write(tmp_path, *many())
    mark = Mark(durable_path(log_folder(str(tmp_path), "orders")), writable=True)
    mark.set(3)
    mark.close()
    ranges, _ = drain(source(tmp_path), BatchLimit(), NOW_US)
    assert ranges[-1].end == 57


def test_another_log_under_the_same_name_is_refused(tmp_path):
    write(tmp_path, *many())
    ranges, _ = drain(source(tmp_path), BatchLimit(), NOW_US)
    consumed = {r.unit: r for r in ranges}
    folder = log_folder(str(tmp_path), "orders")
    os.rename(folder, folder + "_old")
    with pytest.raises(DataLossRefused, match="another one"):
        source(tmp_path).plan(consumed, BatchLimit(), NOW_US)
    log = LogWriter(folder, LocalLogDisk(), lambda: NOW_US, "2" * 32)
    log.append(entry([line(0)])).result(30)
    log.close()
    with pytest.raises(DataLossRefused, match="another one"):
        source(tmp_path).plan(consumed, BatchLimit(), NOW_US)
    with pytest.raises(DataLossRefused, match="another one"):
        list(source(tmp_path).read(ranges[0]))


def test_records_that_are_gone_or_damaged_are_noticed(tmp_path):
    write(tmp_path, *many(), segment_bytes=300)
    ranges, _ = drain(source(tmp_path), BatchLimit(rows_max=5), NOW_US)
    folder = log_folder(str(tmp_path), "orders")
    first = segments(folder)[0]
    path = Path(folder, f"{first:020d}.log")
    path.write_bytes(path.read_bytes().replace(b"n0", b"n2"))
    with pytest.raises(CorruptionError, match="damaged"):
        list(source(tmp_path).read(ranges[0]))
    path.unlink()
    with pytest.raises(DataLossRefused):
        list(source(tmp_path).read(ranges[0]))


def test_the_writer_learns_what_was_taken_in(tmp_path):
    write(tmp_path, *many())
    one = source(tmp_path)
    mark = Mark(reader_path(log_folder(str(tmp_path), "orders"), "bronze.orders"), writable=False)
    (planned,) = one.plan({}, BatchLimit(rows_max=10), NOW_US)
    assert mark.get() == 0
    one.plan({planned.unit: planned}, BatchLimit(), NOW_US)
    assert mark.get() == 10


def test_waiting_ends_with_the_next_record(tmp_path):
    log = writer(tmp_path)
    one = source(tmp_path)
    assert not one.plan({}, BatchLimit(), NOW_US)
    waiting = threading.Thread(target=one.wait, args=(60,))
    waiting.start()
    log.append(entry([line(0)])).result(30)
    waiting.join(30)
    assert not waiting.is_alive()
    log.close()
