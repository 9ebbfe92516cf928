"""JSON lines: one object per line, decoded strictly; what is not exactly right is rejected with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from lodestream.errors import ConfigError
from lodestream.formats._drift import unknown_fields, wider_column
from lodestream.formats._fast import FastDecoder
from lodestream.formats._json_framed import RegisteredChecks
from lodestream.formats._json_schema import SchemaCheck
from lodestream.formats._lines import Ints, Lines, message_lines, split_lines
from lodestream.formats._native import native_decoder
from lodestream.formats._parse import BadRecordError, Parser
from lodestream.formats._records import Reject, rejects_table, rows_table
from lodestream.formats._registered import HEADER_BYTES
from lodestream.formats._scan import Scan
from lodestream.formats._types import infer_type
from lodestream.formats._values import BadValueError, Convert, NumberText, converter
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import Column, DataType, Schema
from lodestream.model.widening import unify_schemas
from lodestream.native import KERNELS
from lodestream.ports.format import Part
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading

_ROWS_MIN = 32
_BOM = b"\xef\xbb\xbf"


class JsonSettings(Settings):
    """How JSON lines are read."""

    timestamps: Literal["iso", "seconds", "millis", "micros"] = "iso"
    """How timestamps are written: ISO 8601 text, or whole numbers since 1970 in this unit."""
    row_bytes_max: int = Field(default=16 << 20, ge=1024, le=64 << 20)
    """A longer line is quarantined (`parse:size`); its first 16 MiB are kept."""
    depth_max: int = Field(default=64, ge=1, le=256)
    """How deep arrays and objects may nest; a deeper line is quarantined (`parse:depth`)."""
    framing: Literal["none", "confluent"] = "none"
    """What a message begins with: nothing, or a zero byte and the id of its JSON Schema in a registry, which it is
    checked against. Lines of files begin with nothing."""
    registry: str = "default"
    """The registry of framing `confluent`: its name under `registries:`, or a URL."""
    subject: str = ""
    """The registry's subject whose newest schema `plan` takes columns from; the topic's name and `-value` if empty."""
    schema_file: str = Field(default="", alias="schema")
    """A JSON Schema file of the project that records are checked against, in place of the registry's (`schema:…`)."""
    schemas_max: int = Field(default=1000, ge=1, le=100_000)
    """How many different schema ids one batch may have; messages of the rarest ones beyond are quarantined
    (`parse:schema_id:many`)."""


