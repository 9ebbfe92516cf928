"""Writes a bundle into a folder, and never over what somebody else wrote there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lodestream.errors import ConfigError

MANIFEST = ".lodestream-bundle.json"
"""What was written by us, with the SHA-256 of each file: whatever differs from it is somebody else's."""

_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the files of a bundle, each list sorted by path."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]
    removed: tuple[str, ...]


def write_bundle(folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> Written:
    """Write `files`, and remove what an earlier bundle had and this one has not.

    Args:
        folder: where; it is made when it is not there.
        files: content by path relative to the folder.
        force: whether files of others are replaced. What others put beside ours always stays.

    Raises:
        ConfigError: files stand in the way that we did not write, or that were edited since; or the folder cannot be
            written. In the first case nothing is written.
    """
    try:
        ours = _manifest(folder)
        standing = {path: (folder / path).read_bytes() for path in {*files, *ours} if (folder / path).is_file()}
        foreign = sorted(
            path
            for path, data in standing.items()
            if files.get(path) != data and ours.get(path) != _digest(data) and (path in files or path in ours)
        )
        if foreign and not force:
            raise ConfigError(
                "files are in the way that were edited, or that this command did not write; move them, choose another"
                " folder with --out, or replace them with --force",
                folder=str(folder), files=", ".join(foreign),
            )  # fmt: skip
        gone = sorted(path for path in standing if path not in files)
        for path in gone:
            (folder / path).unlink()
        for path, data in files.items():
            if standing.get(path) != data:
                _write(folder / path, data)
        told = {path: _digest(data) for path, data in sorted(files.items())}
        _write(folder / MANIFEST, (json.dumps({"files": told}, indent=1) + "\n").encode())
    except OSError as error:
        raise ConfigError("cannot write the bundle", folder=str(folder), reason=str(error)) from error
    return Written(
        tuple(sorted(path for path in files if path not in standing)),
        tuple(sorted(path for path in files if path in standing and standing[path] != files[path])),
        tuple(sorted(path for path in files if standing.get(path) == files[path])),
        tuple(gone),
    )


def read_bundle(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of a folder by path, and those among ours that were edited since.

    Raises:
        ConfigError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError("no such folder", folder=str(folder), fix="lodestream deploy databricks --out FOLDER")
    found: dict[str, bytes] = {}
    try:
        for at, folders, names in os.walk(folder):
            folders[:] = [one for one in folders if not one.startswith(".")]
            for name in names:
                path = Path(at, name)
                large = path.stat().st_size > _BYTES_MAX  # that it is there is all that matters
                found[path.relative_to(folder).as_posix()] = b"" if large else path.read_bytes()
        ours = _manifest(folder)
    except OSError as error:
        raise ConfigError("cannot read the bundle", folder=str(folder), reason=str(error)) from error
    return found, sorted(path for path, digest in ours.items() if path in found and _digest(found[path]) != digest)


def _manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items() if _inside(str(name))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("not a list of what was written; remove it", file=str(path), cause=str(error)) from error


def _inside(path: str) -> bool:
    """Whether a path stays in the folder: whoever edits the list must not have us remove other files."""
    return not os.path.isabs(path) and ".." not in Path(path).parts


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
