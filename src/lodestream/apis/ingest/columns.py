"""Rows of binary bodies, Avro files and Arrow streams, as JSON records, with every size checked before it is used."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.apis.problems import ProblemError

_SLICE = 512


def arrow_records(body: bytes, records_max: int, bytes_max: int) -> list[bytes]:
    """Rows of an Arrow IPC stream.

    Raises:
        ProblemError: 400 not such a stream, 413 too many rows or bytes, 415 types or compression that are not taken.
    """
    found: list[bytes] = []
    size = 0
    try:
        _refuse_compressed(body)
        with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
            for field in stream.schema:
                _check_type(field.name, field.type)
            for batch in stream:
                if len(found) + batch.num_rows > records_max:
                    raise ProblemError(413, f"a body has at most {records_max} records; send several")
                batch.validate(full=True)
                if _expanded(batch) > bytes_max:
                    raise ProblemError(413, f"a body has at most {bytes_max} bytes of values")
                batch = _in_micros(batch)
                for at in range(0, batch.num_rows, _SLICE):
                    texts = [written(row) for row in batch.slice(at, _SLICE).to_pylist(maps_as_pydicts="strict")]
                    size += sum(map(len, texts))
                    if size > bytes_max:
                        raise ProblemError(413, f"a body has at most {bytes_max} bytes of values")
                    found += texts
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OSError, ValueError) as error:
        raise ProblemError(400, f"the body is not an Arrow IPC stream: {str(error).splitlines()[0]}") from error
    return found


def _in_micros(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Times in microseconds, which is what tables hold; what is finer is cut off."""
    for i, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            micros = pa.timestamp("us", field.type.tz)
            batch = batch.set_column(i, field.name, pc.cast(batch.column(i), micros, safe=False))
    return batch


def _check_type(name: str, kind: pa.DataType) -> None:
    """Refuse types whose values can take more memory than the body: only plain ones, and dictionaries of plain ones."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_struct(value):
        for field in value:
            if pa.types.is_dictionary(field.type):
                raise ProblemError(415, f"a dictionary inside a struct is not taken: {name}")
            _check_type(f"{name}.{field.name}", field.type)
        return
    if pa.types.is_list(value) or pa.types.is_large_list(value) or pa.types.is_map(value):
        inner = [value.key_type, value.item_type] if pa.types.is_map(value) else [value.value_type]
        for one in inner:
            if pa.types.is_null(one) or pa.types.is_dictionary(one) or (pa.types.is_struct(one) and not one.num_fields):
                raise ProblemError(415, f"a list of {one} is not taken: {name}")
            _check_type(name, one)
        return
    refused = ("string_view", "binary_view", "run_end", "extension", "union", "list_view", "interval", "duration")
    if any(word in str(value) for word in refused) or isinstance(value, pa.ExtensionType):
        raise ProblemError(415, f"columns of this type are not taken: {name} {value}")


def _expanded(batch: pa.RecordBatch) -> int:
    """Bytes of the batch's values once dictionaries are written out."""
    total = batch.nbytes
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            values = column.dictionary
            if (
                pa.types.is_string(values.type)
                or pa.types.is_large_string(values.type)
                or pa.types.is_binary(values.type)
            ):
                total += pc.sum(pc.binary_length(values).take(column.indices)).as_py() or 0
            else:
                total += 8 * len(column)
    return int(total)


def _refuse_compressed(body: bytes) -> None:
    """Refuse compressed buffers, whose claimed size would be allocated before anything can be checked.

    The message's flatbuffer is that of https://arrow.apache.org/docs/format/Columnar.html: `Message.header` is its
    third field; a `RecordBatch` has `compression` as its fourth.
    """
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    for message in _messages(reader):
        if message.type not in ("record batch", "dictionary"):
            continue
        flat = message.metadata.to_pybytes()
        header = _follow(flat, _field(flat, _root(flat), 2))
        batch = _follow(flat, _field(flat, header, 1)) if message.type == "dictionary" else header
        if batch and _field(flat, batch, 3):
            raise ProblemError(415, "compressed Arrow buffers are not taken; use Content-Encoding: zstd")


def _messages(reader: Any) -> Iterator[Any]:
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _number(flat: bytes, at: int, size: int, *, signed: bool = False) -> int:
    if at < 0 or at + size > len(flat):
        raise ValueError("a message's offsets lead out of it")
    return int.from_bytes(flat[at : at + size], "little", signed=signed)


def _root(flat: bytes) -> int:
    return _number(flat, 0, 4)


