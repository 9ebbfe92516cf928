"""Compaction keeps every row, leaves the writer alone, and Z-order lets readers skip files."""

import datetime as dt
import itertools
import json
import threading
from decimal import Decimal

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import ConfigError, RewrittenError, TransientError
from lodestream.lake import compaction
from lodestream.lake.actions import RemoveFile
from lodestream.lake.compaction import due, everything, newest_ms, rewrite
from lodestream.lake.disk import LocalDisk
from lodestream.lake.statistics import statistics
from lodestream.lake.table import DeltaTable
from lodestream.lake.vacuum import stored_files
from lodestream.lake.zorder import z_order, z_values
from lodestream.model.arrow import from_arrow
from lodestream.testing.faults import FaultyDisk, ForgetfulDisk
from tests.lake.outside import READERS, agree, rows_of

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.int64()), ("y", pa.string()), ("day", pa.string())])
COLUMNS = SCHEMA.names
MB = 1 << 20
DAY = 86_400_000


def disk():
    return ForgetfulDisk(LocalDisk(), lambda kind, path: True)


def make(path, partitions=("day",), over=None) -> DeltaTable:
    return DeltaTable.create(
        over or disk(), str(path), from_arrow(SCHEMA), partition_columns=partitions, table_id="t", clock_us=0
    )


def put(table, number, rows=10, days=("a", "b"), hot=False, at_ms=None):
    ids = [number * 1000 + i for i in range(rows)]
    batch = pa.table(
        {"id": ids, "x": [i * 7 % 13 for i in ids], "y": [f"n{i % 5}" for i in ids],
         "day": [days[i % len(days)] for i in range(rows)]}, schema=SCHEMA,
    )  # fmt: skip
    staged = table.stage(batch, name=f"{number}-a", hot=hot)
    table.commit(adds=staged.adds, txn=("app", number), clock_us=(number if at_ms is None else at_ms) * 1000)
    return staged


def compact(table, z=(), target=MB, **more):
    groups = everything(table.snapshot.files.values(), target_bytes=target, z_columns=z)
    return [rewrite(table, g, target_bytes=target, z_columns=z, clock_us=10**12, **more) for g in groups]


@pytest.mark.parametrize("z", [(), ("x", "y")], ids=["plain", "z-order"])
def test_every_reader_sees_the_same_rows_in_fewer_files(tmp_path, z):
    table = make(tmp_path / "t")
    for number in range(20):
        put(table, number)
    before = agree(table.path, COLUMNS)
    done = compact(table, z)
    assert [(one.before, one.after) for one in done] == [(20, 1), (20, 1)]
    assert len(table.files()) == 2
    assert agree(table.path, COLUMNS) == before
    assert compact(table, z) == [], "a second time there is nothing to do"
    table.checkpoint()
    assert agree(table.path, COLUMNS) == before


def test_a_compaction_is_no_change_for_those_who_follow_the_table(tmp_path):
    table = make(tmp_path / "t")
    for number in range(4):
        put(table, number)
    version = table.snapshot.version
    compact(table)
    for commit in table.commits(version):
        assert not any(file.data_change for file in (*commit.adds, *commit.removes))
        assert commit.info["operation"] == "OPTIMIZE"
    history = deltalake.DeltaTable(table.path).history()
    assert history[0]["operation"] == "OPTIMIZE"


def test_rows_stay_in_the_order_they_came_and_remember_when(tmp_path):
    table = make(tmp_path / "t", partitions=())
    for number in (9, 10, 11):
        put(table, number, at_ms=number)
    compact(table)
    (file,) = table.files()
    assert table.read([file])["id"].to_pylist() == [n * 1000 + i for n in (9, 10, 11) for i in range(10)]
    assert (newest_ms(file), file.modification_time) == (11, 10**9)


def test_the_hot_file_and_large_files_are_left_alone(tmp_path):
    table = make(tmp_path / "t", partitions=())
    large = put(table, 1, rows=50_000).adds[0]
    for number in (2, 3):
        put(table, number)
    hot = put(table, 4, hot=True).adds[0]
    compact(table, target=large.size)
    assert {large.path, hot.path} < set(table.snapshot.files)
    assert len(table.files()) == 3


def test_files_are_due_by_level_day_and_partition(tmp_path):
    table = make(tmp_path / "t")
    for number in range(16):
        put(table, number, days=("a",))
    put(table, 20, days=("b",))
    put(table, 21, days=("a",), at_ms=DAY)

    def groups(**more):
        given = {"target_bytes": MB, "files_min": 16, "changed_before_ms": 10 * DAY, **more}
        return [len(group.files) for group in due(table.snapshot.files.values(), **given)]

    assert groups() == [16]
    assert groups(files_min=17) == []
    assert groups(changed_before_ms=10) == []
    assert groups(files_min=2) == [16]
    small = table.files()[0].size
    assert max(groups(target_bytes=2 * small + 10, files_min=2)) == 2, "a group is not larger than the target"


