"""One stream: the table that reads it, its log, and the check of records before they are acknowledged."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from lodestream.drivers.record_log.disk import LogDisk
from lodestream.drivers.record_log.layout import log_folder, reader_path, segment_path, segments
from lodestream.drivers.record_log.marks import Mark
from lodestream.drivers.record_log.reader import Run
from lodestream.drivers.record_log.writer import LogWriter
from lodestream.engines.embedded.drift import drifted
from lodestream.formats.csv import CsvFormat
from lodestream.model.steps import FlowPlan, ReadSource
from lodestream.model.types import Schema
from lodestream.ports.plugins import Resolve, load
from lodestream.ports.registry import SchemaRegistry
from lodestream.ports.source import Reading
from lodestream.project.serving import IngestSettings
from lodestream.project.values import parse_duration
from lodestream.sources.http import HttpSettings, RecordDecoder

_MERGED_BYTES = 1 << 16

Bad = list[tuple[int, list[str]]]
"""Index and reasons of each record that would not become a row."""


class Checker:
    """Decodes records as the table will, to say before the answer which would not become rows.

    Args:
        plan: the table's flow.
        resolve: puts values in the place of references.
        registry: opens a schema registry.
        root: project folder.
        schema: the columns to decode to.
    """

    def __init__(
        self, plan: FlowPlan, resolve: Resolve, registry: Callable[[str], SchemaRegistry], root: str, schema: Schema
    ) -> None:
        first = plan.steps[0]
        assert isinstance(first, ReadSource)
        reserved = frozenset(name.lower() for name in plan.schema.names)
        self._reading = Reading(
            schema, keep_raw=False, drift=first.drift, root=root, reserved=reserved, registry=registry
        )
        form = load("formats", first.format.name)
        settings = form.settings(**resolve(first.format.settings))
        self._make: Callable[[Reading], Any] = lambda reading: form(settings, reading)
        self.format_settings = dict(first.format.settings)
        self._begin(self._reading)

    @property
    def schema(self) -> Schema:
        """The columns, with what drift has shown since the start."""
        return self._reading.schema

    def bad(self, run: Run) -> Bad:
        """The records that would not become rows, in order; columns that drift allows are taken in.

        Raises:
            ConfigError: drift is `stop` and the records show a field or type that the columns do not have.
            TransientError: what decoding needs does not answer.
        """
        bad, found = self._decoder.misfits(run)
        if len(found):
            self._begin(replace(self._reading, schema=drifted(self._reading.schema, found)))
            bad, _ = self._decoder.misfits(run)
        return bad

    def _begin(self, reading: Reading) -> None:
        form = self._make(reading)
        is_csv = isinstance(form, CsvFormat)
        self.delimiter = str(self.format_settings.get("delimiter", ",")) if is_csv else ","
        self.csv_header = bool(self.format_settings.get("header", True)) if is_csv else True
        self._reading, self._decoder = reading, RecordDecoder(form, reading)


@dataclass(frozen=True, slots=True)
class Volume:
    """Records up to a sequence number, and their bytes."""

    end: int
    size: int


class Stream:
    """One stream of the server.

    Args:
        plan: flow of the table that reads it.
        settings: of the table's source.
        bounds: of ingest.
        checker: of records.
        writer: of the log.
    """

    def __init__(
        self, plan: FlowPlan, settings: HttpSettings, bounds: IngestSettings, checker: Checker, writer: LogWriter
    ) -> None:
        self.name = settings.stream
        self.table = plan.table
        self.checker = checker
        self.writer = writer
        self._bounds = bounds
        self._keep_us = max(parse_duration(settings.keep), parse_duration(bounds.answers_kept))
        self._taken = Mark(reader_path(writer.folder, str(plan.table.name)), writable=False)
        self._waiting: deque[Volume] = deque()
        self._waiting_bytes = 0
        self._count_waiting()

    @property
    def consumed(self) -> int:
        """The sequence number after the last record that the table has for good."""
        return self._taken.get()

    def note(self, end: int, size: int) -> None:
        """Records up to `end` were acknowledged, `size` bytes of them."""
        self._waiting_bytes += size
        if self._waiting and self._waiting[-1].size < _MERGED_BYTES:
            size += self._waiting.pop().size
        self._waiting.append(Volume(end, size))

    def _count_waiting(self) -> None:
        """What a server before us left, by the sizes of the log's files."""
        starts, consumed = segments(self.writer.folder), self.consumed
        for first, following in pairwise([*starts, self.writer.end]):
            if following > max(first, consumed):
                share = (following - max(first, consumed)) / (following - first)
                self.note(following, int(_size(self.writer.folder, first) * share))

    def backlog_bytes(self) -> int:
        """Bytes that the table has not taken in, to within some 64 KiB."""
        consumed = self.consumed
        while self._waiting and self._waiting[0].end <= consumed:
            self._waiting_bytes -= self._waiting.popleft().size
        return self._waiting_bytes

    def wait_s(self) -> float:
        """0 when records may come, else the seconds after which they may."""
        if self.writer.queued_bytes >= self._bounds.queue_bytes_max:
            return 1.0
        return 5.0 if self.backlog_bytes() >= self._bounds.backlog_bytes_max else 0.0

    def retire(self, now_us: int) -> int:
        """Remove files of the log whose records the table has and that are old enough. Returns how many."""
        return self.writer.retire(self.consumed, now_us - self._keep_us)

    def kept_bytes(self) -> int:
        """Bytes of the log on disk."""
        return sum(_size(self.writer.folder, first) for first in segments(self.writer.folder))

    def close(self) -> None:
        """Finish what waits, and let go."""
        self.writer.close()
        self._taken.close()


def open_stream(
    plan: FlowPlan, root: str, lake: str, bounds: IngestSettings, disk: LogDisk, clock: Callable[[], int],
    new_identity: Callable[[], str], resolve: Resolve, registry: Callable[[str], SchemaRegistry],
) -> Stream:  # fmt: skip
    """Open the stream that feeds a table.

    Raises:
        ConflictError: another process serves it.
        CorruptionError: its log is damaged.
    """
    first = plan.steps[0]
    assert isinstance(first, ReadSource)
    settings = HttpSettings(**resolve(first.source.settings))
    checker = Checker(plan, resolve, registry, root, first.schema)
    writer = LogWriter(
        log_folder(lake, settings.stream), disk, clock, new_identity(),
        segment_bytes=bounds.segment_bytes, answers_kept_us=parse_duration(bounds.answers_kept),
    )  # fmt: skip
    return Stream(plan, settings, bounds, checker, writer)


def _size(folder: str, first: int) -> int:
    try:
        return os.path.getsize(segment_path(folder, first))
    except FileNotFoundError:
        return 0
