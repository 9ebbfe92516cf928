"""A table handle: commits and their conflicts, reading exactly what was stored, history."""

import itertools
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestream.errors import ConfigError, ConflictError, CorruptionError, DataLossRefused, TransientError
from lodestream.lake import crash
from lodestream.lake.actions import AddFile, RemoveFile
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.types import BIGINT, STRING, Column, Schema
from lodestream.testing.faults import FaultyDisk, ForgetfulDisk, PowerLoss, RecordingDisk

SCHEMA = Schema((Column("id", BIGINT), Column("day", STRING)))
ATTEMPTS = itertools.count()


def make(path, disk=None, partitions=(), schema=SCHEMA, **more) -> DeltaTable:
    return DeltaTable.create(
        disk or LocalDisk(), str(path), schema, partition_columns=partitions, table_id="t", clock_us=1_000_000, **more
    )


def rows(*ids, day="a") -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "day": pa.array([day] * len(ids), pa.string())})


def put(table, number, *ids, app="app", **more) -> int:
    staged = table.stage(rows(*ids), name=f"{number}-{app}-{next(ATTEMPTS)}")
    return table.commit(adds=staged.adds, txn=(app, number), clock_us=number * 1_000_000, **more)


def ids(table, adds=None):
    return sorted(table.read(table.files() if adds is None else adds)["id"].to_pylist())


def test_create_then_open(tmp_path):
    assert DeltaTable.open(LocalDisk(), str(tmp_path / "t")) is None
    table = make(tmp_path / "t", configuration={"lodestream.epoch": "1"}, partitions=["day"])
    again = make(tmp_path / "t", schema=Schema((Column("other", BIGINT),)))
    assert again.snapshot.metadata == table.snapshot.metadata
    assert table.snapshot.metadata.configuration == {"lodestream.epoch": "1"}
    assert table.snapshot.metadata.created_time == 1000
    assert (table.snapshot.protocol.reader, table.snapshot.protocol.writer) == (1, 2)
    text = (tmp_path / "t" / "_delta_log" / f"{0:020d}.json").read_text()
    assert "setTransactionRetentionDuration" not in text
    assert "inCommitTimestamp" not in text


@pytest.mark.parametrize("partitions", [["nope"], ["id", "day"], ["day", "day"]])
def test_impossible_partitions_are_refused(tmp_path, partitions):
    with pytest.raises(ConfigError):
        make(tmp_path / "t", partitions=partitions)
    assert not (tmp_path / "t").exists()


def test_a_commit_carries_its_facts(tmp_path):
    table = make(tmp_path / "t")
    staged = table.stage(rows(1, 2), name="1-x", hot=True)
    version = table.commit(
        adds=staged.adds, txn=("app", 1), info={"batch": 1, "attempt": "x"}, clock_us=5_000_000, operation="FLOW"
    )
    (commit,) = table.commits(0)
    assert (version, commit.version, commit.timestamp_ms) == (1, 1, 5000)
    assert commit.txns == {"app": 1}
    assert (commit.info["batch"], commit.info["attempt"], commit.info["operation"]) == (1, "x", "FLOW")
    (add,) = commit.adds
    assert add.hot
    assert add.num_records == 2
    assert add.modification_time == 5000
    assert add.path == "part-1-x-0.snappy.parquet"
    assert table.files() == [add] == DeltaTable.open(LocalDisk(), str(tmp_path / "t")).files()
    with pytest.raises(ValueError, match="txnId"):
        table.commit(info={"txnId": "mine"}, clock_us=0)


