"""Bytes to Arrow: what a format promises to the sources that use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.model.arrow import to_arrow
from lodestream.model.types import Schema
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading

REJECTS = pa.schema(
    [
        pa.field("_source", pa.string()),
        pa.field("_position", pa.int64()),
        pa.field("_reasons", pa.list_(pa.string())),
        pa.field("_raw", pa.binary()),
        pa.field("_detail", pa.string()),
    ]
)
"""Columns of `Decoded.rejects`."""

RAW_BYTES_MAX = 16 << 20
"""How much of a record that did not decode is kept."""


def row_schema(reading: Reading) -> pa.Schema:
    """The Arrow schema of `Decoded.rows` for a reading."""
    fields = [*to_arrow(reading.schema), pa.field("_source", pa.string()), pa.field("_position", pa.int64())]
    if reading.keep_raw:
        fields.append(pa.field("_raw", pa.binary()))
    return pa.schema(fields)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file that is cheap to read alone, such as a Parquet row group.

    Attributes:
        rows: how many records it holds.
        size_bytes: about how many bytes it takes in memory.
    """

    rows: int
    size_bytes: int


class Format(Protocol):
    """How records are written down. Made with `(settings, reading)`; keeps no state between calls.

    `framing` says who finds the records of a file: with `lines` the source cuts at line ends and calls `decode`; with
    `file` the format opens the file itself (`parts`, `read`) and positions are row numbers; with `messages` it takes
    no files. Sources whose records come one by one (Kafka) call `decode_messages` whatever the framing.
    """

    settings: ClassVar[type[Settings]]
    framing: Literal["lines", "file", "messages"]
    head_lines: int
    """Lines at the start of each file that are no records (a CSV header); the source passes them to `decode`."""
    row_bytes_max: int
    """A longer line is a reject (`parse:size`); the source hands over its first `row_bytes_max + 1` bytes only."""

    def decode(self, data: bytes | bytearray | memoryview, unit: str, start: int, head: bytes = b"") -> Decoded:
        """Whole lines to rows; a last line without line end is a record too, an empty line is none.

        Args:
            data: whole lines; nothing in the result refers to this memory.
            unit: becomes `_source`.
            start: position of the first byte; a row's `_position` is that of its line's first byte.
            head: the file's first `head_lines` lines.
        """

    def parts(self, path: str) -> Sequence[Part]:
        """The file's parts in order; a file that cannot be opened as this format is one part of one record."""

    def read(self, path: str, unit: str, start: int, end: int) -> Iterator[Decoded]:
        """Records `start <= position < end` of the file, in order."""

    def decode_messages(self, values: pa.BinaryArray, unit: str, positions: npt.NDArray[np.int64]) -> Decoded:
        """Messages to rows, each message one record; what is not exactly one record is a reject.

        Args:
            values: n payloads without NULL; nothing in the result refers to this memory.
            unit: becomes `_source`.
            positions: n positions that grow; they become `_position`.

        Raises:
            ConfigError: this format has no records that stand alone.
            TransientError: what decoding needs (a schema registry) does not answer; nothing was decoded.
        """

    def infer_messages(self, values: Sequence[bytes], topic: str) -> Schema:
        """Columns and types that would hold these payloads of a topic, which a registry may know better."""

    def infer(self, data: bytes, head: bytes = b"") -> Schema:
        """Columns and types that would hold these whole lines (line framing)."""

    def infer_file(self, path: str) -> Schema:
        """Columns and types that would hold this file (file framing)."""
