"""Arrow rows as JSON, NDJSON, CSV, Arrow and Parquet, piece by piece: no more than a batch is ever in memory."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.csv import CSVWriter, WriteOptions

from lodestream.errors import ConfigError

_SAFE = (1 << 53) - 1
"""The largest integer that every reader of JSON keeps exactly; larger ones are texts."""
_TO_ESCAPE = r'["\\\x00-\x1f]'
_FORMULA = r"^[=+\-@\t\r]"
_GROUP_ROWS = 122_880
_ITSELF = (pa.string(), pa.int32(), pa.bool_())
_FEW_ROWS = 16
"""Up to here a value at a time is faster than Arrow's functions, each of which takes its time to be called."""


class Writer(ABC):
    """Turns batches into bytes. `head`, then `batch` for each, then `tail`; what they give, joined, is the whole.

    Args:
        schema: of the batches.
    """

    media_type: ClassVar[str]
    suffix: ClassVar[str]

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema

    def head(self) -> bytes:
        """What comes before the rows."""
        return b""

    @abstractmethod
    def batch(self, rows: pa.RecordBatch) -> bytes:
        """Some rows."""

    def tail(self, told: Mapping[str, Any]) -> bytes:
        """What comes after them; `told` is what is known of the answer only now."""
        return b""


class JsonWriter(Writer):
    """One object: `columns`, `rows` as arrays in their order, and what else is told of the answer."""

    media_type, suffix = "application/json", "json"

    def __init__(self, schema: pa.Schema) -> None:
        super().__init__(schema)
        self._lead = ""

    def head(self) -> bytes:
        """See `Writer`."""
        return _json_head(self.schema)

    def batch(self, rows: pa.RecordBatch) -> bytes:
        """See `Writer`."""
        if not rows.num_rows:
            return b""
        text = self._lead + ",".join(json_rows(rows))
        self._lead = ","
        return text.encode()

    def tail(self, told: Mapping[str, Any]) -> bytes:
        """See `Writer`."""
        return f"],{_dumps(told)[1:]}".encode() if told else b"]}"


class NdjsonWriter(Writer):
    """One object a line, by column name."""

    media_type, suffix = "application/x-ndjson", "ndjson"

    def batch(self, rows: pa.RecordBatch) -> bytes:
        """See `Writer`."""
        return "".join(f"{line}\n" for line in json_objects(rows)).encode()


class CsvWriter(Writer):
    """Comma-separated, with a line of names. NULL is nothing at all, an empty text is `""`.

    Args:
        schema: of the batches.
        guard: put `'` before texts that a spreadsheet would take for a formula.
    """

    media_type, suffix = "text/csv", "csv"

    def __init__(self, schema: pa.Schema, *, guard: bool = False) -> None:
        super().__init__(schema)
        self._guard = guard
        names = [_guarded(name) if guard else name for name in schema.names]
        kinds = [field.type if _is_plain(field.type) else pa.string() for field in schema]
        self._made = pa.schema([pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)])
        self._sink = io.BytesIO()
        options = WriteOptions(quoting_style="needed", quoting_header="needed")
        self._writer = CSVWriter(self._sink, self._made, write_options=options)

    def head(self) -> bytes:
        """See `Writer`."""
        return _drained(self._sink)

    def batch(self, rows: pa.RecordBatch) -> bytes:
        """See `Writer`."""
        columns = [_csv(column) for column in rows.columns]
        if self._guard:
            columns = [_without_formulas(c) if pa.types.is_string(c.type) else c for c in columns]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._made))
        return _drained(self._sink)

    def tail(self, told: Mapping[str, Any]) -> bytes:
        """See `Writer`."""
        self._writer.close()
        return _drained(self._sink)


class ArrowWriter(Writer):
    """Arrow IPC stream."""

    media_type, suffix = "application/vnd.apache.arrow.stream", "arrows"

    def __init__(self, schema: pa.Schema) -> None:
        super().__init__(schema)
        self._sink = io.BytesIO()
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def head(self) -> bytes:
        """See `Writer`."""
        return _drained(self._sink)

    def batch(self, rows: pa.RecordBatch) -> bytes:
        """See `Writer`."""
        self._writer.write_batch(rows)
        return _drained(self._sink)

    def tail(self, told: Mapping[str, Any]) -> bytes:
        """See `Writer`."""
        self._writer.close()
        return _drained(self._sink)


