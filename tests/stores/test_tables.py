"""Tables on every store: what a disk promises, commits and conflicts, reading, history, upkeep, outside readers."""

import itertools
import os
import time

import deltalake
import pyarrow as pa
import pytest

from lodestream.errors import ConflictError, CorruptionError, DataLossRefused
from lodestream.lake.disk import put_if_absent, replace_durable, write_durable
from lodestream.lake.log import commit_path
from lodestream.lake.opening import check_put_if_absent
from lodestream.lake.table import DeltaTable
from lodestream.model.types import BIGINT, STRING, Column, Schema

SCHEMA = Schema((Column("id", BIGINT), Column("day", STRING)))
ATTEMPTS = itertools.count()
ODD = ["a b", "100%", "ü/ö", "x:y?z=1#", "a%20b", "day=1", ".."]
"""Partition values whose folders need escapes."""


def make(place, disk=None, partitions=()):
    return DeltaTable.create(
        disk or place.disk(), f"{place.lake}/silver/t", SCHEMA, partition_columns=partitions, table_id="t",
        clock_us=1_000_000,
    )  # fmt: skip


def rows(*ids, day="a"):
    return pa.table({"id": pa.array(ids, pa.int64()), "day": pa.array([day] * len(ids), pa.string())})


def put(table, number, *ids, app="app", removes=(), day="a"):
    staged = table.stage(rows(*ids, day=day), name=f"{number}-{app}-{next(ATTEMPTS)}")
    return table.commit(adds=staged.adds, removes=removes, txn=(app, number), clock_us=number * 1_000_000)


def ids(table, adds=None):
    return sorted(table.read(table.files() if adds is None else adds)["id"].to_pylist())


def judged(place, table):
    """Rows as delta-rs reads them."""
    return deltalake.DeltaTable(table.path, storage_options=place.options or None).to_pyarrow_table()


def test_what_a_disk_promises(place):
    disk, folder = place.disk(), f"{place.lake}/_lodestream/flows/silver.t/1/plans"
    path = f"{folder}/{1:020d}.json"
    assert disk.list(folder) == []
    assert not disk.exists(folder)
    with pytest.raises(FileNotFoundError):
        disk.read(path)
    with pytest.raises(FileNotFoundError):
        disk.size(path)
    assert put_if_absent(disk, path, b"first")
    assert not put_if_absent(place.disk(), path, b"second")
    assert (disk.read(path), disk.size(path)) == (b"first", 5)
    assert sorted(disk.list(folder)) == [f"{1:020d}.json"]
    assert disk.list(os.path.dirname(folder)) == ["plans"]
    assert disk.exists(path)
    assert disk.exists(folder)
    assert not disk.exists(path[:-1])
    replace_durable(disk, path, b"third")
    replace_durable(disk, f"{folder}/new", memoryview(b""))
    write_durable(disk, f"{folder}/data", pa.py_buffer(b"x" * 100_000))
    assert (disk.read(path), disk.read(f"{folder}/new"), disk.size(f"{folder}/data")) == (b"third", b"", 100_000)
    with pytest.raises(FileExistsError):
        disk.create(f"{folder}/data", b"y")
    disk.unlink(path)
    assert sorted(disk.list(folder)) == ["data", "new"]


def test_when_a_file_was_written(remote):
    disk, path = remote.disk(), f"{remote.lake}/note"
    write_durable(disk, path, b"")
    assert abs(disk.modified_ms(path) - time.time() * 1000) < 120_000
    with pytest.raises(FileNotFoundError):
        disk.modified_ms(path + "2")


def test_the_probe_leaves_nothing_behind(place):
    disk = place.disk()
    put_if_absent(disk, f"{place.lake}/there", b"")
    check_put_if_absent(disk, place.lake)
    assert disk.list(place.lake) == ["there"]


def test_commits_and_conflicts(place):
    assert DeltaTable.open(place.disk(), f"{place.lake}/silver/t") is None
    table, other = make(place), make(place)
    assert [put(table, number, number) for number in (1, 2)] == [1, 2]
    assert put(other, 1, 10, app="other") == 3
    with pytest.raises(ConflictError):
        put(table, 2, 3)
    table.refresh()
    gone = table.files()[0]
    put(table, 3, 30, removes=[gone])
    with pytest.raises(ConflictError):
        put(other, 2, 20, app="other", removes=[gone])
    with pytest.raises(ConflictError):
        table.stage(rows(5), name=os.path.basename(gone.file).removeprefix("part-").removesuffix("-0.snappy.parquet"))
    assert ids(DeltaTable.open(place.disk(), table.path)) == ids(table) == [2, 10, 30]
    assert ids(table, table.read_version(2)) == [1, 2]
    assert [commit.version for commit in table.commits(1)] == [2, 3, 4]
    assert sorted(judged(place, table)["id"].to_pylist()) == [2, 10, 30]


def test_odd_partitions_are_found_by_others_too(place):
    table = make(place, partitions=["day"])
    for number, day in enumerate(ODD):
        put(table, number + 1, number, day=day)
    table = DeltaTable.open(place.disk(), table.path)
    found = table.read(table.files())
    assert dict(zip(found["id"].to_pylist(), found["day"].to_pylist(), strict=True)) == dict(enumerate(ODD))
    assert judged(place, table).sort_by("id")["day"].to_pylist() == ODD


def test_checkpoints_and_a_log_that_is_cleaned(place):
    table = make(place)
    for number in range(1, 9):
        put(table, number, number)
        if number in (3, 6):
            assert table.checkpoint() == number
    late = DeltaTable.open(place.disk(), table.path)
    assert table.clean_log(keep_versions=1, needed_from=9) == 3
    again = DeltaTable.open(place.disk(), table.path)
    assert ids(again) == list(range(1, 9))
    assert sorted(judged(place, table)["id"].to_pylist()) == list(range(1, 9))
    with pytest.raises(DataLossRefused):
        list(again.commits(0))
    put(table, 9, 9)
    assert ids(late, late.refresh().files.values()) == list(range(1, 10))


def test_a_missing_data_file_is_named(place):
    table = make(place)
    put(table, 1, 1)
    (add,) = table.files()
    table.disk.unlink(table.file_path(add))
    with pytest.raises(CorruptionError, match="missing"):
        table.read([add])


def test_staged_files_can_be_discarded(place):
    table = make(place)
    staged, kept = (table.stage(rows(number), name=f"x-{number}") for number in (1, 2))
    table.commit(adds=kept.adds, clock_us=1)
    table.discard(staged.adds)
    table.discard(kept.adds)
    (add,) = staged.adds
    assert not table.disk.exists(table.file_path(add))
    assert ids(table) == [2]


def test_a_commit_costs_the_same_however_long_the_log_is(remote, monkeypatch):
    """Requests of a commit, and of looking for news, do not depend on the versions before."""
    disk = remote.disk()
    table = make(remote, disk)
    asked = []
    for name in ("put", "get", "head", "list", "list_with_delimiter", "delete"):
        call = getattr(disk._calls, name)
        monkeypatch.setattr(disk._calls, name, lambda *a, _n=name, _c=call, **k: (asked.append(_n), _c(*a, **k))[1])
    counts = []
    for number in range(1, 31):
        asked.clear()
        put(table, number, number)
        table.refresh()
        counts.append(tuple(asked))
    assert set(counts) == {("put", "put", "get", "head")}
    assert disk.exists(commit_path(table.path, 30))
