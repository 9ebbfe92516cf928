"""One way out: what a sink promises to the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.model.table import TableName
from lodestream.ports.registry import SchemaRegistry
from lodestream.ports.settings import Settings
from lodestream.ports.source import no_registry


@dataclass(frozen=True, slots=True)
class SinkPosition:
    """How far a table is published.

    Attributes:
        table_id: Delta id of the table.
        epoch: its rebuild generation, for people who look.
        version: every change up to this version is published; -1 for none.
        upto: last version of the range that is under way, equal to `version` when none is.
        changes: how many changes of that range are published already.
    """

    table_id: str
    epoch: int
    version: int
    upto: int
    changes: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """Grows as publishing goes on."""
        return self.version, self.changes


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of a table in the order in which they are to be published.

    Attributes:
        version: the table's version that they belong to.
        first: number of the first one among all changes of that version; the same whenever they are read again.
        rows: n rows, with the columns that the sink asked for.
        gone: n flags; true where the row's key left the table and the row is its last content. None for no such row.
    """

    version: int
    first: int
    rows: pa.Table
    gone: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class SinkWants:
    """What a sink's settings, as written, ask of a table.

    Attributes:
        target: where it publishes to, such as a topic; tells the sinks of a table apart.
        columns: the columns that settings name, each with the path of the setting that does.
        key: columns of the key, None when not written.
        value: columns of the value, None for all that do not begin with `_`.
        exactly_once: whether no change is ever published twice.
        start: `all` begins with what the table holds, `new` with what changes from then on.
        note: what a person should know, empty for nothing.
    """

    target: str
    columns: tuple[tuple[tuple[str | int, ...], str], ...] = ()
    key: tuple[str, ...] | None = None
    value: tuple[str, ...] | None = None
    exactly_once: bool = True
    start: str = "all"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Publishing:
    """What the engine tells a sink about the table it publishes.

    Attributes:
        table: which.
        value: columns of the value; None for all columns given whose name does not begin with `_`.
        key: columns of the key, empty for none.
        changing: rows change: a key stands for one row, whose last content counts.
        identity: a name that no other sink, table or lake has.
        root: folder that relative paths are relative to.
        registry: opens a schema registry by name or URL.
        passing: told of each step of a publication, so that tests can stop the process there.
    """

    table: TableName
    value: tuple[str, ...] | None
    key: tuple[str, ...]
    changing: bool
    identity: str
    root: str
    registry: Callable[[str], SchemaRegistry] = no_registry
    passing: Callable[[str], None] = field(default=lambda _step: None)


class Sink(Protocol):
    """One way out; made with `(settings, publishing)`. The runtime calls it on one thread.

    After an error of `publish` nobody knows what became of the changes: the runtime closes the sink, opens another, and
    goes on from the position which that one tells.
    """

    settings: ClassVar[type[Settings]]

    @classmethod
    def wants(cls, settings: Mapping[str, object]) -> SinkWants:
        """What the settings ask for, as written: references are not resolved and mistakes may be among them."""

    @property
    def identity(self) -> str:
        """Whom the position belongs to; another identity begins anew."""

    @property
    def place(self) -> str | None:
        """Identity of the target once open; another one under the same name has not seen what we published."""

    def open(self) -> SinkPosition | None:
        """Connect, shut out whoever published under this identity before, and tell the position that is on record.

        Returns:
            The position of the last `publish` that took place; None when there is none, or when the sink keeps none.

        Raises:
            ConfigError: the target is not there, or does not let us in.
            TransientError: nobody answers.
        """

    def publish(self, changes: Sequence[Changes], position: SinkPosition) -> int:
        """Publish changes in their order and record the position, all or nothing where the sink is exactly once.

        Returns:
            The number of messages.

        Raises:
            ConflictError: somebody else publishes under this identity now.
            ConfigError: the target refuses a change; nothing of this call is visible.
            TransientError: it may or may not have taken place.
        """

    def close(self) -> None:
        """Let go; twice is harmless."""
