"""Lists the files of a folder that a source may take, cheaply enough for many thousands."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lodestream.errors import AccessError, ConfigError

_TEMPORARY = re.compile(
    r"[._].*|.*(~|\.(tmp|temp|part|partial|filepart|crdownload|download|swp|swx|inprogress|lock|bak))",
    re.IGNORECASE | re.DOTALL,
)
_MAGIC = re.compile(r"[*?\[]")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is somebody's unfinished work (`.x`, `_x`, `x~`, `x.tmp`, `x.part`, …)."""
    return _TEMPORARY.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that matches.

    Attributes:
        unit: path relative to the source's folder, with `/`.
        path: where to open it.
        size: bytes.
        mtime_ns: time of the last change.
    """

    unit: str
    path: str
    size: int
    mtime_ns: int


class Listing:
    """The files under a folder, of one name, or of a glob pattern (`*`, `?`, `[ab]` inside a folder, `**` across).

    Args:
        path: as the user wrote it.
        root: folder that a relative path starts from.
        recursive: whether a plain folder is taken with its sub-folders.
    """

    def __init__(self, path: str, root: str, *, recursive: bool = False) -> None:
        full = os.path.normpath(os.path.join(root, path))
        parts = full.split(os.sep)
        plain = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
        self._pattern: re.Pattern[str] | None = None
        self._name: str | None = None
        self.recursive = recursive
        if plain < len(parts):
            self.folder = os.sep.join(parts[:plain]) or os.sep
            self._pattern = re.compile(_translate("/".join(parts[plain:])))
            self.recursive = len(parts) - plain > 1
        elif os.path.isfile(full) or (not os.path.isdir(full) and os.path.splitext(full)[1]):
            self.folder, self._name = os.path.split(full)
        else:
            self.folder = full

    def files(self) -> list[FoundFile]:
        """All files that match, by name; temporary names are left out unless the path names the file itself.

        Raises:
            ConfigError: there is no such folder, or a name is not UTF-8.
            AccessError: a symbolic link leads out of the folder.
        """
        if not os.path.isdir(self.folder):
            raise ConfigError("no such folder: create it or correct the source's path", path=self.folder)
        if self._name is not None:
            return self._single(self._name)
        return sorted(self._walk(self.folder, ""), key=lambda found: found.unit)

    def path_of(self, unit: str) -> str:
        """Where the unit's file is."""
        return os.path.join(self.folder, *unit.split("/"))

    def _single(self, name: str) -> list[FoundFile]:
        path = os.path.join(self.folder, name)
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            return []
        return [FoundFile(name, path, stat.st_size, stat.st_mtime_ns)]

    def _walk(self, folder: str, prefix: str) -> Iterator[FoundFile]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_temporary(entry.name):
                    continue
                unit = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if self.recursive:
                        yield from self._walk(entry.path, f"{unit}/")
                    continue
                if self._pattern is not None and not self._pattern.fullmatch(unit):
                    continue
                try:
                    if not self._is_ours(entry, unit):
                        continue
                    stat = entry.stat()
                except FileNotFoundError:  # gone since the folder was read
                    continue
                yield FoundFile(unit, entry.path, stat.st_size, stat.st_mtime_ns)

    def _is_ours(self, entry: os.DirEntry[str], unit: str) -> bool:
        if not entry.is_file():
            return False
        if entry.is_symlink():
            home = os.path.realpath(self.folder)
            if os.path.commonpath([home, os.path.realpath(entry.path)]) != home:
                raise AccessError("a symbolic link leads out of the source's folder; copy the file instead", file=unit)
        try:
            unit.encode()
        except UnicodeEncodeError:
            raise ConfigError("a file name is not UTF-8; rename it", file=ascii(unit)) from None
        return True


def _translate(pattern: str) -> str:
    """A glob pattern as a regular expression over `/`-separated paths."""
    out = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]*\]|.", pattern, re.DOTALL):
        if token == "**/":
            out.append("(?:.*/)?")
        elif token == "**":
            out.append(".*")
        elif token == "*":
            out.append("[^/]*")
        elif token == "?":
            out.append("[^/]")
        elif len(token) > 1:
            out.append("[" + token[1:-1].replace("\\", "\\\\").replace("!", "^", token[1] == "!") + "]")
        else:
            out.append(re.escape(token))
    return "".join(out)
