"""A commit on its way: what it would change, and whether what others committed leaves room for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lodestream.errors import ConfigError, ConflictError, RewrittenError
from lodestream.lake.actions import (
    AddFile,
    Commit,
    Metadata,
    Protocol,
    RemoveFile,
    add_json,
    metadata_json,
    protocol_json,
    remove_json,
    serialise,
)
from lodestream.lake.log import Snapshot
from lodestream.lake.partitions import check_partitions

_ENGINE = "lodestream"
_HEAD = frozenset({"timestamp", "operation", "isBlindAppend", "engineInfo", "txnId"})


@dataclass(frozen=True, slots=True)
class Proposal:
    """A commit that has no version yet.

    Attributes:
        path: folder of the table, for messages.
        commit: what it would change; its version is -1.
        blind: False when it was computed from the whole table, so that any change of rows is a conflict.
    """

    path: str
    commit: Commit
    blind: bool = True

    @classmethod
    def of(
        cls,
        path: str,
        *,
        adds: Iterable[AddFile] = (),
        removes: Iterable[AddFile | RemoveFile] = (),
        txns: Mapping[str, int] | None = None,
        info: Mapping[str, object] | None = None,
        metadata: Metadata | None = None,
        protocol: Protocol | None = None,
        now_ms: int,
        operation: str,
        blind: bool = True,
        unique: str,
    ) -> Proposal:
        """Put a commit together; files without a time get `now_ms`."""
        if taken := _HEAD & (info or {}).keys():
            raise ValueError(f"commit info may not set {sorted(taken)}")
        gone = [RemoveFile.of(r) if isinstance(r, AddFile) else r for r in removes]
        head = {
            "timestamp": now_ms, "operation": operation, "operationParameters": {},
            "isBlindAppend": blind and not gone, "engineInfo": _ENGINE, "txnId": unique, **(info or {}),
        }  # fmt: skip
        commit = Commit(
            -1, now_ms, tuple(replace(a, modification_time=a.modification_time or now_ms) for a in adds),
            tuple(replace(r, deletion_time=r.deletion_time or now_ms) for r in gone), dict(txns or {}), head, metadata,
            protocol,
        )  # fmt: skip
        return cls(path, commit, blind)

    def to_bytes(self) -> bytes:
        """Content of the log file."""
        commit = self.commit
        actions: list[dict[str, Any]] = [{"commitInfo": commit.info}]
        if commit.protocol is not None:
            actions.append({"protocol": protocol_json(commit.protocol)})
        if commit.metadata is not None:
            actions.append({"metaData": metadata_json(commit.metadata)})
        actions += [
            {"txn": {"appId": app, "version": version, "lastUpdated": commit.timestamp_ms}}
            for app, version in commit.txns.items()
        ]
        actions += [{"remove": remove_json(remove)} for remove in commit.removes]
        actions += [{"add": add_json(add)} for add in commit.adds]
        return serialise(actions)

    def check(self, standing: Snapshot) -> None:
        """Raise unless this may follow the snapshot it was made on.

        Raises:
            ConflictError: an application id has come as far, a removed file is gone, an added one is there.
            ConfigError: the table needs a newer writer or takes no removals, or the new metadata is not possible.
        """
        commit = self.commit
        if standing.protocol.writer > 2:
            raise ConfigError("table needs a newer writer", table=self.path, min_writer=standing.protocol.writer)
        if commit.metadata is not None:
            check_partitions(commit.metadata.schema, commit.metadata.partition_columns)
        for app, version in commit.txns.items():
            if standing.txns.get(app, -1) >= version:
                raise ConflictError("batch is already committed", table=self.path, app=app, batch=version)
        for remove in commit.removes:
            if remove.path not in standing.files:
                raise ConflictError("file to remove is no longer live", table=self.path, file=remove.path)
        for add in commit.adds:
            if add.path in standing.files:
                raise ConflictError("file to add is already live", table=self.path, file=add.path)
        if standing.metadata.configuration.get("delta.appendOnly") == "true" and any(
            remove.data_change for remove in commit.removes
        ):
            raise ConfigError("table is append only", table=self.path, property="delta.appendOnly")

    def refuse(self, winner: Commit) -> None:
        """Raise ConflictError when `winner`, which took our version, does not leave room for us after it."""
        ours = self.commit
        facts: dict[str, object] = {"table": self.path, "version": winner.version}
        if both := ours.txns.keys() & winner.txns.keys():
            raise ConflictError("another writer runs the same flow", app=min(both), **facts)
        if winner.metadata is not None or winner.protocol is not None:
            raise ConflictError("another writer changed the table's schema or properties", **facts)
        left = {remove.path for remove in winner.removes}
        if taken := [remove.path for remove in ours.removes if remove.path in left]:
            if not any(remove.data_change for remove in winner.removes):
                raise RewrittenError("compaction put the rows of a file elsewhere", file=taken[0], **facts)
            raise ConflictError("another writer removed the same file", file=taken[0], **facts)
        came = {add.path for add in winner.adds}
        if twice := [add.path for add in ours.adds if add.path in came]:
            raise ConflictError("another writer added the same file", file=twice[0], **facts)
        changed = any(a.data_change for a in winner.adds) or any(r.data_change for r in winner.removes)
        if changed and not self.blind:
            raise ConflictError("another writer changed rows that this commit was computed from", **facts)
