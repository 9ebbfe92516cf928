"""A process that runs queries of people who are not trusted, one at a time, and can do nothing else.

`python -m lodestream.query.worker` starts a nursery: a process with one thread that has everything imported and makes a
worker, by fork, for each socket it is handed. A worker gives up all rights it has no use for before the first query.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from lodestream.query.confine import bound, confine
from lodestream.query.job import BATCH, DESCRIBE, DONE, FAILED, JOB, READY, SCHEMA, Job, Scan, receive, send, values_of
from lodestream.query.quoting import literal, quoted

_BATCH_ROWS = 10_000
_KEPT = 4
_THREAD_BYTES = 64 << 20
_SCANNED_ROWS = 100_000
_CONNECT_BYTES = 256 << 20
_SYSTEM = (
    "/proc/self/cgroup", "/proc/self/statm", "/proc/meminfo", "/sys/fs/cgroup", "/sys/devices/system/cpu",
    "/usr/share/zoneinfo", "/etc/localtime", "/dev/null", "/dev/urandom",
)  # fmt: skip
"""What DuckDB looks at of the machine; it ends when it cannot."""


class _Rows:
    """Rows of a table as somebody may see them: DuckDB asks for a stream each time that a query reads the table."""

    def __init__(self, reading: duckdb.DuckDBPyConnection, sql: str) -> None:
        self._reading, self.sql = reading, sql
        self._schema = reading.cursor().sql(f"SELECT * FROM ({sql}) LIMIT 0").to_arrow_table().schema

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        rows = self._reading.cursor().sql(self.sql).to_arrow_reader(_SCANNED_ROWS)
        return rows.__arrow_c_stream__(requested_schema)


class _Database:
    """An open database with the tables of a job, locked."""

    def __init__(self, job: Job) -> None:
        self.asking = _connect(job)
        self._reading: duckdb.DuckDBPyConnection | None = None
        self._rows: dict[int, _Rows] = {}
        self._views: dict[int, str] = {}
        try:
            self._open(job)
        except BaseException:
            self.close()
            raise

    def _open(self, job: Job) -> None:
        asking = self.asking
        for name, data in job.tables:
            asking.register(name, pa.ipc.open_stream(data).read_all())
        for statement in job.setup:
            asking.execute(statement)
        for schema in sorted({scan.schema for scan in job.scans}):
            asking.execute(f"CREATE SCHEMA {quoted(schema)}")
        asking.execute("SET TimeZone = 'UTC'")
        if job.integer_division:
            asking.execute("SET integer_division = true")
        hidden = [scan for scan in job.scans if not scan.direct]
        if hidden:
            self._reading = _connect(job)
            self._reading.execute("SET TimeZone = 'UTC'")
            _lock(self._reading, hidden)
        for number, scan in enumerate(job.scans):
            if not scan.direct:
                self._rows[number] = _Rows(self._reading, scan.sql)
                asking.register(f"_rows{number}", self._rows[number])
                self._see(number, scan, f"SELECT * FROM _rows{number}")
        _lock(asking, [scan for scan in job.scans if scan.direct])

    def prepare(self, job: Job) -> None:
        """Read from now on what this job's query needs."""
        for number, scan in enumerate(job.scans):
            sql = job.rows[number] if number < len(job.rows) else ""
            if scan.direct:
                self._see(number, scan, sql or scan.sql)
            else:
                self._rows[number].sql = sql

    def _see(self, number: int, scan: Scan, sql: str) -> None:
        """Have the table be the rows of a SELECT."""
        if self._views.get(number) != sql:
            self.asking.execute(f"CREATE OR REPLACE VIEW {quoted(scan.schema)}.{quoted(scan.name)} AS {sql}")
            self._views[number] = sql

    def close(self) -> None:
        """Let go of the files."""
        self.asking.close()
        if self._reading is not None:
            self._reading.close()


def _connect(job: Job) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{job.budget.memory_bytes >> 20}MB",
            "threads": job.threads,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
        },
    )