def _field(flat: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer table is; 0 when it is not there."""
    places = table - _number(flat, table, 4, signed=True)
    at = 4 + 2 * number
    offset = _number(flat, places + at, 2) if at < _number(flat, places, 2) else 0
    return table + offset if offset else 0


def _follow(flat: bytes, at: int) -> int:
    return at + _number(flat, at, 4) if at else 0


def avro_records(body: bytes, records_max: int, bytes_max: int) -> list[bytes]:
    """Rows of an Avro object container file (codecs null and deflate), its schema that of the writer.

    Raises:
        ProblemError: 400 not such a file, 413 too many rows or bytes, 415 another codec, or no Avro reader installed.
    """
    try:
        import fastavro
    except ModuleNotFoundError as error:
        raise ProblemError(415, "this server reads no Avro: pip install 'lodestream[avro]'") from error
    try:
        plain = _without_codec(body, records_max, bytes_max)
        reader = fastavro.reader(io.BytesIO(plain))
        if _bombs(reader.writer_schema, {}):
            raise ProblemError(415, "a schema whose items take no bytes is not taken")
        found: list[bytes] = []
        size = 0
        for row in reader:
            text = written(row) if isinstance(row, dict) else json.dumps(row, default=_plain).encode()
            size += len(text)
            if size > bytes_max:
                raise ProblemError(413, f"a body has at most {bytes_max} bytes of values")
            found.append(text)
    except ProblemError:
        raise
    except (ValueError, EOFError, KeyError, TypeError, IndexError, RecursionError, OverflowError, zlib.error) as error:
        raise ProblemError(400, f"the body is not an Avro file: {error}") from error
    except fastavro.schema.SchemaParseException as error:
        raise ProblemError(400, f"the body's Avro schema cannot be read: {error}") from error
    return found


def _without_codec(body: bytes, records_max: int, bytes_max: int) -> bytes:
    """The file with its blocks decompressed under a bound (layout: Avro 1.12, "Object Container Files")."""
    if body[:4] != b"Obj\x01":
        raise ValueError("no Obj\\x01 at its start")
    meta, at = _meta(body, 4)
    codec = meta.get(b"avro.codec", b"null").decode()
    if codec not in ("null", "deflate"):
        raise ProblemError(415, f"Avro codec {codec} is not taken; use null or deflate")
    sync = body[at : at + 16]
    at += 16
    blocks, records, size = [], 0, 0
    while at < len(body):
        count, at = _long(body, at)
        length, at = _long(body, at)
        records += count
        if count < 0 or length < 0 or at + length + 16 > len(body) or body[at + length : at + length + 16] != sync:
            raise ValueError("a block is cut off or damaged")
        if records > records_max:
            raise ProblemError(413, f"a body has at most {records_max} records; send several")
        data = body[at : at + length]
        if codec == "deflate":
            inflate = zlib.decompressobj(-15)
            data = inflate.decompress(data, bytes_max - size + 1)
        size += len(data)
        if size > bytes_max:
            raise ProblemError(413, f"a body has at most {bytes_max} bytes once it is decompressed")
        blocks.append(_written_long(count) + _written_long(len(data)) + data + sync)
        at += length + 16
    header = b"Obj\x01" + _written_long(1) + _text(b"avro.schema") + _text(meta[b"avro.schema"]) + b"\x00" + sync
    return header + b"".join(blocks)


def _meta(body: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    found: dict[bytes, bytes] = {}
    while True:
        count, at = _long(body, at)
        if count == 0:
            return found, at
        if count < 0:
            _, at = _long(body, at)
        for _ in range(abs(count)):
            parts = []
            for _part in range(2):
                size, at = _long(body, at)
                if size < 0 or at + size > len(body):
                    raise ValueError("its header is cut off")
                parts.append(body[at : at + size])
                at += size
            found[parts[0]] = parts[1]


def _long(body: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while True:
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        if shift > 63:
            raise ValueError("a number is too long")


def _written_long(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _text(value: bytes) -> bytes:
    return _written_long(len(value)) + value


def _bombs(schema: Any, named: dict[str, Any]) -> bool:
    """Whether an array has items that take no bytes: a few bytes could then claim a billion of them."""
    if isinstance(schema, list):
        return any(_bombs(one, named) for one in schema)
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    if kind in ("record", "error", "fixed"):
        named[schema["name"]] = schema
        return any(_bombs(field["type"], named) for field in schema.get("fields", ()))
    if kind == "array":
        inner = schema["items"]
        return _bombs(inner, named) or _takes_nothing(inner, named, ())
    if kind == "map":
        return _bombs(schema["values"], named)
    return _bombs(kind, named)


def _takes_nothing(schema: Any, named: dict[str, Any], within: tuple[str, ...]) -> bool:
    if isinstance(schema, str) and schema in named and schema not in within:
        return _takes_nothing(named[schema], named, (*within, schema))
    if not isinstance(schema, dict):
        return bool(schema == "null")
    kind = schema.get("type")
    if kind in ("record", "error"):
        inner = (*within, schema["name"])
        return all(_takes_nothing(field["type"], named, inner) for field in schema.get("fields", ()))
    return bool(kind == "null" or (kind == "fixed" and schema.get("size") == 0))


def written(row: dict[str, Any]) -> bytes:
    """A row as the JSON record that decodes to the same values."""
    return json.dumps(row, default=_plain, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value)
