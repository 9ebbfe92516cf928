"""The entries of a Delta log as frozen values, and their JSON form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lodestream.errors import ConfigError, CorruptionError
from lodestream.lake.paths import decode_path
from lodestream.lake.schema import schema_from_json, schema_to_json
from lodestream.model.types import Schema

HOT_TAG = "lodestream.hot"
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_LINE_ENDS = {ord(end): json.dumps(end)[1:-1] for end in "\x85\u2028\u2029"}


@dataclass(frozen=True, slots=True)
class AddFile:
    """A data file that belongs to the table from a version on.

    Attributes:
        path: as it stands in the log, percent-encoded; `file` is the path on disk. Both are relative to the table.
        partition_values: by column, in Delta's text form; None is NULL.
        size: bytes.
        modification_time: milliseconds since 1970; 0 until committed.
        data_change: False for a rewrite that holds the same rows.
        stats: Delta's statistics as JSON, None when not known.
        tags: `lodestream.hot` marks the file of open windows.
        file: decoded `path`.
    """

    path: str
    partition_values: Mapping[str, str | None] = field(default_factory=lambda: _EMPTY)
    size: int = 0
    modification_time: int = 0
    data_change: bool = True
    stats: str | None = None
    tags: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    file: str = ""

    def __post_init__(self) -> None:
        if not self.file:
            object.__setattr__(self, "file", decode_path(self.path, ""))

    @property
    def hot(self) -> bool:
        """Whether this is a file of open windows, to be replaced soon."""
        return self.tags.get(HOT_TAG) == "true"

    @property
    def num_records(self) -> int | None:
        """Number of rows when the statistics say so."""
        count = json.loads(self.stats).get("numRecords") if self.stats else None
        return None if count is None else int(count)


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """A data file that belongs to the table no longer; kept on disk for a while.

    Attributes:
        path: as in the `add`.
        deletion_time: milliseconds since 1970; 0 until committed.
        data_change: False when its rows are in files added by the same commit.
        partition_values: those of the add.
        size: bytes.
        tags: those of the add.
    """

    path: str
    deletion_time: int = 0
    data_change: bool = True
    partition_values: Mapping[str, str | None] = field(default_factory=lambda: _EMPTY)
    size: int = 0
    tags: Mapping[str, str] = field(default_factory=lambda: _EMPTY)

    @classmethod
    def of(cls, add: AddFile, *, data_change: bool = True) -> RemoveFile:
        """The removal of a live file."""
        return cls(
            add.path, data_change=data_change, partition_values=add.partition_values, size=add.size, tags=add.tags
        )


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the table is.

    Attributes:
        id: unique id of the table; never changes.
        schema: columns, partition columns included.
        partition_columns: names, in folder order.
        configuration: Delta table properties and our own (`lodestream.*`).
        created_time: milliseconds since 1970.
    """

    id: str
    schema: Schema
    partition_columns: tuple[str, ...] = ()
    configuration: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    name: str | None = None
    description: str | None = None
    created_time: int | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """Which reader and writer versions the table asks for."""

    reader: int = 1
    writer: int = 2


RETENTION = "RETENTION"
"""Operation of a commit that lets old rows go."""
ERASE = "ERASE"
"""Operation of the commits that take out the rows of somebody who is to be forgotten."""
PASSED_OVER = (RETENTION, ERASE)
"""Operations whose rows leave a table and not what was made of them: readers go on as if they stood."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of the log.

    Attributes:
        version: from 0.
        timestamp_ms: when it was made, by its writer's clock.
        adds: files that joined.
        removes: files that left.
        txns: application id to the version it reached.
        info: `commitInfo` as written (operation, batch, attempt, epoch, …).
        metadata: the new metadata when it changed.
        protocol: the new protocol when it changed.
    """

    version: int
    timestamp_ms: int = 0
    adds: tuple[AddFile, ...] = ()
    removes: tuple[RemoveFile, ...] = ()
    txns: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    info: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    metadata: Metadata | None = None
    protocol: Protocol | None = None

    @property
    def takes_away(self) -> bool:
        """Whether rows left that readers of the table have taken in and would have to take back."""
        return self.info.get("operation") not in PASSED_OVER and any(remove.data_change for remove in self.removes)


def parse_commit(version: int, data: bytes, where: str) -> Commit:
    """Read one JSON file of the log.

    Raises:
        CorruptionError: it is empty, torn, or names a file outside the table.
        ConfigError: it needs a feature that cannot be read here.
    """
    try:
        lines = [json.loads(line) for line in data.split(b"\n") if line.strip()]
        if not lines:
            raise ValueError("empty")
        return commit_of(version, lines, where)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "empty" if not data.strip() else "torn or not Delta JSON"
        fix = "lodestream doctor --repair puts a broken last commit aside"
        raise CorruptionError(f"commit is {reason}; {fix}", table=where, version=version) from error


