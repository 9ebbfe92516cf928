"""The audit log: who did what, on whose data, and whether they were let; appended to, never changed."""

from __future__ import annotations

import atexit
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lodestream.catalog.anchors import Anchors
from lodestream.catalog.audit_table import Wanted, every, first, head, insert, place_of, stands, wanted_records
from lodestream.catalog.chain import START, Break, Checked, Record, body, check, digest_of
from lodestream.catalog.lineage import Reader
from lodestream.catalog.redaction import without_values
from lodestream.catalog.usage import readers
from lodestream.drivers.database import Database, Rows
from lodestream.errors import LodestreamError, TransientError
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.ports.authority import Event
from lodestream.ports.waiting import before_waiting

READS = frozenset(
    [
        "query", "answer", "failed", "read", "describe", "tables", "schema", "history", "stats", "search", "lineage",
        "quality", "changes", "quarantine", "audit",
    ]
)  # fmt: skip
"""Actions that change nothing: they are let go on while their records are on the way to the disk."""

ANCHOR_RECORDS = 1_000
ANCHOR_S = 10.0
_GATHER_S = 0.03
_RETRY_S = 0.5
_BATCH_MAX = 4_096
_QUEUE_MAX = 2_000
_TEXT_MAX = 1_000
_SPOKEN = ("sql", "reason", "error")

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Verified:
    """What `AuditLog.verify` found.

    Attributes:
        records: how many are right, counted from the first.
        anchors: how many signed anchors are right.
        unanchored: how many of the newest no anchor vouches for yet.
        problems: what is wrong, the first record that is not as it was before all; empty for a log that is whole.
    """

    records: int
    anchors: int
    unanchored: int
    problems: tuple[Break, ...] = ()


