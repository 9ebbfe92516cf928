"""Files in a folder: each is taken once, whole or as it grows, and every byte of it is accounted for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from lodestream.errors import ConfigError, DataLossRefused, TransientError
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.types import Schema
from lodestream.ports.format import Format
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading, SourceTraits
from lodestream.sources._cut import LineFile, edges
from lodestream.sources._digest import digest_file
from lodestream.sources._listing import FoundFile, Listing

_UNITS_S = {"ms": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0}
_SAMPLE_BYTES = 1 << 20


def seconds(value: object) -> object:
    """`2`, `0.5`, `"2 s"`, `"500 ms"`, `"1 minute"` as seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value) if isinstance(value, str) else None
    if not match:
        return value
    unit = match[2] or "s"
    factor = _UNITS_S.get(unit) or _UNITS_S.get(unit.rstrip("s"))
    return float(match[1]) * factor if factor else value


class FilesSettings(Settings):
    """Which files are taken, and when."""

    path: str
    """A folder, a file or a glob pattern (`in/*.jsonl`, `in/**/*.csv`), relative to the project's folder."""
    settle: Annotated[float, BeforeValidator(seconds), Field(ge=0, le=86_400)] = 2.0
    """How long (seconds, or text such as `2 s`) size and time of a file must stay unchanged before it is taken."""
    append: bool = False
    """Tail the files: complete lines are taken as they come; a file that shrinks or changes is refused."""
    recursive: bool = False
    """Take a folder's sub-folders too."""


