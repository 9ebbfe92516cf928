"""Every answer that a flow ever got, by question: durable before it is used, so that nothing is asked twice.

The ledger is a Delta table of the flow's own, beside its plans. Entries come in numbered groups; a batch plan says how
many groups count, so that a batch which runs again finds the same answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import uuid
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.errors import ConflictError, LodestreamError
from lodestream.lake.actions import ERASE, AddFile, RemoveFile
from lodestream.lake.crash import point
from lodestream.lake.disk import Disk
from lodestream.lake.layout import flow_folder
from lodestream.lake.rewrite import Mask, rewrite
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import BIGINT, INT, STRING, TIMESTAMP, Column, Schema

APPLICATION = "lodestream/answers"
_SCHEMA = Schema(
    (
        Column("question", STRING, comment="32 hex digits over what was asked and the enricher's version"),
        Column("answer", STRING, comment="the answer as it came; empty when there is none"),
        Column("refusal", STRING, comment="why there is none"),
        Column("epoch", BIGINT, comment="the rebuild generation that asked"),
        Column("group", BIGINT, comment="number of the group; batches count groups"),
        Column("tries", INT, comment="how often it was asked"),
        Column("answered_at", TIMESTAMP),
    )
)
_FILES_MAX = 256
_CHECKPOINT_EVERY = 100
_VERSIONS_KEPT = 200
_DAY_US = 86_400_000_000
_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Entry:
    """What a question came to: `answer` or `refusal`, after so many tries."""

    question: str
    answer: str | None
    refusal: str | None
    tries: int


@dataclass(frozen=True, slots=True)
class Known:
    """An entry as it is looked up: it counts for batches that count more than `group` groups."""

    group: int
    answer: str | None
    refusal: str | None


def question_key(enricher: str, version: str, question: str) -> str:
    """The identity of a question: 32 hex digits over the enricher, its version and the content."""
    content = "\0".join((enricher, version, question)).encode()
    return hashlib.sha256(content).hexdigest()[:32]


def ledger_path(lake: str, table: TableName) -> str:
    """Folder of a flow's answers; rebuilds of the table keep it."""
    return os.path.join(flow_folder(lake, table), "answers")


