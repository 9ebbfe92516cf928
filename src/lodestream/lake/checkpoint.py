"""Checkpoints: the whole state of a table at one version as one Parquet file (Delta V1, single part)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.actions import AddFile, Metadata, Protocol, RemoveFile, metadata_json, metadata_of, protocol_of
from lodestream.lake.paths import decode_path

_DIGEST = b"lodestream.digest"
_THREADS_FROM_BYTES = 1 << 20
_PIECE = 2048
_DAMAGE = (
    pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, MemoryError,
    RuntimeError, AssertionError,
)  # fmt: skip
"""Whatever decoding flipped bytes may raise."""
_TEXTS = pa.map_(pa.string(), pa.string())
_TXN = pa.struct([("appId", pa.string()), ("version", pa.int64()), ("lastUpdated", pa.int64())])
_ADD = pa.struct([
    ("path", pa.string()), ("partitionValues", _TEXTS), ("size", pa.int64()), ("modificationTime", pa.int64()),
    ("dataChange", pa.bool_()), ("stats", pa.string()), ("tags", _TEXTS),
])  # fmt: skip
_REMOVE = pa.struct([
    ("path", pa.string()), ("deletionTimestamp", pa.int64()), ("dataChange", pa.bool_()),
    ("extendedFileMetadata", pa.bool_()), ("partitionValues", _TEXTS), ("size", pa.int64()), ("tags", _TEXTS),
])  # fmt: skip
_METADATA = pa.struct([
    ("id", pa.string()), ("name", pa.string()), ("description", pa.string()),
    ("format", pa.struct([("provider", pa.string()), ("options", _TEXTS)])), ("schemaString", pa.string()),
    ("partitionColumns", pa.list_(pa.string())), ("configuration", _TEXTS), ("createdTime", pa.int64()),
])  # fmt: skip
_PROTOCOL = pa.struct([("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32())])
_SCHEMA = pa.schema(
    [("txn", _TXN), ("add", _ADD), ("remove", _REMOVE), ("metaData", _METADATA), ("protocol", _PROTOCOL)]
)
_REQUIRED = {
    "txn": ("appId", "version"), "add": ("path", "partitionValues", "size", "modificationTime"), "remove": ("path",),
}  # fmt: skip
_VERIFIED = {"txn": ("appId", "version"), "add": _ADD.names, "remove": _REMOVE.names}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a checkpoint holds."""

    metadata: Metadata
    protocol: Protocol
    files: Mapping[str, AddFile]
    tombstones: Mapping[str, RemoveFile]
    txns: Mapping[str, int]


def write_checkpoint(contents: Contents) -> tuple[bytes, int]:
    """The Parquet bytes of a checkpoint, and the number of its actions."""
    adds, removes, txns = list(contents.files.values()), list(contents.tombstones.values()), list(contents.txns.items())
    metadata = metadata_json(contents.metadata)
    metadata["configuration"] = list(metadata["configuration"].items())
    metadata["format"] = {"provider": "parquet", "options": []}
    sections = [
        ("protocol", pa.array([{
            "minReaderVersion": contents.protocol.reader, "minWriterVersion": contents.protocol.writer,
        }], _PROTOCOL)),
        ("metaData", pa.array([metadata], _METADATA)),
        ("txn", _structs(_TXN, [[app for app, _ in txns], [version for _, version in txns], [None] * len(txns)])),
        ("remove", _structs(_REMOVE, [
            [r.path for r in removes], [r.deletion_time for r in removes], [False] * len(removes),
            [True] * len(removes), [list(r.partition_values.items()) for r in removes], [r.size for r in removes],
            [list(r.tags.items()) or None for r in removes],
        ])),
        ("add", _structs(_ADD, [
            [a.path for a in adds], [list(a.partition_values.items()) for a in adds], [a.size for a in adds],
            [a.modification_time for a in adds], [False] * len(adds), [a.stats for a in adds],
            [list(a.tags.items()) or None for a in adds],
        ])),
    ]  # fmt: skip
    parts = []
    for name, array in sections:
        columns = [array if f.name == name else pa.nulls(len(array), f.type) for f in _SCHEMA]
        parts.append(pa.Table.from_arrays(columns, schema=_SCHEMA))
    table = pa.concat_tables(parts).combine_chunks()
    table = table.replace_schema_metadata({_DIGEST: _digest(table, _leaves(table))})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", use_dictionary=False, write_page_checksum=True)
    return sink.getvalue().to_pybytes(), table.num_rows


def count_actions(data: bytes) -> int:
    """Number of actions in one part of a checkpoint."""
    return int(pq.read_metadata(pa.BufferReader(data)).num_rows)


