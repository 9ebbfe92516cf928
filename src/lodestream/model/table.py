"""What the user declares: a table, its source, rules, event time, dedup, window and layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from lodestream.model.diagnostic import Place
from lodestream.model.maintenance import MaintenancePolicy, retention_us
from lodestream.model.types import Schema

Layer = Literal["bronze", "silver", "gold"]
LAYERS: tuple[Layer, ...] = ("bronze", "silver", "gold")
OnFail = Literal["warn", "drop", "quarantine", "fail"]
Drift = Literal["add", "widen", "quarantine", "stop"]
Late = Literal["quarantine", "update"]
"""What becomes of a row whose window is closed: set aside, or the window is computed again with it."""

META_COLUMNS = ("_source", "_position", "_ingest_time", "_batch")
"""Provenance columns of every row that comes from one source row."""

JOIN_META = ("_left_source", "_left_position", "_right_source", "_right_position")
"""Columns of a joined row: the two rows that it was made from, by what each is known as in its own table."""

ENRICH_ERROR = "_enrich_error"
"""Column of a table with a slow enricher: why a row has no answer, NULL where it has one."""

WINDOW_START, WINDOW_END = "window_start", "window_end"
WINDOW_TIME = "window_time"
"""Event time of a window that is a row of another window: its last microsecond."""
WINDOW_META = ("_rows", "_digest", "_batch")
"""Columns of a window row: how many input rows it covers, an order-free digest of their positions, its batch."""

VALID_FROM, VALID_TO = "valid_from", "valid_to"
"""Columns of a table with history: the span [from, to) in which a row holds; no end while it still does."""


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """`layer.name`, the only name a table has."""

    layer: str
    name: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Read `layer.name`. Raises ValueError otherwise."""
        layer, dot, name = text.partition(".")
        if not dot or layer not in LAYERS or not name.isidentifier():
            raise ValueError(f"not a table name: {text!r}, write bronze.name, silver.name or gold.name")
        return cls(layer, name)


@dataclass(frozen=True, slots=True, order=True)
class SinkName:
    """One way out of a table, such as `gold.revenue -> kafka:revenue`."""

    table: TableName
    sink: str

    def __str__(self) -> str:
        return f"{self.table} -> {self.sink}"


FlowName = TableName | SinkName
"""What moves rows: the flow that fills a table, or a sink that publishes it."""


@dataclass(frozen=True, slots=True)
class Component:
    """A component by name with its settings as written: `{kafka: {topic: orders}}`."""

    name: str
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Named:
    """A named expression in Spark SQL text, as `derive`, `group_by` and `measures` hold them."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """A rule that each row must meet; NULL counts as not met.

    `otherwise` says what happens to a row that does not: kept and counted (`warn`), recorded and left out
    (`drop`), kept for repair (`quarantine`), or the batch stops (`fail`).
    """

    name: str
    that: str
    otherwise: OnFail = "quarantine"


@dataclass(frozen=True, slots=True)
class EventTime:
    """The column that orders rows in event time, and how far (microseconds) a row may lag the newest one."""

    column: str
    delay_us: int


@dataclass(frozen=True, slots=True)
class Dedup:
    """Rows with equal keys are one row. `within_us` is the span it holds for; None means the watermark delay."""

    keys: tuple[str, ...]
    within_us: int | None = None


@dataclass(frozen=True, slots=True)
class Lookup:
    """A left join to a table whose key is unique, pinned to one version per batch.

    Attributes:
        table: the table to look in.
        on: pairs (column here, column there).
        columns: pairs (column there, name here).
        as_of: column here that says at which moment; for a table with history, whose key is unique at any moment.
    """

    table: TableName
    on: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]
    as_of: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns there that are needed, each once."""
        span = (VALID_FROM, VALID_TO) if self.as_of is not None else ()
        return tuple(dict.fromkeys((*(there for _, there in self.on), *(there for there, _ in self.columns), *span)))