class Ledger:
    """The answers of one flow, all questions in memory.

    `refresh`, `known` and `upto` are for the flow's thread, `record` and `tidy` for the one that records; they may be
    two. Several processes may record: each group has one number.

    Args:
        disk: the seam for every effect.
        lake: root folder of the lake.
        table: the flow's table.
        epoch: of the flow; a refusal of an earlier one counts no more, so that a rebuild asks again.
        clock: microseconds since 1970 UTC.
    """

    def __init__(self, disk: Disk, lake: str, table: TableName, epoch: int, clock: Callable[[], int]) -> None:
        self._epoch, self._clock = epoch, clock
        self._table = DeltaTable.create(
            disk, ledger_path(lake, table), _SCHEMA, table_id=str(uuid.uuid4()), clock_us=clock()
        )
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._order: list[str] = []
        self._groups: list[int] = []
        self._upto = 0
        self._version = self._table.snapshot.version
        self._checkpointed = self._version
        self._take(self._table.files())

    @property
    def upto(self) -> int:
        """How many groups there are."""
        return self._upto

    def known(self, question: str, upto: int) -> Known | None:
        """What a question came to within the first `upto` groups."""
        found = self._known.get(question)
        return found if found is not None and found.group < upto else None

    def between(self, after: int, upto: int) -> set[str]:
        """The questions that were answered in the groups `after` <= group < `upto`."""
        return set(self._order[bisect_left(self._groups, after) : bisect_left(self._groups, upto)])

    def has(self, question: str) -> bool:
        """Whether a question needs no asking any more."""
        return question in self._known

    def refresh(self) -> int:
        """Take in what was recorded since, by whomever; the number of groups."""
        with self._lock:
            self._refresh()
            return self._upto

    def _refresh(self) -> None:
        table = self._table
        version = table.refresh().version
        if version == self._version:
            return
        try:
            adds = [add for commit in table.commits(self._version, version) for add in commit.adds if add.data_change]
            self._take(adds)
        except LodestreamError:  # compacted and cleaned up since: all that counts is in the live files
            self._take(table.files())
        self._version = version

    def _take(self, adds: Iterable[AddFile]) -> None:
        rows = self._table.read(adds, columns=["question", "answer", "refusal", "epoch", "group"])
        for row in rows.sort_by("group").to_pylist():
            self._upto = max(self._upto, row["group"] + 1)
            counts = row["refusal"] is None or row["epoch"] == self._epoch
            if counts and row["question"] not in self._known:
                self._known[row["question"]] = Known(row["group"], row["answer"], row["refusal"])
                self._order.append(row["question"])
                self._groups.append(row["group"])

    def record(self, entries: Sequence[Entry]) -> None:
        """Make entries durable as one group; they are known when this returns.

        Raises:
            TransientError: the disk is full; nothing was recorded.
        """
        count, attempt = len(entries), uuid.uuid4().hex[:8]
        while True:
            with self._lock:
                self._refresh()
                group = self._table.snapshot.txns.get(APPLICATION, 0)
            now_us = self._clock()
            rows = pa.table(
                [
                    [entry.question for entry in entries],
                    pa.array([entry.answer for entry in entries], pa.string()),
                    pa.array([entry.refusal for entry in entries], pa.string()),
                    pa.array([self._epoch] * count, pa.int64()),
                    pa.array([group] * count, pa.int64()),
                    pa.array([entry.tries for entry in entries], pa.int32()),
                    pa.array([now_us] * count, pa.timestamp("us", tz="UTC")),
                ],
                names=_SCHEMA.names,
            )
            staged = self._table.stage(rows, name=f"{group}-{attempt}")
            try:
                refused = sum(entry.refusal is not None for entry in entries)
                info = {
                    "answers": count - refused, "refusals": refused, "tries": sum(entry.tries for entry in entries)
                }  # fmt: skip
                point("answers.before")
                self._table.commit(adds=staged.adds, txn=(APPLICATION, group + 1), info=info, clock_us=now_us)
            except ConflictError:  # another process recorded its own group under this number
                self._table.discard(staged.adds)
                attempt = uuid.uuid4().hex[:8]
                continue
            except LodestreamError:
                with contextlib.suppress(LodestreamError):
                    self._table.discard(staged.adds)
                raise
            point("answers.after")
            self.refresh()
            return

    def erase(self, questions: Collection[str]) -> None:
        """Take entries out, durably; whoever has them in memory keeps them until it opens the ledger again."""
        wanted = pa.array(sorted(questions), pa.string())

        def hit(rows: pa.Table) -> Mask:
            found: Mask = pc.is_in(rows.column("question"), value_set=wanted).to_numpy()
            return found

        while len(questions):
            with self._lock:
                self._refresh()
            adds, removes = rewrite(self._table, hit, ["question"], f"erased-{uuid.uuid4().hex[:8]}")
            try:
                if removes:
                    self._table.commit(adds=adds, removes=removes, clock_us=self._clock(), operation=ERASE)
                return
            except ConflictError:  # files were put together meanwhile
                self._table.discard(adds)

    def tidy(self) -> None:
        """Keep the ledger short: few files, few log entries. Nothing hangs on it."""
        table = self._table
        with contextlib.suppress(LodestreamError, FileNotFoundError):
            live = [add for add in table.files() if (add.num_records or 0) < 10_000]
            if len(live) >= _FILES_MAX:
                self._compact(live)
            if table.snapshot.version - self._checkpointed >= _CHECKPOINT_EVERY:
                self._checkpointed = table.checkpoint(self._clock())
                table.clean_log(
                    keep_versions=_VERSIONS_KEPT, needed_from=table.snapshot.version,
                    older_than_us=self._clock() - _DAY_US,
                )  # fmt: skip

    def _compact(self, live: Sequence[AddFile]) -> None:
        table = self._table
        staged = table.stage(table.read(live), name=f"compacted-{uuid.uuid4().hex[:8]}")
        try:
            table.commit(
                adds=[replace(add, data_change=False) for add in staged.adds],
                removes=[RemoveFile.of(add, data_change=False) for add in live],
                clock_us=self._clock(), operation="OPTIMIZE",
            )  # fmt: skip
        except LodestreamError:
            table.discard(staged.adds)
            raise
        old_ms = self._clock() // 1000 - _MINUTE_MS
        for path, removed in table.snapshot.tombstones.items():
            if removed.deletion_time < old_ms:
                with contextlib.suppress(FileNotFoundError):
                    table.disk.unlink(os.path.join(table.path, path))


def totals(disk: Disk, lake: str, table: TableName) -> dict[str, int] | None:
    """Of a flow's whole ledger: `questions`, `answers`, `refusals` and `tries`; None when it never asked.

    Raises:
        CorruptionError: the ledger is damaged.
    """
    standing = DeltaTable.open(disk, ledger_path(lake, table))
    if standing is None:
        return None
    rows = standing.read(standing.files(), columns=["refusal", "tries"])
    refused = len(rows) - rows.column("refusal").null_count
    tries = sum(rows.column("tries").to_pylist())
    return {"questions": len(rows), "answers": len(rows) - refused, "refusals": refused, "tries": tries}
