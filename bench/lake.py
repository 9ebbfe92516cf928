"""How the tables of a lake fare as they get old: `python -m bench.lake`. The last line is JSON.

Commits are a thousand rows to a durable data file and a durable log entry, one after the other as fast as they go, on
a table that the product's own maintenance looks after in the same process, with unchanged defaults.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa

from bench import lake_bytes, lake_log
from lodestream.app import App, now_us, open_project
from lodestream.lake.layout import present_app_id, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.runtime.maintain import Maintenance, Upkeep

ROOT = Path(__file__).parents[1]
_NAME = TableName("bronze", "events")
_TABLE = (
    "source: {files: {path: events, settle: 0}}\nformat: json\ncolumns: {id: bigint, at: timestamp, text: string}\n"
)
_ROWS = 1_000
_CHECKPOINTED = 100  # commits between two checkpoints, with us and in delta-rs
_OPENED = 20
_START_US = 1_700_000_000_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 0, or 1 when a table does not hold what it should."""
    args = _arguments(arguments)
    cache = Path(".cache/bench")  # a real disk: the folder for temporary files may be memory
    cache.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "wrong": []}
    for part in args.part or _PARTS:
        with tempfile.TemporaryDirectory(dir=cache.absolute(), prefix=f"lake-{part}-") as work:
            for line in _PARTS[part](Path(work), args, found):
                print(line, flush=True)
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


def commits(root: Path, args: argparse.Namespace, found: dict[str, Any]) -> Iterator[str]:
    """A table from its first commit to its last: `commit_ms` of the commits after each mark, `open_ms` in the end."""
    app, table = _made(root)
    found["commit_ms"] = {}
    with _looked_after(app) as care:
        writer = Writer(table)
        for mark in args.marks:
            writer.to(mark)
            found["commit_ms"][str(mark)] = told = writer.measured(args.window)
            yield f"commits {mark:,} to {mark + args.window:,}: {_told(told)}; {_size(table)}"
    first, last = (found["commit_ms"][str(mark)]["p99"] for mark in (args.marks[0], args.marks[-1]))
    found["p99_growth"] = round(last / first, 2)
    found["open_ms"] = opened_ms(app, table.path)
    rows = pa.table(deltalake.QueryBuilder().register("t", deltalake.DeltaTable(table.path)).execute(
        "select count(*) as n, count(distinct id) as ids from t").read_all()).to_pylist()  # fmt: skip
    if rows != [{"n": writer.commits * _ROWS, "ids": writer.commits * _ROWS}]:
        found["wrong"].append(f"{writer.commits * _ROWS} rows were committed, delta-rs reads {rows}")
    yield (f"p99 {found['p99_growth']} times that of the first; {writer.commits:,} commits and {care.errors} errors of"
           f" maintenance; opened in {found['open_ms']} ms")  # fmt: skip
    app.close()


def old(root: Path, args: argparse.Namespace, found: dict[str, Any]) -> Iterator[str]:
    """The same on a table with a log of `--entries` and `--files` live files."""
    app, table = _made(root)
    schema, configuration = table.snapshot.metadata.schema, table.snapshot.metadata.configuration
    os.rename(table.path, root / "young")
    application = present_app_id(_NAME, configuration)
    started = time.perf_counter()
    lake_log.write_log(
        Path(table.path), schema, entries=args.entries, files=args.files, now_ms=now_us() // 1000,
        application=application, tail=min(50, args.files), configuration=configuration,
    )  # fmt: skip
    yield f"{args.entries:,} log entries and {args.files:,} files made up in {time.perf_counter() - started:.0f} s"
    started = time.perf_counter()
    table = _opened(app, table.path)
    first_ms = round((time.perf_counter() - started) * 1000)
    told = found["old"] = {"entries": args.entries, "files": args.files, "first_open_ms": first_ms}
    if (table.snapshot.version, len(table.files())) != (args.entries - 1, args.files):
        found["wrong"].append(f"version {table.snapshot.version} with {len(table.files())} files of the old table")
    with _looked_after(app) as care:
        writer = Writer(table)
        writer.to(table.snapshot.version + 2 * _CHECKPOINTED)  # past what maintenance does at its start
        told["commit_ms"] = writer.measured(args.window)
    told["open_ms"] = opened_ms(app, table.path)
    yield (f"commits on it: {_told(told['commit_ms'])}; {_size(table)}; {care.errors} errors of maintenance;"
           f" opened in {told['open_ms']} ms, the first time in {first_ms} ms")  # fmt: skip
    app.close()


