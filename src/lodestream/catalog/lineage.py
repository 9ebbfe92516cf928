"""What comes from what: tables and columns upstream and downstream, and the queries and dashboards that read them."""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lodestream.model.steps import FlowPlan, Publish, ReadSource
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.planning.explain import explain, influences

Sees = Callable[[TableName], "frozenset[str] | None"]
"""The columns of a table that somebody may know of; None when they may not know of the table."""

ReaderKind = Literal["saved_query", "dashboard", "sink", "principal"]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads tables: a saved query, a dashboard, a sink, or somebody whose queries the audit log has.

    Attributes:
        kind: which of these.
        name: its name.
        reads: columns by table; None when it cannot be known which, so all of them.
        last_us: when they last did, microseconds since 1970 UTC; None for what is declared.
        comment: what a query or dashboard says of itself.
    """

    kind: ReaderKind
    name: str
    reads: Mapping[TableName, frozenset[str] | None]
    last_us: int | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """One thing that a walk came to.

    Attributes:
        depth: how many tables away, from 1.
        table: which table.
        column: which column; None for the table as a whole.
        of: what it was reached from.
        how: `value` when values come from it; else by which step it decides the rows: `filter`, `join`, `dedup`,
            `group`, `window`, `query`; `rows` when the rows as a whole come from it.
    """

    depth: int
    table: TableName
    column: str | None
    of: tuple[TableName, str | None]
    how: str


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk found: tables and columns by distance, then whatever reads them."""

    hops: tuple[Hop, ...]
    readers: tuple[Reader, ...] = ()

    @property
    def tables(self) -> tuple[TableName, ...]:
        """Each table once, the nearest first."""
        return tuple(dict.fromkeys(hop.table for hop in self.hops))


Link = tuple[TableName, str | None, str]
"""A table, a column of it or None for its rows, and how it hangs together with another."""


class Lineage:
    """The lineage of one project.

    Args:
        flows: the project's plans.
        readers: who reads the tables besides; sinks are known from the plans.
    """

    def __init__(self, flows: Mapping[TableName, FlowPlan], readers: Iterable[Reader] = ()) -> None:
        self.schemas: dict[TableName, Schema] = {name: plan.schema for name, plan in flows.items()}
        self.sources = {
            name: plan.steps[0].source.name for name, plan in flows.items() if isinstance(plan.steps[0], ReadSource)
        }
        self.inputs = {name: _inputs(plan) for name, plan in flows.items()}
        self._above: dict[tuple[TableName, str | None], list[Link]] = defaultdict(list)
        self._below: dict[tuple[TableName, str | None], list[Link]] = defaultdict(list)
        self._deciding: dict[TableName, list[Link]] = {}
        sinks: list[Reader] = []
        for name, plan in flows.items():
            self._add(name, plan)
            sinks += [_sink(name, sink) for sink in plan.sinks]
        self.readers = (*sinks, *readers)

    def up(
        self, table: TableName, column: str | None = None, *, sees: Sees, depth: int | None = None, values: bool = False
    ) -> Walk:
        """What a table, or one of its columns, comes from.

        Args:
            table: where to begin.
            column: which column; its values are followed, and what decides the table's rows.
            sees: what the asker may know of; nothing is followed through what they may not.
            depth: how many tables far; None for all the way.
            values: follow values only.
        """

        def beside(name: TableName, used: str | None) -> list[Link]:
            deciding = [] if used is None or values else self._deciding.get(name, [])
            return [*self._above.get((name, used), []), *deciding]

        return Walk(tuple(_walk((table, column), beside, sees, depth)))

    def down(
        self, table: TableName, column: str | None = None, *, sees: Sees, depth: int | None = None,
        values: bool = False, manages: Callable[[TableName], bool] = lambda _table: False,
    ) -> Walk:  # fmt: skip
        """What comes from a table, or one of its columns, and who reads that: all that a change may break.

        Args:
            table: where to begin.
            column: which column.
            sees: what the asker may know of.
            depth: how many tables far; None for all the way.
            values: follow values only.
            manages: the tables of which the asker may know who asked for them.
        """

        def beside(name: TableName, used: str | None) -> list[Link]:
            found = self._below.get((name, used), [])
            return [link for link in found if link[2] == "value"] if values and used is not None else found

        hops = tuple(_walk((table, column), beside, sees, depth))
        touched = {(table, column), *((hop.table, hop.column) for hop in hops)}
        return Walk(hops, tuple(one for one in self.readers if _reads(one, touched) and _shown(one, sees, manages)))

    def read_by(self, readers: Iterable[Reader]) -> Lineage:
        """The same with other readers; sinks stay."""
        found = copy.copy(self)
        found.readers = (*(one for one in self.readers if one.kind == "sink"), *readers)
        return found

    def _add(self, name: TableName, plan: FlowPlan) -> None:
        for source in sorted(self.inputs[name]):
            self._above[name, None].append((source, None, "rows"))
            self._below[source, None].append((name, None, "rows"))
        deciding = sorted(influences(plan))
        self._deciding[name] = list(deciding)
        for source, used, how in deciding:
            self._below[source, used].append((name, None, how))
        for column, origins in explain(plan).columns.items():
            for source, used in sorted(origins):
                self._above[name, column].append((source, used, "value"))
                self._below[source, used].append((name, column, "value"))


def everything(known: Lineage) -> Sees:
    """What the owner of a lake sees."""
    return lambda table: frozenset(known.schemas[table].names) if table in known.schemas else frozenset()


def _inputs(plan: FlowPlan) -> frozenset[TableName]:
    return frozenset([*plan.streams, *plan.waits_for])


def _sink(table: TableName, sink: Publish) -> Reader:
    value = None if sink.value is None else frozenset([*sink.value, *sink.key, *sink.beside])
    return Reader("sink", sink.name.sink, {table: value})


def _walk(
    start: tuple[TableName, str | None],
    beside: Callable[[TableName, str | None], list[Link]],
    sees: Sees,
    depth: int | None,
) -> Iterator[Hop]:
    known = {start}
    waiting = deque([(start, 0)])
    while waiting:
        here, far = waiting.popleft()
        if depth is not None and far >= depth:
            continue
        for name, used, how in beside(*here):
            seen = sees(name)
            if seen is None or (used is not None and used not in seen) or (name, used) in known:
                continue
            known.add((name, used))
            yield Hop(far + 1, name, used, here, how)
            waiting.append(((name, used), far + 1))


def _reads(reader: Reader, touched: set[tuple[TableName, str | None]]) -> bool:
    """Whether a reader reads any of what was touched."""
    for table, columns in reader.reads.items():
        for name, column in touched:
            if name == table and (column is None or columns is None or column in columns):
                return True
    return False


def _shown(reader: Reader, sees: Sees, manages: Callable[[TableName], bool]) -> bool:
    """Whether somebody may know of a reader: who sees all that it reads; of people, who manages all that they read."""
    if reader.kind == "principal":
        return all(manages(table) for table in reader.reads)
    return all(sees(table) is not None for table in reader.reads)
