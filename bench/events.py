"""Seeded JSON-lines events for the benchmark, with the rows that every correct engine must find in them.

Every value is a hash of (seed, column, row number), so any row can be made anywhere: a duplicate is simply the same row
number written twice. Nothing here is drawn from a shared random stream.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

FORM = 2  # part of the cache key: raise it whenever the bytes change
START_US = 1_772_323_200_000_000  # 2026-03-01T00:00:00Z
DELAY_US = 30_000_000  # the watermark delay that the pipelines declare
WINDOW_US = 60_000_000
JITTER_MAX_US = 10_000_000  # how far an event may lie behind its place: well within the delay
LAG_MAX_US = 5_000_000  # how much later a duplicate may come
RATE = 5_000  # events per second of event time, unless the spec says more
SPAN_MIN_US = 300_000_000
USERS, COUNTRIES = 100_000, 200
TYPES = ("view", "click", "search", "cart", "purchase", "refund", "login", "logout", "share", "rating")
DUPLICATES, INVALID = 0.01, 0.002

CLOSING_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
"""The last event of all, a day ahead of the others: it moves the watermark past every window, on both engines alike.
It and its window are left out of every comparison and count."""
CLOSING_US = 86_400_000_000

COUNTRY_NAMES = [chr(65 + i // 26) + chr(65 + i % 26) for i in range(COUNTRIES)]
_COUNTRY_CDF = np.cumsum(np.arange(1, COUNTRIES + 1) ** -1.16)
_COUNTRY_CDF /= _COUNTRY_CDF[-1]
_HEX = np.array([f"{i:02x}".encode() for i in range(256)], dtype="S2").view(np.uint8).reshape(256, 2)
_DASHES = (8, 13, 18, 23)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to generate.

    Attributes:
        events: lines in all, duplicates and invalid ones included, the closing event not.
        files: number of files they are cut into; one more holds the closing event.
        seed: every seed gives other events.
        rate: events per second of event time.
        span_min_us: shortest event time that they cover.
    """

    events: int = 3_000_000
    files: int = 20
    seed: int = 1
    rate: int = RATE
    span_min_us: int = SPAN_MIN_US

    @property
    def duplicates(self) -> int:
        return int(self.events * DUPLICATES)

    @property
    def originals(self) -> int:
        return self.events - self.duplicates

    @property
    def invalid(self) -> int:
        """Original rows that are invalid; a duplicate of one is invalid too."""
        return int(self.events * INVALID)

    @property
    def span_us(self) -> int:
        return max(self.span_min_us, self.events * 1_000_000 // self.rate)

    @property
    def key(self) -> str:
        return f"events-v{FORM}-{self.events}-{self.files}-{self.seed}"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Generated events on disk.

    Attributes:
        folder: holds `lines/part-*.jsonl`, `ids.parquet` (event_id), `gold.parquet` (minute_us, type, country, events,
            cents) and `done.json`.
        spec: what it was generated from.
        size: bytes of all line files.
    """

    folder: Path
    spec: Spec
    size: int

    @property
    def lines(self) -> Path:
        return self.folder / "lines"

    @property
    def ids(self) -> Path:
        return self.folder / "ids.parquet"

    @property
    def gold(self) -> Path:
        return self.folder / "gold.parquet"


def ensure(root: Path, spec: Spec) -> Dataset:
    """The events of `spec` under `root`, generated unless they are there already."""
    folder = root / spec.key
    done = folder / "done.json"
    if not done.exists():
        part = root / f"{spec.key}.partial"
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        (part / "lines").mkdir(parents=True)
        size = _write_lines(part / "lines", spec)
        write_truth(part, spec)
        (part / "done.json").write_text(json.dumps({**dataclasses.asdict(spec), "bytes": size}))
        part.rename(folder)
    return Dataset(folder, spec, json.loads(done.read_text())["bytes"])


def order(spec: Spec, lag_us: int = LAG_MAX_US) -> I64:
    """Row numbers in the order in which they are written: each original once, in event-time order but for the jitter,
    and each duplicate at most `lag_us` after its original."""
    originals = np.arange(spec.originals, dtype=np.int64)
    if not spec.duplicates:
        return originals
    picked = _smallest(_hash(spec, "duplicate", originals), spec.duplicates)
    lag_rows = max(1, lag_us * spec.originals // spec.span_us)
    place = picked + 1 + (_hash(spec, "lag", picked) % np.uint64(lag_rows)).astype(np.int64)
    return np.concatenate([originals, picked])[np.argsort(np.concatenate([originals, place]), kind="stable")]


def event_times(spec: Spec, rows: I64) -> I64:
    """Event times in microseconds since 1970."""
    step = spec.span_us / spec.originals
    jitter = np.minimum(-np.log1p(-_unit(spec, "jitter", rows)) * 500_000, JITTER_MAX_US)
    return START_US + JITTER_MAX_US + (rows * step - jitter).astype(np.int64)


def invalid_rows(spec: Spec) -> I64:
    """The invalid originals, ascending."""
    return np.sort(_smallest(_hash(spec, "invalid", np.arange(spec.originals)), spec.invalid))


def ids(spec: Spec, rows: I64) -> pa.Array:
    """UUID-like ids, distinct for distinct rows (128 hashed bits)."""
    raw = np.stack([_hash(spec, "id_high", rows), _hash(spec, "id_low", rows)], axis=1).astype(">u8")
    digits = _HEX[raw.view(np.uint8).reshape(len(rows), 16)].reshape(len(rows), 32)
    text = np.full((len(rows), 36), ord("-"), np.uint8)
    text[:, [i for i in range(36) if i not in _DASHES]] = digits
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * 36
    return pa.Array.from_buffers(pa.string(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def urls(spec: Spec, rows: I64) -> pa.Array:
    """A page of the shop, always equally long."""
    page = _hash(spec, "url", rows)
    return pc.binary_join_element_wise(
        "https://shop.example.com/catalogue/", _text(page % np.uint64(9_000) + np.uint64(1_000)),
        "/item-", _text((page >> np.uint64(20)) % np.uint64(9_000_000) + np.uint64(1_000_000)),
        "?ref=", _text((page >> np.uint64(44)) % np.uint64(90_000) + np.uint64(10_000)), "",
    )  # fmt: skip


def lines(spec: Spec, rows: I64, invalid: I64) -> pa.Array:
    """One JSON line, with its newline, per row number."""
    cents = cents_of(spec, rows)
    hundredths = pa.array([f"{i:02d}" for i in range(100)])
    text = pc.binary_join_element_wise(
        '{"event_id":"', ids(spec, rows),
        '","event_time":"', pc.strftime(pa.array(event_times(spec, rows), pa.timestamp("us")), "%Y-%m-%dT%H:%M:%S"),
        'Z","user_id":', _text(users_of(spec, rows)),
        ',"type":"', pa.array(TYPES).take(pa.array(types_of(spec, rows))),
        '","amount":', _text(cents // 100), ".", hundredths.take(pa.array(cents % 100)),
        ',"country":"', pa.array(COUNTRY_NAMES).take(pa.array(countries_of(spec, rows))),
        '","url":"', urls(spec, rows),
        '"}\n', "",
    )  # fmt: skip
    bad = np.flatnonzero(np.isin(rows, invalid))
    if not len(bad):
        return text
    good = text.take(pa.array(bad)).to_pylist()
    spoiled = [_spoil(line, row) for line, row in zip(good, rows[bad].tolist(), strict=True)]
    mask = np.zeros(len(rows), bool)
    mask[bad] = True
    return pc.replace_with_mask(text, mask, pa.array(spoiled))


def _spoil(line: str, row: int) -> str:
    """Make a good line invalid in one of seven ways; a row is always spoiled in the same way."""
    kind = row % 10
    if kind < 4:
        return line.replace('"amount":', '"amount":-')
    if kind < 6:
        return '{"event_id":null,' + line.split(",", 1)[1]
    if kind < 7:
        return "{" + line.split(",", 1)[1]
    if kind == 7:
        return line[: 30 + row % 100] + "\n"  # torn
    if kind == 8:
        return re.sub(r'"amount":[0-9.]+', '"amount":"n/a"', line)
    return f"-- rotated log {row} --\n"


def _write_lines(folder: Path, spec: Spec) -> int:
    rows, invalid, size = order(spec), invalid_rows(spec), 0
    for number, part in enumerate(np.array_split(rows, spec.files)):
        path = folder / f"part-{number:05d}.jsonl"
        with path.open("wb") as file:
            for start in range(0, len(part), 100_000):
                text = lines(spec, part[start : start + 100_000], invalid)
                size += file.write(_bytes(text))
        _date(path, number)
    closing = {
        "event_id": CLOSING_ID, "event_time": _iso(START_US + spec.span_us + CLOSING_US), "user_id": 0,
        "type": "closing", "amount": 0.01, "country": "ZZ", "url": "https://shop.example.com/",
    }  # fmt: skip
    path = folder / "part-99999.jsonl"
    path.write_text(json.dumps(closing, separators=(",", ":")) + "\n")
    _date(path, spec.files)
    return size


def write_truth(folder: Path, spec: Spec, times: I64 | None = None) -> None:
    """What silver and gold must hold, from the row numbers alone; `times` are event times by row number, if others."""
    rows = np.setdiff1d(np.arange(spec.originals), invalid_rows(spec), assume_unique=True)
    minutes = (event_times(spec, rows) if times is None else times[rows]) // WINDOW_US
    first, groups = int(minutes.min()), len(TYPES) * COUNTRIES
    key = (minutes - first) * groups + types_of(spec, rows) * COUNTRIES + countries_of(spec, rows)
    count = np.bincount(key)
    cents = np.bincount(key, weights=cents_of(spec, rows)).astype(np.int64)  # exact: far below 2^53
    there = np.flatnonzero(count)
    gold = pa.table({
        "minute_us": (there // groups + first) * WINDOW_US,
        "type": pa.array(TYPES).take(pa.array(there % groups // COUNTRIES)),
        "country": pa.array(COUNTRY_NAMES).take(pa.array(there % COUNTRIES)),
        "events": count[there],
        "cents": cents[there],
    })  # fmt: skip
    pq.write_table(gold, folder / "gold.parquet")
    with pq.ParquetWriter(folder / "ids.parquet", pa.schema([("event_id", pa.string())])) as writer:
        for start in range(0, len(rows), 500_000):
            writer.write_table(pa.table({"event_id": ids(spec, rows[start : start + 500_000])}))


def users_of(spec: Spec, rows: I64) -> I64:
    """User numbers below `USERS`."""
    return (_hash(spec, "user", rows) % np.uint64(USERS)).astype(np.int64)


def types_of(spec: Spec, rows: I64) -> I64:
    """Indexes into `TYPES`."""
    return (_hash(spec, "type", rows) % np.uint64(len(TYPES))).astype(np.int64)


def countries_of(spec: Spec, rows: I64) -> I64:
    """Indexes into `COUNTRY_NAMES`."""
    return np.searchsorted(_COUNTRY_CDF, _unit(spec, "country", rows), side="right").astype(np.int64)


def cents_of(spec: Spec, rows: I64) -> I64:
    """Amounts in hundredths, above zero."""
    return (_hash(spec, "amount", rows) % np.uint64(99_999)).astype(np.int64) + 1


def _smallest(keys: U64, count: int) -> I64:
    return np.argpartition(keys, count)[:count] if count else np.empty(0, np.int64)


def _unit(spec: Spec, column: str, rows: I64) -> npt.NDArray[np.float64]:
    """Uniform in [0, 1)."""
    return (_hash(spec, column, rows) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hash(spec: Spec, column: str, rows: I64) -> U64:
    """SplitMix64 (Steele, Lea, Flood 2014) of the row number under a key made of seed and column."""
    key = np.uint64(int.from_bytes(column.encode()[-8:], "little") ^ (spec.seed * 0x9E3779B97F4A7C15 & (1 << 64) - 1))
    return _mix(_mix(rows.astype(np.uint64)) ^ key)


def _mix(x: U64) -> U64:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _text(numbers: npt.NDArray[np.integer]) -> pa.Array:
    return pa.array(numbers).cast(pa.string())


def _bytes(text: pa.Array) -> memoryview:
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]


def _iso(time_us: int) -> str:
    return str(np.datetime64(time_us, "us")) + "Z"


def _date(path: Path, number: int) -> None:
    """Give files old, rising times: engines that order by time see them in order, and none waits for them to settle."""
    seconds = START_US // 1_000_000 + number * 10
    os.utime(path, (seconds, seconds))
