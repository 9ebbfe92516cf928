"""The steps of a flow as values: what planning emits and what the engine, `explain` and lineage read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from lodestream.model.expression import Aggregate, Expression
from lodestream.model.table import (
    Changes,
    Component,
    Dedup,
    Drift,
    EventTime,
    Join,
    Late,
    Lookup,
    OnFail,
    PythonStep,
    Session,
    SinkName,
    Table,
    TableName,
    Window,
)
from lodestream.model.types import Schema

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class ReadSource:
    """Rows of an outside source, decoded to `schema`; records that do not decode are quarantined."""

    source: Component
    format: Component
    schema: Schema
    keep_raw: bool
    drift: Drift


@dataclass(frozen=True, slots=True)
class ReadTable:
    """Rows that the upstream table's commits added, in commit order.

    `windows` are the group columns of the upstream table when its rows are windows, None when they are not.
    """

    table: TableName
    schema: Schema
    windows: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RunPython:
    """Apply a user's function to the whole batch."""

    step: PythonStep
    schema: Schema


@dataclass(frozen=True, slots=True)
class Derive:
    """Compute columns from the input row, all at once: an expression sees input columns only."""

    columns: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled expectation."""

    name: str
    condition: Expression
    otherwise: OnFail


@dataclass(frozen=True, slots=True)
class Expect:
    """Check every rule on every row; a row may break several."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Watermark:
    """Quarantine rows without event time (`null_event_time`), then track the watermark.

    `follows` is the table whose watermark this one is, when rows are windows: then nothing is tracked.
    """

    event_time: EventTime
    follows: TableName | None = None


@dataclass(frozen=True, slots=True)
class Dedupe:
    """Drop late rows and repeated keys by the rules of Spark's dropDuplicatesWithinWatermark."""

    dedup: Dedup
    expiry_us: int


@dataclass(frozen=True, slots=True)
class LookUp:
    """Left join to a pinned version of `lookup.table`; `schema` are the columns it adds.

    With `lookup.as_of` a row meets what its key stood for at that moment: `valid_from` <= t < `valid_to`.
    `unique` says that the table promises a unique key, so that no row can meet two.
    """

    lookup: Lookup
    schema: Schema
    unique: bool = False


@dataclass(frozen=True, slots=True)
class JoinStreams:
    """Join with the new rows of `join.table`.

    Attributes:
        reads: columns of the other table that are read.
        schema: the columns it adds.
    """

    join: Join
    reads: Schema
    schema: Schema


@dataclass(frozen=True, slots=True)
class Annotate:
    """Columns that an in-line enricher computes from the columns `reads`; `schema` are those it adds."""

    enricher: Component
    reads: tuple[str, ...]
    schema: Schema


