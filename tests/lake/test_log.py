"""Opening a log that others wrote badly, broke, cut or attacked: fall back, repair, or say what is wrong."""

import json
import random
import shutil
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.actions import AddFile
from lodestream.lake.checkpoint import Contents, write_checkpoint
from lodestream.lake.disk import LocalDisk
from lodestream.lake.log import list_log, load
from lodestream.lake.maintenance import interval_ms, repair
from lodestream.lake.table import DeltaTable
from lodestream.model.types import BIGINT, STRING, Column, Schema
from lodestream.testing.faults import ForgetfulDisk

SCHEMA = Schema((Column("id", BIGINT), Column("day", STRING)))


@pytest.fixture
def table(tmp_path) -> DeltaTable:
    """Eight commits, checkpoints at 4 and 6, a hot file, a tombstone, partitions with odd names."""
    disk = ForgetfulDisk(LocalDisk(), lambda kind, path: True)
    table = DeltaTable.create(
        disk, str(tmp_path / "t"), SCHEMA, partition_columns=["day"], table_id="t", clock_us=10**9,
        configuration={"lodestream.epoch": "1"},
    )  # fmt: skip
    for number in range(1, 9):
        rows = pa.table(
            {"id": [number, -number], "day": ["a b", None]}, schema=pa.schema([("id", "int64"), ("day", "string")])
        )
        staged = table.stage(rows, name=f"{number}-a", hot=number == 3)
        removes = [a for a in table.files() if "2-a-0" in a.path] if number == 4 else []
        table.commit(adds=staged.adds, removes=removes, txn=("app", number), clock_us=10**9 + number)
        if number in (4, 6):
            table.checkpoint(10**9)
    return table


def log(table):
    return Path(table.path) / "_delta_log"


def same(table) -> None:
    """The table opens and is what it was, tombstones and hot tags included."""
    found = load(LocalDisk(), table.path)
    assert found is not None
    assert found.version == table.snapshot.version
    assert set(found.files) == set(table.snapshot.files)
    assert dict(found.tombstones).keys() == dict(table.snapshot.tombstones).keys()
    assert found.txns == table.snapshot.txns
    assert found.metadata == table.snapshot.metadata
    assert {a.path for a in found.files.values() if a.hot} == {a.path for a in table.files() if a.hot} != set()
    for path, add in found.files.items():
        wanted = table.snapshot.files[path]
        assert (dict(add.partition_values), add.size, add.stats, add.modification_time) == (
            dict(wanted.partition_values), wanted.size, wanted.stats, wanted.modification_time,
        )  # fmt: skip


def test_the_newest_checkpoint_and_the_tail_make_the_snapshot(table):
    same(table)
    for version in range(6):
        (log(table) / f"{version:020d}.json").unlink()
    same(table)


@pytest.mark.parametrize("hint", [b"", b"{", b"garbage\xff", b"[]", b'{"version":99,"size":1}', b'{"version":2}', None])
def test_the_hint_is_never_relied_on(table, hint):
    path = log(table) / "_last_checkpoint"
    path.unlink()
    if hint is not None:
        path.write_bytes(hint)
    same(table)


