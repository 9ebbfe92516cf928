"""Rows to data files that are durable before any version knows them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from lodestream.errors import ConfigError, ConflictError, TransientError
from lodestream.lake.actions import HOT_TAG, AddFile
from lodestream.lake.crash import point
from lodestream.lake.data import Encodings, parquet_bytes
from lodestream.lake.disk import Disk, write_placed
from lodestream.lake.partitions import split, values_of
from lodestream.lake.paths import encode_path, partition_folder


@dataclass(frozen=True, slots=True)
class Staged:
    """Files on disk that no version knows yet.

    Attributes:
        adds: the files, durable; give them to `commit`.
        rows: their rows in the order in which a read of `adds` returns them.
    """

    adds: tuple[AddFile, ...]
    rows: pa.Table


def stage_files(
    disk: Disk, root: str, rows: pa.Table, *, partitions: Sequence[str], name: str, hot: bool, encodings: Encodings
) -> Staged:
    """Write one file per partition, `part-<name>-<i>.snappy.parquet`, each with its folder and its name synced.

    Args:
        disk: the seam for every effect.
        root: folder of the table.
        rows: n rows in the table's types.
        partitions: partition columns; they are in the folder's name and the log, not in the file.
        name: unique per table and attempt.
        hot: mark the files as open windows.
        encodings: what is known about the columns.

    Raises:
        ConflictError: there is a file of that name; it may be live, so it is left alone.
        TransientError: the disk is full; the files of this call are taken away again.
    """
    adds: list[AddFile] = []
    parts: list[pa.Table] = []
    written: list[str] = []
    try:
        for index, (values, part) in enumerate(split(rows, partitions)):
            relative = os.path.join(partition_folder(partitions, values), f"part-{name}-{index}.snappy.parquet")
            path = os.path.join(root, relative)
            stored = part.drop_columns(list(partitions))
            data = parquet_bytes(stored, encodings.choose(stored))
            point("stage.before_write")
            written.append(path)
            try:
                write_placed(disk, path, data, new=True)
            except FileExistsError as error:
                written.remove(path)  # it may be live
                raise ConflictError("data file is there; give each attempt its own name", path=path) from error
            parts.append(part)
            adds.append(
                AddFile(
                    encode_path(relative), values_of(partitions, values), data.size, 0, True,
                    f'{{"numRecords":{part.num_rows}}}', {HOT_TAG: "true"} if hot else {}, relative,
                )
            )  # fmt: skip
        point("stage.written")
        for path in written:  # after all writes: the first sync then carries most of the others
            disk.fsync(path)
        point("stage.files_synced")
        for folder in dict.fromkeys(os.path.dirname(path) for path in written):
            disk.sync_directory(folder)
    except (TransientError, ConfigError, ConflictError):
        for path in written:
            with contextlib.suppress(FileNotFoundError, TransientError, ConfigError):
                disk.unlink(path)
        raise
    point("stage.synced")
    return Staged(tuple(adds), pa.concat_tables(parts) if parts else rows)
