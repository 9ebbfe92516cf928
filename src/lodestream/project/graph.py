"""Which table reads which, in what order they are filled, and where they read each other in a circle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lodestream.model.project import Path
from lodestream.model.table import Table, TableName


@dataclass(frozen=True, slots=True)
class Edge:
    """`reader` reads `table`; `path` is where it says so."""

    reader: TableName
    table: TableName
    path: Path


def edges(table: Table, query_inputs: Callable[[str], Iterable[TableName]]) -> list[Edge]:
    """What a table reads: upstream, joined stream, lookups, and inputs of its query as `query_inputs` finds them."""
    found: list[Edge] = []
    if table.from_ is not None:
        found.append(Edge(table.name, table.from_, ("from",)))
    if table.join is not None:
        found.append(Edge(table.name, table.join.table, ("join", "from")))
    found += [Edge(table.name, lookup.table, ("lookups", i, "table")) for i, lookup in enumerate(table.lookups)]
    if table.sql is not None:
        found += [Edge(table.name, name, ("sql",)) for name in query_inputs(table.sql)]
    return found


def ordered(reads: Mapping[TableName, Iterable[Edge]]) -> tuple[list[TableName], list[list[Edge]]]:
    """Tables so that each comes after what it reads, by name where that leaves a choice; and the circles.

    A table in a circle, or behind one, is in the order too, at the place its name gives it. Edges to tables that
    are not there are ignored.
    """
    order: list[TableName] = []
    state: dict[TableName, bool] = {}  # False while on the trail, True when done
    circles: list[list[Edge]] = []
    for root in sorted(reads):
        if root in state:
            continue
        state[root] = False
        trail: list[tuple[TableName, list[Edge]]] = [(root, _sorted(reads[root]))]
        steps: list[Edge] = []
        while trail:
            table, rest = trail[-1]
            if not rest:
                state[table] = True
                order.append(table)
                trail.pop()
                if steps:
                    steps.pop()
                continue
            edge = rest.pop(0)
            if edge.table not in reads or state.get(edge.table) is True:
                continue
            if edge.table in state:
                start = next(i for i, (name, _) in enumerate(trail) if name == edge.table)
                circles.append([*steps[start:], edge])
                continue
            state[edge.table] = False
            steps.append(edge)
            trail.append((edge.table, _sorted(reads[edge.table])))
    return order, circles


def _sorted(found: Iterable[Edge]) -> list[Edge]:
    return sorted(found, key=lambda edge: (edge.table, tuple(str(part) for part in edge.path)))