def test_any_flipped_byte_in_a_checkpoint_is_found_or_harmless(table):
    """The log behind it is whole, so the table is the same whatever byte was flipped."""
    path = log(table) / f"{6:020d}.checkpoint.parquet"
    whole = path.read_bytes()
    chosen = random.Random(1)
    for _ in range(200):
        broken = bytearray(whole)
        broken[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(bytes(broken))
        same(table)
    for cut in [0, 3, 8, len(whole) // 3, len(whole) // 2, len(whole) - 9, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        same(table)


def test_a_whole_checkpoint_that_lacks_a_file_is_found(table):
    """Valid Parquet, one action short: only the digest can tell."""
    path = log(table) / f"{6:020d}.checkpoint.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.slice(0, rows.num_rows - 1), path)
    same(table)
    hint = log(table) / "_last_checkpoint"
    hint.write_text(json.dumps({"version": 6, "size": rows.num_rows - 1}))
    same(table)


def test_a_foreign_checkpoint_shorter_than_its_hint_is_found(table):
    path = log(table) / f"{6:020d}.checkpoint.parquet"
    rows = pq.read_table(path).replace_schema_metadata(None)
    pq.write_table(rows.slice(0, rows.num_rows - 1), path)
    same(table)


def test_a_flip_after_log_cleanup_falls_back_to_the_older_checkpoint(table):
    assert table.clean_log(keep_versions=1, needed_from=100) == 4
    assert sorted(list_log(LocalDisk(), table.path).commits) == [4, 5, 6, 7, 8]
    path = log(table) / f"{6:020d}.checkpoint.parquet"
    whole = path.read_bytes()
    chosen = random.Random(2)
    for _ in range(20):
        broken = bytearray(whole)
        broken[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(bytes(broken))
        same(table)


def test_log_cleanup_needs_two_checkpoints_that_can_be_read(table):
    path = log(table) / f"{4:020d}.checkpoint.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert table.clean_log(keep_versions=1, needed_from=100) == 0
    same(table)


def test_log_cleanup_respects_readers_versions_and_age(table):
    assert table.clean_log(keep_versions=100, needed_from=100) == 0
    assert table.clean_log(keep_versions=1, needed_from=0) == 0
    assert table.clean_log(keep_versions=1, needed_from=100, older_than_us=10**9) == 0
    assert table.clean_log(keep_versions=7, needed_from=100) == 2
    assert table.clean_log(keep_versions=1, needed_from=3) == 1
    assert sorted(list_log(LocalDisk(), table.path).commits) == [3, 4, 5, 6, 7, 8]
    assert table.clean_log(keep_versions=1, needed_from=100) == 1
    table.checkpoint(10**9)
    assert table.clean_log(keep_versions=1, needed_from=100) == 2
    assert sorted(list_log(LocalDisk(), table.path).commits) == [6, 7, 8]
    assert sorted(list_log(LocalDisk(), table.path).checkpoints) == [6, 8]
    same(table)
    other = deltalake.DeltaTable(table.path)
    assert (other.version(), other.transaction_version("app")) == (8, 8)
    assert len(other.file_uris()) == len(table.files())


def test_a_hint_to_a_dropped_checkpoint_is_moved_on(table):
    table.checkpoint(10**9)
    (log(table) / "_last_checkpoint").write_text('{"version":4,"size":9}')
    assert table.clean_log(keep_versions=1, needed_from=100) > 0
    named = json.loads((log(table) / "_last_checkpoint").read_text())
    assert named["version"] == 8
    assert deltalake.DeltaTable(table.path).version() == 8
    same(table)


def test_old_tombstones_are_left_out_of_checkpoints(table):
    hour_us = 3600 * 10**6
    assert len(table.snapshot.tombstones) == 1
    table.checkpoint(10**9 + 167 * hour_us)
    assert len(load(LocalDisk(), table.path, 8).tombstones) == 1
    (log(table) / f"{8:020d}.checkpoint.parquet").unlink()  # the hint still tells the size of the one before
    table.checkpoint(10**9 + 169 * hour_us)
    assert len(load(LocalDisk(), table.path, 8).tombstones) == 0


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"\n", "empty"), (b'{"commitInfo":{}}\n{"add":{"pa', "torn")]
)
def test_a_broken_last_commit_is_named_and_repaired(table, content, word):
    (log(table) / f"{9:020d}.json").write_bytes(content)
    with pytest.raises(CorruptionError, match=rf"commit is {word}.*lodestream doctor --repair"):
        DeltaTable.open(LocalDisk(), table.path)
    done = repair(LocalDisk(), table.path)
    assert len(done) == 1
    assert "put broken commit 9 aside" in done[0]
    assert [p.read_bytes() for p in log(table).glob(".broken-*")] == [content]
    same(table)
    assert repair(LocalDisk(), table.path) == []
    assert deltalake.DeltaTable(table.path).version() == 8


def test_a_broken_commit_in_the_middle_is_not_thrown_away(table):
    path = log(table) / f"{7:020d}.json"
    path.write_bytes(b"")
    with pytest.raises(CorruptionError, match="commit is empty"):
        DeltaTable.open(LocalDisk(), table.path)
    assert repair(LocalDisk(), table.path) == []
    assert path.exists()


