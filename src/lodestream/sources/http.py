"""Records that `lodestream serve` took in over HTTP, read from their durable log."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from lodestream.drivers.record_log.disk import LocalLogDisk
from lodestream.drivers.record_log.frame import KINDS, Kind
from lodestream.drivers.record_log.layout import log_folder, reader_path
from lodestream.drivers.record_log.marks import Mark
from lodestream.drivers.record_log.reader import LogReader, Place, Run
from lodestream.drivers.record_log.recovery import recover_unserved
from lodestream.errors import DataLossRefused, TransientError
from lodestream.formats.csv import CsvFormat, CsvSettings
from lodestream.formats.json import JsonFormat, JsonSettings
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.types import Schema
from lodestream.ports.format import Format
from lodestream.ports.settings import Settings
from lodestream.ports.source import Decoded, Reading, SourceTraits
from lodestream.project.values import parse_duration

_SAMPLE_RECORDS = 1000
_GLANCE_S = 0.004
_FEW = 20
"""Up to so many JSON records are checked one by one, which is quicker than building tables."""


class HttpSettings(Settings):
    """Which stream of `POST /ingest/{stream}` is read, and how long its records are kept."""

    stream: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    """The stream's name in the address; one table reads it."""
    keep: str = "7 days"
    """How long a record stays in the log once the table has it, for a rebuild; at least as long as answers to
    idempotency keys are kept."""

    @field_validator("keep")
    @classmethod
    def _duration(cls, text: str) -> str:
        parse_duration(text)
        return text


class RecordDecoder:
    """Decodes the records of the log: JSON and CSV bodies by their own kind, messages by the table's format.

    A body of the table's own format is decoded with the settings that the table gives it; another JSON or CSV body as
    that format is without settings.
    """

    def __init__(self, format: Any, reading: Reading) -> None:  # noqa: A002 - the port's word
        self._format = format
        self._plain_json = JsonFormat(JsonSettings(), reading)
        is_json = isinstance(format, JsonFormat) and not format.is_framed
        self._json = format if is_json else self._plain_json
        self._csv = format if isinstance(format, CsvFormat) else CsvFormat(CsvSettings(), reading)

    def decode(self, run: Run, unit: str) -> Decoded:
        """Rows and rejects of neighbouring records; a reject's detail says how to decode it again."""
        values = _binary(run)
        positions = np.arange(run.first, run.first + len(run.ends), dtype=np.int64)
        if run.kind == "csv":
            decoded = self._csv.decode_headed(values, unit, positions, run.head)
        else:
            chosen: Any = {"json": self._json, "rows": self._plain_json}.get(run.kind, self._format)
            decoded = chosen.decode_messages(values, unit, positions)
        return _with_detail(decoded, run)

    def misfits(self, run: Run) -> tuple[list[tuple[int, list[str]]], Schema]:
        """Index and reasons of the records that would be rejects, and the columns that would be found."""
        if run.kind in ("json", "rows") and len(run.ends) <= _FEW:
            form = self._json if run.kind == "json" else self._plain_json
            if form.is_plain:
                starts = [0, *run.ends.tolist()]
                return form.misfits([run.data[a:b] for a, b in pairwise(starts)])
        decoded = self.decode(run, "")
        rejects = decoded.rejects.select(["_position", "_reasons"]).to_pylist()
        return [(reject["_position"] - run.first, reject["_reasons"]) for reject in rejects], decoded.found


