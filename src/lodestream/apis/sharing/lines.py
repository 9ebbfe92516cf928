"""Answers of the protocol line by line, in both of its formats: Parquet files to read, or actions of a Delta log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from lodestream.lake.actions import AddFile, Commit, RemoveFile, add_json, metadata_json, protocol_json, remove_json
from lodestream.lake.log import Snapshot

Format = Literal["parquet", "delta"]
CAPABILITIES = "delta-sharing-capabilities"
_FEED = "delta.enableChangeDataFeed"
_FEED_WRITER = 4
"""Writer version from which tables may have a feed; Delta's Rust kernel wants to see it."""
_DELTA = "delta."
"""Other properties of a table are between it and its flow."""


def format_of(capabilities: str | None) -> Format:
    """The format to answer in: `delta` when the client can read it, for its readers know every type and are faster.

    Args:
        capabilities: the client's header, such as `responseformat=delta,parquet;readerfeatures=deletionvectors`.
    """
    for part in (capabilities or "").lower().split(";"):
        name, _, values = part.partition("=")
        if name.strip() == "responseformat" and "delta" in (value.strip() for value in values.split(",")):
            return "delta"
    return "parquet"


class Lines:
    """Writes the lines of one answer.

    Args:
        form: the format.
        url: makes the address of a data file, from its path in the log.
        until_us: when addresses end, microseconds since 1970 UTC.
    """

    def __init__(self, form: Format, url: Callable[[str], str], until_us: int) -> None:
        self._form, self._url, self._until_ms = form, url, until_us // 1000

    def head(self, snapshot: Snapshot, *, feed: bool = False) -> list[bytes]:
        """Protocol and metadata of a version; `feed` says in it that changes can be read."""
        protocol = protocol_json(snapshot.protocol)
        if feed:
            protocol["minWriterVersion"] = max(protocol["minWriterVersion"], _FEED_WRITER)
        if self._form == "delta":
            told: Mapping[str, Any] = {"deltaProtocol": protocol}
        else:
            told = {"minReaderVersion": protocol["minReaderVersion"]}
        files = snapshot.files.values()
        about = {"version": snapshot.version, "size": sum(add.size for add in files), "numFiles": len(files)}
        metadata = metadata_json(snapshot.metadata)
        metadata["configuration"] = {
            key: value for key, value in snapshot.metadata.configuration.items() if key.startswith(_DELTA)
        } | ({_FEED: "true"} if feed else {})
        placed = {"deltaMetadata": metadata} if self._form == "delta" else metadata
        return [_line({"protocol": told}), _line({"metaData": {**placed, **about}})]

    def files(self, adds: Iterable[AddFile]) -> Iterator[bytes]:
        """The live files of a version."""
        for add in adds:
            if self._form == "delta":
                yield self._action("add", add.path, self._added(add), {})
            else:
                yield _line({"file": self._file(add, {})})

    def changes(self, commits: Iterable[Commit]) -> Iterator[bytes]:
        """What versions added and took away."""
        for commit in commits:
            at = {"version": commit.version, "timestamp": commit.timestamp_ms}
            for add in (one for one in commit.adds if one.data_change):
                if self._form == "delta":
                    yield self._action("add", add.path, self._added(add), at)
                else:
                    yield _line({"add": self._file(add, at)})
            for gone in (one for one in commit.removes if one.data_change):
                if self._form == "delta":
                    yield self._action("remove", gone.path, self._removed(gone), at)
                else:
                    yield _line({"remove": self._file(gone, at)})

    def _action(self, kind: str, path: str, action: Mapping[str, Any], at: Mapping[str, int]) -> bytes:
        about = {"id": _id(path), "expirationTimestamp": self._until_ms, **at}
        return _line({"file": {**about, "deltaSingleAction": {kind: action}}})

    def _added(self, add: AddFile) -> Mapping[str, Any]:
        told = add_json(add) | {"path": self._url(add.path)}
        told.pop("tags", None)
        return told

    def _removed(self, gone: RemoveFile) -> Mapping[str, Any]:
        told = remove_json(gone) | {"path": self._url(gone.path)}
        told.pop("tags", None)
        return told

    def _file(self, one: AddFile | RemoveFile, at: Mapping[str, int]) -> Mapping[str, Any]:
        told: dict[str, Any] = {
            "url": self._url(one.path), "id": _id(one.path), "partitionValues": dict(one.partition_values),
            "size": one.size, "expirationTimestamp": self._until_ms, **at,
        }  # fmt: skip
        if isinstance(one, AddFile) and one.stats is not None:
            told["stats"] = one.stats
        return told


def _id(path: str) -> str:
    """The same for a file in every answer."""
    return hashlib.blake2b(path.encode(), digest_size=16).hexdigest()


def _line(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"
