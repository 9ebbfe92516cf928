"""What a lake keeps on one machine: catalog, keys, audit anchors, registry, pushed events; and the declarations."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import partial

from lodestream.drivers.record_log.layout import identity_path, segment_path, segments
from lodestream.errors import TransientError
from lodestream.lake.layout import catalog_file, ingest_folder, keys_path, registry_file
from lodestream.operations.backup.contents import Item, Part

_ANCHORS = ("audit.key", "audit.anchors")
_DECLARATIONS = (".yaml", ".yml", ".py", ".avsc", ".proto", ".sql")
_DECLARATION_BYTES_MAX = 1 << 20
_BUSY_S = 20.0


def home_parts(home: str, project: str, lake: str, *, external_catalog: bool) -> list[Part]:
    """The parts beside the lake; looked at after it, so that bronze has read no pushed event that is not copied.

    Args:
        home: the lake's folder of this machine.
        project: the project's folder.
        lake: root of the lake, left out of the project's files.
        external_catalog: whether the catalog is in a database that is backed up on its own.
    """
    found: list[Part] = [("home", partial(_home, home, external_catalog=external_catalog))]
    folder = ingest_folder(home)
    streams = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found += [(f"stream {stream}", partial(_stream, home, os.path.join(folder, stream))) for stream in streams]
    found.append(("project", partial(_project, project, (lake, home))))
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _home(home: str, *, external_catalog: bool) -> Iterator[Item]:
    """Anchors before the audit log that they speak of, for it may only be longer."""
    access = os.path.dirname(keys_path(home))
    held = [keys_path(home), *(os.path.join(access, name) for name in _ANCHORS)]
    for path in held:
        if os.path.exists(path):
            data = _read(path)
            yield Item(f"home/{os.path.relpath(path, home)}", partial(bytes, data), fixed=False)
    databases = [registry_file(home), *([] if external_catalog else [catalog_file(home)])]
    for path in databases:
        if os.path.exists(path):
            yield Item(f"home/{os.path.relpath(path, home)}", partial(_database, path), fixed=False)


def _database(path: str) -> bytes:
    """A SQLite file as one transaction sees it, whoever writes meanwhile."""
    with tempfile.TemporaryDirectory(prefix="lodestream-") as folder:
        copy = os.path.join(folder, "copy.db")
        try:
            with (
                contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_BUSY_S)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            raise TransientError("store does not let itself be copied", file=path, reason=str(error)) from error
        return _read(copy)


def _stream(home: str, folder: str) -> Iterator[Item]:
    """A log of pushed events: what lies behind its last whole group is cut off by whoever opens it."""
    found = segments(folder)
    below = partial(os.path.relpath, start=home)
    if os.path.exists(identity_path(folder)):
        yield Item(f"home/{below(identity_path(folder))}", partial(_read, identity_path(folder)), fixed=False)
    for first in found:
        path = segment_path(folder, first)
        yield Item(f"home/{below(path)}", partial(_read, path), fixed=first != found[-1], must=False)


def _project(project: str, but: tuple[str, ...]) -> Iterator[Item]:
    """Declarations and functions as they are written, with references in the place of secrets."""
    for folder, folders, names in os.walk(project):
        folders[:] = sorted(
            one for one in folders
            if not one.startswith((".", "__")) and os.path.join(folder, one) not in but
        )  # fmt: skip
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith(_DECLARATIONS) and os.path.getsize(path) <= _DECLARATION_BYTES_MAX:
                yield Item(f"project/{os.path.relpath(path, project)}", partial(_read, path), fixed=False)