class JsonFormat:
    """Decodes JSON lines to the declared columns; a missing key is NULL."""

    settings: ClassVar[type[Settings]] = JsonSettings
    framing: Literal["lines", "file"] = "lines"
    head_lines = 0

    def __init__(
        self, settings: JsonSettings, reading: Reading, *, fast: bool = True, kernels: Any | None = KERNELS
    ) -> None:
        self.row_bytes_max = settings.row_bytes_max
        self._settings = settings
        self._reading = reading
        self._exact = ExactDecoder(settings, reading)
        limits = settings.timestamps, settings.depth_max, settings.row_bytes_max
        self._fast = FastDecoder(reading, *limits)
        self._native = native_decoder(kernels if fast else None, reading, *limits)
        self._given = self._load(settings.schema_file) if settings.schema_file else None
        self._checks = RegisteredChecks(settings, reading, self._given)
        self._is_fast = fast  # without it, record by record: the reference that the fast path is tested against

    def decode(self, data: bytes | bytearray | memoryview, unit: str, start: int, head: bytes = b"") -> Decoded:
        """Whole lines to rows and rejects."""
        block = np.frombuffer(data, np.uint8)
        if self._native is not None:
            scan = None
            starts, ends = self._native.split(block)
        else:
            scan = Scan(block)
            starts, ends = split_lines(block, scan.breaks)
        positions = starts + start
        if start == 0 and len(starts) and block[:3].tobytes() == _BOM:
            if ends[0] - starts[0] == 3:
                starts, ends, positions = starts[1:], ends[1:], positions[1:]
            else:
                starts = np.concatenate([[3], starts[1:]])
        lines = Lines(block, starts, ends, positions)
        decoded = self._decode(lines, scan, unit)
        return self._given.check(decoded, lines, unit) if self._given else decoded

    def decode_messages(self, values: pa.BinaryArray, unit: str, positions: Ints) -> Decoded:
        """Messages to rows and rejects; each is one JSON object, over as many lines as it likes."""
        lines = message_lines(values, positions)
        if self._settings.framing == "confluent":
            return self._checks.decode(lines, unit, self._decode_lines)
        decoded = self._decode_lines(lines, unit)
        return self._given.check(decoded, lines, unit) if self._given else decoded

    def _decode_lines(self, lines: Lines, unit: str) -> Decoded:
        if self._native is not None:
            return self._decode(lines, None, unit)
        scan = Scan(lines.block)
        scan.odd = np.sort(np.concatenate([scan.odd, scan.breaks]))  # a line end is a control byte like any other here
        return self._decode(lines, scan, unit)

    @property
    def is_framed(self) -> bool:
        """Whether messages begin with a schema id."""
        return self._settings.framing == "confluent"

    @property
    def is_plain(self) -> bool:
        """Whether the columns alone say what a record may be: no framing, no JSON Schema."""
        return not self.is_framed and not self._given

    def misfits(self, records: Sequence[bytes]) -> tuple[list[tuple[int, list[str]]], Schema]:
        """What `decode_messages` would reject of a few plain records, by index, and what it would find; no tables."""
        found: list[Schema] = []
        reasons = [(i, self._exact.reasons(record, found)) for i, record in enumerate(records)]
        return [(i, why) for i, why in reasons if why], unify_schemas(found) if found else Schema()

    def infer_messages(self, values: Sequence[bytes], topic: str) -> Schema:
        """Columns of the schema, else of a sample of messages."""
        if self._given:
            return self._given.columns
        if self._settings.framing == "confluent":
            latest = self._checks.latest(self._settings.subject or f"{topic}-value")
            if latest:
                return latest.columns
            values = [value[HEADER_BYTES:] for value in values]
        return self.infer(b"\n".join(value.replace(b"\n", b" ") for value in values))

    def _load(self, file: str) -> SchemaCheck:
        try:
            text = Path(self._reading.root, file).read_text(encoding="utf-8")
            return SchemaCheck(text, [], self._reading, self._settings.timestamps, self._settings.depth_max)
        except OSError as error:
            raise ConfigError("cannot read the schema file", file=file, why=error.strerror) from error
        except ValueError as error:
            raise ConfigError("not a JSON Schema", file=file, why=str(error)) from error

    def _decode(self, lines: Lines, scan: Scan | None, unit: str) -> Decoded:
        if self._native is not None:
            rows, rest = self._native.decode(lines, unit)
        elif scan is None or not self._is_fast or len(lines) < _ROWS_MIN:
            return self._exact.decode(lines, unit)
        else:
            rows, rest = self._fast.decode(lines, scan, unit)
        if rows is None:
            return self._exact.decode(lines, unit)
        if not len(rest):
            return Decoded(rows, rejects_table(unit, []))
        others = self._exact.decode(lines.some(rest), unit)
        if others.rows.num_rows:
            both = pa.concat_tables([rows, others.rows])
            rows = both.take(pa.array(np.argsort(both["_position"].to_numpy(), kind="stable")))
        return Decoded(rows, others.rejects, others.found)

    def infer(self, data: bytes, head: bytes = b"") -> Schema:
        """Columns of a sample, in order of first sight; lines that are no records are passed over."""
        parse = Parser(self._settings.depth_max, exact=False)
        seen: list[Schema] = []
        for line in data.removeprefix(_BOM).split(b"\n"):
            try:
                record = parse(line)
            except BadRecordError:
                continue
            kinds = [(name, infer_type(value)) for name, value in record.items()]
            seen.append(Schema(tuple(Column(name, kind) for name, kind in kinds if kind)))
        return unify_schemas(seen)

    def parts(self, path: str) -> Sequence[Part]:
        """Not for line framing."""
        raise NotImplementedError

    def read(self, path: str, unit: str, start: int, end: int) -> Iterator[Decoded]:
        """Not for line framing."""
        raise NotImplementedError

    def infer_file(self, path: str) -> Schema:
        """Not for line framing."""
        raise NotImplementedError


