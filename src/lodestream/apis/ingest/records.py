"""Cuts a body into records by its content type, without looking into them more than that needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lodestream.apis.ingest.columns import arrow_records, avro_records
from lodestream.apis.problems import ProblemError
from lodestream.drivers.record_log.frame import Kind
from lodestream.drivers.record_log.reader import Run
from lodestream.formats._lines import split_lines

_BOM = b"\xef\xbb\xbf"
_BLANK = " \t\r\n"
_scan: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Records:
    """The records of a body, as they are kept.

    Attributes:
        kind: how they are written.
        data: all of them, one after the other.
        ends: where each ends in `data`.
        head: the header line of a CSV body.
    """

    kind: Kind
    data: bytes
    ends: npt.NDArray[np.uint32]
    head: bytes = b""

    @classmethod
    def of(cls, kind: Kind, records: Sequence[bytes], head: bytes = b"") -> Records:
        """From one text per record."""
        ends = np.cumsum([len(record) for record in records]).astype(np.uint32)
        return cls(kind, b"".join(records), ends, head)

    def __len__(self) -> int:
        return len(self.ends)

    def run(self, first: int = 0) -> Run:
        """The same records as a reader of the log gives them."""
        return Run(first, self.kind, self.head, self.data, self.ends.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Shape:
    """What matters of the request and the table for cutting.

    Attributes:
        columns: the table's columns, for a CSV body without header.
        delimiter: of the table's CSV format.
        header: whether a CSV body begins with a header line.
        records_max: more records are refused.
        bytes_max: records that take more bytes are refused.
    """

    columns: tuple[str, ...]
    delimiter: str
    header: bool
    records_max: int
    bytes_max: int


def json_records(body: bytes, shape: Shape) -> Records:
    """One object, or the items of an array, each as it was written."""
    text = body.removeprefix(_BOM).strip()
    if not text.startswith(b"["):
        if not text:
            raise ProblemError(400, "the body is empty; send a JSON object or an array of objects")
        return Records("json", text, np.array([len(text)], np.uint32))
    try:
        return Records.of("json", list(_items(text.decode(), shape.records_max)))
    except UnicodeDecodeError as error:
        raise ProblemError(400, "the body is not UTF-8", byte=error.start) from error
    except RecursionError:
        raise ProblemError(400, "the body nests too deep") from None
    except StopIteration as error:
        raise ProblemError(400, "the body is not a JSON array", character=error.value) from error
    except ValueError as error:
        raise ProblemError(400, f"the body is not a JSON array: {error}") from error


def _items(text: str, records_max: int) -> list[bytes]:
    at, found = _skip(text, 1), []
    if text[at : at + 1] == "]":
        at = _skip(text, at + 1)
    else:
        while True:
            try:
                _, end = _scan(text, at)
            except StopIteration as error:
                raise ValueError(f"no value at character {error.value}") from None
            found.append(text[at:end].encode())
            if len(found) > records_max:
                raise too_many(records_max)
            at = _skip(text, end)
            mark = text[at : at + 1]
            at = _skip(text, at + 1)
            if mark == "]":
                break
            if mark != ",":
                raise ValueError(f"no comma at character {end}")
    if at != len(text):
        raise ValueError(f"more after its end at character {at}")
    return found


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in _BLANK and at < len(text):
        at += 1
    return at


def line_records(body: bytes, shape: Shape) -> Records:
    """Each line that is not blank."""
    return _lines("json", body.removeprefix(_BOM), shape)


def csv_records(body: bytes, shape: Shape) -> Records:
    """Each line after the header; without one, the fields are those of the declared columns."""
    body = body.removeprefix(_BOM)
    if not shape.header:
        head = shape.delimiter.join(shape.columns).encode()
        return _lines("csv", body, shape, head)
    head, _, rest = body.partition(b"\n")
    head = head.rstrip(b"\r")
    if not head.strip():
        raise ProblemError(400, "the body has no header line; send one, or Content-Type: text/csv; header=absent")
    return _lines("csv", rest, shape, head)


def _lines(kind: Kind, body: bytes, shape: Shape, head: bytes = b"") -> Records:
    block = np.frombuffer(body, np.uint8)
    starts, ends = split_lines(block)
    if len(starts) > shape.records_max:
        raise too_many(shape.records_max)
    view = memoryview(body)
    data = b"".join(view[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
    return Records(kind, data, np.cumsum(ends - starts).astype(np.uint32), head)


def message_records(body: bytes, shape: Shape) -> Records:
    """The body as one message of the table's format."""
    return Records("message", body, np.array([len(body)], np.uint32))


def row_records(read: Callable[[bytes, int, int], list[bytes]]) -> Callable[[bytes, Shape], Records]:
    """Rows of a binary body, each written as JSON."""

    def cut(body: bytes, shape: Shape) -> Records:
        return Records.of("rows", read(body, shape.records_max, shape.bytes_max))

    return cut


def too_many(records_max: int) -> ProblemError:
    """A body has too many records."""
    return ProblemError(413, f"a body has at most {records_max} records; send several")


CONTENT_TYPES: dict[str, Callable[[bytes, Shape], Records]] = {
    "application/json": json_records,
    "application/x-ndjson": line_records,
    "application/jsonl": line_records,
    "text/csv": csv_records,
    "application/avro": row_records(avro_records),
    "application/vnd.apache.arrow.stream": row_records(arrow_records),
    "application/octet-stream": message_records,
}
"""How a body of each content type is cut."""


def body_digest(content_type: str, body: bytes) -> bytes:
    """16 bytes that another body under the same idempotency key would not have."""
    return hashlib.blake2b(body, digest_size=16, person=content_type.encode()[:16]).digest()


def key_digest(caller: str, key: str) -> bytes:
    """16 bytes that name an idempotency key of a caller."""
    return hashlib.blake2b(f"{caller}\0{key}".encode(), digest_size=16).digest()
