"""Keyed reads give what a scan of the same version gives, and build no more than is asked for."""

import datetime as dt
import math
import os
import threading
import uuid
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestream.lake.actions import RemoveFile
from lodestream.model.arrow import to_arrow
from lodestream.query import _keyed_index, keyed
from lodestream.query._keyed_values import UnclearError, stored_as
from lodestream.query.keyed import KeyedReads
from lodestream.query.quoting import quoted
from lodestream.query.scan import scan
from tests.query.conftest import CLOCK_US, append, make

COLUMNS = {
    "id": "bigint", "small": "tinyint", "ok": "boolean", "day": "date", "seen_at": "timestamp", "name": "string",
    "ratio": "double", "thin": "float", "amount": "decimal(12,2)", "wide": "decimal(38,6)", "raw": "binary",
    "tags": "array<string>", "inner": "struct<a:int,b:string>",
}  # fmt: skip
KEYS = [name for name in COLUMNS if name not in ("tags", "inner")]
UTC = dt.UTC
FEW = {
    "id": st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1]),
    "small": st.sampled_from([-128, 0, 7, 127]),
    "ok": st.booleans(),
    "day": st.sampled_from([dt.date(1969, 12, 31), dt.date(1970, 1, 1), dt.date(2024, 2, 29)]),
    "seen_at": st.sampled_from([dt.datetime(1969, 1, 1, tzinfo=UTC), dt.datetime(2024, 5, 1, 12, 0, 0, 1, tzinfo=UTC)]),
    "name": st.sampled_from(["", "a", "ä", "a b", "12345678", "123456789", "x" * 100]),
    "ratio": st.sampled_from([0.0, -0.0, 1.5, math.inf, -math.inf, math.nan]),
    "thin": st.sampled_from([0.0, -0.0, 0.5, math.nan]),
    "amount": st.sampled_from([Decimal("0.00"), Decimal("-1.50"), Decimal("9999999999.99")]),
    "wide": st.sampled_from([Decimal(0), Decimal("1.000001"), Decimal("-" + "9" * 32 + ".999999")]),
    "raw": st.sampled_from([b"", b"\0", b"abc"]),
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {name: st.none() | values for name, values in FEW.items()}
        | {"tags": st.none() | st.just(["a", None]), "inner": st.none() | st.just({"a": 1, "b": None})}
    ),
    max_size=8,
)


def rows_of(table, rows):
    return pa.Table.from_pylist(rows, schema=to_arrow(table.snapshot.metadata.schema))


def scanned(table, snapshot, equals, columns=None):
    """The same by DuckDB over all files."""
    values = {
        name: stored_as(value, to_arrow(snapshot.metadata.schema).field(name).type) for name, value in equals.items()
    }
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        wanted = pa.table({f"k_{name}": column for name, column in values.items() if column is not None})
        if len(wanted.columns) < len(values):
            return []
        assert wanted.num_rows == 1
        listed = "*" if columns is None else ", ".join(map(quoted, columns))
        holds = " AND ".join(f"{quoted(name)} = k.{quoted(f'k_{name}')}" for name in values)
        text = (
            f"SELECT {listed} EXCLUDE ({', '.join(quoted(f'k_{n}') for n in values)})"
            if columns is None
            else f"SELECT {listed}"
        )
        found = connection.sql(f"{text} FROM ({scan(table, snapshot)[0]}), wanted k WHERE {holds}").to_arrow_table()
    schema = to_arrow(snapshot.metadata.schema)
    return plain(found.cast(pa.schema([schema.field(name) for name in found.column_names])))


def plain(found):
    return sorted(repr(row) for row in found.to_pylist())


def asked(reads, table, equals, columns=None, **more):
    """As `find`, once what it asks for is built."""
    for _ in range(3):
        found = reads.find(table, table.snapshot, equals, columns, **more)
        if found is not None:
            return found
        assert reads.settle(60)
    return None


@pytest.fixture
def reads(tmp_path):
    made = KeyedReads(str(tmp_path / "cache"))
    yield made
    made.close()


@pytest.fixture
def small_files(monkeypatch):
    """Every file counts as large: all is built in the background and mapped."""
    monkeypatch.setattr(keyed, "_SMALL_BYTES", 0)


def numbers(table, start, stop, name, **more):
    ids = list(range(start, stop))
    return append(table, pa.table({"id": ids, "name": [f"n{one}" for one in ids], **more}), name)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.booleans(), st.booleans())