def test_conflicts(tmp_path):
    first = make(tmp_path / "t")
    put(first, 1, 1)
    second = DeltaTable.open(LocalDisk(), str(tmp_path / "t"))
    put(first, 2, 2)
    with pytest.raises(ConflictError, match="same flow"):
        put(second, 2, 3)
    assert put(second, 1, 3, app="another") == 3  # another application's append leaves room
    with pytest.raises(ConflictError, match="already committed"):
        put(second, 2, 4)
    with pytest.raises(ConflictError, match="already committed"):
        put(second, 1, 4)
    first.refresh()
    (one,) = [a for a in first.files() if "1-app" in a.path]
    put(first, 3, 5, removes=[one])
    with pytest.raises(ConflictError, match="removed the same file"):
        put(second, 2, 6, app="another", removes=[RemoveFile.of(one)])
    second.refresh()
    with pytest.raises(ConflictError, match="no longer live"):
        put(second, 2, 6, app="another", removes=[RemoveFile.of(one)])
    first.refresh()
    first.commit(metadata=replace(first.snapshot.metadata, description="x"), clock_us=9)
    with pytest.raises(ConflictError, match="schema or properties"):
        put(second, 2, 7, app="another")
    second.refresh()
    put(first, 4, 8)
    with pytest.raises(ConflictError, match="computed from"):
        put(second, 2, 7, app="another", blind=False)
    with pytest.raises(ConflictError, match="already live"):
        second.commit(adds=second.files()[:1], clock_us=9)
    assert ids(first) == [2, 3, 5, 8]
    assert [p.name for p in (tmp_path / "t" / "_delta_log").iterdir() if p.name.startswith(".tmp")] == []


def test_two_writers_of_the_same_file_name(tmp_path):
    first = make(tmp_path / "t")
    second = DeltaTable.open(LocalDisk(), str(tmp_path / "t"))
    staged = first.stage(rows(1), name="x")
    first.commit(adds=staged.adds, clock_us=0)
    with pytest.raises(ConflictError, match="added the same file"):
        second.commit(adds=staged.adds, clock_us=0)


def test_a_file_that_is_there_is_never_written_over(tmp_path):
    table = make(tmp_path / "t", partitions=["day"])
    staged = table.stage(rows(1), name="1-a")
    table.commit(adds=staged.adds, clock_us=0)
    two_days = pa.concat_tables([rows(5, day="b"), rows(6, day="a")])
    with pytest.raises(ConflictError, match="its own name"):
        DeltaTable.open(LocalDisk(), str(tmp_path / "t")).stage(pa.concat_tables([rows(7), two_days]), name="1-a")
    assert ids(table) == [1]
    assert sum(1 for _ in (tmp_path / "t").rglob("*.parquet")) == 1


def test_compaction_and_a_blind_writer_do_not_meet(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1, 1)
    put(table, 2, 2)
    other = DeltaTable.open(LocalDisk(), str(tmp_path / "t"))
    put(table, 3, 3)
    old = other.files()
    staged = other.stage(other.read(old), name="compact")
    adds = [replace(a, data_change=False) for a in staged.adds]
    other.commit(adds=adds, removes=[RemoveFile.of(a, data_change=False) for a in old], clock_us=4_000_000)
    table.refresh()
    assert ids(table) == [1, 2, 3]
    assert len(table.files()) == 2
    changes = [a for c in table.commits(0) for a in c.adds if a.data_change]
    assert ids(table, changes) == [1, 2, 3]


def test_a_lost_answer_is_no_second_commit(tmp_path):
    """The link took place but its caller was told that it had failed."""
    table = make(tmp_path / "t")
    staged = table.stage(rows(1), name="1-a")
    failures = [FileExistsError("network file system sent it twice")]
    table.disk = FaultyDisk(
        table.disk, lambda kind, path: failures.pop() if kind == "link" and failures else None, after=True
    )
    assert table.commit(adds=staged.adds, txn=("app", 1), clock_us=0) == 1
    assert ids(table) == [1]
    assert DeltaTable.open(LocalDisk(), str(tmp_path / "t")).snapshot.version == 1


def test_an_unknown_outcome_is_found_by_refresh(tmp_path):
    table = make(tmp_path / "t")
    staged = table.stage(rows(1), name="1-a")
    log = str(tmp_path / "t" / "_delta_log")
    whole = table.disk
    table.disk = FaultyDisk(
        whole, lambda kind, path: TransientError("io") if kind == "sync_directory" and path == log else None
    )
    with pytest.raises(TransientError):
        table.commit(adds=staged.adds, txn=("app", 1), clock_us=0)
    table.disk = whole
    with pytest.raises(ConflictError):
        table.commit(adds=staged.adds, txn=("app", 1), clock_us=0)
    assert table.refresh().txns == {"app": 1}
    assert ids(table) == [1]


