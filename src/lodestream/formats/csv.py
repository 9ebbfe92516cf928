"""CSV with strictly typed columns, found by header name and converted whole columns at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from lodestream.errors import ConfigError
from lodestream.formats._fields import Fields, HeaderError, read_header, split_record
from lodestream.formats._lines import Ints, Lines, message_lines, split_lines
from lodestream.formats._records import rejected, rejects_table, rows_table
from lodestream.formats._scan import Scan
from lodestream.formats._types import infer_texts
from lodestream.model.types import Schema
from lodestream.model.widening import unify_schemas
from lodestream.ports.format import Part
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading

_BOM = b"\xef\xbb\xbf"
_SAMPLE_ROWS = 10_000


class CsvSettings(Settings):
    """How CSV is read."""

    delimiter: str = Field(default=",", min_length=1, max_length=1, pattern=r"[\t -~]")
    """The character between fields."""
    quote: str | None = Field(default='"', min_length=1, max_length=1, pattern=r"[!-~]")
    """The character around fields that contain delimiters; doubled inside. `null` for none."""
    header: bool = True
    """Whether the first line names the columns; without, and in messages, fields are taken in declared order."""
    nulls: tuple[str, ...] = ("",)
    """Unquoted texts that mean NULL, such as `NA`."""
    multiline: bool = False
    """Whether quoted fields may contain line ends. Positions are then row numbers, and a file is held in memory."""
    timestamps: Literal["iso", "seconds", "millis", "micros"] = "iso"
    """How timestamps are written: ISO 8601 text, or whole numbers since 1970 in this unit."""
    row_bytes_max: int = Field(default=16 << 20, ge=1024, le=64 << 20)
    """A longer row is quarantined (`parse:size`); its first 16 MiB are kept."""

    @model_validator(mode="after")
    def _distinct(self) -> CsvSettings:
        if self.delimiter == self.quote:
            raise ValueError("delimiter and quote are the same character")
        return self


class CsvFormat:
    """Decodes CSV. Numbers and timestamps are written as in JSON; `true`/`false` may be in any one case.

    A declared column that the header does not have is NULL under drift `add` and `widen`, and a reason to quarantine
    (`parse:<column>:missing`) under `quarantine`; a header name that no column has follows the drift policy too.
    """

    settings: ClassVar[type[Settings]] = CsvSettings
    framing: Literal["lines", "file"]

    def __init__(self, settings: CsvSettings, reading: Reading) -> None:
        self._settings = settings
        self._reading = reading
        self.framing = "file" if settings.multiline else "lines"
        self.head_lines = 1 if settings.header and not settings.multiline else 0
        self.row_bytes_max = settings.row_bytes_max
        self._alone: Fields | None = None
        self._cached: tuple[bytes, Fields | HeaderError] | None = None

    def decode(self, data: bytes | bytearray | memoryview, unit: str, start: int, head: bytes = b"") -> Decoded:
        """Whole lines to rows and rejects; `head` is the header line."""
        block = np.frombuffer(data, np.uint8)
        scan = Scan(block)
        starts, ends = split_lines(block, scan.breaks)
        if start == 0 and len(starts) and block[:3].tobytes() == _BOM:
            starts = np.concatenate([[3], starts[1:]])
        positions = starts + start
        if start == 0 and len(starts):
            positions[0] = start
        return self._decode(Lines(block, starts, ends, positions), scan, unit, head)

    def decode_messages(self, values: pa.BinaryArray, unit: str, positions: Ints) -> Decoded:
        """Messages to rows and rejects; each is one record without header, with or without a line end.

        A line end between quotes is part of its field, and one anywhere else is a second record (`parse:columns`).
        """
        lines = message_lines(values, positions)
        if not len(lines):
            return rejected(self._reading, unit, [])
        if self._alone is None:
            settings = self._settings.model_copy(update={"header": False})
            self._alone = Fields(settings, self._reading, b"", alone=True)
        columns, raw, taken, rejects = self._alone.decode(lines, Scan(lines.block))
        rows = rows_table(self._reading, columns, unit, lines.positions[taken], raw)
        return Decoded(rows, rejects_table(unit, rejects))

    def decode_headed(self, values: pa.BinaryArray, unit: str, positions: Ints, head: bytes) -> Decoded:
        """Messages to rows and rejects; each is one line, its fields in the order of the header line `head`."""
        lines = message_lines(values, positions)
        return self._decode(lines, Scan(lines.block), unit, head)

    def infer_messages(self, values: Sequence[bytes], topic: str) -> Schema:
        """Messages of CSV have no header, so their columns have no names."""
        raise ConfigError("columns of CSV messages have no names; declare `columns:`", topic=topic)

    def parts(self, path: str) -> Sequence[Part]:
        """A multiline file is one part."""
        lines, _, _ = self._records(path)
        return [Part(len(lines), os.path.getsize(path))]

    def read(self, path: str, unit: str, start: int, end: int) -> Iterator[Decoded]:
        """Records of a multiline file by row number."""
        lines, scan, head = self._records(path)
        yield self._decode(lines.some(np.arange(start, min(end, len(lines)))), scan, unit, head)

    def infer(self, data: bytes, head: bytes = b"") -> Schema:
        """Columns by header name; a type is one that holds every value of the sample, else string."""
        block = np.frombuffer(data, np.uint8)
        starts, ends = split_lines(block)
        return self._infer(Lines(block, starts, ends, starts), head)

    def infer_file(self, path: str) -> Schema:
        """Columns of a multiline file."""
        lines, _, head = self._records(path)
        return self._infer(lines, head)

    def _decode(self, lines: Lines, scan: Scan, unit: str, head: bytes) -> Decoded:
        if not len(lines):
            return rejected(self._reading, unit, [])
        fields = self._fields(head)
        if isinstance(fields, HeaderError):
            return self._all_rejected(lines, unit, fields.reasons)
        columns, raw, taken, rejects = fields.decode(lines, scan)
        rows = rows_table(self._reading, columns, unit, lines.positions[taken], raw)
        return Decoded(rows, rejects_table(unit, rejects), fields.find(lines))

    def _all_rejected(self, lines: Lines, unit: str, reasons: Sequence[str]) -> Decoded:
        found = zip(lines.positions.tolist(), lines.starts.tolist(), lines.ends.tolist(), strict=True)
        limit = self.row_bytes_max
        return rejected(
            self._reading, unit, [(at, reasons, lines.block[a : min(b, a + limit)].tobytes()) for at, a, b in found]
        )

    def _fields(self, head: bytes) -> Fields | HeaderError:
        """How fields map to columns, by header; kept, because a file's pieces share it."""
        if self._cached is None or self._cached[0] != head:
            try:
                made: Fields | HeaderError = Fields(self._settings, self._reading, head)
            except HeaderError as error:
                made = error
            self._cached = (head, made)
        return self._cached[1]

    def _records(self, path: str) -> tuple[Lines, Scan, bytes]:
        """All records of a multiline file: a line end between two quotes ends no record."""
        with open(path, "rb") as file:
            data = file.read()
        data = data.removeprefix(_BOM)
        block = np.frombuffer(data, np.uint8)
        scan = Scan(block, ord(self._settings.quote) if self._settings.quote else 0)
        breaks = scan.breaks
        if self._settings.quote and len(breaks):
            breaks = breaks[scan.quotes_before(breaks) % 2 == 0]
        starts, ends = split_lines(block, breaks)
        head = b""
        if self._settings.header and len(starts):
            head = block[starts[0] : ends[0]].tobytes()
            starts, ends = starts[1:], ends[1:]
        return Lines(block, starts, ends, np.arange(len(starts), dtype=np.int64)), scan, head

    def _infer(self, lines: Lines, head: bytes) -> Schema:
        if not self._settings.header:
            raise ConfigError("a CSV without header has no column names; declare `columns:`")
        try:
            names = read_header(head, self._settings.delimiter, self._settings.quote)
        except HeaderError as error:
            raise ConfigError("the CSV header cannot be read; declare `columns:`", reason=error.reasons[0]) from None
        texts: list[list[str]] = [[] for _ in names]
        for a, b in zip(lines.starts[:_SAMPLE_ROWS].tolist(), lines.ends[:_SAMPLE_ROWS].tolist(), strict=True):
            try:
                row = split_record(lines.block[a:b].tobytes().decode(), self._settings.delimiter, self._settings.quote)
            except ValueError:
                continue
            if len(row) == len(names):
                for column, (text, quoted) in zip(texts, row, strict=True):
                    if quoted or text not in self._settings.nulls:
                        column.append(text)
        return unify_schemas([infer_texts(dict(zip(names, texts, strict=True)))])


component = CsvFormat