def test_repair_deletes_damaged_checkpoints_and_their_hint(table):
    path = log(table) / f"{6:020d}.checkpoint.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Exception, match=r"[Pp]arquet"):  # what delta-rs does with it
        deltalake.DeltaTable(table.path)
    done = repair(LocalDisk(), table.path)
    assert len(done) == 2
    assert list(list_log(LocalDisk(), table.path).checkpoints) == [4]
    same(table)
    assert len(deltalake.DeltaTable(table.path).file_uris()) == len(table.files())


def test_repair_keeps_a_damaged_checkpoint_that_nothing_replaces(table):
    for version in range(6):
        (log(table) / f"{version:020d}.json").unlink()
    (log(table) / f"{4:020d}.checkpoint.parquet").unlink()
    path = log(table) / f"{6:020d}.checkpoint.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptionError, match="checkpoint is damaged"):
        DeltaTable.open(LocalDisk(), table.path)
    with pytest.raises(CorruptionError, match="nothing replaces it"):
        repair(LocalDisk(), table.path)
    assert path.exists()


class SlowlyListed(LocalDisk):
    """Others commit while a folder is listed: names that join meanwhile may or may not be among those given."""

    def __init__(self, unseen, then=lambda: None):
        super().__init__()
        self.unseen, self.then, self.listings = unseen, then, 0

    def list(self, path):
        self.listings += 1
        found = super().list(path)
        if self.listings > 1 or not path.endswith("_delta_log"):
            return found
        self.then()
        return [name for name in found if not any(name.startswith(f"{version:020d}.") for version in self.unseen)]


def test_entries_that_join_during_a_listing_are_no_hole(table):
    disk = SlowlyListed((5, 6, 7))
    found = load(disk, table.path)
    assert found is not None
    assert (found.version, disk.listings) == (8, 1)
    assert set(found.files) == set(table.snapshot.files)
    assert list_log(SlowlyListed((3, 5, 7)), table.path).commits == set(range(9)) - {3} | {3}


def test_cleaning_up_during_a_listing_makes_no_hole(table):
    def cleaned():
        table.checkpoint(10**9)
        table.clean_log(keep_versions=1, needed_from=8)

    for version in (4, 6):
        (log(table) / f"{version:020d}.checkpoint.parquet").unlink()
    table.checkpoint(10**9)  # at 8, and not seen either
    (log(table) / f"{3:020d}.json").unlink()
    found = load(SlowlyListed((8,), cleaned), table.path)
    assert found is not None
    assert found.version == 8


def test_a_hole_in_the_log_is_corruption(table):
    (log(table) / f"{7:020d}.json").unlink()
    with pytest.raises(CorruptionError, match=r"hole.*missing=7"):
        DeltaTable.open(LocalDisk(), table.path)


def test_a_table_that_begins_with_a_checkpoint_exists(table):
    for version in range(6):
        (log(table) / f"{version:020d}.json").unlink()
    again = DeltaTable.create(LocalDisk(), table.path, SCHEMA, table_id="other", clock_us=0)
    assert again.snapshot.metadata.id == "t"
    assert not (log(table) / f"{0:020d}.json").exists()


def test_a_copied_table_reads_the_same(table, tmp_path):
    shutil.copytree(table.path, tmp_path / "copy")
    moved = DeltaTable.open(LocalDisk(), str(tmp_path / "copy"))
    assert moved.read(moved.files()).equals(table.read(table.files()))