@dataclass(slots=True)
class _Entry:
    """An event on its way, or only a place in the queue; `done` is set for who waits, with what went wrong."""

    time_us: int = 0
    principal: str = ""
    action: str = ""
    decision: str = ""
    told: str = ""
    content: bytes = b""
    changes: bool = False
    done: threading.Event | None = None
    error: LodestreamError | None = None


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A commit of which nobody knows whether it went through: its head, and how many of what is left were in it."""

    head: tuple[int, str]
    count: int


class AuditLog:
    """Writes and reads one log. Every method may be called from any thread.

    What changes something is durable, and anchored, when `record` returns. A read is durable within 50 ms: a
    background thread commits all that gathered meanwhile at once. When a commit fails, what was accepted is kept
    and tried again, and every further `record` waits for a commit of its own or is refused, so nothing is done
    unrecorded from then on. Processes share a log: the database lets one at a time append.

    Args:
        database: whose tables were made with `tables`; the log's own connection, so that nobody waits for its syncs.
        anchors: key and anchors of the lake.
        clock: microseconds since 1970 UTC.
        reading: another connection, so that who reads the log keeps nobody from writing it.
    """

    def __init__(
        self, database: Database, anchors: Anchors, clock: Callable[[], int], reading: Database | None = None
    ) -> None:
        self._database = database
        self._reading = reading or database
        self._anchors = anchors
        self._clock = clock
        self._condition = threading.Condition()
        self._queue: list[_Entry] = []
        self._left: list[_Entry] = []
        self._doubt: _Doubt | None = None
        self._idle = False
        self._begun = False
        self._proved = False
        self._failed: str | None = None
        self._loose = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._head = (0, START)
        self._anchored = (0, 0.0)

    def record(self, event: Event) -> None:
        """Append an event.

        Raises:
            TransientError: it cannot be written, so what was asked must not be done.
        """
        entry = self._entry(event, self._clock())
        self._submit(entry, wait=entry.changes and event.decision == "allowed")

    def append(self, rows: Rows, events: Sequence[Event], at_us: int) -> None:
        """Append within a transaction of the same database: the events stand when, and only when, it commits.

        Call `settle` when it has.

        Raises:
            TransientError: the log cannot be anchored, so what was asked must not be done.
        """
        if self._loose:
            self._anchor(now=True)
        self._write(rows, [self._entry(event, at_us) for event in events])

    def settle(self) -> None:
        """Have what `append` wrote anchored soon; it stands already, so this waits for nothing and cannot fail."""
        self._submit(_Entry(changes=True), wait=None)

    def flush(self) -> None:
        """Wait until all that was accepted is durable. Raises TransientError when it cannot be written."""
        if self._thread is not None:
            self._submit(_Entry(), wait=True)

    def failing(self) -> dict[str, str]:
        """Why nothing can be asked or changed now, because it could not be written down; nothing when it can."""
        return {} if self._failed is None else {"audit": self._failed}

    def close(self) -> None:
        """Write and anchor what is left, and let go of the database; twice is harmless."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        atexit.unregister(self.close)
        self._database.close()
        self._reading.close()

    def records(self, wanted: Wanted) -> list[Record]:
        """Records that are wanted, newest first."""
        return wanted_records(self._reading, wanted)

    def readers(self, schemas: Mapping[TableName, Schema]) -> list[Reader]:
        """Who read which of these tables; see `usage.readers`."""
        return readers(self._reading, schemas)

    def verify(self, copy: str | None = None) -> Verified:
        """Check every record against the one before it, and the chain against the signed anchors.

        Args:
            copy: anchors that were kept elsewhere, to check against in place of the lake's own.

        Raises:
            ConfigError: the copy cannot be read.
        """
        read = self._anchors.read(copy)
        checked = check(every(self._reading), read.anchors, lambda digest: place_of(self._reading, digest))
        problems = [checked.broken] if checked.broken is not None else []
        if read.problem is not None:
            problems.append(Break(checked.anchored + 1, "anchor", read.problem))
        elif checked.broken is None and (lost := _lost_anchors(checked, [anchor.seq for anchor in read.anchors])):
            problems.append(lost)
        return Verified(checked.records, len(read.anchors), checked.records - checked.anchored, tuple(problems))

    def _entry(self, event: Event, at_us: int) -> _Entry:
        principal, action = _clean(event.principal), _clean(event.action)
        told = _ENCODE(
            {
                "via": event.via,
                "door": event.door,
                "objects": list(event.objects),
                "policies": list(event.policies),
                "catalog_version": event.catalog_version,
                "detail": _detail(event.detail),
            }
        )
        content = body(at_us, principal, action, event.decision, told)
        return _Entry(at_us, principal, action, event.decision, told, content, event.action not in READS)

    def _write(self, rows: Rows, entries: Sequence[_Entry]) -> tuple[int, str]:
        """Chain entries to the head; the new head."""
        seq, previous = head(rows)
        made: list[Record] = []
        for entry in entries:
            if entry.content:
                seq += 1
                digest = digest_of(seq, previous, entry.content)
                who, what = entry.principal, entry.action
                made.append(Record(seq, entry.time_us, who, what, entry.decision, entry.told, previous, digest))
                previous = digest
        insert(rows, made)
        return seq, previous

    def _submit(self, entry: _Entry, *, wait: bool | None) -> None:
        """Hand an entry to the writer; wait for its commit when asked, or, unless None, when commits fail or lag."""
        with self._condition:
            if self._closed:
                raise TransientError("audit log is closed")
            if wait or (wait is not None and (not self._proved or len(self._queue) >= _QUEUE_MAX)):
                before_waiting()
                entry.done = threading.Event()
            self._queue.append(entry)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            elif self._idle or entry.done is not None:
                self._condition.notify_all()
        if entry.done is not None:
            entry.done.wait()
            if entry.error is not None:
                told = str(entry.error)
                raise TransientError("audit log cannot be written, so nothing is done", reason=told) from entry.error

    def _run(self) -> None:
        """The writer: takes what has gathered, commits it, anchors when it is time."""
        batch: list[_Entry] = []
        try:
            while (batch := self._gathered()) or not self._closed:
                if batch or self._left:
                    self._commit(batch)
                else:
                    self._anchor_late()
            if self._left:
                self._commit([])
            self._anchor_late()
        except BaseException:  # a bug must not leave anybody waiting, nor let reads go on unrecorded
            with self._condition:
                self._proved = False
                _release([*batch, *self._queue], TransientError("audit log has stopped"))
                self._queue.clear()
            raise

    def _gathered(self) -> list[_Entry]:
        """What is to be committed next; empty when it is time to try again or to anchor, or when the log is closed."""
        with self._condition:
            if not self._queue and not self._closed:
                self._idle = True
                self._condition.wait(_RETRY_S if self._left else self._until_anchor())
                self._idle = False
            if self._queue:
                self._condition.wait_for(self._urgent, _GATHER_S)
            batch, self._queue = self._queue[:_BATCH_MAX], self._queue[_BATCH_MAX:]
        return batch

    def _urgent(self) -> bool:
        """Whether somebody waits for what is in the queue, or it is the last there is."""
        return self._closed or any(entry.done is not None for entry in self._queue)

    def _commit(self, batch: list[_Entry]) -> None:
        try:
            self._store(batch)
            self._anchor(now=any(entry.changes for entry in batch))
        except LodestreamError as error:
            self._proved, self._failed = False, error.message
            _release(batch, error)
            return
        self._proved, self._failed = True, None
        _release(batch, None)

    def _store(self, batch: list[_Entry]) -> None:
        """Make a batch durable, behind what is left of those before; keep what nobody waits for when it fails."""
        entries = [*self._left, *batch]
        try:
            if not self._begun:
                self._begin()
            with self._anchors.turn(), self._database.write() as rows:
                if self._doubt is not None and stands(rows, *self._doubt.head):  # that try went through after all
                    entries = entries[self._doubt.count :]
                made = self._write(rows, entries)
                self._doubt = _Doubt(made, sum(entry.done is None for entry in entries))
        except BaseException:
            self._left = [entry for entry in entries if entry.done is None]
            raise
        self._left, self._doubt, self._head = [], None, made

    def _begin(self) -> None:
        """Write the first record of a new log, and its anchor.

        Only where neither key nor anchors were is the first record anchored: a log whose anchors were taken away must
        not pass for a new one.
        """
        with self._database.write() as rows:
            if head(rows)[0] == 0:
                self._write(rows, [self._entry(Event("lodestream", "", "", "begin", "allowed"), self._clock())])
            seq, digest = head(rows)
            first_digest = first(rows)
        with self._anchors.held():
            if self._anchors.fresh and first_digest is not None:
                self._anchors.add(1, first_digest, self._clock())
            newest = self._anchors.newest()
            if newest is None or newest.seq < seq:
                self._anchors.add(seq, digest, self._clock())
        self._begun = True

    def _anchor(self, *, now: bool) -> None:
        """Anchor the head when enough has happened since the last anchor, or `now`."""
        seq, digest = self._head
        if now or seq - self._anchored[0] >= ANCHOR_RECORDS or time.monotonic() - self._anchored[1] >= ANCHOR_S:
            self._loose = True
            with self._anchors.held():
                newest = self._anchors.newest()
                if newest is None or newest.seq < seq:
                    self._anchors.add(seq, digest, self._clock())
            self._anchored = seq, time.monotonic()
            self._loose = False

    def _anchor_late(self) -> None:
        """Anchor what came last, when nothing came for a while or nothing more will come."""
        late = self._until_anchor()
        if late is not None and (late <= 0 or self._closed):
            try:
                self._anchor(now=True)
            except LodestreamError:
                self._proved = False
                self._anchored = self._anchored[0], time.monotonic()

    def _until_anchor(self) -> float | None:
        """Seconds until the head must be anchored; None when it is."""
        if self._head[0] <= self._anchored[0]:
            return None
        return max(0.0, self._anchored[1] + ANCHOR_S - time.monotonic())


def _detail(detail: Mapping[str, str | int | float | None]) -> dict[str, Any]:
    """The facts without what may be a value of somebody's data: literals of a query's text and of an error's."""
    found: dict[str, Any] = {}
    for name, value in detail.items():
        if isinstance(value, str):
            found[name] = without_values(value) if name in _SPOKEN else value[:_TEXT_MAX]
        else:
            found[name] = str(value) if isinstance(value, float) and not math.isfinite(value) else value
    return found


def _release(entries: Iterable[_Entry], error: LodestreamError | None) -> None:
    for entry in entries:
        if entry.done is not None:
            entry.error = error
            entry.done.set()


def _lost_anchors(checked: Checked, anchored: Sequence[int]) -> Break | None:
    if not anchored:
        message = "every anchor is missing, so nobody can tell whether records were"
        return Break(1, "anchor", message) if checked.records else None
    if min(anchored) > 1:
        return Break(1, "anchor", f"the anchors before record {min(anchored)} are missing")
    return None


def _clean(text: str) -> str:
    """Text that any database takes."""
    return text[:_TEXT_MAX].encode("utf-8", "replace").decode().replace("\0", "\ufffd")
