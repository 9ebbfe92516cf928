"""What one batch is: its inputs, watermarks and clock, fixed before it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

BatchKind = Literal["data", "no_data", "replay", "refresh", "erase"]


@dataclass(frozen=True, slots=True)
class SourceRange:
    """Records `start <= position < end` of one unit (a file, a partition) of a source.

    Attributes:
        unit: the unit's id; it becomes the rows' `_source`.
        start: first position: a byte offset for line files, a row number for Parquet, an index for a generator.
        end: first position after the range; the next range of this unit starts here.
        facts: what the source must remember of the unit (size, times, content hashes), JSON values.
    """

    unit: str
    start: int
    end: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """How much one batch may take in: whichever bound is met first ends it (at least one record is taken)."""

    rows_max: int = 500_000
    bytes_max: int = 32 << 20


@dataclass(frozen=True, slots=True)
class Mend:
    """How a row that was set aside is changed before it is taken again.

    Attributes:
        values: new values of columns, as JSON has them; the others stay.
        raw: the whole record in another form, for one that did not decode.
        by: who changed it.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    raw: str | None = None
    by: str = ""

    def to_json(self) -> str:
        """The mend as one line of canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Mend:
        """Read `to_json`'s form."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Erasing:
    """What a batch of kind `erase` takes out of a table, beside the positions in `BatchPlan.replay`.

    Attributes:
        erasure: id of the erasure; those of later ones are greater.
        time_us: when it was asked for, microseconds since 1970 UTC; earlier plans do not know of it.
        windows: windows that go whatever their rows are, as (start in microseconds since 1970, `_digest`).
        again: whether windows that keep rows are computed again, because a measure may show a value of the subject.
        vanished: whether rows leave that were taken in from the upstream table and that it no longer has.
    """

    erasure: str
    time_us: int
    windows: tuple[tuple[int, int], ...] = ()
    again: bool = False
    vanished: bool = False


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Plan N of a flow: written once, before the batch runs; whoever finds it runs exactly this.

    Attributes:
        epoch: the rebuild generation of the flow.
        batch: N, from 1.
        kind: `data`, `no_data` (only the watermark moved), `replay` of quarantined rows, `refresh` of a query, `erase`
            (rows leave, none comes).
        ranges: source ranges to read (ingest flows).
        after: upstream version read before this batch (stream flows), -1 for none.
        upto: last upstream version of this batch, inclusive.
        joined_after, joined_upto: the same of the stream that is joined.
        pins: versions of lookup tables and query inputs, by table name.
        late_us: W(n-1): a row at or before it is late.
        kept_us: a closed window that begins before is not computed again: rows of it may have left by retention; None
            when none has.
        evict_us: W(n): windows ending at or before it close in this batch; keys expiring by then leave state.
        clock_us: the batch's time; `_ingest_time` of its rows, microseconds since 1970 UTC.
        definition: `FlowPlan.definition` it was made for.
        replay: positions to take again from quarantine, or to erase, as (source, position).
        mended: rows of `replay` that are taken in another form, as (source, position, `Mend.to_json`).
        answers: how many entries of the flow's answers count in this batch, for a flow that asks; -1 for others.
        expired_us: rows that wait since then or longer go on without an answer.
        erasing: what else is erased, in a batch that does.
        owner: member who made it, in a flow that processes share, and runs it while it lives; empty for anybody.
    """

    epoch: int
    batch: int
    kind: BatchKind
    clock_us: int
    definition: str
    ranges: tuple[SourceRange, ...] = ()
    after: int = -1
    upto: int = -1
    joined_after: int = -1
    joined_upto: int = -1
    pins: Mapping[str, int] = field(default_factory=dict)
    late_us: int = 0
    evict_us: int = 0
    kept_us: int | None = None
    replay: tuple[tuple[str, int], ...] = ()
    accept_late: bool = False
    mended: tuple[tuple[str, int, str], ...] = ()
    answers: int = -1
    expired_us: int = 0
    erasing: Erasing | None = None
    owner: str = ""

    def to_json(self) -> bytes:
        """The plan as one line of canonical JSON."""
        told = asdict(self)
        if self.erasing is None:
            del told["erasing"]
        return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> BatchPlan:
        """Read `to_json`'s form. Raises ValueError on anything else."""
        raw = json.loads(text)
        raw["ranges"] = tuple(SourceRange(**r) for r in raw["ranges"])
        raw["replay"] = tuple((source, position) for source, position in raw["replay"])
        raw["mended"] = tuple((source, position, text) for source, position, text in raw.get("mended", ()))
        if erasing := raw.get("erasing"):
            windows = tuple((start, digest) for start, digest in erasing["windows"])
            raw["erasing"] = Erasing(**(erasing | {"windows": windows}))
        return cls(**raw)
