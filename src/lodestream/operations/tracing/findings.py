"""What a trace finds, as values that say themselves in lines for people."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lodestream.operations.tracing.plain import number, safe, shown

_TEXT_SHOWN = 400


@dataclass(frozen=True)
class Written:
    """The batch that wrote a row, and what it was made by.

    Attributes:
        table: the table written.
        batch: number of the batch in its epoch.
        epoch: rebuild generation.
        version: Delta version of its commit; None when the log no longer has it.
        time: when, ISO 8601 UTC.
        kind: `data`, `no_data`, `replay` or `refresh`.
        attempt: which run of the batch it was.
        code: version of the software.
        hash: definition hash.
        declaration: the table's declaration as its metadata held it at that version.
        schema: columns of the table at that version, as (name, type).
        declared_at: file and line of the present declaration.
        changed_since: whether the present declaration is another one.
        counts: rows of the batch by disposition.
        pins: versions of lookup tables and query inputs that the batch read.
        upto: last upstream version that it read, -1 without upstream.
        notes: what is no longer known.
    """

    table: str
    batch: int
    epoch: int
    version: int | None = None
    time: str | None = None
    kind: str | None = None
    attempt: str | None = None
    code: str | None = None
    hash: str | None = None
    declaration: Mapping[str, Any] = field(default_factory=dict)
    schema: tuple[tuple[str, str], ...] = ()
    declared_at: str | None = None
    changed_since: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    pins: Mapping[str, int] = field(default_factory=dict)
    upto: int = -1
    notes: tuple[str, ...] = ()

    def lines(self, but: Collection[str] = ()) -> Iterator[str]:
        """Two lines or a few more; `but` names tables whose pinned version is told elsewhere."""
        version = "" if self.version is None else f", version {self.version}"
        attempt = "" if self.attempt is None else f", attempt {self.attempt}"
        kind = f" ({self.kind})" if self.kind else ""
        yield f"batch {self.batch}{kind}{version}, {self.time or 'time not known'}, epoch {self.epoch}{attempt}"
        where = (
            f" ({self.declared_at}, {'changed' if self.changed_since else 'unchanged'} since)"
            if self.declared_at
            else ""
        )
        software = f", lodestream {self.code}" if self.code else ""
        yield f"by definition {self.hash or 'not known'}{where}{software}"
        if self.changed_since and self.declaration:
            yield f"then declared as: {safe(json.dumps(self.declaration, ensure_ascii=False), 1000)}"
        if self.schema:
            yield "schema: " + ", ".join(f"{name} {kind}" for name, kind in self.schema)
        for table, pinned in ((table, pinned) for table, pinned in self.pins.items() if table not in but):
            yield f"read {table} at version {pinned}"
        yield from self.notes


@dataclass(frozen=True)
class Entry:
    """One quarantine entry.

    Attributes:
        source: unit of the source row.
        position: its position.
        kind: `quarantine`, `late`, `duplicate`, `dropped`, `late_window` or `resolved`.
        reasons: reason codes.
        rule: the first rule broken.
        that: the rules broken, as (name, condition, otherwise), by the declaration of that batch.
        batch: the batch that set the row aside.
        time: when.
        detail: more, decoded.
        row: the input row, decoded.
        raw: the record as it arrived, as text.
        state: `open`, `resolved` (a replay closed it), `superseded` (a later entry stands), `note`,
            or `not committed` while its batch is.
    """

    source: str
    position: int
    kind: str
    reasons: tuple[str, ...]
    rule: str | None
    that: tuple[tuple[str, str, str], ...]
    batch: int
    time: str | None
    detail: Any
    row: Mapping[str, Any] | None
    raw: str | None
    state: str

    def lines(self) -> Iterator[str]:
        """One to four lines."""
        reasons = f": {', '.join(safe(reason) for reason in self.reasons)}" if self.reasons else ""
        yield f"{self.kind}{reasons} – batch {self.batch}, {self.time}, {self.state}"
        for name, condition, otherwise in self.that:
            yield f"  rule {name}: {safe(condition)}, else {otherwise}"
        if self.row is not None:
            yield f"  row: {shown(self.row)}"
        if self.raw is not None:
            yield f"  raw: {safe(self.raw, _TEXT_SHOWN)}"


@dataclass(frozen=True)
class Absence:
    """Why a row is not in a table.

    Attributes:
        table: where it stopped.
        reason: `quarantine`, `late`, `duplicate`, `dropped`, `late_window`, `not_committed`, `not_read_yet`,
            `not_in_lake`, `unknown_unit`, `source_gone`, `blank`, `head`, `inside_a_record`, `beyond_the_end`,
            `window_open`, `waits_for_answer`, `not_refreshed`, `left_out`, `no_such_row`, `erased`, `unaccounted`.
        message: the same in a sentence.
        entries: quarantine entries that say so.
        next: what to type.
    """

    table: str
    reason: str
    message: str
    entries: tuple[Entry, ...] = ()
    next: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The sentence, the entries, what to type."""
        yield f"why: {safe(self.message, 1000)}"
        for entry in self.entries:
            yield from (f"  {line}" for line in entry.lines())
        yield from (f"next: {line}" for line in self.next)


