"""The native way of draining a Kafka consumer: messages go straight into columns and never become Python objects."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import numpy as np
import pyarrow as pa

from lodestream.drivers.kafka_reader import HEADERS, Messages, Partition, Polled, PythonDrain, note_error
from lodestream.native import KERNELS

_VERSIONS = ("2.16.1",)  # releases of confluent-kafka whose consumer object is known to begin with its handle
_BYTES_MAX = 64 << 20

Piece = tuple[int, int, list[Any], list[Any]]
"""A column as the kernels give it: length, NULLs, buffers, children."""


def native_drain(consumer: Any, *, keys: bool, headers: bool, kernels: Any | None = KERNELS) -> NativeDrain | None:
    """The native drain of a new consumer; None where it cannot be had, and the portable one does the same.

    It is had with the native kernels, a known release of confluent-kafka, and the librdkafka of its wheel.
    """
    library = _library()
    if (
        kernels is None
        or library is None
        or version("confluent-kafka") not in _VERSIONS
        or type(consumer) is not ck.Consumer
    ):
        return None
    try:
        taken = kernels.KafkaDrain(consumer, library, consumer.memberid() or "")
    except RuntimeError:  # it is not what we take it for
        return None
    return NativeDrain(consumer, taken, keys=keys, headers=headers)


def _library() -> str | None:
    found = sorted((Path(ck.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*.so*"))
    return str(found[0]) if len(found) == 1 else None


class NativeDrain:
    """Drains a consumer through a queue of its own; all but the messages still comes through the consumer.

    Messages that came to the consumer before their partition was adopted come first, through Python.
    """

    def __init__(self, consumer: ck.Consumer, taken: Any, *, keys: bool, headers: bool) -> None:
        self._taken, self._keys, self._headers = taken, keys, headers
        self._rest = PythonDrain(consumer, keys=keys, headers=headers)

    def drain(self, rows_max: int, timeout_s: float) -> Polled:
        """What is there, at most `rows_max` messages; waits for the first one only."""
        polled = self._rest.drain(rows_max, 0)
        if polled.messages:
            return polled
        wait_ms = 0 if polled.ends or polled.lost else int(timeout_s * 1000)
        pieces, events = self._taken.drain(rows_max, _BYTES_MAX, wait_ms, self._keys, self._headers)
        polled.messages = [_messages(*piece) for piece in pieces]
        for topic, partition, offset, code, text in events:
            note_error(polled, topic, partition, offset, ck.KafkaError(code, text))
        return polled

    def adopt(self, partitions: Iterable[Partition]) -> None:
        """These partitions are about to be assigned."""
        self._taken.adopt(list(partitions))

    def leave(self, partitions: Iterable[Partition]) -> None:
        """These partitions are about to be revoked."""
        self._taken.leave(list(partitions))

    def close(self) -> None:
        """Let go, before the consumer closes; twice is harmless."""
        self._taken.close()


def _messages(
    topic: str, partition: int, offsets: Any, times: Any, values: Piece, keys: Piece | None, headers: Piece | None
) -> Messages:
    return Messages(
        topic,
        partition,
        np.frombuffer(offsets, np.int64),
        _array(pa.binary(), values),
        _array(pa.binary(), keys) if keys is not None else None,
        np.frombuffer(times, np.int64),
        _array(HEADERS, headers) if headers is not None else None,
    )


def _array(kind: pa.DataType, piece: Piece) -> pa.Array:
    length, nulls, buffers, children = piece
    inner = [_array(kind.field(i).type, child) for i, child in enumerate(children)]
    memory = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    return pa.Array.from_buffers(kind, length, memory, nulls, 0, inner or None)