@dataclass(frozen=True, slots=True)
class Ask:
    """Rows wait until a slow enricher has answered.

    Attributes:
        enricher: which, with its settings as written.
        reads: columns that make the question.
        schema: columns that the answer adds; the reason why there is none (`ENRICH_ERROR`) comes after them.
        version: part of the question's identity.
        timeout_us: how long a row waits at most, microseconds.
        waiting_max: no further rows are read while so many wait.
        parallel: how many questions are under way at once.
        rate_per_s: how many are begun per second at most; None for no bound.
    """

    enricher: Component
    reads: tuple[str, ...]
    schema: Schema
    version: str
    timeout_us: int
    waiting_max: int
    parallel: int
    rate_per_s: float | None


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Group rows by event-time window and keys."""

    window: Window | Session
    group_by: tuple[tuple[str, Expression], ...]
    measures: tuple[tuple[str, Aggregate], ...]
    emit: str
    late: Late = "quarantine"
    completeness: bool = False


@dataclass(frozen=True, slots=True)
class ApplyChanges:
    """Keep the table up to date from the changes that each batch brings.

    The change of a key with the highest (`sequence_by`, `_source`, `_position`) stands; a deletion is remembered, so
    that what comes later and is older does not bring the row back. A row without key or sequence is quarantined.

    Attributes:
        changes: keys, order, and whether history is kept.
        delete_when: which changes delete, None when none does.
        forgets: whether event time bounds what is remembered: a change at or behind the watermark is late, and a
            deletion behind it is forgotten. The event time is then the first column of `sequence_by`.
    """

    changes: Changes
    delete_when: Expression | None
    forgets: bool


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Replace the table by the result of a batch query over pinned versions of its inputs.

    `columns` names, per input table, the columns that the query reads; a table not in it is read whole.
    `lineage` names, per result column, the input columns that its value comes from, as (table, column).
    """

    text: str
    duckdb: str
    inputs: tuple[TableName, ...]
    schedule: str | None
    columns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    lineage: tuple[tuple[str, tuple[tuple[TableName, str], ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Select:
    """Keep only these columns (and the provenance columns)."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """A physical partition column computed from a column: `x_date` from `date(x)`."""

    name: str
    expression: Expression


@dataclass(frozen=True, slots=True)
class Write:
    """Append to (or, for windows, changes and queries, replace in) the table."""

    schema: Schema
    partitions: tuple[Partition, ...]


Step = (
    ReadSource | ReadTable | RunPython | Derive | Expect | Watermark | Dedupe | LookUp | JoinStreams | Annotate | Ask
    | Aggregation | ApplyChanges | RunQuery | Select | Write
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the table's changes.

    Attributes:
        name: the table and where it goes.
        sink: which component, with its settings as written.
        value: columns of a message's value; None for all, at any time, that do not begin with `_`.
        beside: further columns that the sink reads, such as those of headers.
        key: columns of the key, empty for none.
        changing: rows of the table change, so a key stands for one row: new content is an upsert, a key that leaves
            the table a tombstone. Else each row that is added is a message.
        exactly_once: whether no change is ever published twice.
        start: `all` or `new`.
    """

    name: SinkName
    sink: Component
    value: tuple[str, ...] | None
    beside: tuple[str, ...]
    key: tuple[str, ...]
    changing: bool
    exactly_once: bool
    start: str


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """Everything a flow does for one batch, in stage order.

    Attributes:
        table: the declaration this was made from.
        steps: in the fixed stage order; first a Read* or RunQuery, last a Write.
        schema: columns of the table as stored, provenance included.
        upstream: the table the flow streams from, if any.
        waits_for: lookup tables and query inputs that must have taken in what was there at the start.
        definition: 16 hex digits over everything that decides the rows.
        declaration: canonical JSON of the whole declaration, as the table's metadata keeps it.
        sinks: where the table is published to.
    """

    table: Table
    steps: tuple[Step, ...]
    schema: Schema
    upstream: TableName | None
    waits_for: tuple[TableName, ...]
    definition: str
    declaration: str = "{}"
    sinks: tuple[Publish, ...] = ()

    def step(self, kind: type[Kind]) -> Kind | None:
        """The first step of a kind, None when there is none."""
        return next((step for step in self.steps if isinstance(step, kind)), None)

    @property
    def join(self) -> JoinStreams | None:
        """The step that joins another stream, if there is one."""
        return self.step(JoinStreams)

    @property
    def looked_up(self) -> tuple[TableName, ...]:
        """The tables that it looks up, each once."""
        return tuple(dict.fromkeys(step.lookup.table for step in self.steps if isinstance(step, LookUp)))

    @property
    def streams(self) -> tuple[TableName, ...]:
        """The tables whose new rows it reads: its upstream and the one it joins."""
        joined = self.join
        return (*((self.upstream,) if self.upstream else ()), *((joined.join.table,) if joined else ()))

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """Names of the physical partition columns."""
        write = self.step(Write)
        return tuple(partition.name for partition in write.partitions) if write is not None else ()
