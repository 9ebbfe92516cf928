"""Messages to rows: payloads through the table's format, and what else a message brings as columns beside them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.drivers.kafka_reader import HEADERS, Messages
from lodestream.model.types import BIGINT, BINARY, INT, STRING, TIMESTAMP, Column, parse_type
from lodestream.ports.format import RAW_BYTES_MAX, REJECTS, Format, row_schema
from lodestream.ports.source import Decoded, Reading

Includable = Literal["key", "timestamp", "headers", "topic", "partition", "offset"]
COLUMNS: dict[str, Column] = {
    "key": Column("kafka_key", BINARY),
    "timestamp": Column("kafka_timestamp", TIMESTAMP),
    "headers": Column("kafka_headers", parse_type("array<struct<key:string,value:binary>>")),
    "topic": Column("kafka_topic", STRING),
    "partition": Column("kafka_partition", INT),
    "offset": Column("kafka_offset", BIGINT),
}
"""The column that each thing a message brings becomes."""

_TIME = pa.timestamp("us", tz="UTC")


class _Together:
    """Messages of several units as one table: unit, offset, value and what else they bring."""

    def __init__(self, parts: Sequence[tuple[str, Messages]]) -> None:
        self._pieces = pieces = [piece for _, piece in parts]
        self.values = pa.concat_arrays([piece.values for piece in pieces])
        self.offsets = np.concatenate([piece.offsets for piece in pieces])
        self.times = np.concatenate([piece.timestamps_ms for piece in pieces])
        self._of = np.repeat(np.arange(len(parts), dtype=np.int32), [len(piece) for piece in pieces])
        self._units = pa.array([unit for unit, _ in parts], pa.string())
        self._topics = pa.array([piece.topic for piece in pieces], pa.string())
        self._numbers = np.array([piece.partition for piece in pieces], np.int32)

    @cached_property
    def keys(self) -> pa.BinaryArray:
        """Put together when somebody asks, as most tables do not."""
        return pa.concat_arrays([_or_nulls(piece.keys, len(piece), pa.binary()) for piece in self._pieces])

    @cached_property
    def headers(self) -> pa.ListArray:
        """Likewise."""
        return pa.concat_arrays([_or_nulls(piece.headers, len(piece), HEADERS) for piece in self._pieces])

    def units(self, rows: np.ndarray) -> pa.Array:
        return self._units.take(pa.array(self._of[rows]))

    def column(self, name: str, rows: np.ndarray) -> pa.Array:
        """One of the includable columns for these rows."""
        if name == "topic":
            return self._topics.take(pa.array(self._of[rows]))
        if name == "partition":
            return pa.array(self._numbers[self._of[rows]])
        if name == "offset":
            return pa.array(self.offsets[rows])
        if name == "timestamp":
            times = self.times[rows]
            return pa.array(times * 1000, _TIME, mask=times < 0)
        return (self.keys if name == "key" else self.headers).take(pa.array(rows))

    def detail(self, row: int) -> str:
        """What came with a message, as the JSON that `decode_one` reads."""
        found: dict[str, Any] = {"timestamp_ms": int(self.times[row])}
        key, headers = self.keys[row].as_py(), self.headers[row].as_py()
        if key is not None:
            found["key"] = _text(key)
        if headers is not None:
            found["headers"] = [[one["key"], _text(one["value"])] for one in headers]
        return json.dumps(found, sort_keys=True)


def decode(parts: Sequence[tuple[str, Messages]], form: Format, reading: Reading, include: Sequence[str],
           *, tombstones: bool) -> Decoded:  # fmt: skip
    """Rows and rejects of messages, all units in one go.

    Args:
        parts: pieces with the name of their unit; at least one.
        form: the table's format, which knows the columns without the included ones.
        reading: what the table wants, the included columns among them.
        include: what else of each message becomes a column.
        tombstones: whether a message without payload is a row of NULLs; else it is a reject.
    """
    given = _Together(parts)
    valid = np.asarray(pc.is_valid(given.values))
    index = np.flatnonzero(valid)
    payloads = given.values if valid.all() else given.values.filter(pa.array(valid))
    decoded = form.decode_messages(payloads, "", index)
    rows, rejects = decoded.rows, decoded.rejects
    empty = np.flatnonzero(~valid)
    if len(empty) and tombstones:
        rows = _with_tombstones(rows, empty)
    return Decoded(
        _rows(rows, given, reading, include),
        _rejects(rejects, given, empty[:0] if tombstones else empty),
        decoded.found,
    )


def decode_one(raw: bytes, unit: str, position: int, detail: str | None, partition: tuple[str, int],
               form: Format, reading: Reading, include: Sequence[str]) -> Decoded:  # fmt: skip
    """A quarantined message, tried again with the key, time and headers that it came with."""
    kept = json.loads(detail) if detail else {}
    key, headers = kept.get("key"), kept.get("headers")
    message = Messages(
        *partition,
        np.array([position], np.int64),
        pa.array([raw], pa.binary()),
        pa.array([None if key is None else _bytes(key)], pa.binary()),
        np.array([kept.get("timestamp_ms", -1)], np.int64),
        pa.array([headers and [{"key": name, "value": _bytes(value)} for name, value in headers]], HEADERS),
    )
    return decode([(unit, message)], form, reading, include, tombstones=False)


def _rows(rows: pa.Table, given: _Together, reading: Reading, include: Sequence[str]) -> pa.Table:
    index = rows["_position"].to_numpy()
    made = {COLUMNS[name].name: given.column(name, index) for name in include}
    made["_source"], made["_position"] = given.units(index), pa.array(given.offsets[index])
    schema = row_schema(reading)
    return pa.table([made[name] if name in made else rows[name] for name in schema.names], schema=schema)


def _with_tombstones(rows: pa.Table, empty: np.ndarray) -> pa.Table:
    """The rows with one more, of NULLs, for each message without payload."""
    nulls = {field.name: pa.nulls(len(empty), field.type) for field in rows.schema}
    nulls["_position"] = pa.array(empty, pa.int64())
    nulls["_source"] = pa.repeat("", len(empty))
    both = pa.concat_tables([rows, pa.table(list(nulls.values()), names=list(nulls))], promote_options="permissive")
    return both.take(pa.array(np.argsort(both["_position"].to_numpy(), kind="stable")))


def _rejects(rejects: pa.Table, given: _Together, empty: np.ndarray) -> pa.Table:
    """The rejects under their units and offsets, with those of messages without payload among them."""
    index = rejects["_position"].to_numpy()
    reasons, raws = rejects["_reasons"], rejects["_raw"]
    if len(empty):
        index = np.concatenate([index, empty])
        more = [["parse:tombstone"]] * len(empty)
        reasons = pa.chunked_array([*reasons.chunks, pa.array(more, REJECTS.field("_reasons").type)])
        raws = pa.chunked_array([*raws.chunks, pa.array([b""] * len(empty), pa.binary())])
        order = np.argsort(index, kind="stable")
        index, reasons, raws = index[order], reasons.take(pa.array(order)), raws.take(pa.array(order))
    details = pa.array([given.detail(row) for row in index.tolist()], pa.string())
    return pa.table([given.units(index), pa.array(given.offsets[index]), reasons, raws, details], schema=REJECTS)


def gap(unit: str, start: int, end: int, reading: Reading) -> Decoded:
    """The note that offsets `start` to `end` were gone before they were read: one reject at `start`."""
    rejects = pa.table(
        [[unit], [start], pa.array([[f"gap:{start}-{end}"]], REJECTS.field("_reasons").type), [b""], [None]],
        schema=REJECTS,
    )
    return Decoded(row_schema(reading).empty_table(), rejects)


def _or_nulls(values: pa.Array | None, count: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(count, kind) if values is None else values


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value[:RAW_BYTES_MAX]).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
