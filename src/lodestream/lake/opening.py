"""Which disk a lake is on, and whether tables can be committed to there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from lodestream.errors import ConfigError, LodestreamError
from lodestream.lake.disk import Disk, LocalDisk, put_if_absent, random_id
from lodestream.lake.object_disk import open_object_disk
from lodestream.project.lakes import StoreSettings, is_url, with_variables


def open_lake(
    lake: str, root: str, store: Mapping[str, Any], environment: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, Disk]:
    """A lake's root, and the disk it is on; looks at nothing yet.

    Args:
        lake: folder, relative to the project, or URL.
        root: the project's folder.
        store: settings of the lake's store, with values in the place of references.
        environment: `LODESTREAM_HOME` is the folder of all homes; others say who we are where settings do not.

    Raises:
        ConfigError: no lake can be there, or a setting is not possible.
        MissingDriverError: the store needs a package.
    """
    if not is_url(lake):
        return os.path.abspath(os.path.join(root, lake)), LocalDisk()
    try:
        settings = StoreSettings.model_validate(with_variables(lake, store, environment))
    except ValidationError as error:
        one = error.errors(include_input=False)[0]
        key = ".".join(str(part) for part in one["loc"]) or None
        raise ConfigError("a setting under lake: is not possible", key=key, reason=one["msg"]) from None
    lake = lake.rstrip("/")
    told = hashlib.blake2b(lake.encode(), digest_size=6).hexdigest()
    homes = environment.get("LODESTREAM_HOME")
    chosen = os.path.join(homes, told) if homes else settings.home or os.path.join(".lodestream", told)
    home = os.path.abspath(os.path.join(root, chosen))
    return lake, open_object_disk(lake, settings, home)


def check_put_if_absent(disk: Disk, lake: str) -> None:
    """Write a file into a lake twice and take it away: commits rely on the second time being refused.

    Raises:
        ConfigError: the store or file system cannot do it, is not there, or does not let us.
        TransientError: it does not answer.
    """
    path = os.path.join(lake, f".lodestream-{random_id()}")
    try:
        if not put_if_absent(disk, path, b"first") or put_if_absent(disk, path, b"second"):
            fix = "use a store with conditional writes (If-None-Match: *): Azure Blob Storage, Amazon S3, MinIO, R2"
            raise ConfigError("store overwrites what it should refuse, so commits could be lost", lake=lake, fix=fix)
    finally:
        with contextlib.suppress(FileNotFoundError, LodestreamError):  # what went wrong first says more
            disk.unlink(path)