class ExactDecoder:
    """Decodes record by record in Python: slow, and by definition right."""

    def __init__(self, settings: JsonSettings, reading: Reading) -> None:
        self._reading = reading
        self._row_bytes_max = settings.row_bytes_max
        self._parse = Parser(settings.depth_max, exact=any(_has_decimal(c.type) for c in reading.schema))
        self._columns: list[tuple[Column, Convert]] = [
            (c, converter(c.type, settings.timestamps)) for c in reading.schema
        ]
        self._names = frozenset(reading.schema.names)
        self._types = [to_arrow_type(c.type) for c in reading.schema]

    def decode(self, lines: Lines, unit: str) -> Decoded:
        """Rows and rejects of the lines."""
        block, starts, ends, positions = lines.block, lines.starts, lines.ends, lines.positions
        values: list[tuple[Any, ...]] = []
        kept: list[int] = []
        raws: list[bytes] = []
        rejects: list[Reject] = []
        found: list[Schema] = []
        for at, end, position in zip(starts.tolist(), ends.tolist(), positions.tolist(), strict=True):
            if end - at > self._row_bytes_max:
                rejects.append((position, ["parse:size"], block[at : at + self._row_bytes_max].tobytes()))
                continue
            line = block[at:end].tobytes()
            row = self._decode_line(line, found)
            if isinstance(row, list):
                rejects.append((position, row, line))
            else:
                values.append(row)
                kept.append(position)
                if self._reading.keep_raw:
                    raws.append(line)
        columns = [pa.array([row[i] for row in values], kind) for i, kind in enumerate(self._types)]
        raw = pa.array(raws, pa.binary()) if self._reading.keep_raw else None
        rows = rows_table(self._reading, columns, unit, np.array(kept, np.int64), raw)
        return Decoded(rows, rejects_table(unit, rejects), unify_schemas(found) if found else Schema())

    def reasons(self, line: bytes, found: list[Schema]) -> list[str]:
        """Why a line would be a reject; empty when it would be a row."""
        if len(line) > self._row_bytes_max:
            return ["parse:size"]
        row = self._decode_line(line, found)
        return row if isinstance(row, list) else []

    def _decode_line(self, line: bytes, found: list[Schema]) -> tuple[Any, ...] | list[str]:
        """The row's values in column order, or the reasons why there is none."""
        try:
            record = self._parse(line)
        except BadRecordError as error:
            return [f"parse:{error}"]
        row: list[Any] = []
        reasons: list[str] = []
        for column, convert in self._columns:
            name = column.name
            value = record.get(name)
            if value is None:
                if not column.nullable:
                    reasons.append(f"parse:{name}:null")
                row.append(None)
                continue
            try:
                row.append(convert(value))
            except BadValueError as error:
                reasons.append(self._misfit(column, value, error, found))
        if not self._names.issuperset(record):
            reasons.extend(self._unknown(record, found))
        return reasons or tuple(row)

    def _misfit(self, column: Column, value: Any, error: BadValueError, found: list[Schema]) -> str:
        """The reason for a value that does not fit: drift when a wider number type would hold it."""
        if not error.path and error.what in ("type", "range"):
            wide = wider_column(self._reading, column, _infer_exact(value))
            if wide:
                found.append(Schema((wide,)))
                return f"drift:{column.name}"
        return f"parse:{column.name}{error.path}:{error.what}"

    def _unknown(self, record: dict[str, Any], found: list[Schema]) -> list[str]:
        """Reasons for keys that no column has, by drift policy."""
        reasons, new = unknown_fields(
            self._reading, ((name, _infer_exact(record[name])) for name in record if name not in self._names)
        )
        if new:
            found.append(new)
        return reasons


def _infer_exact(value: Any) -> DataType | None:
    """Like `infer_type`, also for numbers kept as text."""
    return DataType("double") if isinstance(value, NumberText) else infer_type(value)


def _has_decimal(kind: DataType) -> bool:
    inner = [t for t in (kind.element, kind.key) if t] + [f.type for f in kind.fields]
    return kind.name == "decimal" or any(_has_decimal(t) for t in inner)


component = JsonFormat