@dataclass(frozen=True)
class LookedUp:
    """A row of a lookup table that a row was joined with: `row` is None where there was no match."""

    table: str
    version: int
    on: Mapping[str, Any]
    row: Mapping[str, Any] | None
    trace: str | None = None
    note: str | None = None

    def lines(self) -> Iterator[str]:
        """One or two lines."""
        found = shown(self.row) if self.row is not None else self.note or "no match"
        yield f"looked up in {self.table} at version {self.version} by {shown(self.on)}: {found}"
        if self.trace:
            yield f"  {self.trace}"


@dataclass(frozen=True)
class Hop:
    """One table on the way from a row to its source.

    Attributes:
        table: its name.
        source: unit of the source row; None for rows without position.
        position: its position.
        row: the row in this table, None when it is not there.
        written: its batch.
        lookups: what it was joined with.
        history: quarantine entries of the position, for a row that is in the table none the less.
    """

    table: str
    source: str | None = None
    position: int | None = None
    row: Mapping[str, Any] | None = None
    written: Written | None = None
    lookups: tuple[LookedUp, ...] = ()
    history: tuple[Entry, ...] = ()

    def lines(self) -> Iterator[str]:
        """A heading and what is known."""
        at = "" if self.source is None else f" {safe(self.source)}:{self.position}"
        yield f"{self.table}{at}" + ("" if self.row is not None else ": not there")
        if self.row is not None:
            yield f"  {shown({name: value for name, value in self.row.items() if name != '_raw'})}"
        if self.written is not None:
            yield from (f"  {line}" for line in self.written.lines({one.table for one in self.lookups}))
        for one in self.lookups:
            yield from (f"  {line}" for line in one.lines())
        for entry in self.history:
            yield from (f"  before: {line}" for line in entry.lines())


@dataclass(frozen=True)
class Record:
    """A record in the source itself.

    Attributes:
        source: name of the source component.
        unit: the unit.
        position: the position asked for.
        path: the file, relative to the project's folder where it lies in it.
        state: `there`, `gone`, `unknown`, `blank`, `head`, `inside` (of a record), `beyond` (the end),
            `not made` (yet) or `not kept` (by this kind of source).
        size: bytes of the record.
        text: its bytes as text, cut when long.
        row: what it decodes to with the table's columns.
        rejects: why it does not decode.
        schema: the columns it is decoded with, as (name, type).
        agrees: whether it still decodes to the row that the table holds; None when that cannot be said.
        unchanged: whether the bytes that were read then are the same now; None when that is not known.
        start: where the record begins that the position lies in.
        next: where the one after it begins.
        notes: more, in words.
    """

    source: str
    unit: str
    position: int
    state: str
    path: str | None = None
    size: int | None = None
    text: str | None = None
    row: Mapping[str, Any] | None = None
    rejects: tuple[str, ...] = ()
    schema: tuple[tuple[str, str], ...] = ()
    agrees: bool | None = None
    unchanged: bool | None = None
    start: int | None = None
    next: int | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """A heading, the bytes, what they decode to."""
        size = "" if self.size is None else f", {number(self.size, 'byte')}"
        where = f" {safe(self.path)}" if self.path else f" {safe(self.unit)}"
        state = "" if self.state == "there" else f": {self.state}"
        yield f"source {self.source}{where} at {self.position}{size}{state}"
        if self.text is not None:
            yield f"  {safe(self.text, _TEXT_SHOWN)}"
        if self.row is not None and self.text is None:
            yield f"  {shown(self.row)}"
        if self.rejects:
            yield f"  does not decode: {', '.join(self.rejects)}"
        if self.agrees is not None:
            yield "  it decodes to the row above" if self.agrees else "  it decodes to OTHER values than the row above"
        if self.unchanged is not None:
            yield (
                "  the file holds what was read then" if self.unchanged else "  the file has CHANGED since it was read"
            )
        if self.state in ("there", "blank") and self.schema:
            yield "  decoded as: " + ", ".join(f"{name} {kind}" for name, kind in self.schema)
        yield from (f"  {note}" for note in self.notes)