@pytest.mark.parametrize("kind", ["write", "fsync", "sync_directory", "link", "unlink", "make_directory"])
@pytest.mark.parametrize("after", [False, True])
def test_any_failing_effect_leaves_a_table_that_goes_on(tmp_path, kind, after):
    table = make(tmp_path / "t", partitions=["day"])
    whole = table.disk
    for failing in range(3):
        count = [0]

        def fault(k, path, failing=failing, count=count):
            count[0] += k == kind
            return TransientError("planned") if k == kind and count[0] == failing + 1 else None

        table.disk = FaultyDisk(whole, fault, after=after)
        number = failing + 1
        try:
            staged = table.stage(rows(number, day=f"d{number}"), name=f"{number}-a")
            table.commit(adds=staged.adds, txn=("app", number), clock_us=0)
        except TransientError:
            table.disk = whole
            table.refresh()
            if table.snapshot.txns.get("app", 0) < number:
                staged = table.stage(rows(number, day=f"d{number}"), name=f"{number}-b")
                table.commit(adds=staged.adds, txn=("app", number), clock_us=0)
        assert ids(table) == list(range(1, number + 1))
        assert ids(DeltaTable.open(LocalDisk(), str(tmp_path / "t"))) == list(range(1, number + 1))


def test_a_refresh_reads_new_versions_only(tmp_path):
    table = make(tmp_path / "t")
    for number in range(1, 6):
        put(table, number, number)
    reader = DeltaTable.open(LocalDisk(), str(tmp_path / "t"))
    put(table, 6, 6)
    for version in range(5):
        (tmp_path / "t" / "_delta_log" / f"{version:020d}.json").unlink()
    assert reader.refresh().version == 6
    assert ids(reader) == [1, 2, 3, 4, 5, 6]


def test_a_reader_left_behind_by_log_cleanup_catches_up(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1, 1)
    reader = DeltaTable.open(LocalDisk(), str(tmp_path / "t"))
    for number in range(2, 8):
        put(table, number, number)
        if number in (5, 6):
            table.checkpoint(0)
    assert table.clean_log(keep_versions=1, needed_from=100) == 5
    assert reader.refresh().version == 7
    assert ids(reader) == list(range(1, 8))


def test_a_table_replaced_under_its_reader_is_noticed(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1, 1)
    for path in (tmp_path / "t" / "_delta_log").iterdir():
        path.unlink()
    with pytest.raises(CorruptionError, match="deleted or replaced"):
        table.refresh()


def test_history(tmp_path):
    table = make(tmp_path / "t")
    for number in range(1, 5):
        put(table, number, number)
    (one,) = [a for a in table.files() if "1-app" in a.path]
    put(table, 5, 5, removes=[one])
    assert ids(table, table.read_version(0)) == []
    assert ids(table, table.read_version(4)) == [1, 2, 3, 4]
    assert ids(table, table.read_version(5)) == [2, 3, 4, 5]
    assert [c.version for c in table.commits(2)] == [3, 4, 5]
    assert [c.version for c in table.commits(2, 4)] == [3, 4]
    assert list(table.commits(5)) == []
    with pytest.raises(ConfigError, match="no such version"):
        table.read_version(9)
    with pytest.raises(CorruptionError, match="does not have this version"):
        list(table.commits(5, 9))


def test_a_reader_that_the_log_no_longer_serves_is_told(tmp_path):
    table = make(tmp_path / "t")
    for number in range(1, 8):
        put(table, number, number)
        if number in (3, 5):
            table.checkpoint(0)
    assert table.clean_log(keep_versions=1, needed_from=3) == 3
    assert [c.version for c in table.commits(2)] == [3, 4, 5, 6, 7]
    with pytest.raises(DataLossRefused, match=r"no longer in the log.*fix="):
        list(table.commits(1))
    with pytest.raises(DataLossRefused, match="no longer kept"):
        table.read_version(1)
    assert ids(table, table.read_version(3)) == [1, 2, 3]


