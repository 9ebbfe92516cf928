"""A lake's tables and files, in a folder or an object store, read with code that the engine does not use (delta-rs)."""

from __future__ import annotations

import os
from urllib.parse import unquote

import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from lodestream.errors import CorruptionError
from lodestream.lake.disk import Disk
from lodestream.lake.object_disk import ObjectDisk, delta_options
from lodestream.project.lakes import StoreSettings


class LakeFiles:
    """Files of one lake; nothing is ever written or copied.

    Args:
        lake: its root, a folder or URL.
        settings: how its object store is reached; None for a folder.
        home: folder of what only this machine has of it; that of the lake for None.
    """

    def __init__(self, lake: str, settings: StoreSettings | None = None, home: str | None = None) -> None:
        self.lake, self.home = lake, home or lake
        self._options: dict[str, str] | None = None
        self._files: pafs.FileSystem = pafs.LocalFileSystem()
        if settings is not None:
            from deltalake.fs import DeltaStorageHandler

            self._options = delta_options(lake, settings)
            self._files = pafs.PyFileSystem(DeltaStorageHandler(lake, self._options))

    @classmethod
    def of(cls, disk: Disk, lake: str) -> LakeFiles:
        """Those of a lake on a disk, which is asked for nothing but how the store is reached."""
        return cls(lake, disk.settings if isinstance(disk, ObjectDisk) else None, disk.beside(lake))

    def table(self, path: str, version: int | None = None) -> DeltaTable | None:
        """The Delta table at `path` as delta-rs sees it, or None."""
        try:
            return DeltaTable(path, version=version, storage_options=self._options)
        except TableNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; none when there is no folder."""
        found = self._files.get_file_info(pafs.FileSelector(self._inner(folder), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == pafs.FileType.File)

    def read(self, path: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        with self._files.open_input_file(self._inner(path)) as file:
            return bytes(file.read())

    def parquet(self, uri: str) -> pq.ParquetFile:
        """A data file by the URI that delta-rs gives it; only the columns that are read are fetched.

        Raises:
            CorruptionError: it is missing.
        """
        plain = uri.removeprefix("file://")
        for path in dict.fromkeys([plain, unquote(plain)] if self._options is not None else [unquote(plain), plain]):
            try:
                return pq.ParquetFile(
                    self._files.open_input_file(self._inner(path)), coerce_int96_timestamp_unit="us", pre_buffer=True
                )
            except FileNotFoundError:
                continue
        raise CorruptionError("data file is missing; lodestream doctor names what to do", path=plain)

    def _inner(self, path: str) -> str:
        """The path as the file system knows it."""
        return path if self._options is None else os.path.relpath(path, self.lake)
