"""What a worker can do when the guard is passed by: nothing."""

import os
import signal
import time

import pyarrow as pa
import pytest

from lodestream.errors import ConfigError, LodestreamError, TransientError
from lodestream.query.job import Budget, Job, Scan, parameters_of
from lodestream.query.pool import PoolSettings, WorkerPool


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("lake")
    (root / "gold").mkdir()
    pq.write_table(pa.table({"who": ["mine", "yours"], "secret": [1, 2]}), root / "gold" / "all.parquet")
    (root / "keys.json").write_text("{}")
    return str(root)


@pytest.fixture(scope="module")
def pool(folder):
    made = WorkerPool(PoolSettings(workers=2), lambda: [f"{folder}/gold"])
    made.start()
    yield made
    made.close()


def hidden(folder: str) -> Scan:
    path = f"{folder}/gold/all.parquet"
    return Scan("gold", "t", f"SELECT who FROM read_parquet(['{path}']) WHERE who = 'mine'", (path,), direct=False)


def run(pool: WorkerPool, sql: str, *scans: Scan, parameters=(), **budget) -> pa.Table:
    rows = tuple("" if scan.direct else scan.sql for scan in scans)
    job = Job(sql, scans, Budget(**budget), rows=rows, parameters=parameters_of(parameters))
    running = pool.run(job, "anybody")
    return pa.Table.from_batches(list(running.batches()), running.schema)


def rows(running) -> list[dict[str, object]]:
    return [row for batch in running.batches() for row in batch.to_pylist()]


def test_a_worker_that_was_ended_while_idle_is_replaced(pool):
    for _ in range(3):
        assert run(pool, "SELECT 1 AS one")["one"].to_pylist() == [1]
        for worker in pool._idle:
            signal.pidfd_send_signal(worker.handle, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not all(worker.ended for worker in pool._idle) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert run(pool, "SELECT 2 AS two")["two"].to_pylist() == [2]


ESCAPES = """
COPY (SELECT 1) TO '{folder}/gold/x.csv'
WITH r AS (COPY (SELECT 1) TO '{folder}/gold/x.csv') SELECT 1
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_text('{folder}/keys.json')
SELECT * FROM read_parquet('{folder}/gold/all.parquet')
SELECT * FROM '{folder}/gold/all.parquet'
SELECT * FROM glob('{folder}/**')
SELECT * FROM parquet_metadata('{folder}/gold/all.parquet')
SET enable_external_access = true
SET allowed_paths = ['/']
SET memory_limit = '10GB'
RESET lock_configuration
INSTALL httpfs
LOAD httpfs
ATTACH '{folder}/gold/x.db'
ATTACH '{folder}/gold/all.parquet' AS p
EXPORT DATABASE '{folder}/gold'
IMPORT DATABASE '{folder}/gold'
SELECT * FROM secret_rows
SELECT * FROM read_csv('http://127.0.0.1:1/x')
PRAGMA enable_profiling = 'json'; PRAGMA profiling_output = '{folder}/gold/x.csv'; SELECT 1
""".strip().splitlines()


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_else_is_in_reach(pool, folder, text):
    with pytest.raises(LodestreamError):
        run(pool, text.format(folder=folder), hidden(folder))
    assert sorted(os.listdir(f"{folder}/gold")) == ["all.parquet"]


def test_rows_that_are_not_seen_are_not_there(pool, folder):
    assert run(pool, "SELECT * FROM gold.t", hidden(folder)).to_pylist() == [{"who": "mine"}]
    found = run(pool, "SELECT t FROM gold.t AS t", hidden(folder)).to_pylist()
    assert found == [{"t": {"who": "mine"}}]
    for text in ("SELECT secret FROM gold.t", "SELECT * FROM gold.t WHERE rowid = 1"):
        with pytest.raises(ConfigError, match="not found in FROM"):
            run(pool, text, hidden(folder))


def test_a_table_may_be_read_again_and_again_in_one_query(pool, folder):
    text = "WITH a AS (FROM gold.t) SELECT (SELECT count(*) FROM a) x, (SELECT count(*) FROM a, gold.t) y"
    assert run(pool, text, hidden(folder)).to_pylist() == [{"x": 1, "y": 1}]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT len(range(300000000))",
        "SELECT length(repeat('x', 1500000000))",
        "SELECT list(a.range || b.range) FROM range(10000000) a, range(1000) b",
        "SELECT lpad('x', 2000000000, 'y')",
        "SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)",
        "WITH RECURSIVE r AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM r) SELECT max(length(s)) FROM r",
    ],
)
def test_a_bomb_is_an_error(pool, text):
    with pytest.raises((ConfigError, TransientError), match=r"memory|longer"):
        run(pool, text, memory_bytes=128 << 20, time_s=5)
    assert run(pool, "SELECT 1 AS one")["one"].to_pylist() == [1]


def test_time_is_bounded(pool):
    started = time.monotonic()
    with pytest.raises(TransientError, match="longer"):
        run(pool, "SELECT count(*) FROM range(100000000000)", time_s=0.5)
    assert time.monotonic() - started < 30


def test_a_query_can_be_cancelled(pool):
    running = pool.run(Job("SELECT a.range FROM range(1000000) a, range(100000) b"), "anybody")
    running.cancel()
    with pytest.raises(TransientError, match="cancelled"):
        list(running.batches())


def test_one_who_asks_much_leaves_room_for_others(folder):
    pool = WorkerPool(PoolSettings(workers=2, per_principal=1, queue_s=0.2), lambda: [f"{folder}/gold"])
    try:
        first = pool.run(Job("SELECT range FROM range(10000000)"), "greedy")
        with pytest.raises(TransientError, match="no room"):
            pool.run(Job("SELECT 1"), "greedy")
        assert rows(pool.run(Job("SELECT 1 AS a"), "modest")) == [{"a": 1}]
        first.close()
        assert rows(pool.run(Job("SELECT 2 AS a"), "greedy")) == [{"a": 2}]
    finally:
        pool.close()


def test_values_of_all_kinds_can_be_given(pool):
    import datetime as dt
    from decimal import Decimal

    values = [
        1,
        "x",
        None,
        1.5,
        True,
        dt.date(2024, 1, 2),
        dt.datetime(2024, 1, 2, 3, tzinfo=dt.UTC),
        Decimal("1.20"),
        b"y",
        [1, 2],
    ]
    (row,) = run(
        pool, "SELECT " + ", ".join(f"${n + 1} AS c{n}" for n in range(len(values))), parameters=values
    ).to_pylist()
    assert list(row.values())[:6] == values[:6]
    assert row["c7"] == Decimal("1.20")
    assert row["c9"] == [1, 2]


def test_workers_end_with_their_pool(folder):
    pool = WorkerPool(PoolSettings(), lambda: [folder])
    pool.start()
    nursery = pool._nursery.pid
    pool.close()
    assert not os.path.exists(f"/proc/{nursery}")