def read_checkpoint(parts: Sequence[bytes], where: str, rows: int | None = None) -> Contents:
    """Read a checkpoint of one or more parts, ours or another writer's.

    Args:
        parts: content of its files, in order.
        where: the table, for messages.
        rows: how many actions it must hold, when that is known; ours carry a digest, which says more.

    Raises:
        CorruptionError: it is damaged or not complete.
        ConfigError: the table needs a feature that cannot be read here.
    """
    try:
        tables = []
        for part in parts:
            with pq.ParquetFile(pa.BufferReader(part), page_checksum_verification=True) as file:
                tables.append(file.read(use_threads=len(part) > _THREADS_FROM_BYTES))
        table = pa.concat_tables(tables, promote_options="default")
        leaves = _leaves(table)
        protocols, metadatas = _bodies(table, "protocol"), _bodies(table, "metaData")
        if len(protocols) != 1 or len(metadatas) != 1:
            raise ValueError("not one protocol and one metaData action")
        wanted = (table.schema.metadata or {}).get(_DIGEST)
        if wanted is None and rows is not None and table.num_rows != rows:
            raise ValueError(f"{table.num_rows} actions where {rows} were written")
        if wanted is None and any(_DIGEST in part for part in parts):
            raise ValueError("footer is damaged")
        if wanted is not None and wanted != _digest(table, leaves):
            raise ValueError("content does not have the digest it was written with")
        metadatas[0]["configuration"] = dict(metadatas[0].get("configuration") or ())
        return _contents(leaves, protocols[0], metadatas[0], where)
    except _DAMAGE as error:
        fix = "lodestream doctor --repair deletes it; the log has the same"
        raise CorruptionError("checkpoint is damaged", table=where, reason=str(error)[:200], fix=fix) from error


def _contents(
    leaves: dict[str, dict[str, list[Any]]], protocol: dict[str, Any], metadata: dict[str, Any], where: str
) -> Contents:
    add, remove, txn = leaves["add"], leaves["remove"], leaves["txn"]
    if None in add["path"] or None in add["size"] or None in remove["path"]:
        raise ValueError("a file has no path or no size")
    shared: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}

    def made(pairs: Sequence[tuple[str, Any]] | None) -> dict[str, Any]:
        """One dict for all that say the same: a table has a million files and few partitions."""
        key = tuple(pairs or ())
        found = shared.get(key)
        if found is None:
            found = shared[key] = dict(key)
        return found

    files = {
        path: AddFile(path, made(values), size, modified or 0, False, stats, made(tags), decode_path(path, where))
        for path, values, size, modified, stats, tags in zip(
            add["path"], add["partitionValues"], add["size"], add["modificationTime"], add["stats"], add["tags"],
            strict=True,
        )
    }  # fmt: skip
    tombstones = {
        path: RemoveFile(path, deleted or 0, False, made(values), size or 0, made(tags))
        for path, deleted, values, size, tags in zip(
            remove["path"], remove["deletionTimestamp"], remove["partitionValues"], remove["size"], remove["tags"],
            strict=True,
        )
    }  # fmt: skip
    for path in tombstones:
        decode_path(path, where)
    txns = {app: int(version) for app, version in zip(txn["appId"], txn["version"], strict=True)}
    return Contents(metadata_of(metadata, where), protocol_of(protocol, where), files, tombstones, txns)


def _structs(kind: pa.StructType, leaves: list[list[Any]]) -> pa.Array:
    arrays = [_array(values, kind.field(i).type) for i, values in enumerate(leaves)]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    pieces = [pa.array(values[start : start + _PIECE], kind) for start in range(0, len(values), _PIECE)]
    return pa.concat_arrays(pieces) if pieces else pa.nulls(0, kind)


def _leaves(table: pa.Table) -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = {}
    for name, fields in _VERIFIED.items():
        if name not in table.column_names and name == "add":
            raise ValueError("no column add")
        if name not in table.column_names:
            found[name] = {field: [] for field in fields}
            continue
        array = table.column(name).combine_chunks().drop_null()
        kind = array.type
        if missing := set(_REQUIRED[name]) - set(kind.names):
            raise ValueError(f"{name} lacks {sorted(missing)}")
        if "deletionVector" in kind.names and array.field("deletionVector").null_count < len(array):
            raise ConfigError("table uses deletion vectors, which cannot be read here")
        found[name] = {
            field: array.field(field).to_pylist() if field in kind.names else [None] * len(array) for field in fields
        }
    return found


def _bodies(table: pa.Table, name: str) -> list[dict[str, Any]]:
    if name not in table.column_names:
        return []
    return [body for body in table.column(name).drop_null().to_pylist() if body]


def _digest(table: pa.Table, leaves: dict[str, dict[str, list[Any]]]) -> bytes:
    """Covers every value and its name, so that no flipped byte that matters goes unseen."""
    digest = hashlib.blake2b(digest_size=16)
    for name, fields in leaves.items():
        for field, values in fields.items():
            digest.update(f"{name}.{field} {len(values)} ".encode())
            for start in range(0, len(values), _PIECE):  # in pieces, so that other threads get their turn
                digest.update(repr(values[start : start + _PIECE]).encode())
    digest.update(repr((_bodies(table, "metaData"), _bodies(table, "protocol"))).encode())
    return digest.hexdigest().encode()
