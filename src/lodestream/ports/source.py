"""One way in: what a source and a format promise to the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import pyarrow as pa

from lodestream.errors import ConfigError
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.table import Drift
from lodestream.model.types import Schema
from lodestream.ports.registry import SchemaRegistry
from lodestream.ports.settings import Settings


@dataclass(frozen=True, slots=True)
class SourceTraits:
    """What a source can promise.

    Attributes:
        replayable: the same range gives the same rows again.
        ordered: positions grow with arrival inside a unit.
        bounded: it ends by itself.
    """

    replayable: bool
    ordered: bool
    bounded: bool


@dataclass(frozen=True, slots=True)
class Decoded:
    """One range, read and decoded.

    Attributes:
        rows: the declared columns in declared order and types, then `_source` string, `_position` bigint and,
            with keep_raw, `_raw` binary; in position order.
        rejects: records that did not decode: `_source` string, `_position` bigint, `_reasons` list<string>
            (such as `parse:json`, `parse:amount:type`), `_raw` binary (what arrived, at most 16 MiB kept), `_detail`
            string (JSON of what else came with the record and a replay needs, such as a message's key; or NULL).
        found: columns seen in the data but not declared, with the type they would get (drift `add`), and
            declared columns that would have to widen (drift `widen`).
    """

    rows: pa.Table
    rejects: pa.Table
    found: Schema = field(default_factory=Schema)


def no_registry(name: str) -> SchemaRegistry:
    """Stands where nobody gave registries; raises ConfigError."""
    raise ConfigError("no such schema registry; declare it in lodestream.yaml under registries:", registry=name)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the engine tells a source about the table it feeds.

    Attributes:
        schema: columns to decode to (no provenance columns).
        keep_raw: whether rows carry `_raw`.
        drift: what to do with fields or types that `schema` does not have.
        root: folder that relative paths are relative to (the project folder).
        reserved: names in lower case that drift must not add, for the table's own columns have them.
        registry: opens a schema registry by the name it has under `registries:`, or by URL.
        group: a name of the flow that no other lake, table or rebuild has, for services that keep track of readers.
        member: this process's name in the group when processes share the flow, else empty.
        lake: root folder of the lake; empty when the source is only looked at.
        table: the table's name, for what a source keeps per reader; empty when the source is only looked at.
    """

    schema: Schema
    keep_raw: bool
    drift: Drift
    root: str
    reserved: frozenset[str] = frozenset()
    registry: Callable[[str], SchemaRegistry] = no_registry
    group: str = "lodestream"
    member: str = ""
    lake: str = ""
    table: str = ""

    @property
    def taken(self) -> frozenset[str]:
        """Names, in lower case, that no new column may have."""
        return self.reserved.union(name.lower() for name in self.schema.names)


class Source(Protocol):
    """One way in. The runtime calls it on one thread and never calls two methods at once."""

    settings: ClassVar[type[Settings]]
    traits: ClassVar[SourceTraits]

    def plan(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        """The next ranges, strictly after `consumed`, within `limit`; empty when there is nothing new.

        `consumed` maps each unit to a range whose `end` is where reading goes on and whose `facts` are those of
        the last planned range of that unit. Ranges end on record boundaries.

        Raises:
            DataLossRefused: a consumed unit is gone before its end, or its content changed.
        """

    def read(self, planned: SourceRange) -> Iterator[Decoded]:
        """Rows of a planned range, in one or more pieces in position order; again the same when asked again.

        Raises:
            DataLossRefused: the range is no longer there as planned.
            TransientError: try again later.
        """

    def finished(self, consumed: Mapping[str, SourceRange], now_us: int) -> bool:
        """Whether nothing more will come unless somebody adds to it (ends `run --until-idle`)."""

    def close(self) -> None:
        """Let go of files and connections; twice is harmless."""


@runtime_checkable
class ReadsTogether(Protocol):
    """A source that reads all ranges of a batch in one go, where one by one would cost more."""

    def read_together(self, planned: Sequence[SourceRange]) -> Iterator[Decoded]:
        """What `read` gives for each range, in any order of ranges."""


@runtime_checkable
class PlansUnread(Protocol):
    """A source whose batches can be planned without their rows, and read in parts by several processes at once."""

    def plan_unread(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        """What `plan` gives, as far as it can be told without reading: ranges may have fewer rows, or none.

        Empty means that nothing more will come unless somebody adds to it.
        """

    def parts(self, planned: SourceRange, rows_max: int) -> Sequence[SourceRange]:
        """The range in parts of at most about `rows_max` rows; `read` gives for all what it gives for the range."""


@runtime_checkable
class Acknowledges(Protocol):
    """A source that is told what is durable, so that others can see how far the flow is; nothing hangs on it."""

    def acknowledge(self, consumed: Mapping[str, SourceRange]) -> None:
        """These positions are committed."""


@runtime_checkable
class Marks(Protocol):
    """A source whose positions are written into each commit under names of their own, beside the batch number."""

    def marks(self, planned: Sequence[SourceRange]) -> Mapping[str, int]:
        """For each unit that advances, a name and the last position of the range."""


@runtime_checkable
class Waiter(Protocol):
    """A source that knows when something new is there, so that nobody has to look at it again and again."""

    def wait(self, seconds: float) -> None:
        """Return when there may be something new, at the latest after that many seconds."""


RawRecord = tuple[bytes, str, int, str | None]
"""A quarantined record: bytes, unit, position, and the detail of its reject."""


@runtime_checkable
class Decoder(Protocol):
    """A source that can decode one record again, so that a quarantined one can be replayed."""

    def decode_raw(self, raw: bytes, unit: str, position: int, detail: str | None) -> Decoded:
        """The record as it arrived, under the columns of now; `detail` is that of its reject.

        Raises:
            ConfigError: it cannot be decoded alone.
        """
