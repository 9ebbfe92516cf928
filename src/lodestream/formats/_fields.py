"""Splits delimited records into fields and turns fields into declared columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.errors import ConfigError
from lodestream.formats._lines import Ints, Lines, Mask, is_utf8, slices
from lodestream.formats._records import Reject
from lodestream.formats._scan import Scan
from lodestream.formats._text import text_converter
from lodestream.formats._text_times import blanked
from lodestream.formats._types import infer_texts
from lodestream.formats._values import BadValueError, Convert, converter, from_text
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import Column, Schema
from lodestream.model.widening import may_become_column
from lodestream.ports.source import Reading

if TYPE_CHECKING:
    from lodestream.formats.csv import CsvSettings

_BOM = b"\xef\xbb\xbf"
_SAMPLE_ROWS = 10_000


class HeaderError(ValueError):
    """No row under this header can be decoded; `reasons` are those of every row."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(reasons[0])
        self.reasons = tuple(reasons)


def split_record(text: str, delimiter: str, quote: str | None) -> list[tuple[str, bool]]:
    """The fields of a record, each with whether it was quoted. Raises ValueError("quote") on a stray quote."""
    if quote is None or quote not in text:
        return [(field, False) for field in text.split(delimiter)]
    fields: list[tuple[str, bool]] = []
    at = 0
    while True:
        if text.startswith(quote, at):
            end = at + 1
            while True:
                end = text.find(quote, end)
                if end < 0:
                    raise ValueError("quote")
                if not text.startswith(quote, end + 1):
                    break
                end += 2
            fields.append((text[at + 1 : end].replace(quote * 2, quote), True))
            end += 1
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            field = text[at:end]
            if quote in field:
                raise ValueError("quote")
            fields.append((field, False))
        if end == len(text):
            return fields
        if not text.startswith(delimiter, end):
            raise ValueError("quote")
        at = end + 1


def read_header(head: bytes, delimiter: str, quote: str | None) -> list[str]:
    """Column names of a header line. Raises HeaderError when it is none or has a name twice."""
    try:
        line = head.removeprefix(_BOM).decode().rstrip("\r\n")
        names = [text.strip() for text, _ in split_record(line, delimiter, quote)]
    except ValueError:
        raise HeaderError(["parse:header"]) from None
    if len(set(names)) != len(names) or not line:
        raise HeaderError(["parse:header"])
    return names


def _before_line_end(lines: Lines) -> Ints:
    r"""Where each message ends without the one `\n` or `\r\n` that it may end with."""
    if not len(lines.block):
        return lines.ends
    broken = (lines.ends > lines.starts) & (lines.block[lines.ends - 1] == 10)
    ends: Ints = lines.ends - broken
    ends -= broken & (ends > lines.starts) & (lines.block[ends - 1] == 13)
    return ends


