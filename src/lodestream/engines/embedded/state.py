"""What a flow remembers between batches: positions, watermark, dedup keys, open windows and deletions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.deletions import Deletions
from lodestream.engines.embedded.sides import JoinState
from lodestream.engines.embedded.store import StateFile
from lodestream.engines.embedded.waiting import WaitingRows
from lodestream.engines.embedded.windows import OpenWindows
from lodestream.model.batch import SourceRange

_BASE_BYTES_MIN = 1 << 16
_BASE_OUTWEIGHED = 3  # bases cost a third of what links do; a start reads at most four times the base
_CHAIN_MAX = 500
_SEGMENT = "dedup."

DEDUP_SCHEMA = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("expiry_us", pa.int64())])
LEDGER_SCHEMA = pa.schema([("unit", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("facts", pa.string())])


@dataclass
class Changes:
    """What one batch adds to the state; proportional to the batch.

    `waiting` are rows that came and wait, `left` the numbers of earlier ones that went; `segments` are dedup keys that
    have no room in memory, as a base holds them.
    """

    dedup: pa.Table | None = None
    segments: list[pa.Table] = field(default_factory=list)
    windows: pa.Table | None = None
    join: dict[str, pa.Table] = field(default_factory=dict)
    deletions: pa.Table | None = None
    waiting: pa.Table | None = None
    left: pa.Table | None = None
    ledger: tuple[SourceRange, ...] = ()


@dataclass
class FlowState:
    """The state after batch `batch`.

    Attributes:
        max_event_us: largest event time of all batches so far, None before the first.
        late_us: W(batch): rows of the next batch at or before it are late.
        upto: last upstream version taken in, -1 before the first.
        joined_max_event_us, joined_upto: the same of the stream that is joined.
        pins: versions that the last refresh read.
        clock_us: time of the last batch.
        consumed: per source unit, where reading goes on.
        waiting: rows that wait for an answer.
        scattered: whether the table's open windows lie in files with closed ones, as Spark leaves them.
        answers: how many groups of answers the last batch counted; -1 in a flow that does not ask.
    """

    batch: int = 0
    max_event_us: int | None = None
    late_us: int = 0
    upto: int = -1
    joined_max_event_us: int | None = None
    joined_upto: int = -1
    pins: dict[str, int] = field(default_factory=dict)
    clock_us: int = 0
    consumed: dict[str, SourceRange] = field(default_factory=dict)
    dedup: DedupMap | None = None
    windows: OpenWindows | None = None
    join: JoinState | None = None
    waiting: WaitingRows = field(default_factory=WaitingRows)
    answers: int = -1
    deletions: Deletions | None = None
    chain_length: int = 0
    chain_bytes: int = 0
    base_bytes: int = 0
    last: str | None = None
    base: str | None = None
    scattered: bool = False

    def watermark(self, delay_us: int, joined_delay_us: int | None = None) -> int:
        """W of the next batch: what has been seen so far less the delay, in whole milliseconds, never backwards.

        Of two streams the one that is further behind counts, and one that has given nothing yet holds it where it is.
        """
        reached = [(self.max_event_us, delay_us)]
        if joined_delay_us is not None:
            reached.append((self.joined_max_event_us, joined_delay_us))
        marks = [(newest - delay) // 1000 * 1000 for newest, delay in reached if newest is not None]
        return max(self.late_us, min(marks)) if len(marks) == len(reached) else self.late_us

    def held(self) -> tuple[dict[str, int], int, int]:
        """How much of each kind is held, the bytes of memory that it takes, and those that lie in spilled files.

        Kinds are dedup `keys` (expired ones until they are swept out), open `windows`, rows `waiting` for a partner or
        `asking` a service, and `deletions`; those that the flow has no step for are left out.
        """
        rows: dict[str, int] = {}
        held = spilled = 0
        if self.dedup is not None:
            rows["keys"] = len(self.dedup)
            held, spilled = self.dedup.nbytes, self.dedup.spilled
        if self.windows is not None:
            rows["windows"] = len(self.windows.table)
            held, spilled = held + self.windows.nbytes, spilled + self.windows.spilled
        if self.join is not None:
            sides = (self.join.here, self.join.there)
            rows["waiting"] = sum(map(len, sides))
            held += sum(side.nbytes for side in sides)
            spilled += sum(side.spilled for side in sides)
        if self.answers >= 0:
            rows["asking"] = len(self.waiting)
            held += self.waiting.table.nbytes if self.waiting.table is not None else 0
        if self.deletions is not None:
            rows["deletions"] = len(self.deletions.table)
            held += self.deletions.table.nbytes
        return rows, held, spilled

    def joined(self) -> dict[str, Any]:
        """What a commit says of the other stream of a join, and of how many rows it has given; nothing without one."""
        if self.join is None:
            return {}
        return {
            "joined_upto": self.joined_upto, "joined_max_event_us": self.joined_max_event_us, "given": self.join.given
        }  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """The small values as JSON; the sections hold the rest."""
        found = {
            "max_event_us": self.max_event_us, "late_us": self.late_us, "upto": self.upto, "pins": self.pins,
            "clock_us": self.clock_us,
            **({} if self.join is None else {
                "joined_max_event_us": self.joined_max_event_us, "joined_upto": self.joined_upto,
                "joined_given": self.join.given,
            }),
        }  # fmt: skip
        return found if self.answers < 0 else found | {"answers": self.answers, "entered": self.waiting.entered}

    def link(self, table_id: str, epoch: int, attempt: str, changes: Changes) -> StateFile:
        """The chain's next link: the changes, or a new base once the chain outweighs the last base."""
        make_base = self.last is None or self.chain_length >= _CHAIN_MAX or (
            self.chain_bytes > _BASE_OUTWEIGHED * max(_BASE_BYTES_MIN, self.base_bytes)
        )  # fmt: skip
        if make_base:
            changes = self._everything()
        sections = {}
        if changes.dedup is not None and len(changes.dedup):
            sections["dedup"] = changes.dedup
        sections |= {f"{_SEGMENT}{i}": table for i, table in enumerate(changes.segments)}
        if changes.windows is not None and len(changes.windows):
            sections["windows"] = changes.windows
        sections |= {name: table for name, table in changes.join.items() if len(table)}
        waiting = {"waiting": changes.waiting, "left": changes.left}
        sections |= {name: rows for name, rows in waiting.items() if rows is not None and len(rows)}
        if changes.deletions is not None and len(changes.deletions):
            sections["deletions"] = changes.deletions
        if changes.ledger:
            sections["ledger"] = _ledger_table(changes.ledger)
        previous = None if make_base else self.last
        return StateFile(table_id, epoch, self.batch, attempt, previous, self.facts(), sections)

    def linked(self, link: StateFile, size: int) -> None:
        """Remember that `link` of `size` bytes is now the end of the chain."""
        if link.previous is None:
            self.base, self.base_bytes, self.chain_bytes, self.chain_length = link.name, size, 0, 0
        else:
            self.chain_bytes, self.chain_length = self.chain_bytes + size, self.chain_length + 1
        self.last, self.scattered = link.name, False

    def _everything(self) -> Changes:
        dedup, segments = None, list[pa.Table]()
        if self.dedup is not None:
            columns, segments = self.dedup.stored(self.late_us)
            dedup = pa.table(list(columns), schema=DEDUP_SCHEMA)
        windows = self.windows.table if self.windows is not None else None
        join = self.join.everything() if self.join is not None else {}
        deletions = self.deletions.stored() if self.deletions is not None else None
        ledger = tuple(self.consumed.values())
        return Changes(dedup, segments, windows, join, deletions, self.waiting.table, None, ledger)

    def apply(self, link: StateFile) -> None:
        """Take in one stored link; called for each link of a chain in order."""
        facts = link.facts
        self.batch = link.batch
        self.max_event_us, self.late_us = facts["max_event_us"], facts["late_us"]
        self.upto, self.pins, self.clock_us = facts["upto"], facts["pins"], facts["clock_us"]
        if "answers" in facts:
            self.answers = facts["answers"]
            self.waiting.apply(link.sections.get("waiting"), link.sections.get("left"), facts["entered"])
        if "ledger" in link.sections:
            for row in link.sections["ledger"].to_pylist():
                self.consumed[row["unit"]] = SourceRange(
                    row["unit"], row["start"], row["end"], json.loads(row["facts"])
                )
        if self.dedup is not None:
            for name, stored in link.sections.items():
                if name.startswith(_SEGMENT):
                    self.dedup.load_segment(stored, self.late_us)
            for keys in link.sections["dedup"].to_batches(1 << 20) if "dedup" in link.sections else ():
                columns = [keys.column(name).to_numpy() for name in ("high", "low", "expiry_us")]
                self.dedup.load(columns[0], columns[1], columns[2], self.late_us)
        if self.windows is not None:
            if "windows" in link.sections:
                self.windows.upsert(link.sections["windows"])
            self.windows.close(self.late_us)
        if self.join is not None:
            self.joined_max_event_us, self.joined_upto = facts["joined_max_event_us"], facts["joined_upto"]
            self.join.given = facts["joined_given"]
            self.join.apply(link.sections, self.late_us)
        if self.deletions is not None:
            if "deletions" in link.sections:
                self.deletions.load(link.sections["deletions"])
            self.deletions.forget(self.late_us)
        self.linked(link, 0)


def _ledger_table(ranges: tuple[SourceRange, ...]) -> pa.Table:
    return pa.table(
        [
            [r.unit for r in ranges],
            [r.start for r in ranges],
            [r.end for r in ranges],
            [json.dumps(dict(r.facts), sort_keys=True) for r in ranges],
        ],
        schema=LEDGER_SCHEMA,
    )