def sizes(root: Path, args: argparse.Namespace, found: dict[str, Any]) -> Iterator[str]:
    """Bytes on disk per event of each layer, log included, a week after all maintenance."""
    told = lake_bytes.measure(root, args.events)
    found["bytes_per_event"] = told["bytes_per_event"]
    found["wrong"] += told["wrong"]
    yield f"{args.events:,} events: " + ", ".join(
        f"{layer} {n} bytes each" for layer, n in told["bytes_per_event"].items()
    )


def merge(root: Path, args: argparse.Namespace, found: dict[str, Any]) -> Iterator[str]:
    """Peak memory of a process that merges `--changes` changed rows, in one batch, into a table twice as large."""
    command = [sys.executable, "-m", "bench.lake_merge", "--root", str(root), "--changes", str(args.changes)]
    for step in ("fill", "merge"):
        done = subprocess.run([*command, "--step", step], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    found |= {"merge_peak_mib": told["peak_mib"], "merge": told}
    found["wrong"] += told.pop("wrong")
    yield (f"{told['changes']:,} changed rows merged into {told['rows']:,} in {told['s']} s: at most"
           f" {told['peak_mib']} MiB, {told['before_mib']} MiB of them before the batch")  # fmt: skip


def delta_rs(root: Path, args: argparse.Namespace, found: dict[str, Any]) -> Iterator[str]:
    """delta-rs alone, with the same rows and its own checkpoints: its first commits, and those on tables that have had
    as many commits and have as many files; these are made up, for it would take it hours to get there."""
    told: dict[str, Any] = {}
    found["delta_rs"] = {"version": deltalake.__version__, "commit_ms": told}
    app, ours = _made(root / "schema")
    app.close()
    schema = ours.snapshot.metadata.schema
    rows = _rows(0, schema)
    for mark in args.marks:
        path = root / str(mark)
        if mark <= _CHECKPOINTED:
            deltalake.write_deltalake(path, rows)
        else:
            tail = mark % _CHECKPOINTED or _CHECKPOINTED
            lake_log.write_log(
                path, schema, entries=mark, files=mark - 1, now_ms=now_us() // 1000, application="bench",
                tail=tail, file_bytes=1 << 15,
            )  # fmt: skip
        table = deltalake.DeltaTable(path)
        started, taken = time.perf_counter(), []
        while len(taken) < args.window and time.perf_counter() - started < args.peer_seconds:
            before = time.perf_counter()
            deltalake.write_deltalake(table, rows, mode="append")
            taken.append(time.perf_counter() - before)
        if mark <= _CHECKPOINTED:
            taken = taken[min(mark, len(taken) - 1) :]
        told[str(mark)] = {**_percentiles(taken), "commits": len(taken)}
        yield f"delta-rs {deltalake.__version__} at {mark:,}: {_told(told[str(mark)])}, {len(taken)} commits"


_PARTS = {"commits": commits, "old": old, "bytes": sizes, "merge": merge, "delta_rs": delta_rs}


class Writer:
    """Commits batches of rows to one table, as a flow does.

    Args:
        table: the table.

    Attributes:
        commits: how many it made.
    """

    def __init__(self, table: DeltaTable) -> None:
        self.commits = 0
        self._table = table
        self._application = present_app_id(_NAME, table.snapshot.metadata.configuration)
        self._batch = table.snapshot.txns.get(self._application, 0)

    def to(self, batch: int) -> None:
        """Commit up to a batch, and count it for nothing."""
        while self._batch < batch:
            self._commit()

    def measured(self, count: int) -> dict[str, float]:
        """Milliseconds of the next commits, p50 and p99; also of the log entry alone, as `log_p50` and `log_p99`, and
        of the writer's CPU time, as `cpu_p50` and `cpu_p99`, which a busy disk does not change."""
        taken = [self._commit() for _ in range(count)]
        whole, *parts = ([one[i] for one in taken] for i in range(3))
        found = _percentiles(whole)
        for name, seconds in zip(("log", "cpu"), parts, strict=True):
            found |= {f"{name}_{which}": value for which, value in _percentiles(seconds).items()}
        return found

    def _commit(self) -> tuple[float, float, float]:
        self._batch += 1
        rows = _rows(self.commits * _ROWS, self._table.snapshot.metadata.schema)
        started, cpu = time.perf_counter(), time.thread_time()
        staged = self._table.stage(rows, name=f"{self._batch}-bench")
        written = time.perf_counter()
        self._table.commit(
            adds=staged.adds, txn=(self._application, self._batch), info={"batch": self._batch}, clock_us=now_us()
        )
        ended, cpu = time.perf_counter(), time.thread_time() - cpu
        self.commits += 1
        return ended - started, ended - written, cpu


def opened_ms(app: App, path: str) -> float:
    """Median milliseconds of opening a table."""
    taken = []
    for _ in range(_OPENED):
        started = time.perf_counter()
        _opened(app, path)
        taken.append(time.perf_counter() - started)
    return _percentiles(taken)["p50"]


@contextlib.contextmanager
def _looked_after(app: App) -> Iterator[Maintenance]:
    """Maintenance as a run has it, on a thread of its own, for as long as this lasts."""
    stopping = threading.Event()
    care = Maintenance([_NAME], app.flows, app.pipeline().around, Upkeep())
    thread = threading.Thread(target=care.run, args=(stopping,), name="maintenance", daemon=True)
    thread.start()
    try:
        yield care
    finally:
        stopping.set()
        thread.join()


def _made(root: Path) -> tuple[App, DeltaTable]:
    (root / "tables" / "bronze").mkdir(parents=True)
    (root / "events").mkdir()
    (root / "lodestream.yaml").write_text("project: old\nlake: lake\n")
    (root / "tables" / "bronze" / "events.yaml").write_text(_TABLE)
    app = open_project(str(root))
    app.apply()
    return app, _opened(app, table_path(app.lake, _NAME))


def _opened(app: App, path: str) -> DeltaTable:
    table = DeltaTable.open(app.disk, path)
    assert table is not None
    return table


def _rows(first: int, schema: Schema) -> pa.Table:
    number = np.arange(first, first + _ROWS, dtype=np.int64)
    time_us = pa.array(_START_US + number * 50, pa.timestamp("us", tz="UTC"))
    columns = {
        "id": number * 2_654_435_761 % (1 << 61), "at": time_us, "text": [f"/item/{n % 977}?ref={n:x}" for n in number],
        "_source": ["bench"] * _ROWS, "_position": number, "_ingest_time": time_us, "_batch": number // _ROWS,
    }  # fmt: skip
    return pa.table(columns).cast(to_arrow(schema))


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(np.array(seconds) * 1000, (50, 99))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}


