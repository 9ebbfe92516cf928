"""The benchmark's events as Avro click messages: Confluent-framed, encoded a whole batch at a time.

They are the rows of `bench.events`. Amounts are whole 64ths, which doubles add up exactly in any order.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench import compare, events
from bench.events import I64, Spec

PARTITIONS = 10
UNITS = 64  # of one amount: what `cents` of `bench.events` count here
SCHEMA = json.dumps({
    "type": "record", "name": "Click", "namespace": "bench", "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "user_id", "type": "long"},
        {"name": "type", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "country", "type": "string"},
        {"name": "url", "type": "string"},
    ],
})  # fmt: skip
HEADER_BYTES = 5
_TIME_AT = HEADER_BYTES + 1 + 36  # behind the header and the id
_TIME_BYTES = 8  # of a variable-length number between 2^49 and 2^56: microseconds from 1979 to 2540


def messages(spec: Spec, rows: I64, times_us: I64, invalid: I64, schema_id: int) -> list[bytes]:
    """One message per row number.

    Seven of ten invalid rows have a negative amount; the others are cut off in the middle, so that they do not decode.

    Args:
        spec: which events.
        rows: row numbers.
        times_us: their event times.
        invalid: the invalid row numbers, ascending.
        schema_id: what `SCHEMA` is registered as.
    """
    bad = np.isin(rows, invalid, assume_unique=False) if len(invalid) else np.zeros(len(rows), bool)
    negative, torn = bad & (rows % 10 < 7), bad & (rows % 10 >= 7)
    amounts = events.cents_of(spec, rows) / UNITS * np.where(negative, -1, 1)
    texts = events.urls(spec, rows)
    head = b"\0" + schema_id.to_bytes(4, "big") + _number(36)
    found = pc.binary_join_element_wise(
        head, events.ids(spec, rows).cast(pa.binary()), _times(times_us),
        _USERS.take(pa.array(events.users_of(spec, rows))),
        _TYPES.take(pa.array(events.types_of(spec, rows))), _fixed(amounts.astype("<f8").view(np.uint8), 8),
        _COUNTRIES.take(pa.array(events.countries_of(spec, rows))), _number(len(texts[0].as_py()) if len(rows) else 0),
        texts.cast(pa.binary()), b"",
    ).to_pylist()  # fmt: skip
    for i in np.flatnonzero(torn).tolist():
        found[i] = found[i][: 60 + int(rows[i]) % 20]
    return found


def stamped(messages: list[bytes], times_us: I64) -> list[bytes]:
    """Messages with other event times."""
    stamps = {time_us: _times(np.array([time_us]))[0].as_py() for time_us in np.unique(times_us).tolist()}
    return [
        message[:_TIME_AT] + stamps[time_us] + message[_TIME_AT + _TIME_BYTES :]
        for message, time_us in zip(messages, times_us.tolist(), strict=True)
    ]


def closing(spec: Spec, schema_id: int) -> bytes:
    """The message that moves the watermark past every window; see `events.CLOSING_ID`."""
    texts = [events.CLOSING_ID, "closing", "ZZ", "https://shop.example.com/"]
    ident, kind, country, url = (_number(len(text)) + text.encode() for text in texts)
    time = _times(np.array([events.START_US + spec.span_us + events.CLOSING_US]))[0].as_py()
    amount = np.array([1 / UNITS], "<f8").tobytes()
    return b"\0" + schema_id.to_bytes(4, "big") + ident + time + _number(0) + kind + amount + country + url


def partitions(rows: I64) -> I64:
    """The partition of each row: a duplicate goes where its original went."""
    return rows % PARTITIONS


def truth(folder: Path, spec: Spec, times: I64 | None = None) -> compare.Result:
    """What silver and gold must hold; computed from the row numbers alone and kept in `folder`."""
    if not (folder / "gold.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        events.write_truth(folder, spec, times)
    return compare.Result(
        "truth",
        f"select event_id::uuid as event_id from read_parquet('{folder}/ids.parquet')",
        f"from read_parquet('{folder}/gold.parquet')",
    )


def tables(name: str, silver: str, gold: str) -> compare.Result:
    """A side's silver and gold, from SQL that gives their rows (`window_start` and `amount` as the jobs name them)."""
    return compare.Result(
        name,
        f"select event_id::uuid as event_id from ({silver})",
        f"select epoch_us(window_start) as minute_us, type, country, events, cast(amount * {UNITS} as bigint) as cents "
        f"from ({gold})",
    )


def _number(value: int) -> bytes:
    """Avro's variable-length zigzag form (specification 1.12, "Primitive types")."""
    left, out = value << 1 ^ value >> 63, bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def _times(times_us: I64) -> pa.BinaryArray:
    doubled = times_us.astype(np.uint64) << np.uint64(1)
    groups = np.arange(_TIME_BYTES, dtype=np.uint64) * np.uint64(7)
    digits = (doubled[:, None] >> groups & np.uint64(0x7F)).astype(np.uint8)
    digits[:, :-1] |= 0x80
    return _fixed(digits.reshape(-1), _TIME_BYTES)


def _fixed(raw: np.ndarray, width: int) -> pa.BinaryArray:
    """Values of equal width out of their bytes one after the other."""
    offsets = np.arange(len(raw) // width + 1, dtype=np.int32) * width
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(raw)])


def _counted(texts: tuple[str, ...] | list[str]) -> pa.BinaryArray:
    return pa.array([_number(len(text)) + text.encode() for text in texts], pa.binary())


_USERS = pa.array([_number(user) for user in range(events.USERS)], pa.binary())
_TYPES = _counted(events.TYPES)
_COUNTRIES = _counted(events.COUNTRY_NAMES)
