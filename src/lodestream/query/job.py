"""What a worker is asked to run, and how it and the rows of the answer cross a socket.

A frame is one byte that says what it is, four bytes of length (big-endian), and that many bytes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

JOB, DESCRIBE, SCHEMA, BATCH, DONE, FAILED, READY = b"J", b"?", b"S", b"B", b"D", b"E", b"R"
_HEAD = struct.Struct(">cI")


@dataclass(frozen=True, slots=True)
class Scan:
    """A table as the query may see it.

    Attributes:
        schema: the schema it stands in.
        name: its name there.
        sql: the SELECT over files that makes its rows.
        paths: the files of that SELECT.
        direct: whether the query may have the files themselves: it then sees every row and column as stored. When
            not, another database reads them and hands over rows, so that no file and no hidden value is in reach.
    """

    schema: str
    name: str
    sql: str
    paths: tuple[str, ...]
    direct: bool


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one query may take.

    Attributes:
        time_s: seconds until its last row.
        memory_bytes: beyond what an idle worker holds.
        rows_max: the answer is cut after so many rows; None for all.
        bytes_max: likewise, by size in memory.
    """

    time_s: float = 30.0
    memory_bytes: int = 1 << 30
    rows_max: int | None = None
    bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One query with all that it may touch.

    Attributes:
        sql: the text, checked.
        scans: the tables.
        budget: what it may take.
        threads: of DuckDB.
        integer_division: whether `7 / 2` is 3, as in PostgreSQL.
        tables: further tables by name, as Arrow IPC streams; they stand in the schema `main`.
        setup: trusted statements that make views and macros over those, run before the query.
        rows: for each scan, the SELECT that gives what this query needs of it; empty for all of it.
        parameters: what `parameters_of` makes of them.
    """

    sql: str
    scans: tuple[Scan, ...] = ()
    budget: Budget = Budget()
    threads: int = 1
    integer_division: bool = False
    tables: tuple[tuple[str, bytes], ...] = ()
    setup: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    parameters: bytes = b""

    def surroundings(self) -> str:
        """Digest of all but query, rows and parameters: jobs with the same one may share an open database."""
        told = [self._scans(), self.budget.memory_bytes, self.threads, self.integer_division, self.setup]
        digest = hashlib.sha256(json.dumps(told).encode())
        for name, data in self.tables:
            digest.update(f"\0{name}\0{len(data)}\0".encode() + data)
        return digest.hexdigest()

    def to_bytes(self, key: str) -> bytes:
        """The job as the payload of a frame; `key` is the digest of its surroundings."""
        budget = self.budget
        told = {
            "key": key, "sql": self.sql, "scans": self._scans(), "threads": self.threads, "setup": self.setup,
            "rows": self.rows,
            "budget": [budget.time_s, budget.memory_bytes, budget.rows_max, budget.bytes_max],
            "integer_division": self.integer_division, "parameters": len(self.parameters),
            "tables": [[name, len(data)] for name, data in self.tables],
        }  # fmt: skip
        head = json.dumps(told).encode()
        return b"".join((len(head).to_bytes(4, "big"), head, self.parameters, *(data for _, data in self.tables)))

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Job, str]:
        """The job in a payload, and the digest of its surroundings."""
        end = 4 + int.from_bytes(data[:4], "big")
        told = json.loads(data[4:end])
        key = told.pop("key")
        start, end = end, end + told["parameters"]
        parameters = bytes(data[start:end])
        tables = []
        for name, size in told["tables"]:
            tables.append((name, bytes(data[end : end + size])))
            end += size
        told |= {
            "scans": tuple(Scan(*scan) for scan in told["scans"]), "budget": Budget(*told["budget"]),
            "tables": tuple(tables), "setup": tuple(told["setup"]), "rows": tuple(told["rows"]),
            "parameters": parameters,
        }  # fmt: skip
        return cls(**told), key

    def _scans(self) -> list[list[object]]:
        return [[scan.schema, scan.name, scan.sql, list(scan.paths), scan.direct] for scan in self.scans]


def parameters_of(values: Sequence[object]) -> bytes:
    """Parameters of a query as JSON. Raises ValueError for a value of a kind that none has."""
    return json.dumps([_told(value) for value in values]).encode() if values else b""


def values_of(parameters: bytes) -> list[object]:
    """The values that `parameters_of` was given."""
    return [_meant(told) for told in json.loads(parameters)] if parameters else []


def _told(value: object) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return {"list": [_told(item) for item in value]}
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value).hex()}
    for name, (kind, write, _) in _KINDS.items():
        if isinstance(value, kind):
            return {name: write(value)}
    raise ValueError(f"a value of this kind cannot be a parameter: {type(value).__name__}")


def _meant(told: Any) -> object:
    if not isinstance(told, dict):
        return told
    ((name, value),) = told.items()
    if name == "list":
        return [_meant(item) for item in value]
    if name == "float":
        return float(value)
    return bytes.fromhex(value) if name == "bytes" else _KINDS[name][2](value)


_KINDS: dict[str, tuple[type, Callable[[Any], str], Callable[[str], object]]] = {
    "decimal": (Decimal, str, Decimal),
    "datetime": (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    "date": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    "time": (dt.time, dt.time.isoformat, dt.time.fromisoformat),
    "uuid": (UUID, str, UUID),
}
"""Other kinds of values: class, as text, from text."""


def stream_of(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def send(connection: socket.socket, kind: bytes, payload: bytes | pa.Buffer = b"") -> None:
    """Write one frame."""
    head = _HEAD.pack(kind, len(payload))
    if len(payload) < 1 << 16:
        connection.sendall(head + bytes(payload))
    else:
        connection.sendall(head)
        connection.sendall(payload)


def receive(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Read one frame; None at the end."""
    head = _exactly(connection, _HEAD.size)
    if head is None:
        return None
    kind, size = _HEAD.unpack(head)
    payload = _exactly(connection, size) if size else b""
    return None if payload is None else (kind, payload)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        try:
            count = connection.recv_into(view[got:])
        except OSError:
            return None
        if not count:
            return None
        got += count
    return bytes(data) if size <= 1 << 12 else data  # type: ignore[return-value]  # pyarrow reads either