class Fields:
    """Decodes the records under one header, or records that came `alone`, as messages: those have none.

    Raises:
        HeaderError: every row is a reject: a column is missing, or names are unknown and drift is `quarantine`.
        ConfigError: likewise, and drift is `stop`.
    """

    def __init__(self, settings: CsvSettings, reading: Reading, head: bytes, *, alone: bool = False) -> None:
        self._settings = settings
        self._is_alone = alone
        self._reading = reading
        self._names = (
            read_header(head, settings.delimiter, settings.quote) if settings.header else list(reading.schema.names)
        )
        self._place = {name: i for i, name in enumerate(self._names)}
        self._unknown = [name for name in self._names if name not in reading.schema and name]
        self._check_drift()
        self._nulls = frozenset(settings.nulls)
        self._columns: list[tuple[Column, int, Convert, Callable[[pa.Array], Any] | None]] = [
            (c, self._place.get(c.name, -1), converter(c.type, settings.timestamps),
             text_converter(c.type, settings.timestamps))
            for c in reading.schema
        ]  # fmt: skip

    def _check_drift(self) -> None:
        drift = self._reading.drift
        missing = [c.name for c in self._reading.schema if c.name not in self._place]
        if drift == "stop" and (missing or self._unknown):
            raise ConfigError(
                "the source changed and drift is stop: the CSV header does not fit the declared columns; "
                "change `columns:` or choose another drift",
                missing=missing,
                unknown=self._unknown,
            )
        if drift == "quarantine":
            reasons = [f"parse:{name}:missing" for name in missing] + [f"drift:{name}" for name in self._unknown]
        else:
            taken = self._reading.taken
            reasons = [f"parse:{name}:missing" for name in missing if not self._reading.schema[name].nullable]
            reasons += [f"drift:{name}" for name in self._unknown if not may_become_column(name, taken)]
        if reasons:
            raise HeaderError(reasons)

    def find(self, lines: Lines) -> Schema:
        """Types of header names that no column has, from the values in these lines."""
        if not self._unknown:
            return Schema()
        texts: dict[str, list[str]] = {name: [] for name in self._unknown}
        for a, b in zip(lines.starts[:_SAMPLE_ROWS].tolist(), lines.ends[:_SAMPLE_ROWS].tolist(), strict=True):
            row = self._split(lines.block[a:b].tobytes())
            if isinstance(row, list):
                for name, values in texts.items():
                    text, quoted = row[self._place[name]]
                    if quoted or text not in self._nulls:
                        values.append(text)
        return infer_texts(texts)

    def decode(self, lines: Lines, scan: Scan) -> tuple[list[pa.Array], pa.Array | None, Ints, list[Reject]]:
        """Columns, raw bytes (`keep_raw`), the lines that became rows, and rejects, all in order."""
        fast, begins, ends = self._plain(lines, scan)
        columns, hard = self._convert(lines, fast, begins, ends)
        if hard is not None:
            keep = np.flatnonzero(~hard)
            columns = [column.take(pa.array(keep)) for column in columns]
            fast = fast[keep]
        left = np.ones(len(lines), np.bool_)
        left[fast] = False
        slow, values, rejects = self._one_by_one(lines, np.flatnonzero(left))
        taken = fast
        if len(slow):
            taken = np.concatenate([fast, slow])
            order = np.argsort(taken, kind="stable")
            taken = taken[order]
            columns = [
                pa.concat_arrays([column, pa.array([row[i] for row in values], column.type)]).take(pa.array(order))
                for i, column in enumerate(columns)
            ]
        raw = None
        if self._reading.keep_raw:
            raw = slices(lines.block, lines.starts[taken], lines.ends[taken], pa.binary())
        return columns, raw, taken, rejects

    def _plain(self, lines: Lines, scan: Scan) -> tuple[Ints, Ints, Ints]:
        """Lines without quotes and with the right number of fields: (lines, field begins, field ends), both 2-D."""
        width = len(self._names)
        good: Mask = lines.ends - lines.starts <= self._settings.row_bytes_max
        marks = np.flatnonzero(lines.block == ord(self._settings.delimiter))
        first = np.searchsorted(marks, lines.starts)
        good &= np.searchsorted(marks, lines.ends) - first == width - 1
        if self._settings.quote:
            quotes = np.flatnonzero(lines.block == ord(self._settings.quote))
            good &= np.searchsorted(quotes, lines.starts) == np.searchsorted(quotes, lines.ends)
        if len(scan.high) and not is_utf8(lines.block):
            touched = np.searchsorted(scan.high, lines.starts) != np.searchsorted(scan.high, lines.ends)
            good &= ~touched
        last = lines.ends
        if self._is_alone:
            last = _before_line_end(lines)
            good &= last > lines.starts
            good &= (
                lines.block[np.minimum(lines.starts, len(lines.block) - 1)] != _BOM[0] if len(lines.block) else False
            )
            good &= np.searchsorted(scan.breaks, lines.starts) == np.searchsorted(scan.breaks, last)
        rows = np.flatnonzero(good)
        at = marks[first[rows][:, None] + np.arange(width - 1)] if width > 1 else np.empty((len(rows), 0), np.int64)
        begins = np.hstack([lines.starts[rows][:, None], at + 1])
        return rows, begins, np.hstack([at, last[rows][:, None]])

    def _convert(self, lines: Lines, rows: Ints, begins: Ints, ends: Ints) -> tuple[list[pa.Array], Mask | None]:
        """The declared columns of plain lines, and which of them have to be read one by one."""
        hard: Mask | None = None
        columns: list[pa.Array] = []
        for column, place, _, convert in self._columns:
            if place < 0 or convert is None:
                columns.append(pa.nulls(len(rows), to_arrow_type(column.type)))
                if place >= 0:
                    hard = np.ones(len(rows), np.bool_)
                continue
            texts = slices(lines.block, begins[:, place], ends[:, place], pa.string())
            null = pc.is_in(texts, pa.array(sorted(self._nulls), pa.string()))
            if pc.any(null).as_py():
                texts = blanked(texts, np.asarray(null))
                if not column.nullable:
                    hard = np.asarray(null) if hard is None else hard | np.asarray(null)
            made, bad = convert(texts)
            columns.append(made)
            if bad is not None:
                hard = bad if hard is None else hard | bad
        return columns, hard

    def _one_by_one(self, lines: Lines, rows: Ints) -> tuple[Ints, list[list[Any]], list[Reject]]:
        """The exact path: (lines that became rows, their values, rejects)."""
        taken: list[int] = []
        values: list[list[Any]] = []
        rejects: list[Reject] = []
        limit = self._settings.row_bytes_max
        for i in rows.tolist():
            a, b = int(lines.starts[i]), int(lines.ends[i])
            raw = lines.block[a : min(b, a + limit)].tobytes()
            fields = self._split(raw) if b - a <= limit else "size"
            if isinstance(fields, str):
                rejects.append((int(lines.positions[i]), [f"parse:{fields}"], raw))
                continue
            row, reasons = self._row(fields)
            if reasons:
                rejects.append((int(lines.positions[i]), reasons, raw))
            else:
                taken.append(i)
                values.append(row)
        return np.array(taken, np.int64), values, rejects

    def _split(self, raw: bytes) -> list[tuple[str, bool]] | str:
        """The fields of a record, or why there are none: `utf8`, `quote`, `columns`, and of a message `bom`."""
        if self._is_alone:
            if raw.startswith(_BOM):
                return "bom"
            raw = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
            if not raw:
                return "columns"
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return "utf8"
        try:
            fields = split_record(text, self._settings.delimiter, self._settings.quote)
        except ValueError as error:
            return str(error)
        if self._is_alone and any("\n" in field and not quoted for field, quoted in fields):
            return "columns"
        return fields if len(fields) == len(self._names) else "columns"

    def _row(self, fields: list[tuple[str, bool]]) -> tuple[list[Any], list[str]]:
        row: list[Any] = []
        reasons: list[str] = []
        for column, place, convert, _ in self._columns:
            text, quoted = fields[place] if place >= 0 else ("", False)
            if place < 0 or (not quoted and text in self._nulls):
                row.append(None)
                if not column.nullable:
                    reasons.append(f"parse:{column.name}:null")
                continue
            try:
                row.append(convert(from_text(text, column.type, self._settings.timestamps)))
            except BadValueError as error:
                reasons.append(f"parse:{column.name}{error.path}:{error.what}")
        return row, reasons