class ParquetWriter(Writer):
    """Parquet, Snappy; what is told of the answer is in the file's own metadata under `lodestream`."""

    media_type, suffix = "application/vnd.apache.parquet", "parquet"

    def __init__(self, schema: pa.Schema) -> None:
        super().__init__(schema)
        self._sink = _Pieces()
        try:
            pq.write_table(schema.empty_table(), io.BytesIO())
        except (pa.ArrowException, NotImplementedError) as error:
            fix = "cast the column, or choose another format"
            raise ConfigError("parquet has no such type", reason=str(error).splitlines()[0], fix=fix) from error
        self._writer = pq.ParquetWriter(self._sink, schema, compression="snappy")
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def batch(self, rows: pa.RecordBatch) -> bytes:
        """See `Writer`; rows are held back until there are enough for a row group."""
        self._waiting.append(rows)
        self._rows += rows.num_rows
        return self._group() if self._rows >= _GROUP_ROWS else b""

    def tail(self, told: Mapping[str, Any]) -> bytes:
        """See `Writer`."""
        last = self._group() if self._rows else b""
        self._writer.add_key_value_metadata({"lodestream": _dumps(told)})
        self._writer.close()
        return last + self._sink.drained()

    def _group(self) -> bytes:
        self._writer.write_table(pa.Table.from_batches(self._waiting, self.schema))
        self._waiting, self._rows = [], 0
        return self._sink.drained()


class _Pieces(io.RawIOBase):
    """A file that is only written, and taken away piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._end = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._end

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._end += len(piece)
        return len(piece)

    def drained(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


WRITERS: Mapping[str, type[Writer]] = {
    "json": JsonWriter, "ndjson": NdjsonWriter, "csv": CsvWriter, "arrow": ArrowWriter, "parquet": ParquetWriter,
}  # fmt: skip
"""Every format by the name that a request may give it."""


def type_name(kind: pa.DataType) -> str:
    """The name of a column's type, as declarations write it where they can."""
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"array<{type_name(kind.value_type)}>"
    if pa.types.is_map(kind):
        return f"map<{type_name(kind.key_type)},{type_name(kind.item_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'{field.name}:{type_name(field.type)}' for field in kind)}>"
    return _NAMES.get(str(kind), str(kind))


_NAMES = {
    "bool": "boolean", "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint", "float": "float",
    "double": "double", "date32[day]": "date", "large_string": "string", "large_binary": "binary", "null": "null",
}  # fmt: skip


@functools.lru_cache(256)
def _json_head(schema: pa.Schema) -> bytes:
    columns = [{"name": field.name, "type": type_name(field.type)} for field in schema]
    return f'{{"columns":{_dumps(columns)},"rows":['.encode()


def json_rows(rows: pa.RecordBatch) -> list[str]:
    """Each row as a JSON array."""
    if not rows.num_columns:
        return ["[]"] * rows.num_rows
    if rows.num_rows <= _FEW_ROWS and (few := _few(rows)) is not None:
        return [_dumps(row) for row in few]
    parts: list[Any] = []
    lead = "["
    for column in rows.columns:
        parts += [lead, json_values(column)]
        lead = ","
    found: list[str] = pc.binary_join_element_wise(*parts, "]", "").to_pylist()
    return found


def json_objects(rows: pa.RecordBatch) -> list[str]:
    """Each row as a JSON object; of two columns with one name, a reader sees the last."""
    if not rows.num_columns:
        return ["{}"] * rows.num_rows
    if rows.num_rows <= _FEW_ROWS and (few := _few(rows)) is not None:
        return [_dumps(dict(zip(rows.schema.names, row, strict=True))) for row in few]
    parts: list[Any] = []
    lead = "{"
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        parts += [f"{lead}{_dumps(name)}:", json_values(column)]
        lead = ","
    found: list[str] = pc.binary_join_element_wise(*parts, "}", "").to_pylist()
    return found