def test_columns_added_later_are_null_in_older_files(tmp_path):
    table = make(tmp_path / "t", partitions=["day"])
    put(table, 1, 1)
    wider = SCHEMA.with_columns(Column("extra", STRING))
    staged = table.stage(rows(2).append_column("extra", pa.array(["x"])), name="2-a", schema=wider)
    metadata = replace(table.snapshot.metadata, schema=wider)
    table.commit(adds=staged.adds, metadata=metadata, txn=("app", 2), clock_us=0)
    read = table.read(table.files())
    assert read.column_names == ["id", "day", "extra"]
    assert sorted(map(str, read["extra"].to_pylist())) == ["None", "x"]
    assert table.read(table.files(), columns=["extra", "id"]).column_names == ["extra", "id"]
    assert table.stage(rows(3), name="3-a").rows["extra"].to_pylist() == [None]
    with pytest.raises(ConfigError, match="no such column"):
        table.read(table.files(), columns=["nope"])


def test_rows_that_do_not_fit_are_refused(tmp_path):
    schema = Schema((Column("id", BIGINT, nullable=False), Column("day", STRING)))
    table = make(tmp_path / "t", schema=schema)
    for bad, message in [
        (pa.table({"id": ["x"]}), "table's type"),
        (pa.table({"id": [1], "what": [1]}), "does not have"),
        (pa.table({"id": pa.array([None], pa.int64())}), "NULL"),
        (pa.table({"id": pa.array([2**63], pa.uint64())}), "table's type"),
    ]:
        with pytest.raises(ConfigError, match=message):
            table.stage(bad, name="1")


def test_dictionaries_go_to_repeating_columns_only(tmp_path):
    schema = Schema((Column("id", BIGINT), Column("day", STRING), Column("url", STRING)))
    table = make(tmp_path / "t", schema=schema)
    many = pa.table({"id": range(5000), "day": ["a", "b"] * 2500, "url": [f"u{i}" for i in range(5000)]})
    (add,) = table.stage(many, name="1").adds
    group = pq.read_metadata(table.file_path(add)).row_group(0)
    encodings = {group.column(i).path_in_schema: "RLE_DICTIONARY" in group.column(i).encodings for i in range(3)}
    assert encodings == {"id": False, "day": True, "url": False}
    assert {group.column(i).compression for i in range(3)} == {"SNAPPY"}
    assert json.loads(add.stats) == {"numRecords": 5000}


def test_a_missing_or_damaged_data_file_is_corruption(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1, 1)
    path = tmp_path / "t" / table.files()[0].path
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CorruptionError, match="damaged"):
        table.read(table.files())
    path.unlink()
    with pytest.raises(CorruptionError, match="missing"):
        table.read(table.files())


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@given(st.lists(st.tuples(st.none() | st.integers(-(2**63), 2**63 - 1), TEXTS, TEXTS), max_size=30))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_read_returns_what_stage_returned(tmp_path, values):
    schema = Schema((Column("id", BIGINT), Column("a", STRING), Column("b", STRING)))
    path = tmp_path / f"t{len(list(tmp_path.iterdir()))}"
    table = DeltaTable.create(
        ForgetfulDisk(LocalDisk(), lambda kind, p: True), str(path), schema, partition_columns=["b"], table_id="t",
        clock_us=0,
    )  # fmt: skip
    given_rows = pa.table(
        {
            "id": pa.array([v[0] for v in values], pa.int64()),
            "a": pa.array([v[1] for v in values], pa.string()),
            "b": pa.array([v[2] for v in values], pa.string()),
        }
    )
    staged = table.stage(given_rows, name="1")
    table.commit(adds=staged.adds, clock_us=0)
    assert table.read(staged.adds).equals(staged.rows)
    assert len(staged.adds) == len({v[2] or None for v in values})

    def key(row):
        return str(row)

    stored = [(v[0], v[1], v[2] or None) for v in values]
    assert sorted(map(key, stored)) == sorted(key(tuple(r.values())) for r in staged.rows.to_pylist())
    for part in {v[2] or None for v in values}:  # the order inside a partition is that of arrival
        assert [s for s in stored if s[2] == part] == [
            tuple(r.values()) for r in staged.rows.to_pylist() if r["b"] == part
        ]


