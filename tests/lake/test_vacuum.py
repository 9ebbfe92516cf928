"""Vacuum deletes what nobody needs and never what somebody may; retention lets old rows go."""

import os
import pathlib
from dataclasses import replace

import pyarrow as pa
import pytest

from lodestream.errors import ConfigError
from lodestream.lake.actions import HOT_TAG, RETENTION, AddFile, RemoveFile
from lodestream.lake.compaction import NEWEST_TAG, everything, rewrite
from lodestream.lake.disk import LocalDisk
from lodestream.lake.retention import expire, expired, partition_end_ms, retention_id
from lodestream.lake.table import DeltaTable
from lodestream.lake.vacuum import stored_files, unneeded, vacuum
from lodestream.model.arrow import from_arrow
from lodestream.testing.faults import ForgetfulDisk
from tests.lake.outside import agree

SCHEMA = pa.schema([("id", pa.int64()), ("day", pa.string())])
HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 20_000 * DAY


def make(path) -> DeltaTable:
    disk = ForgetfulDisk(LocalDisk(), lambda kind, path: True)
    return DeltaTable.create(disk, str(path), from_arrow(SCHEMA), partition_columns=["day"], table_id="t", clock_us=0)


def put(table, number, at_ms=NOW, day="2024-01-01"):
    staged = table.stage(pa.table({"id": [number], "day": [day]}), name=f"{number}-a")
    table.commit(adds=staged.adds, txn=("app", number), clock_us=at_ms * 1000)
    return staged.adds[0]


def written(table, file, at_ms) -> None:
    os.utime(pathlib.Path(table.path, file), (at_ms / 1000, at_ms / 1000))


def gone(table, **more) -> list[tuple[str, str]]:
    return [(one.file, one.why) for one in unneeded(table, **{"now_ms": NOW, "keep_ms": DAY, **more})]


def test_removed_files_go_after_the_window_and_live_ones_never(tmp_path):
    table = make(tmp_path / "t")
    adds = [put(table, n, at_ms=0) for n in range(4)]
    for add in adds:
        written(table, add.file, 0)
    table.commit(removes=[RemoveFile.of(adds[0])], clock_us=(NOW - DAY - 1) * 1000)
    table.commit(removes=[RemoveFile.of(adds[1])], clock_us=(NOW - DAY) * 1000)
    assert gone(table) == [(adds[0].file, "removed")]
    assert gone(table, needed={adds[0].file}) == []
    found = unneeded(table, now_ms=NOW, keep_ms=DAY)
    assert (found[0].bytes, vacuum(table, found)) == (adds[0].size, 1)
    assert sorted(one.path for one in stored_files(table.disk, table.path)) == sorted(add.file for add in adds[1:])
    assert len(agree(table.path, SCHEMA.names)) == 2
    assert len(table.read(table.read_version(5))) == 3, "a version within the window is whole"


def test_a_checkpoint_remembers_removed_files_for_as_long_as_a_vacuum_asks(tmp_path):
    """Else a file would be taken for one that no version ever had, and go by the day it was written."""
    table = make(tmp_path / "t")
    old, hot = put(table, 1, at_ms=0), put(table, 2, at_ms=0)
    for add in (old, hot):
        written(table, add.file, 0)
    table.commit(removes=[RemoveFile.of(old), RemoveFile.of(replace(hot, tags={HOT_TAG: "true"}))],
                 clock_us=(NOW - 10 * DAY) * 1000)  # fmt: skip
    table.checkpoint(NOW * 1000, 30 * DAY * 1000)
    log = pathlib.Path(table.path, "_delta_log")
    for commit in log.glob("*.json"):
        commit.unlink()
    again = DeltaTable.open(LocalDisk(), table.path)
    assert set(again.snapshot.tombstones) == {old.path}
    assert gone(again, keep_ms=30 * DAY) == [(hot.file, "orphan")]
    assert gone(again, keep_ms=9 * DAY) == [(old.file, "removed"), (hot.file, "orphan")]


def test_files_that_no_version_knows_go_by_the_time_they_were_written(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1)
    old, young = (table.stage(pa.table({"id": [n], "day": ["x"]}), name=f"compact-{n}-0").adds[0] for n in (2, 3))
    written(table, old.file, NOW - DAY - 1)
    written(table, young.file, NOW - DAY)
    assert gone(table) == [(old.file, "orphan")]


def test_a_batch_under_way_keeps_its_files_however_old_they_are(tmp_path):
    """A process may sleep for days between writing and committing: whoever takes up the plan has to find them."""
    table = make(tmp_path / "t")
    put(table, 7)
    names = ("7-b", "8-b", "hot-8-b", "corrected-8-b", "compact-123456789012-0")
    lost, *flying, compacted = (
        table.stage(pa.table({"id": [1], "day": ["x"]}), name=name).adds[0].file for name in names
    )
    for file in (lost, *flying, compacted):
        written(table, file, 0)
    assert gone(table, batch=7) == [(lost, "orphan"), (compacted, "orphan")]
    assert {file for file, _ in gone(table, batch=None)} == {lost, *flying, compacted}