def test_it_gives_what_a_scan_gives(tmp_path_factory, data, mapped, partitioned):
    root = str(tmp_path_factory.mktemp("lake"))
    table = make(root, "gold.all", COLUMNS, ("day", "ok") if partitioned else ())
    for number in range(data.draw(st.integers(1, 3))):
        append(table, rows_of(table, data.draw(ROWS)), f"f{number}")
    names = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    columns = data.draw(st.none() | st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=4, unique=True))
    with pytest.MonkeyPatch.context() as patch:
        if mapped:
            patch.setattr(keyed, "_SMALL_BYTES", 0)
        if data.draw(st.booleans()):  # every hash collides
            patch.setattr(_keyed_index, "hash_keys", lambda columns: (np.zeros(len(columns[0]), np.uint64), None))
        reads = KeyedReads()
        try:
            for _ in range(4):
                equals = {name: data.draw(st.none() | FEW[name]) for name in names}
                found = asked(reads, table, equals, columns)
                assert found is not None
                assert found.schema.names == (list(COLUMNS) if columns is None else columns)
                assert plain(found) == scanned(table, table.snapshot, equals, columns)
        finally:
            reads.close()


def test_nothing_is_built_for_the_first_question(tmp_path, reads, small_files):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    assert reads.find(table, table.snapshot, {"id": 3}) is None
    assert reads.settle()
    assert not os.path.exists(tmp_path / "cache")
    assert reads.find(table, table.snapshot, {"id": 3}) is None  # asked again: it is being built
    assert reads.settle()
    assert reads.find(table, table.snapshot, {"id": 3}).to_pylist() == [{"id": 3, "name": "n3"}]
    assert reads.find(table, table.snapshot, {"id": 99}).num_rows == 0


def test_small_files_need_no_builder(tmp_path, reads):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    assert reads.find(table, table.snapshot, {"id": 3}) is None
    assert reads.find(table, table.snapshot, {"id": 3}, ["name"]).to_pylist() == [{"name": "n3"}]
    numbers(table, 10, 20, "b")
    assert reads.find(table, table.snapshot, {"id": 13}, ["name"]).to_pylist() == [{"name": "n13"}]
    assert not os.path.exists(tmp_path / "cache")


def test_a_commit_costs_its_own_files_only(tmp_path, reads, small_files, monkeypatch):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    for number in range(3):
        numbers(table, number * 10, number * 10 + 10, f"f{number}")
    assert asked(reads, table, {"id": 25}).num_rows == 1
    read = []
    from lodestream.query import _keyed_rows

    whole = _keyed_rows.read

    def noted(disk, root, add, *rest):
        read.append(add.path)
        return whole(disk, root, add, *rest)

    monkeypatch.setattr(_keyed_rows, "read", noted)
    numbers(table, 30, 40, "f3")
    assert asked(reads, table, {"id": 35}).num_rows == 1
    assert asked(reads, table, {"id": 5}).num_rows == 1
    assert set(read) == {add.path for add in table.files() if "f3" in add.path}


def test_an_older_version_is_read_as_it_was(tmp_path, reads):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    before = table.snapshot
    numbers(table, 5, 15, "b")
    assert asked(reads, table, {"id": 7}).num_rows == 2
    assert reads.find(table, before, {"id": 7}).num_rows == 1


def test_a_version_whose_files_have_left_is_not_built_again(tmp_path, reads, small_files):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    before = table.snapshot
    table.commit(removes=table.files(), clock_us=CLOCK_US)
    numbers(table, 0, 10, "b")
    assert asked(reads, table, {"id": 7}).num_rows == 1
    kept = sorted((tmp_path / "cache").rglob("*.arrow"))
    for _ in range(3):
        assert reads.find(table, before, {"id": 7}) is None
        assert reads.settle()
    assert sorted((tmp_path / "cache").rglob("*.arrow")) == kept