def _few(rows: pa.RecordBatch) -> list[list[Any]] | None:
    """The rows in the form of `plain`; None when a value has no form in Python, or another one there."""
    if any(pa.types.is_float32(kind) or pa.types.is_float16(kind) for kind in rows.schema.types):
        return None  # 0.1 would become 0.10000000149011612
    try:
        columns = [
            column.to_pylist() if _is_itself(column.type) else [plain(value) for value in column.to_pylist()]
            for column in rows.columns
        ]
    except (ValueError, OverflowError):  # times after the year 9999
        return None
    return [list(row) for row in zip(*columns, strict=True)]


def _is_itself(kind: pa.DataType) -> bool:
    """Whether every value of a type is its own `plain` form."""
    return kind in _ITSELF


def json_values(column: pa.Array) -> pa.Array:
    """Each value as JSON text; see `plain`."""
    kind = column.type
    if pa.types.is_null(kind):
        return pa.array(["null"] * len(column), pa.string())
    if pa.types.is_boolean(kind):
        text = column.cast(pa.string())
    elif pa.types.is_integer(kind):
        text = column.cast(pa.string())
        if kind.bit_width == 64:
            ends = pc.min_max(column).as_py()
            if ends["max"] is not None and (ends["max"] > _SAFE or ends["min"] < -_SAFE):
                inside = pc.and_(pc.less_equal(column, _SAFE), pc.greater_equal(column, -_SAFE))
                text = pc.if_else(inside, text, _quoted(text))
    elif pa.types.is_floating(kind) and pc.all(pc.is_finite(column)).as_py() in (True, None):
        text = column.cast(pa.string())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = _escaped(column)
    elif pa.types.is_timestamp(kind):
        text = _quoted(_moment(column))
    elif pa.types.is_date32(kind):
        text = _quoted(column.cast(pa.string()))
    else:
        return pa.array([_dumps(plain(one)) for one in column.to_pylist()], pa.string())
    return pc.fill_null(text.cast(pa.string()), "null")


def plain(value: Any) -> Any:
    """A Python value as JSON has it.

    Times are ISO 8601 in UTC, decimals texts, bytes base64, maps objects; integers beyond 2^53 are texts, and so are
    the floats that JSON does not have.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -_SAFE <= value <= _SAFE else str(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Decimal):
        if value.is_finite() and value.as_tuple().exponent == 0:
            return plain(int(value))
        return f"{value:f}"
    if isinstance(value, dt.datetime):
        text = (value.astimezone(dt.UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat()
        return f"{text}Z"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list) and value and all(isinstance(one, tuple) and len(one) == 2 for one in value):
        return {str(plain(name)): plain(one) for name, one in value}  # a map, as Arrow gives it
    return [plain(one) for one in value] if isinstance(value, list | tuple) else str(value)


_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _quoted(text: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', text.cast(pa.string()), '"', "")


def _escaped(column: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(column, _TO_ESCAPE)).as_py():
        return pa.array([None if one is None else _dumps(one) for one in column.to_pylist()], pa.string())
    return _quoted(column)


def _moment(column: pa.Array) -> pa.Array:
    """ISO 8601 in UTC, without a fraction that is zero."""
    text = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.string())
    return pc.replace_substring(pc.replace_substring_regex(text, r"\.000000Z$", "Z"), " ", "T")


def _is_plain(kind: pa.DataType) -> bool:
    """Whether Arrow's CSV writer writes it as we want it."""
    known = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_date32)
    return any(is_kind(kind) for is_kind in known)


def _csv(column: pa.Array) -> pa.Array:
    kind = column.type
    if _is_plain(kind) or pa.types.is_string(kind):
        return column
    if pa.types.is_timestamp(kind):
        return _moment(column)
    found = [None if one is None else plain(one) for one in column.to_pylist()]
    texts = [one if one is None or isinstance(one, str) else _dumps(one) for one in found]
    return pa.array(texts, pa.string())


def _without_formulas(column: pa.Array) -> pa.Array:
    risky = pc.match_substring_regex(column, _FORMULA)
    return pc.if_else(pc.fill_null(risky, fill_value=False), pc.binary_join_element_wise("'", column, ""), column)


def _guarded(name: str) -> str:
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name


def _drained(sink: io.BytesIO) -> bytes:
    taken = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return taken