def _lock(connection: duckdb.DuckDBPyConnection, scans: list[Scan]) -> None:
    paths = ", ".join(literal(path) for path in dict.fromkeys(path for scan in scans for path in scan.paths))
    connection.execute(f"SET allowed_paths = [{paths}]")
    connection.execute("SET max_temp_directory_size = '0B'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


class Worker:
    """Runs jobs from a socket until it closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._open: OrderedDict[str, _Database] = OrderedDict()

    def run(self) -> None:
        """Answer until there is nobody to answer to."""
        duckdb.connect(":memory:").close()  # what is loaded once is loaded now
        send(self._socket, READY)
        while (frame := receive(self._socket)) is not None:
            kind, payload = frame
            assert kind in (JOB, DESCRIBE)
            job, key = Job.from_bytes(payload)
            del frame, payload
            bound(
                job.budget.memory_bytes + _CONNECT_BYTES + job.threads * _THREAD_BYTES, job.budget.time_s * job.threads
            )
            try:
                self._answer(job, key, rows=kind == JOB)
            except (duckdb.Error, pa.ArrowException, MemoryError, OSError, RuntimeError, UnicodeError) as error:
                self._drop(key)
                send(self._socket, FAILED, json.dumps(_failure(error)).encode())
            gc.collect(0)

    def _answer(self, job: Job, key: str, *, rows: bool) -> None:
        database = self._database(job, key)
        database.prepare(job)
        values = values_of(job.parameters)
        asking = database.asking
        relation = asking.sql(job.sql, params=values) if values else asking.sql(job.sql)
        if not rows:
            names = zip(relation.columns, relation.types, strict=True)
            types = [[name, str(kind)] for name, kind in names]
            send(self._socket, SCHEMA, relation.limit(0).to_arrow_table().schema.serialize())
            send(self._socket, DONE, json.dumps({"types": types}).encode())
            return
        with contextlib.closing(relation.to_arrow_reader(_BATCH_ROWS)) as reader:
            schema = _plain(reader.schema)
            send(self._socket, SCHEMA, schema.serialize())
            told: dict[str, int | bool] = {"rows": 0, "bytes": 0, "cut": False}
            for batch in _cut(reader, job, told):
                batch = batch if batch.schema.equals(schema) else batch.cast(schema)
                send(self._socket, BATCH, batch.serialize())
        send(self._socket, DONE, json.dumps(told).encode())

    def _database(self, job: Job, key: str) -> _Database:
        found = self._open.pop(key, None) or _Database(job)
        self._open[key] = found
        while len(self._open) > _KEPT:
            self._open.popitem(last=False)[1].close()
        return found

    def _drop(self, key: str) -> None:
        if (database := self._open.pop(key, None)) is not None:
            database.close()


def _cut(reader: pa.RecordBatchReader, job: Job, told: dict[str, int | bool]) -> Iterator[pa.RecordBatch]:
    """The batches within the budget; `told` says how much that was."""
    rows_max, bytes_max = job.budget.rows_max, job.budget.bytes_max
    for batch in reader:
        if rows_max is not None and told["rows"] + batch.num_rows > rows_max:
            batch = batch.slice(0, rows_max - told["rows"])
            told["cut"] = True
        if bytes_max is not None and told["bytes"] + batch.get_total_buffer_size() > bytes_max:
            told["cut"] = True
            if told["rows"]:
                return
        told["rows"] += batch.num_rows
        told["bytes"] += batch.get_total_buffer_size()
        if batch.num_rows:
            yield batch
        if told["cut"]:
            return


def _plain(schema: pa.Schema) -> pa.Schema:
    """No dictionaries, which would need messages of their own."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in schema
    ]
    return pa.schema(fields)


def _failure(error: Exception) -> dict[str, str]:
    text = str(error)
    if "Failed to create directory" in text:  # where it would put what its memory does not hold
        return {"kind": "memory", "text": ""}
    if isinstance(error, duckdb.IOException | OSError) or "No files found" in text:
        return {"kind": "files", "text": text.splitlines()[0] if text else "files are gone"}
    memory = isinstance(error, duckdb.OutOfMemoryException | MemoryError | pa.ArrowMemoryError)
    if memory or "Out of Memory" in text or "bad allocation" in text or "bad_alloc" in text:
        return {"kind": "memory", "text": ""}
    return {"kind": "sql", "text": text.strip()}


def _nursery(control: socket.socket) -> None:
    """Fork a worker for each socket that comes, with the folders it may read."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        data, sockets, _flags, _address = socket.recv_fds(control, 1 << 16, 1)
        if not data:
            return
        told = json.loads(data)
        pid = os.fork()
        if pid:
            for each in sockets:
                os.close(each)
            control.sendall(pid.to_bytes(4, "big"))
            continue
        control.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        code = [path for path in (sys.prefix, sys.base_prefix, *sys.path, "/usr/lib", "/lib", "/lib64") if path]
        confine([*code, *_SYSTEM, *told["readable"]])
        with socket.socket(fileno=sockets[0]) as connection:
            Worker(connection).run()
        os._exit(0)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        _nursery(parent)