def test_a_row_is_rewritten_a_few_times_whatever_the_number_of_batches(tmp_path):
    table = make(tmp_path / "t", partitions=())
    written = 0
    for number in range(200):
        put(table, number, at_ms=1)
        for group in due(table.snapshot.files.values(), target_bytes=MB, files_min=8, changed_before_ms=DAY):
            written += rewrite(table, group, target_bytes=MB, clock_us=1000).rows
    assert len(table.files()) < 3 * 8
    assert written <= 3 * 2000
    assert sorted(table.read(table.files())["id"].to_pylist()) == [n * 1000 + i for n in range(200) for i in range(10)]


def test_a_writer_that_removes_a_file_wins(tmp_path):
    table = make(tmp_path / "t", partitions=())
    for number in range(3):
        put(table, number)
    groups = everything(table.snapshot.files.values(), target_bytes=MB)
    other = DeltaTable.open(disk(), table.path)
    other.commit(removes=[RemoveFile.of(other.files()[0])], clock_us=1, operation="DELETE")
    assert rewrite(table, groups[0], target_bytes=MB, clock_us=1) is None
    assert len(list(stored_files(table.disk, table.path))) == 3, "the new file is taken back"
    assert len(agree(table.path, COLUMNS)) == 20


def test_a_writer_that_comes_after_is_told_to_go_again_at_once(tmp_path):
    table = make(tmp_path / "t", partitions=())
    for number in range(3):
        put(table, number)
    other = DeltaTable.open(disk(), table.path)
    old = other.files()[0]
    compact(table)
    with pytest.raises(RewrittenError):
        other.commit(removes=[RemoveFile.of(old)], clock_us=1, operation="DELETE")


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    table = make(tmp_path / "t", partitions=())
    for number in range(3):
        put(table, number, rows=100)
    written = []

    def third(kind, path):
        if kind != "write" or not path.endswith(".parquet"):
            return None
        written.append(path)
        return TransientError("disk is full") if len(written) == 3 else None

    full = FaultyDisk(disk(), third)
    table = DeltaTable.open(full, table.path)
    (group,) = everything(table.snapshot.files.values(), target_bytes=MB)
    with pytest.raises(TransientError):
        rewrite(table, group, target_bytes=group.bytes // 3, clock_us=1)
    assert len(list(stored_files(table.disk, table.path))) == 3
    assert len(agree(table.path, COLUMNS)) == 300


def test_appends_go_on_beside_it(tmp_path):
    table = make(tmp_path / "t")
    for number in range(10):
        put(table, number)
    done = threading.Event()
    conflicts = []

    def compacting() -> None:
        mine = DeltaTable.open(disk(), table.path)
        while not done.is_set():
            mine.refresh()
            for group in due(mine.snapshot.files.values(), target_bytes=MB, files_min=4, changed_before_ms=DAY):
                conflicts.append(rewrite(mine, group, target_bytes=MB, clock_us=1000) is None)

    thread = threading.Thread(target=compacting)
    thread.start()
    try:
        for number in range(10, 80):
            put(table, number, at_ms=1)  # never raises
    finally:
        done.set()
        thread.join()
    assert conflicts
    assert not any(conflicts)
    assert len(agree(table.path, COLUMNS)) == 800


# --- Z-order ---------------------------------------------------------------------------------------------------------


def interleaved(ranks: list[int], bits: int) -> int:
    """The Morton code, bit by bit, as it is defined."""
    code = 0
    for bit in reversed(range(bits)):
        for rank in ranks:
            code = code * 2 + (rank >> bit) % 2
    return code


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(-5, 5)), st.one_of(st.none(), st.text("ab", max_size=2))),
        min_size=1, max_size=40,
    )
)  # fmt: skip
def test_codes_are_the_bits_of_the_ranks_in_turn(rows):
    table = pa.table(
        {"x": pa.array([r[0] for r in rows], pa.int64()), "y": pa.array([r[1] for r in rows], pa.string())}
    )

    def rank(values, value):
        below = sum(v is not None and (value is None or v < value) for v in values)
        return below * 2**16 // len(values)

    xs, ys = [r[0] for r in rows], [r[1] for r in rows]
    wanted = [interleaved([rank(xs, x), rank(ys, y)], 16) for x, y in rows]
    assert z_values(table, ["x", "y"]).tolist() == wanted
    assert z_values(z_order(table, ["x", "y"]), ["x", "y"]).tolist() == sorted(wanted)