class HttpSource:
    """Records that were posted to one stream, each exactly once, in the order in which they were acknowledged.

    A position is the record's number in the stream, from 0. JSON and CSV bodies are decoded as such whatever the
    table's format; rows of Avro and Arrow bodies are kept as JSON.
    """

    settings: ClassVar[type[Settings]] = HttpSettings
    traits: ClassVar[SourceTraits] = SourceTraits(replayable=True, ordered=True, bounded=False)

    def __init__(self, settings: HttpSettings, format: Format, reading: Reading) -> None:  # noqa: A002 - the port's word
        self._unit = unit_of(settings.stream)
        self._folder = log_folder(reading.lake, settings.stream)
        self._decoder = RecordDecoder(format, reading)
        self._format: Any = format
        self._log = LogReader(self._folder)
        self._planned = -1
        self._taken = Mark(reader_path(self._folder, reading.table), writable=True) if reading.table else None
        self._told = -1
        self._recovered = False

    @classmethod
    def declares(cls, settings: Settings) -> Schema | None:
        """Records have no columns of their own."""
        return None

    def sample(self) -> Schema:
        """Columns of the first records that are still there."""
        self._recover()
        first = self._log.begin()
        found: list[bytes] = []
        for run in self._log.runs(first, min(self._log.end(), first + _SAMPLE_RECORDS)):
            if run.kind != "csv":
                found += _binary(run).to_pylist()
        form = (
            self._format
            if isinstance(self._format, JsonFormat)
            else JsonFormat(JsonSettings(), Reading(Schema(), False, "add", ""))
        )
        return form.infer_messages(found, self._unit) if found else Schema()

    def plan(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        """The records that were acknowledged since."""
        self._recover()
        last = consumed.get(self._unit)
        identity = self._log.identity
        if last is not None:
            self._check(last, identity)
        end = self._log.end()
        first = last.end if last is not None else self._log.begin()
        self._tell(first)
        self._planned = first
        if first >= end:
            return []
        rows, size, start, place = 0, 0, None, None
        hint = Place(*last.facts["to"]) if last is not None else None
        for frame, at in self._log.frames(first, end, hint):
            if rows and (rows >= limit.rows_max or size + frame.size > limit.bytes_max):
                break
            start, place = start or at, at
            rows += min(frame.end, end) - max(frame.first, first)
            size += frame.size
        assert start is not None
        assert place is not None
        rows = min(rows, limit.rows_max)
        facts = {"log": identity, "from": [start.segment, start.offset], "to": [place.segment, place.offset]}
        self._planned = first + rows
        return [SourceRange(self._unit, first, first + rows, facts)]

    def read(self, planned: SourceRange) -> Iterator[Decoded]:
        """The records of a planned range."""
        self._recover()
        self._check(planned, self._log.identity)
        hint = Place(*planned.facts["from"]) if "from" in planned.facts else None
        for run in self._log.runs(planned.start, planned.end, hint):
            yield self._decoder.decode(run, self._unit)

    def finished(self, consumed: Mapping[str, SourceRange], now_us: int) -> bool:
        """Whether all that was acknowledged is taken in."""
        last = consumed.get(self._unit)
        return (last.end if last is not None else self._log.begin()) >= self._log.end()

    def wait(self, seconds: float) -> None:
        """Return when a record was acknowledged since the last plan, at the latest after that many seconds."""
        deadline = time.monotonic() + seconds
        while self._log.end() <= self._planned and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_GLANCE_S, left))

    def decode_raw(self, raw: bytes, unit: str, position: int, detail: str | None) -> Decoded:
        """One record as it came; see `Decoder.decode_raw`."""
        told = json.loads(detail) if detail else {}
        kind: Kind = next((k for k in KINDS if k == told.get("body")), "json")
        run = Run(position, kind, str(told.get("head", "")).encode(), raw, np.array([len(raw)], np.int64))
        return self._decoder.decode(run, unit)

    def close(self) -> None:
        """Let go of the marks; twice is harmless."""
        self._log.close()
        if self._taken is not None:
            self._taken.close()

    def _recover(self) -> None:
        if not self._recovered:
            recover_unserved(self._folder, LocalLogDisk())
            self._recovered = True

    def _check(self, last: SourceRange, identity: str | None) -> None:
        if last.facts.get("log", identity) != identity:
            raise DataLossRefused(
                "the stream's log is another one than before; put the old one back, or rebuild the table",
                stream=self._unit, folder=self._folder,
            )  # fmt: skip
        if last.end > self._log.end():
            raise DataLossRefused(
                "the stream's log has fewer records than were read; put the old one back, or rebuild the table",
                stream=self._unit, read=last.end, found=self._log.end(), folder=self._folder,
            )  # fmt: skip

    def _tell(self, first: int) -> None:
        """Tell the log's writer what the table has for good."""
        if self._taken is not None and self._told != first and self._log.identity is not None:
            with contextlib.suppress(TransientError):  # told again with the next plan
                self._taken.set(first)
                self._told = first


def unit_of(stream: str) -> str:
    """The unit of a stream's records."""
    return f"http/{stream}"


def _binary(run: Run) -> pa.BinaryArray:
    offsets = np.zeros(len(run.ends) + 1, np.int32)
    offsets[1:] = run.ends
    return pa.Array.from_buffers(pa.binary(), len(run.ends), [None, pa.py_buffer(offsets), pa.py_buffer(run.data)])


def _with_detail(decoded: Decoded, run: Run) -> Decoded:
    """Say in each reject how its record is written, unless it is JSON as it came."""
    if run.kind == "json" or not decoded.rejects.num_rows:
        return decoded
    told = {"body": run.kind} | ({"head": run.head.decode(errors="replace")} if run.head else {})
    detail = pa.repeat(pa.scalar(json.dumps(told), pa.string()), decoded.rejects.num_rows)
    at = decoded.rejects.schema.get_field_index("_detail")
    return Decoded(
        decoded.rows, decoded.rejects.set_column(at, decoded.rejects.schema.field(at), detail), decoded.found
    )


component = HttpSource