def test_only_data_files_of_the_table_are_looked_at(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1)
    table.checkpoint()
    others = ["_delta_log/x.parquet", "_other/part-1.parquet", ".hidden.parquet", "notes.txt", "folder/part-1.parquet"]
    for name in others:
        path = pathlib.Path(table.path, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    assert gone(table) == []


def test_a_window_shorter_than_clocks_may_differ_is_refused(tmp_path):
    table = make(tmp_path / "t")
    with pytest.raises(ConfigError, match="window is too short"):
        unneeded(table, now_ms=NOW, keep_ms=HOUR)


@pytest.mark.parametrize("skew", [-HOUR, HOUR], ids=["behind", "ahead"])
def test_clocks_an_hour_apart_cost_no_file(tmp_path, skew):
    """A writer, another writer and the vacuum disagree about the time; the shortest window is enough."""
    table = make(tmp_path / "t")
    first = put(table, 1, at_ms=NOW + skew)
    table.commit(removes=[RemoveFile.of(first)], clock_us=(NOW + skew) * 1000)
    staged = table.stage(pa.table({"id": [2], "day": ["x"]}), name="compact-1-0").adds[0]
    written(table, staged.file, NOW + skew)
    assert gone(table, now_ms=NOW - skew, keep_ms=3 * HOUR) == []


def test_a_file_that_a_restore_brought_back_is_not_deleted(tmp_path):
    table = make(tmp_path / "t")
    add = put(table, 1, at_ms=0)
    table.commit(removes=[RemoveFile.of(add)], clock_us=0)
    found = unneeded(table, now_ms=NOW, keep_ms=DAY)
    assert len(found) == 1
    DeltaTable.open(LocalDisk(), table.path).commit(adds=[add], clock_us=NOW * 1000, operation="RESTORE")
    assert vacuum(table, found) == 0
    assert len(agree(table.path, SCHEMA.names)) == 1


def test_it_stops_when_asked(tmp_path):
    table = make(tmp_path / "t")
    adds = [put(table, n, at_ms=0) for n in range(5)]
    table.commit(removes=[RemoveFile.of(add) for add in adds], clock_us=0)
    asked = iter([False, False, True])
    assert vacuum(table, unneeded(table, now_ms=NOW, keep_ms=DAY), lambda: next(asked)) == 2
    assert len(list(stored_files(table.disk, table.path))) == 3


# --- retention -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "end"),
    [
        ("at_date", "1970-01-02", 2 * DAY), ("day", "1970-01-02", 2 * DAY), ("at_month", "1970-01-01", 31 * DAY),
        ("at_year", "1970", 365 * DAY), ("at_date", None, None), ("country", "PL", None), ("at_year", "x", None),
        ("at_date", "9999-12-31", None), ("at_year", "9999", None),
    ],
)  # fmt: skip
def test_a_partition_of_time_has_an_end(column, value, end):
    assert partition_end_ms(AddFile("x", {column: value}), (column,)) == end


def test_rows_go_when_they_are_old_by_both_times(tmp_path):
    table = make(tmp_path / "t")
    keep = NOW - 90 * DAY
    both = put(table, 1, at_ms=keep - 1, day="2023-01-01")
    put(table, 2, at_ms=keep, day="2023-01-01")  # an old event that came within the time
    put(table, 3, at_ms=keep - 1, day="2034-01-01")  # an event of the future
    other = put(table, 4, at_ms=keep - 1, day="elsewhere")  # tells no time
    files = expired(table.snapshot.files.values(), ["day"], before_ms=keep)
    assert {add.path for add in files} == {both.path, other.path}
    assert expire(table, files, application="app", clock_us=NOW * 1000) == 2
    assert len(agree(table.path, SCHEMA.names)) == 2
    assert table.snapshot.txns[retention_id("app")] == 2
    (commit,) = table.commits(table.snapshot.version - 1)
    assert (commit.info["operation"], commit.info["expired_rows"]) == (RETENTION, 2)
    assert len(table.read(table.read_version(commit.version - 1))) == 4, "readable until a vacuum"


def test_compaction_does_not_make_rows_younger(tmp_path):
    table = make(tmp_path / "t")
    for number in range(3):
        put(table, number, at_ms=NOW - 100 * DAY)
    (group,) = everything(table.snapshot.files.values(), target_bytes=1 << 20)
    rewrite(table, group, target_bytes=1 << 20, clock_us=NOW * 1000)
    (add,) = table.files()
    assert add.tags[NEWEST_TAG] == str(NOW - 100 * DAY)
    assert expired([add], ["day"], before_ms=NOW - 90 * DAY) == [add]


def test_days_are_not_mixed_by_compaction(tmp_path):
    """Else a slow table would have one file for ever, and nothing of it would ever be old enough."""
    table = make(tmp_path / "t")
    for number in range(4):
        put(table, number, at_ms=NOW + number * DAY // 2)
    groups = everything(table.snapshot.files.values(), target_bytes=1 << 20)
    assert sorted(len(group.files) for group in groups) == [2, 2]


def test_nothing_expired_makes_no_commit(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1)
    version = table.snapshot.version
    assert expire(table, [], application="app", clock_us=1) == 0
    assert table.refresh().version == version