def test_what_commits_and_open_show_is_durable(tmp_path):
    """The writer dies between link and sync; who has seen its commit must find it again after a power loss."""
    for look in ("commits", "open"):
        root = str(tmp_path / look)
        (tmp_path / look).mkdir()
        recorder = RecordingDisk(LocalDisk(), root)
        table = make(f"{root}/t", disk=recorder)
        reader = DeltaTable.open(recorder, f"{root}/t")
        dying = DeltaTable.open(ForgetfulDisk(recorder, lambda k, p: p.endswith("_delta_log")), f"{root}/t")
        staged = table.stage(rows(1), name="1-a")
        dying.commit(adds=staged.adds, txn=("app", 1), clock_us=0)
        if look == "commits":
            assert [c.version for c in reader.commits(0)] == [1]
        else:
            assert DeltaTable.open(recorder, f"{root}/t").snapshot.version == 1
        end = len(recorder.record)
        for number, state in enumerate(PowerLoss(recorder.record).states(since=end)):
            left = DeltaTable.open(LocalDisk(), state.build(f"{root}-{number}") + "/t")
            assert ids(left) == [1]


def test_discarding_never_touches_what_was_committed(tmp_path):
    table = make(tmp_path / "t")
    lost, won = table.stage(rows(1), name="1-a"), table.stage(rows(1), name="1-b")
    DeltaTable.open(LocalDisk(), str(tmp_path / "t")).commit(adds=won.adds, clock_us=0)
    table.discard(lost.adds)
    table.discard(won.adds)
    assert [p.name for p in (tmp_path / "t").glob("*.parquet")] == [won.adds[0].path]
    table.commit(removes=won.adds, clock_us=0)
    table.discard(won.adds)
    table.discard(lost.adds)
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 1


def test_hot_files_follow_swaps(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1, 1)
    for number in range(2, 5):
        staged = table.stage(rows(number), name=f"{number}", hot=True)
        table.commit(adds=staged.adds, removes=table.hot_files(), clock_us=0)
        assert [a.path for a in table.hot_files()] == [a.path for a in staged.adds]
        assert [a.path for a in DeltaTable.open(LocalDisk(), str(tmp_path / "t")).hot_files()] == [
            a.path for a in staged.adds
        ]
        assert ids(table) == [1, number]
    table.commit(removes=table.hot_files(), clock_us=0)
    assert table.hot_files() == []


def test_an_idle_look_for_commits_does_not_list_the_log(tmp_path):
    table = make(tmp_path / "t")
    put(table, 1, 1)

    class Counting(ForgetfulDisk):
        lists = 0

        def list(self, path):
            self.lists += 1
            return super().list(path)

    table.disk = Counting(table.disk, lambda kind, path: False)
    assert list(table.commits(1)) == []
    assert table.refresh().version == 1
    assert table.disk.lists == 0


def test_crash_points_are_passed_in_order(tmp_path):
    passed: list[str] = []
    crash.install(passed.append)
    try:
        table = make(tmp_path / "t")
        put(table, 1, 1)
        table.checkpoint(0)
        put(table, 2, 2)
        table.checkpoint(0)
        table.clean_log(keep_versions=1, needed_from=100)
    finally:
        crash.install(None)
    assert [p for p in passed if p.startswith("commit.")][:5] == [
        "commit.before", "commit.staged", "commit.linked", "commit.synced", "commit.done",
    ]  # fmt: skip
    assert {p.split(".")[0] for p in passed} == {"create", "stage", "commit", "checkpoint", "clean"}


def test_an_append_only_or_newer_table_is_refused(tmp_path):
    table = make(tmp_path / "t", configuration={"delta.appendOnly": "true"})
    put(table, 1, 1)
    with pytest.raises(ConfigError, match="append only"):
        table.commit(removes=table.files(), clock_us=0)
    log = tmp_path / "u" / "_delta_log" / f"{0:020d}.json"
    newer = make(tmp_path / "u")
    log.write_text(log.read_text().replace('"minWriterVersion":2', '"minWriterVersion":4'))
    newer = DeltaTable.open(LocalDisk(), str(tmp_path / "u"))
    with pytest.raises(ConfigError, match="newer writer"):
        newer.commit(clock_us=0)