ATTACKS = ["../secret/s.parquet", "/abs/s.parquet", "file:///abs/s.parquet", "%2e%2e/secret/s.parquet"]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("action", ["add", "remove"])
def test_a_path_out_of_the_table_is_refused(table, attack, action):
    body = {"path": attack, "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True}
    (log(table) / f"{9:020d}.json").write_text(json.dumps({action: body}))
    with pytest.raises(CorruptionError, match="outside its table"):
        DeltaTable.open(LocalDisk(), table.path)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_path_out_of_the_table_in_a_checkpoint_is_refused(table, attack):
    snapshot = table.snapshot
    bad = AddFile(attack, {}, 1, file="x")
    contents = Contents(snapshot.metadata, snapshot.protocol, {attack: bad}, {}, {})
    for version in range(9):
        (log(table) / f"{version:020d}.json").unlink()
    for version in (4, 6):
        (log(table) / f"{version:020d}.checkpoint.parquet").unlink()
    (log(table) / f"{8:020d}.checkpoint.parquet").write_bytes(write_checkpoint(contents)[0])
    with pytest.raises(CorruptionError, match="outside its table"):
        DeltaTable.open(LocalDisk(), table.path)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}, "columnMapping"),
        (
            {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"]}},
            "deletionVectors",
        ),
        (
            {"add": {"path": "a", "partitionValues": {}, "size": 1, "dataChange": True, "deletionVector": {"x": 1}}},
            "deletion vectors",
        ),
        (
            {
                "metaData": {
                    "id": "t",
                    "schemaString": '{"type":"struct","fields":[]}',
                    "configuration": {"delta.columnMapping.mode": "name"},
                }
            },
            "column mapping",
        ),
    ],
)
def test_features_that_cannot_be_read_are_named(table, action, message):
    (log(table) / f"{9:020d}.json").write_text(json.dumps(action))
    with pytest.raises(ConfigError, match=message):
        DeltaTable.open(LocalDisk(), table.path)


@pytest.mark.parametrize(
    "text",
    [
        '{"metaData":{"id":"t","schemaString":"{\\"type\\":\\"struct\\",\\"fields\\":[]}","partitionColumns":["x"]}}',
        '{"metaData":{"id":"t"}}', '{"add":{"path":"a"}}', '{"add":[]}\n[1]', '{"txn":{"appId":"a","version":"x"}}',
        '{"protocol":{}}\n{"protocol":1}', "null", "\x00\x01", '{"add":{"path":"a","size":1,"dataChange":true',
    ],
)  # fmt: skip
def test_a_commit_that_is_not_delta_is_corruption(table, text):
    (log(table) / f"{9:020d}.json").write_text(text)
    with pytest.raises(CorruptionError, match="commit is torn"):
        DeltaTable.open(LocalDisk(), table.path)


def test_a_multi_part_checkpoint_is_read(table):
    path = log(table) / f"{6:020d}.checkpoint.parquet"
    whole = pq.read_table(path).replace_schema_metadata(None)
    path.unlink()
    for version in range(6):
        (log(table) / f"{version:020d}.json").unlink()
    half = whole.num_rows // 2
    for part, rows in ((1, whole.slice(0, half)), (2, whole.slice(half))):
        pq.write_table(rows, log(table) / f"{6:020d}.checkpoint.{part:010d}.{2:010d}.parquet")
    same(table)
    (log(table) / f"{6:020d}.checkpoint.{1:010d}.{2:010d}.parquet").unlink()
    (log(table) / f"{4:020d}.checkpoint.parquet").unlink()
    with pytest.raises(CorruptionError):
        DeltaTable.open(LocalDisk(), table.path)


def test_a_checkpoint_by_delta_rs_is_read(table):
    for version in (4, 6):
        (log(table) / f"{version:020d}.checkpoint.parquet").unlink()
    (log(table) / "_last_checkpoint").unlink()
    deltalake.DeltaTable(table.path).create_checkpoint()
    for version in range(9):
        (log(table) / f"{version:020d}.json").unlink()
    assert load(LocalDisk(), table.path).version == 8
    found = DeltaTable.open(LocalDisk(), table.path)
    assert [a.path for a in found.files()] == [a.path for a in table.files()]
    assert [a.hot for a in found.files()] == [a.hot for a in table.files()]
    assert found.snapshot.txns == {"app": 8}


@pytest.mark.parametrize(
    ("text", "ms"),
    [(None, 5), ("interval 1 week", 604_800_000), ("interval 2 hours", 7_200_000), ("30 days", 2_592_000_000),
     ("interval 1 day 12 hours", 129_600_000)],
)  # fmt: skip
def test_intervals(text, ms):
    assert interval_ms(text, 5) == ms


@pytest.mark.parametrize("text", ["", "soon", "interval 3 fortnights"])
def test_other_intervals_are_refused(text):
    with pytest.raises(ConfigError, match="not an interval"):
        interval_ms(text, 5)