def test_rows_whose_hash_is_the_same_are_told_apart(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(_keyed_index, "hash_keys", lambda columns: (np.zeros(len(columns[0]), np.uint64), None))
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    assert asked(reads, table, {"id": 7}).to_pylist() == [{"id": 7, "name": "n7"}]


@pytest.mark.parametrize("small", [True, False])
def test_a_superseded_file_is_dropped(tmp_path, reads, monkeypatch, small):
    if not small:
        monkeypatch.setattr(keyed, "_SMALL_BYTES", 0)
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    for number in range(5):
        staged = table.stage(pa.table({"id": [1], "name": [f"v{number}"]}), name=f"hot{number}", hot=True)
        table.commit(adds=staged.adds, removes=table.hot_files(), clock_us=CLOCK_US)
        assert asked(reads, table, {"id": 1}, ["name"]).to_pylist() == [{"name": f"v{number}"}]
    kept = [name for _, _, names in os.walk(tmp_path / "cache") for name in names if name.endswith(".arrow")]
    assert len(kept) == (0 if small else 1)
    runs = [name for _, _, names in os.walk(tmp_path / "cache") for name in names if name.endswith(".run")]
    assert len(runs) <= 1


def test_a_removed_file_gives_no_rows(tmp_path, reads, small_files):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    numbers(table, 0, 10, "b")
    assert asked(reads, table, {"id": 7}).num_rows == 2
    gone = table.files()[0]
    table.commit(removes=[RemoveFile.of(gone)], clock_us=CLOCK_US)
    assert asked(reads, table, {"id": 7}).num_rows == 1


def test_a_file_that_was_cleaned_up_leaves_it_to_the_ordinary_way(tmp_path, reads):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    os.unlink(table.file_path(table.files()[0]))
    for _ in range(4):
        assert reads.find(table, table.snapshot, {"id": 7}) is None
        assert reads.settle()


def test_a_column_that_comes_later_is_null_before(tmp_path, reads, small_files):
    from dataclasses import replace

    from lodestream.model.types import Column, parse_type

    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    assert asked(reads, table, {"id": 7}).to_pylist() == [{"id": 7, "name": "n7"}]
    wider = table.snapshot.metadata.schema.with_columns(Column("more", parse_type("int")))
    staged = table.stage(
        pa.table({"id": [7], "name": ["x"], "more": pa.array([5], pa.int32())}), name="b", schema=wider
    )
    table.commit(adds=staged.adds, metadata=replace(table.snapshot.metadata, schema=wider), clock_us=CLOCK_US)
    found = asked(reads, table, {"id": 7})
    assert sorted(found["more"].to_pylist(), key=str) == [5, None]
    assert asked(reads, table, {"more": 5}, ["id"]).to_pylist() == [{"id": 7}]


def test_two_processes_share_what_one_has_built(tmp_path, reads, small_files, monkeypatch):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    assert asked(reads, table, {"id": 7}).num_rows == 1
    from lodestream.query import _keyed_rows

    monkeypatch.setattr(_keyed_rows, "read", lambda *_: pytest.fail("it is there already"))
    other = KeyedReads(str(tmp_path / "cache"))
    other.find(table, table.snapshot, {"id": 7})
    assert other.find(table, table.snapshot, {"id": 7}).num_rows == 1
    other.close()


def test_a_cleared_folder_is_filled_again(tmp_path, reads, small_files):
    import shutil

    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    first = KeyedReads(str(tmp_path / "cache"))
    assert asked(first, table, {"id": 7}).num_rows == 1
    first.close()
    shutil.rmtree(next((tmp_path / "cache").glob("*/rows")))
    assert reads.settle()
    assert asked(reads, table, {"id": 7}).num_rows == 1


def test_many_small_commits_become_one_file(tmp_path, reads):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    for number in range(40):
        numbers(table, number * 10, number * 10 + 10, f"f{number}")
        assert asked(reads, table, {"id": number * 10}) is not None
    state = reads._tables[table.path]
    for _ in range(4):  # one file is made of eight at a time, while more of them come
        assert asked(reads, table, {"id": 399}).num_rows == 1
        assert reads.settle()
    assert len(state.indexes[("id",)].runs) <= keyed._PARTS_MAX + 2
    for one in range(0, 400, 7):
        assert asked(reads, table, {"id": one}, ["id"]).to_pylist() == [{"id": one}]


def test_a_key_that_many_rows_share_is_not_worth_an_index(tmp_path, reads, small_files):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    append(table, pa.table({"id": list(range(20_000)), "name": ["a", "b"] * 10_000}), "a")
    assert asked(reads, table, {"name": "a"}) is None
    assert not list((tmp_path / "cache").rglob("*.run"))
    assert asked(reads, table, {"id": 7}).num_rows == 1
    assert asked(reads, table, {"id": 7, "name": "b"}).num_rows == 1  # by the index on id alone
    assert asked(reads, table, {"id": 7, "name": "a"}).num_rows == 0
    assert list(reads._tables[table.path].indexes) == [("id",)]


def test_more_rows_than_wanted_are_left_to_the_ordinary_way(tmp_path, reads):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    append(table, pa.table({"id": list(range(100)), "name": ["a"] * 100}), "a")
    assert asked(reads, table, {"name": "a"}, rows_max=99) is None
    assert asked(reads, table, {"name": "a"}, rows_max=100).num_rows == 100


def test_the_cache_has_a_bound(tmp_path, small_files):
    first, second = (make(str(tmp_path), f"gold.{name}", {"id": "bigint", "name": "string"}) for name in "ab")
    for table in (first, second):
        append(table, pa.table({"id": list(range(20_000)), "name": ["x" * 20] * 20_000}), "a")
    reads = KeyedReads(str(tmp_path / "cache"), bytes_max=1_500_000)
    assert asked(reads, first, {"id": 1}).num_rows == 1
    assert asked(reads, second, {"id": 1}).num_rows == 1
    assert len(list((tmp_path / "cache").rglob("*.run"))) == 1, "the table asked longest ago goes"
    reads.close()
    tiny = KeyedReads(str(tmp_path / "tiny"), bytes_max=1000)
    assert asked(tiny, first, {"id": 1}) is None
    assert not (tmp_path / "tiny").exists()
    tiny.close()


@pytest.mark.parametrize(
    ("kind", "value", "means"),
    [
        ("tinyint", 127, 127), ("tinyint", 128, None), ("tinyint", -128, -128), ("tinyint", -129, None),
        ("bigint", True, UnclearError), ("bigint", 1.0, UnclearError), ("bigint", "1", UnclearError),
        ("double", 1, 1.0), ("double", 2**53 + 1, UnclearError), ("float", 0.1, UnclearError), ("float", 0.5, 0.5),
        ("float", 1e300, UnclearError), ("float", math.inf, math.inf), ("boolean", 1, UnclearError),
        ("decimal(4,2)", Decimal("1.50"), Decimal("1.50")), ("decimal(4,2)", Decimal("1.505"), None),
        ("decimal(4,2)", 99, Decimal("99.00")), ("decimal(4,2)", 100, None), ("decimal(4,2)", 1.5, UnclearError),
        ("decimal(4,2)", Decimal("1E+30"), None), ("decimal(4,2)", Decimal("NaN"), UnclearError),
        ("string", b"a", UnclearError), ("binary", "a", UnclearError), ("string", uuid.UUID(int=1), UnclearError),
        ("string", "\ud800", UnclearError), ("date", dt.datetime(2024, 1, 1), UnclearError),
        ("timestamp", dt.date(2024, 1, 1), UnclearError),
        ("timestamp", dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=UTC)),
        ("timestamp", dt.datetime(2024, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
         dt.datetime(2024, 1, 1, tzinfo=UTC)),
        ("array<int>", [1], UnclearError), ("bigint", None, None),
    ],
)  # fmt: skip
def test_a_value_is_what_it_equals_among_the_stored_ones(kind, value, means):
    from lodestream.model.arrow import to_arrow_type
    from lodestream.model.types import parse_type

    if means is UnclearError:
        with pytest.raises(UnclearError):
            stored_as(value, to_arrow_type(parse_type(kind)))
    else:
        found = stored_as(value, to_arrow_type(parse_type(kind)))
        assert (None if found is None else found.to_pylist()) == (None if means is None else [means])


@pytest.mark.parametrize("equals", [{}, {"no_such": 1}, {"id": "x"}])
def test_what_it_cannot_answer_it_leaves_to_the_ordinary_way(tmp_path, reads, equals):
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "name": "string"})
    numbers(table, 0, 10, "a")
    for _ in range(4):
        assert reads.find(table, table.snapshot, equals) is None
    assert reads.find(table, table.snapshot, {"id": 1}, ["no_such"]) is None


def test_readers_and_a_writer_at_once_see_whole_versions(tmp_path, reads):
    """Eight threads ask while a writer replaces the hot file: each answer is that of the version asked."""
    table = make(str(tmp_path), "gold.t", {"id": "bigint", "version": "bigint"})
    stop, wrong, answered = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            snapshot = table.snapshot
            found = reads.find(table, snapshot, {"id": 1}, ["version"])
            if found is not None and found.num_rows:
                answered.append(1)
                if found["version"].to_pylist() != [snapshot.version]:
                    wrong.append((snapshot.version, found))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(1, 60):
        staged = table.stage(pa.table({"id": [1], "version": [number]}), name=f"h{number}", hot=True)
        assert table.commit(adds=staged.adds, removes=table.hot_files(), clock_us=CLOCK_US) == number
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert answered