@dataclass(frozen=True, slots=True)
class Join:
    """A join with the rows that another table takes in, by key and distance in event time.

    Attributes:
        table: the other table.
        kind: `inner`, or `left` to keep rows of this side that meet nobody.
        on: pairs (column here, column there), equal in rows that meet.
        event_time: the other side's.
        low_us, high_us: least and greatest difference of event times, there less here.
        columns: pairs (column there, name here) of what comes over.
    """

    table: TableName
    kind: Literal["inner", "left"]
    on: tuple[tuple[str, str], ...]
    event_time: EventTime
    low_us: int
    high_us: int
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Event-time windows in microseconds, aligned to 1970-01-01 UTC; `slide_us` None means tumbling."""

    every_us: int
    slide_us: int | None = None

    @property
    def step_us(self) -> int:
        """Distance between two window starts."""
        return self.slide_us or self.every_us

    @property
    def span_us(self) -> int:
        """How long a window is that holds one row only."""
        return self.every_us


@dataclass(frozen=True, slots=True)
class Session:
    """Windows from a group's first row up to `gap_us` microseconds after its last; rows a gap apart are together."""

    gap_us: int

    @property
    def span_us(self) -> int:
        """How long a session is that holds one row only."""
        return self.gap_us


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows are changes of what their key stands for, and the table is kept up to date from them.

    Attributes:
        keys: columns that say what changed.
        sequence_by: columns that order the changes of a key, most significant first.
        delete_when: Spark SQL condition of the changes that delete; None when none does.
        history: False for one row per key, its last values (SCD type 1); True for one row per key and span of
            `sequence_by` (SCD type 2).
    """

    keys: tuple[str, ...]
    sequence_by: tuple[str, ...]
    delete_when: str | None = None
    history: bool = False


@dataclass(frozen=True, slots=True)
class PythonStep:
    """A function `(pyarrow.Table) -> pyarrow.Table`, named `module:function` relative to the project's functions."""

    function: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table and the flow that fills it, exactly as declared.

    Exactly one of `source`, `from_`, `sql` says where rows come from. `source` makes an ingest flow, `from_`
    a stream over the upstream table, `sql` a batch table that is refreshed when its inputs change.
    `completeness` adds `_final` and `_covers` to a table of windows.
    `skip_silver` says that a gold table reads bronze on purpose; it decides no row.
    `retention_us` is how long rows are kept: None for the layer's default, -1 for ever; see `keeps_us`.
    `declared_at` says where; two tables declared alike in two places are equal.
    """

    name: TableName
    comment: str = ""
    source: Component | None = None
    format: Component | None = None
    columns: Schema | None = None
    keep_raw: bool = False
    drift: Drift = "quarantine"
    from_: TableName | None = None
    select: tuple[str, ...] = ()
    derive: tuple[Named, ...] = ()
    expect: tuple[Expectation, ...] = ()
    event_time: EventTime | None = None
    dedup: Dedup | None = None
    lookups: tuple[Lookup, ...] = ()
    join: Join | None = None
    enrichers: tuple[Component, ...] = ()
    python: PythonStep | None = None
    window: Window | Session | None = None
    group_by: tuple[Named, ...] = ()
    measures: tuple[Named, ...] = ()
    emit: Literal["updates", "final"] = "updates"
    late: Late = "quarantine"
    completeness: bool = False
    changes: Changes | None = None
    sql: str | None = None
    schedule: str | None = None
    partition_by: tuple[str, ...] = ()
    retention_us: int | None = None
    maintain: MaintenancePolicy | None = None
    engine: Literal["any", "embedded", "spark"] = "any"
    sinks: tuple[Component, ...] = ()
    skip_silver: bool = False
    declared_at: Place | None = field(default=None, compare=False, repr=False)

    @property
    def maintenance(self) -> MaintenancePolicy:
        """How the table is maintained."""
        return self.maintain or MaintenancePolicy()

    @property
    def keeps_us(self) -> int | None:
        """How long its rows are kept after they were committed, microseconds; None for ever."""
        changing = self.changes is not None or self.sql is not None
        return retention_us(self.name.layer, self.retention_us, changing=changing)

    @property
    def row_keys(self) -> tuple[str, ...]:
        """The columns that tell the rows of a table apart whose rows change; none for other tables."""
        if self.changes is not None:
            return (*self.changes.keys, VALID_FROM) if self.changes.history else self.changes.keys
        return (WINDOW_START, *(group.name for group in self.group_by)) if self.window is not None else ()
