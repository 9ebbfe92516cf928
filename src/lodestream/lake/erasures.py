"""What was erased from a lake: a file for each erasure, with keyed hashes of whom, never the values themselves."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lodestream.errors import CorruptionError
from lodestream.lake.disk import Disk, put_if_absent, replace_durable, settle
from lodestream.lake.layout import erasures_folder

_KEY = "key"


@dataclass(frozen=True, slots=True)
class Bar:
    """Whose records an ingesting table takes in no more.

    Attributes:
        table: `layer.name`.
        column: of the table, as decoded.
        near: 16 bits of a keyed hash of the value, by which almost all other values are passed over.
        mac: keyed hash of the value.
    """

    table: str
    column: str
    near: int
    mac: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure.

    Attributes:
        id: later ones have greater ids.
        time_us: when it was asked for, microseconds since 1970 UTC.
        subject: keyed hash over all that names the subject.
        columns: the columns by which the subject was named.
        bars: whose records no longer come in.
        places: records that never decoded, as (table, source, position); they do not come in again either.
        erased: whether every table has gone through it; from then on files are deleted.
        report: what was done, once all is.
    """

    id: str
    time_us: int
    subject: str
    columns: tuple[str, ...]
    bars: tuple[Bar, ...] = ()
    places: tuple[tuple[str, str, int], ...] = ()
    erased: bool = False
    report: Mapping[str, Any] | None = field(default=None)


def secret(disk: Disk, lake: str) -> bytes:
    """The key of the hashes, made when there is none."""
    folder = erasures_folder(lake)
    settle(disk, folder)
    path = os.path.join(folder, _KEY)
    if not disk.exists(path):
        put_if_absent(disk, path, os.urandom(32).hex().encode())
    return bytes.fromhex(disk.read(path).decode())


def keyed(key: bytes, *parts: str) -> str:
    """32 hex digits that only the holder of the key can make of these texts."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hmac.new(key, text, hashlib.sha256).hexdigest()[:32]


def erasures(disk: Disk, lake: str) -> list[Erasure]:
    """All erasures of a lake, the oldest first. Raises CorruptionError when one cannot be read."""
    folder = erasures_folder(lake)
    found = []
    for name in sorted(disk.list(folder)):
        if not name.endswith(".json"):
            continue
        path = os.path.join(folder, name)
        try:
            told = json.loads(disk.read(path))
            bars = tuple(Bar(**bar) for bar in told.pop("bars"))
            places = tuple((table, source, position) for table, source, position in told.pop("places"))
            found.append(Erasure(**(told | {"columns": tuple(told["columns"])}), bars=bars, places=places))
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptionError("erasure cannot be read; restore the file from a copy", path=path) from error
    return found


def put_erasure(disk: Disk, lake: str, erasure: Erasure) -> None:
    """Write an erasure durably, over what was there of it."""
    folder = erasures_folder(lake)
    settle(disk, folder)
    data = json.dumps(asdict(erasure), sort_keys=True, indent=1).encode()
    replace_durable(disk, os.path.join(folder, f"{erasure.id}.json"), data)


def is_finished(disk: Disk, lake: str, erasure: str) -> bool:
    """Whether an erasure has gone through all tables."""
    return any(one.id == erasure and one.erased for one in erasures(disk, lake))