class FilesSource:
    """Reads files in order of name, in ranges that end between records.

    A unit is a file; positions are byte offsets of lines (line formats) or row numbers (Parquet). The facts of a
    range are the file's size and time and a digest of all bytes up to the range's end, so that a changed file is told
    from a touched one. Names order the files: name them by event time when that order matters.
    """

    settings: ClassVar[type[Settings]] = FilesSettings
    traits: ClassVar[SourceTraits] = SourceTraits(replayable=True, ordered=True, bounded=False)

    def __init__(self, settings: FilesSettings, format: Format, reading: Reading) -> None:  # noqa: A002 - the port's word
        if settings.append and format.framing != "lines":
            raise ConfigError("append needs a format of lines; leave it out for this format", append=True)
        self._settings = settings
        self._format = format
        self._listing = Listing(settings.path, reading.root, recursive=settings.recursive)
        self._first_seen: dict[str, tuple[int, int, int]] = {}
        self._verified: dict[str, tuple[int, int, int]] = {}

    @classmethod
    def declares(cls, settings: Settings) -> Schema | None:
        """Files have no columns of their own."""
        return None

    def sample(self) -> Schema:
        """Columns of the start of the first file, for a table that declares none.

        Raises:
            ConfigError: there is no file to learn from.
        """
        found = [file for file in self._listing.files() if file.size]
        if not found:
            raise ConfigError("no file to learn columns from; declare `columns:`", path=self._settings.path)
        if self._format.framing == "file":
            return self._format.infer_file(found[0].path)
        with LineFile(found[0].path, self._format) as lines:
            return self._format.infer(lines.first_lines(_SAMPLE_BYTES), lines.head)

    def plan(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        """The next ranges, files by name; checks that consumed files are what they were."""
        ranges: list[SourceRange] = []
        rows_left, bytes_left = limit.rows_max, limit.bytes_max
        files = self._files(consumed)
        for file in files:
            last = consumed.get(file.unit)
            if last is not None:
                self._verify(file, last)
                if self._is_done(file, last):
                    continue
            if rows_left <= 0 or bytes_left <= 0:
                continue  # the other files are still verified
            if not file.size or (last is None and not self._is_settled(file, now_us)):
                continue
            made = self._cut(file, last, rows_left, bytes_left)
            for piece, rows, size in made:
                ranges.append(piece)
                rows_left -= rows
                bytes_left -= size
        return ranges

    def read(self, planned: SourceRange) -> Iterator[Decoded]:
        """Rows of a planned range in pieces of a few MiB."""
        path = self._listing.path_of(planned.unit)
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            raise _gone(planned) from None
        same = (stat.st_size, stat.st_mtime_ns) == (planned.facts["size"], planned.facts["mtime_ns"])
        if self._format.framing == "file":
            if not same and digest_file(path, stat.st_size) != int(planned.facts["digest"], 16):
                raise _changed(planned.unit)
            yield from self._format.read(path, planned.unit, planned.start, planned.end)
            return
        with LineFile(path, self._format) as lines:
            yield from lines.decode(planned, verify=not same, changed=lambda: _changed(planned.unit))
            after = os.fstat(lines.fileno())
            if same and (after.st_size, after.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
                self._check_range(path, planned)

    def decode_raw(self, raw: bytes, unit: str, position: int, detail: str | None) -> Decoded:
        """A record that did not decode, tried again under the columns of now; a CSV header is read from its file.

        Raises:
            ConfigError: the format has no records that stand alone, or the file with the header is gone.
        """
        if self._format.framing == "file":
            raise ConfigError(
                "records of this format cannot be replayed alone; put the rows into a new file", unit=unit
            )
        head = b""
        if self._format.head_lines:
            try:
                with LineFile(self._listing.path_of(unit), self._format) as lines:
                    head = lines.head
            except FileNotFoundError as error:
                raise ConfigError(
                    "the file with the header is gone; put the rows into a new file", unit=unit
                ) from error
        return self._format.decode(raw + b"\n", unit, position, head)

    def finished(self, consumed: Mapping[str, SourceRange], now_us: int) -> bool:
        """Whether every file is consumed; a tailed file's last line without line end does not count."""
        for file in self._files(consumed):
            last = consumed.get(file.unit)
            if not file.size or (last is not None and self._is_done(file, last)):
                continue
            if self._cut(file, last, 1, 1):  # a file may hold no record at all
                return False
        return True

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _files(self, consumed: Mapping[str, SourceRange]) -> list[FoundFile]:
        """All files there are. Raises DataLossRefused when one that is not read to its end has gone."""
        try:
            files = self._listing.files()
        except ConfigError as error:
            if consumed and "folder" in error.message:
                raise TransientError("the source's folder is away", path=self._listing.folder) from error
            raise
        here = {file.unit for file in files}
        for unit, last in consumed.items():
            if unit not in here and last.end < _end_of(last):
                raise _gone(last)
        return files

    def _is_settled(self, file: FoundFile, now_us: int) -> bool:
        if self._settings.append or not self._settings.settle:
            return True
        size, mtime_ns, since_us = self._first_seen.get(file.unit, (-1, -1, 0))
        if (size, mtime_ns) != (file.size, file.mtime_ns):
            since_us = min(now_us, file.mtime_ns // 1000)
            self._first_seen[file.unit] = (file.size, file.mtime_ns, since_us)
        if now_us - since_us < self._settings.settle * 1_000_000:
            return False
        self._first_seen.pop(file.unit, None)
        return True

    def _is_done(self, file: FoundFile, last: SourceRange) -> bool:
        return last.end >= (file.size if self._settings.append else _end_of(last))

    def _cut(
        self, file: FoundFile, last: SourceRange | None, rows_left: int, bytes_left: int
    ) -> list[tuple[SourceRange, int, int]]:
        """The next ranges of a file with their rows and bytes."""
        facts: dict[str, Any] = {"size": file.size, "mtime_ns": file.mtime_ns}
        if self._format.framing == "file":
            return self._cut_parts(file, last, rows_left, bytes_left, facts)
        with LineFile(file.path, self._format) as lines:
            start = last.end if last else lines.first_record
            before = int(last.facts["digest"], 16) if last else None
            cut = lines.cut(start, file.size, rows_left, bytes_left, before, complete=self._settings.append)
        if cut is None:
            return []
        facts |= {"from": f"{cut.before:016x}", "digest": f"{cut.digest:016x}"}
        if self._settings.append:
            facts |= {"edges": edges(file.path, cut.end)}
        return [(SourceRange(file.unit, start, cut.end, facts), cut.rows, cut.end - start)]

    def _cut_parts(
        self, file: FoundFile, last: SourceRange | None, rows_left: int, bytes_left: int, facts: dict[str, Any]
    ) -> list[tuple[SourceRange, int, int]]:
        """One range over as many rows as fit; parts larger than the limit are cut by rows."""
        parts = self._format.parts(file.path)
        start = at = last.end if last else 0
        facts["digest"] = last.facts["digest"] if last else f"{digest_file(file.path, file.size) or 0:016x}"
        facts["rows"] = sum(part.rows for part in parts)
        begin = size = 0
        for part in parts:
            end = begin + part.rows
            if end > at:
                row_bytes = max(1, part.size_bytes // max(1, part.rows))
                room = max(min(rows_left - (at - start), (bytes_left - size) // row_bytes), 1 if at == start else 0)
                took = min(end - at, room)
                at, size = at + took, size + took * row_bytes
                if at < end:
                    break
            begin = end
        return [(SourceRange(file.unit, start, at, facts), at - start, size)] if at > start else []

    def _verify(self, file: FoundFile, last: SourceRange) -> None:
        """Check that what was consumed of a file is still what is there."""
        facts = last.facts
        stamp = (file.size, file.mtime_ns, last.end)
        if (file.size, file.mtime_ns) == (facts["size"], facts["mtime_ns"]) or self._verified.get(file.unit) == stamp:
            return
        if self._settings.append:
            if file.size < last.end or (file.unit in self._verified and edges(file.path, last.end) != facts["edges"]):
                raise _changed(file.unit)
            if file.unit in self._verified:
                self._verified[file.unit] = stamp
                return
        elif file.size != facts["size"]:
            raise _changed(file.unit)
        end = file.size if self._format.framing == "file" else last.end
        if digest_file(file.path, end) != int(facts["digest"], 16):
            raise _changed(file.unit)
        self._verified[file.unit] = stamp

    def _check_range(self, path: str, planned: SourceRange) -> None:
        value = digest_file(path, planned.end, planned.start, int(planned.facts["from"], 16))
        if value != int(planned.facts["digest"], 16):
            raise _changed(planned.unit)


def _end_of(last: SourceRange) -> int:
    """Where the unit ended when the range was planned: rows of a file format, bytes of a line format."""
    return int(last.facts.get("rows", last.facts["size"]))


def _gone(last: SourceRange) -> DataLossRefused:
    return DataLossRefused(
        "a file is gone before it was read to its end; put it back, or accept the loss with a rebuild",
        file=last.unit,
        read_to=last.end,
    )


def _changed(unit: str) -> DataLossRefused:
    return DataLossRefused(
        "a consumed file changed; put the old content back and give the new one a new name (or `append: true` for "
        "files that grow)",
        file=unit,
    )


component = FilesSource