def commit_of(version: int, actions: Iterable[Mapping[str, Any]], where: str) -> Commit:
    """The commit that consists of these actions in their JSON form."""
    adds: list[AddFile] = []
    removes: list[RemoveFile] = []
    txns: dict[str, int] = {}
    info: Mapping[str, Any] = _EMPTY
    metadata: Metadata | None = None
    protocol: Protocol | None = None
    for action in actions:
        if body := action.get("add"):
            adds.append(_add(body, where))
        elif body := action.get("remove"):
            removes.append(_remove(body, where))
        elif body := action.get("txn"):
            txns[str(body["appId"])] = int(body["version"])
        elif body := action.get("metaData"):
            metadata = metadata_of(body, where)
        elif body := action.get("protocol"):
            protocol = protocol_of(body, where)
        elif body := action.get("commitInfo"):
            info = body
    timestamp = int(info.get("timestamp") or 0)
    return Commit(version, timestamp, tuple(adds), tuple(removes), txns, info, metadata, protocol)


def _add(body: Mapping[str, Any], where: str) -> AddFile:
    if body.get("deletionVector"):
        raise ConfigError("table uses deletion vectors, which cannot be read here", table=where)
    path = str(body["path"])
    return AddFile(
        path, body.get("partitionValues") or _EMPTY, int(body["size"]), int(body.get("modificationTime") or 0),
        bool(body["dataChange"]), body.get("stats"), body.get("tags") or _EMPTY, decode_path(path, where),
    )  # fmt: skip


def _remove(body: Mapping[str, Any], where: str) -> RemoveFile:
    if body.get("deletionVector"):
        raise ConfigError("table uses deletion vectors, which cannot be read here", table=where)
    path = str(body["path"])
    decode_path(path, where)
    return RemoveFile(
        path, int(body.get("deletionTimestamp") or 0), bool(body.get("dataChange", True)),
        body.get("partitionValues") or _EMPTY, int(body.get("size") or 0), body.get("tags") or _EMPTY,
    )  # fmt: skip


def metadata_of(body: Mapping[str, Any], where: str) -> Metadata:
    """Read a `metaData` action. Raises ConfigError when the table uses column mapping."""
    configuration = dict(body.get("configuration") or {})
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        raise ConfigError("table uses column mapping, which cannot be read here", table=where)
    partitions = tuple(body["partitionColumns"])
    schema = schema_from_json(body["schemaString"])
    if unknown := [name for name in partitions if name not in schema]:
        raise ValueError(f"partition columns not in the schema: {unknown}")
    created = body.get("createdTime")
    return Metadata(
        str(body["id"]), schema, partitions, configuration, body.get("name"), body.get("description"),
        None if created is None else int(created),
    )  # fmt: skip


def protocol_of(body: Mapping[str, Any], where: str) -> Protocol:
    """Read a `protocol` action. Raises ConfigError when this reader is too old for it."""
    protocol = Protocol(int(body["minReaderVersion"]), int(body["minWriterVersion"]))
    if protocol.reader > 1:
        features = list(body.get("readerFeatures") or ()) or ["columnMapping"]
        fix = "rewrite it with minReaderVersion 1"
        raise ConfigError(
            "table uses features that cannot be read here", features=features, reader=protocol.reader, table=where,
            fix=fix,
        )  # fmt: skip
    return protocol


def add_json(add: AddFile) -> dict[str, Any]:
    """The body of an `add` action."""
    body: dict[str, Any] = {
        "path": add.path, "partitionValues": dict(add.partition_values), "size": add.size,
        "modificationTime": add.modification_time, "dataChange": add.data_change,
    }  # fmt: skip
    if add.stats is not None:
        body["stats"] = add.stats
    if add.tags:
        body["tags"] = dict(add.tags)
    return body


def remove_json(remove: RemoveFile) -> dict[str, Any]:
    """The body of a `remove` action."""
    body: dict[str, Any] = {
        "path": remove.path, "deletionTimestamp": remove.deletion_time, "dataChange": remove.data_change,
        "extendedFileMetadata": True, "partitionValues": dict(remove.partition_values), "size": remove.size,
    }  # fmt: skip
    if remove.tags:
        body["tags"] = dict(remove.tags)
    return body


def metadata_json(metadata: Metadata) -> dict[str, Any]:
    """The body of a `metaData` action."""
    body: dict[str, Any] = {
        "id": metadata.id, "format": {"provider": "parquet", "options": {}},
        "schemaString": schema_to_json(metadata.schema), "partitionColumns": list(metadata.partition_columns),
        "configuration": dict(metadata.configuration),
    }  # fmt: skip
    known = {"name": metadata.name, "description": metadata.description, "createdTime": metadata.created_time}
    return body | {key: value for key, value in known.items() if value is not None}


def protocol_json(protocol: Protocol) -> dict[str, Any]:
    """The body of a `protocol` action."""
    return {"minReaderVersion": protocol.reader, "minWriterVersion": protocol.writer}


def serialise(actions: Iterable[Mapping[str, Any]]) -> bytes:
    """One action a line: the content of a log file.

    Characters stand for themselves: delta-rs 1.6 takes the escapes of some beyond U+FFFF for others. But those that
    some take for the end of a line are escaped.
    """
    text = "".join(json.dumps(action, separators=(",", ":"), ensure_ascii=False) + "\n" for action in actions)
    return (text if text.isascii() else text.translate(_LINE_ENDS)).encode()
