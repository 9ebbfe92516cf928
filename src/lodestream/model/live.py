"""How the tables of a lake stand at this moment: frozen values that a server shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from lodestream.model.table import TableName
from lodestream.model.types import Schema

State = Literal["running", "idle", "stalled", "failed", "damaged", "missing"]
"""What a table does.

`running`: it committed a moment ago or has a batch under way. `idle`: there is nothing to do. `stalled`: rows wait for
it and nothing moves, as when no pipeline runs. `failed`: its pipeline said so. `damaged`: its log cannot be read.
`missing`: it is declared and not in the lake.
"""
FATES = ("output", "quarantine", "late", "duplicate", "dropped")
"""What becomes of an input row; their counts, and that of the rows that are `open`, add up to `input`."""
_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TableLive:
    """How one table stands, as its commits say.

    Attributes:
        table: which.
        state: what it does.
        version: newest Delta version, -1 when it is not in the lake.
        rows: live rows; None when a file does not say.
        files: live data files.
        size_bytes: of the live data files.
        epoch: rebuild generation.
        batch: last committed batch.
        watermark_us: rows at or before it are late.
        max_event_us: newest event time taken in.
        last_commit_us: when the last batch was committed.
        counts: rows by fate and by broken rule (`rule:<name>`), summed over the batches from `counted_from` on.
        counted_from: first batch of that sum; 1 when it is complete, 0 when there was none.
        rate_per_s: rows taken in per second, over the last seconds.
        backlog: rows of the upstream table that wait; None where that is not known.
        quarantine_open: rows set aside that can be taken again; None where there is no quarantine.
        error: why it failed or cannot be read.
        schema: columns of the newest version.
    """

    table: TableName
    state: State = "missing"
    version: int = -1
    rows: int | None = None
    files: int = 0
    size_bytes: int = 0
    epoch: int = 1
    batch: int = 0
    watermark_us: int | None = None
    max_event_us: int | None = None
    last_commit_us: int | None = None
    counts: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    counted_from: int = 0
    rate_per_s: float = 0.0
    backlog: int | None = None
    quarantine_open: int | None = None
    error: str | None = None
    schema: Schema = field(default_factory=Schema, repr=False)

    @property
    def accounted(self) -> bool | None:
        """Whether every row that came in has a fate or is open; None for a table that takes none, such as a query's."""
        if "input" not in self.counts:
            return None
        return self.counts["input"] == sum(self.counts.get(fate, 0) for fate in (*FATES, "open"))


@dataclass(frozen=True, slots=True)
class RateHistory:
    """Rows taken in per second by some tables together.

    Attributes:
        t_us: starts of the steps, oldest first; microseconds since 1970.
        per_s: one rate a step.
    """

    t_us: Sequence[int]
    per_s: Sequence[float]


Listener = Callable[[TableName, int], None]
"""Told of each new version of a table, on the thread that found it; it must return at once."""


class LiveLake(Protocol):
    """Whoever follows a whole lake. Every method may be called from any thread."""

    def sequence(self) -> int:
        """A number that grows with everything that changes."""

    def tables(self) -> Mapping[TableName, TableLive]:
        """Every known table as it stands, in the order of their names."""

    def history(self, tables: Iterable[TableName], seconds: int = 600) -> RateHistory:
        """The rates of some tables together, over the last seconds."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each new version from now on; the answer takes it away again."""