def test_files_are_skipped_in_each_of_the_columns(tmp_path):
    """A filter on either column opens about half of 8 files; without an order it opens all."""
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("text", pa.string())])
    table = DeltaTable.create(disk(), str(tmp_path / "t"), from_arrow(schema), table_id="t", clock_us=0)
    random = np.random.default_rng(7)
    rows = pa.table({"a": random.integers(0, 1000, 64_000), "b": random.integers(0, 1000, 64_000)})
    rows = rows.append_column("text", pa.array([f"{v:09}" for v in random.integers(0, 10**9, 64_000)]))
    for number in range(4):
        staged = table.stage(rows.slice(number * 16_000, 16_000), name=f"{number}")
        table.commit(adds=staged.adds, clock_us=1)
    size = sum(add.size for add in table.files())

    def opened(column):
        """How many files a filter for one value opens, on average."""
        told = [json.loads(add.stats) for add in table.files()]
        bounds = [(one["minValues"][column], one["maxValues"][column]) for one in told]
        return sum(low <= value <= high for value in range(5, 1000, 10) for low, high in bounds) / 100

    (done,) = compact(table, ("text",), target=size // 8 + 1)
    assert done.after == 8
    assert opened("a") == opened("b") == 8
    (done,) = compact(table, ("a", "b"), target=size // 8 + 1)
    assert done.after in (7, 8)
    assert opened("a") <= 5
    assert opened("b") <= 5
    assert len(agree(table.path, schema.names)) == 64_000
    for column, value in itertools.product(("a", "b"), (0, 500, 999)):
        there = pc.sum(pc.equal(rows[column], value)).as_py()
        dataset = deltalake.DeltaTable(table.path).to_pyarrow_dataset()
        assert dataset.count_rows(filter=pc.field(column) == value) == there


def test_columns_that_cannot_be_ordered_by_are_refused():
    schema = from_arrow(pa.schema([("a", pa.int64()), ("l", pa.list_(pa.int64())), ("p", pa.string())]))
    for columns, told in ((["b"], "no such column"), (["l"], "type"), (["p"], "partition"), (["a", "a"], "distinct")):
        with pytest.raises(ConfigError, match=told):
            compaction.check_z_order(schema, columns, ["p"])


# --- statistics ------------------------------------------------------------------------------------------------------

UTC = dt.UTC
VALUES = {
    "id": pa.array([1, 2, None], pa.int64()),
    "flag": pa.array([True, None, False]),
    "real": pa.array([1.5, -2.5, None], pa.float64()),
    "text": pa.array(["b" * 40, "é", None]),
    "raw": pa.array([b"1", b"2", None]),
    "day": pa.array([dt.date(2024, 1, 1), dt.date(1, 1, 1), None]),
    "time": pa.array([dt.datetime(2024, 1, 1, 0, 0, 0, 1, UTC), None, dt.datetime(999, 1, 1, tzinfo=UTC)],
                     pa.timestamp("us", "UTC")),
    "money": pa.array([Decimal("1.10"), Decimal("-99999.99"), None], pa.decimal128(12, 2)),
    "nothing": pa.array([None, None, None], pa.int64()),
    "list": pa.array([[1], None, []], pa.list_(pa.int64())),
    "deep": pa.array([{"a": 1}, None, {"a": None}], pa.struct([("a", pa.int64())])),
}  # fmt: skip


def test_statistics_never_hide_a_row_from_any_reader(tmp_path):
    """Each reader finds each value by an equality, whatever it does with the statistics."""
    rows = pa.table(VALUES)
    table = DeltaTable.create(disk(), str(tmp_path / "t"), from_arrow(rows.schema), table_id="t", clock_us=0)
    table.commit(adds=table.stage(rows, name="1").adds, clock_us=1)
    table.commit(adds=table.stage(rows.slice(0, 1), name="2").adds, clock_us=1)
    compact(table)
    (file,) = table.files()
    told = json.loads(file.stats)
    assert set(told["minValues"]) == {"id", "flag", "real", "text", "day", "time", "money"}
    assert told["nullCount"]["nothing"] == 4
    for name in ("ours", "delta-rs", "polars"):
        assert len(rows_of(READERS[name](table.path), rows.column_names)) == 4
    dataset = deltalake.DeltaTable(table.path).to_pyarrow_dataset()
    for column in told["minValues"]:
        for value in rows[column]:
            if value.as_py() is not None:
                assert dataset.count_rows(filter=pc.field(column) == value) >= 1, (column, value)
        assert dataset.count_rows(filter=pc.is_null(pc.field(column))) >= 1, column
    query = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(table.path))
    for test in ("id = 2", "real < -2", "text > 'c'", "money = 1.10", "day < '2000-01-01'", "time < '2000-01-01'"):
        assert len(pa.table(query.execute(f"select id from t where {test}").read_all())) >= 1, test


@pytest.mark.parametrize(
    "column",
    [pa.array([1.0, float("nan")]), pa.array([float("inf")]), pa.array([Decimal(2**60)], pa.decimal128(38, 0))],
    ids=["nan", "infinity", "long decimal"],
)
def test_values_without_a_json_form_leave_all_columns_without_bounds(column):
    assert json.loads(statistics(pa.table({"x": column}))) == {"numRecords": len(column)}
