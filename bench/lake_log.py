"""Tables with a long history and many files, made without having lived it: log and checkpoint are written directly."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from lodestream.lake.actions import (
    AddFile,
    Metadata,
    Protocol,
    add_json,
    metadata_json,
    protocol_json,
    serialise,
)
from lodestream.lake.checkpoint import Contents, write_checkpoint
from lodestream.model.types import Schema

FILE_BYTES = 64 << 20
"""Size that the files of a made-up table have: compaction leaves files of this size alone."""
_INODES_MAX = 20_000  # names of one file: ext4 has a limit of 65,000


def write_log(
    table: Path, schema: Schema, *, entries: int, files: int, now_ms: int, application: str, tail: int = 0,
    configuration: Mapping[str, str] | None = None, file_bytes: int = FILE_BYTES,
) -> None:  # fmt: skip
    """Write the log of a table with `entries` commits, all of them still there, and `files` live files.

    The newest `tail` commits add one file each; all older files are in a checkpoint below them. The entries under the
    checkpoint, which nobody reads, say only when they were made, and are names of a few files. No data file is made.

    Args:
        table: folder to make.
        schema: its columns.
        entries: commits, the first one counted.
        files: live files, at least `tail`.
        now_ms: when all of it was committed, milliseconds since 1970.
        application: id of the flow that made it; its batches are the versions.
        tail: commits after the checkpoint.
        configuration: table properties.
        file_bytes: what the log says of each file's size.
    """
    log = table / "_delta_log"
    log.mkdir(parents=True)
    last = entries - 1 - tail
    metadata = Metadata(str(uuid.UUID(int=entries)), schema, (), dict(configuration or {}), created_time=now_ms)
    first = [{"commitInfo": _info(now_ms, 0)}, {"protocol": protocol_json(Protocol())},
             {"metaData": metadata_json(metadata)}]  # fmt: skip
    (log / _name(0)).write_bytes(serialise(first))
    source = ""
    for version in range(1, last + 1):
        path = str(log / _name(version))
        if (version - 1) % _INODES_MAX == 0:
            Path(path).write_bytes(serialise([{"commitInfo": _info(now_ms, version)}]))
            source = path
        else:
            os.link(source, path)
    live = {add.path: add for add in (_file(number, now_ms, file_bytes) for number in range(files - tail))}
    data, rows = write_checkpoint(Contents(metadata, Protocol(), live, {}, {application: last}))
    (log / f"{last:020d}.checkpoint.parquet").write_bytes(data)
    (log / "_last_checkpoint").write_text(json.dumps({"version": last, "size": rows}))
    for number, version in enumerate(range(last + 1, entries), files - tail):
        (log / _name(version)).write_bytes(serialise([
            {"commitInfo": _info(now_ms, version)},
            {"txn": {"appId": application, "version": version, "lastUpdated": now_ms}},
            {"add": add_json(_file(number, now_ms, file_bytes))},
        ]))  # fmt: skip


def _file(number: int, now_ms: int, size: int) -> AddFile:
    name = f"part-{number:020d}-{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}-0.snappy.parquet"
    return AddFile(name, {}, size, now_ms, True, '{"numRecords":1000}', {}, name)


def _info(now_ms: int, version: int) -> dict[str, object]:
    return {"timestamp": now_ms, "operation": "WRITE", "operationParameters": {}, "isBlindAppend": True,
            "engineInfo": "bench", "txnId": f"{version:032x}", "batch": version}  # fmt: skip


def _name(version: int) -> str:
    return f"{version:020d}.json"