def test_add_file_knows_its_path_on_disk():
    assert AddFile("a%20b/c.parquet").file == "a b/c.parquet"
    with pytest.raises(CorruptionError):
        AddFile("../x")


def test_handles_forget_the_files_of_open_windows_that_left_long_ago(tmp_path):
    """Every batch swaps one, for months; others that left are remembered for a week, or longer where a vacuum waits."""
    path, minute_us = str(tmp_path / "t"), 60_000_000
    kept = {"delta.deletedFileRetentionDuration": "interval 10 minutes"}
    writer = DeltaTable.create(LocalDisk(), path, SCHEMA, configuration=kept, table_id="t", clock_us=0)
    reader = DeltaTable.open(LocalDisk(), path)
    for number in range(1, 61):
        staged = writer.stage(rows(number), name=f"{number}-a", hot=number != 5)
        removes = writer.hot_files() or [add for add in writer.files() if number == 7]
        writer.commit(adds=staged.adds, removes=removes, clock_us=number * minute_us)
        reader.refresh()
    opened = DeltaTable.open(LocalDisk(), path)
    for handle in (writer, reader):
        left = {gone.path for gone in handle.swapped_files()}
        assert len(left) == 11  # of ten minutes
        assert set(handle.snapshot.tombstones) == left
        assert left < {gone.path for gone in opened.swapped_files()}
    opened.checkpoint(60 * minute_us)
    again = DeltaTable.open(LocalDisk(), path)
    assert {gone.path for gone in again.swapped_files()} <= {gone.path for gone in writer.swapped_files()}
    assert set(again.snapshot.files) == set(writer.snapshot.files)


def test_handles_forget_what_compaction_removed_a_week_ago(tmp_path):
    path, day_us = str(tmp_path / "t"), 86_400_000_000
    writer = DeltaTable.create(LocalDisk(), path, SCHEMA, table_id="t", clock_us=0)
    vacuuming, reader = DeltaTable.open(LocalDisk(), path), DeltaTable.open(LocalDisk(), path)
    vacuuming.removed_kept_ms = 30 * day_us // 1000
    for number in range(1, 21):
        staged = writer.stage(rows(number), name=f"{number}-a")
        writer.commit(adds=staged.adds, removes=writer.files(), clock_us=number * day_us)
    back = next(add for add in writer.read_version(2))
    writer.commit(adds=[back], removes=writer.files(), clock_us=20 * day_us)  # a file comes back, and leaves again
    writer.commit(removes=[back], clock_us=20 * day_us)
    for handle in (vacuuming, reader):
        handle.refresh()
    assert set(reader.snapshot.tombstones) == set(writer.snapshot.tombstones)
    assert {gone.deletion_time * 1000 // day_us for gone in writer.snapshot.tombstones.values()} == set(range(13, 21))
    assert back.path in writer.snapshot.tombstones
    assert len(vacuuming.snapshot.tombstones) == 20


def test_who_only_follows_soon_forgets_removed_files(tmp_path):
    """What upkeep and a fresh look know of them stays."""
    table, minute_us = make(tmp_path / "t"), 60_000_000
    for number in range(30):
        put(table, number, number)
    looking, following = DeltaTable.open(LocalDisk(), table.path), DeltaTable.follow(LocalDisk(), table.path)
    for number in range(30, 60):
        table.commit(removes=[RemoveFile.of(table.files()[0])], clock_us=number * minute_us)
        looking.refresh()
        following.refresh()
    assert len(looking.snapshot.tombstones) == 30
    assert len(following.snapshot.tombstones) == 2
    assert len(following.files()) == 0
    with pytest.raises(ValueError, match="has forgotten"):
        following.checkpoint()
    looking.checkpoint(60 * minute_us)
    assert len(DeltaTable.open(LocalDisk(), table.path).snapshot.tombstones) == 30
    table.commit(clock_us=61 * minute_us)
    table.checkpoint(61 * minute_us, tombstones_kept_us=20 * minute_us)  # no property says longer
    table.clean_log(keep_versions=1, needed_from=10**9)
    assert len(DeltaTable.open(LocalDisk(), table.path).snapshot.tombstones) == 18