def _told(ms: dict[str, float]) -> str:
    log = (
        f" (log entry {ms['log_p50']} and {ms['log_p99']}, CPU {ms['cpu_p50']} and {ms['cpu_p99']})"
        if "cpu_p50" in ms
        else ""
    )
    return f"p50 {ms['p50']} ms, p99 {ms['p99']} ms{log}"


def _size(table: DeltaTable) -> str:
    table.refresh()
    return f"{len(table.files()):,} files, version {table.snapshot.version:,}"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.lake", description=__doc__)
    parser.add_argument(
        "--marks", type=int, nargs="+", default=[100, 5_000, 20_000], help="commits before each measure"
    )
    parser.add_argument("--window", type=int, default=1_000, help="commits of each measure")
    parser.add_argument("--entries", type=int, default=1_000_000, help="log entries of the made-up table")
    parser.add_argument("--files", type=int, default=100_000, help="its live files")
    parser.add_argument("--events", type=int, default=1_000_000, help="events whose bytes are counted")
    parser.add_argument("--changes", type=int, default=1_000_000, help="changed rows of the merge")
    parser.add_argument("--peer-seconds", type=float, default=60, help="for the commits of delta-rs at each mark")
    parser.add_argument("--part", action="append", choices=_PARTS, help="only this part; may be repeated")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
