"""Which rows are the subject's: by value in tables and quarantines, elsewhere by the position they came from."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.joins import right_prefix
from lodestream.engines.embedded.leaving import Key, Positions
from lodestream.engines.embedded.rejects import json_form
from lodestream.lake.disk import Disk
from lodestream.lake.layout import quarantine_name, table_path
from lodestream.lake.rewrite import Mask
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import Aggregation, FlowPlan, RunQuery
from lodestream.model.table import WINDOW_START, TableName
from lodestream.operations.erase.subject import Subject
from lodestream.operations.tracing.keys import Test

_PLACE = ("_source", "_position")


@dataclass
class Found:
    """What is the subject's.

    Attributes:
        rows: positions of rows, by the table that takes them in or sets them aside.
        raw: those of the rows that are records which never decoded.
        windows: windows by value, as (start in microseconds, `_digest`).
    """

    rows: dict[TableName, set[Key]] = field(default_factory=lambda: defaultdict(set))
    windows: dict[TableName, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    raw: dict[TableName, set[Key]] = field(default_factory=lambda: defaultdict(set))


class Finder:
    """Looks for a subject in the tables of a lake.

    Args:
        disk: the lake's disk.
        lake: its root folder.
        flows: the project's plans, inputs first.
        subject: who.
    """

    def __init__(self, disk: Disk, lake: str, flows: Mapping[TableName, FlowPlan], subject: Subject) -> None:
        self._disk, self._lake, self._flows, self._subject = disk, lake, flows, subject

    def table(self, name: TableName) -> DeltaTable | None:
        """The table as it is now."""
        return DeltaTable.open(self._disk, table_path(self._lake, name))

    def everything(self) -> Found:
        """All that is the subject's now."""
        found = Found()
        for name in self._flows:
            self.add(found, name)
        self.spread(found)
        return found

    def add(self, found: Found, name: TableName) -> int:
        """Take in what a table and its quarantine hold by value; how much of it is new."""
        plan, before = self._flows[name], len(found.rows[name]) + len(found.windows[name])
        table = self.table(name)
        if table is None or isinstance(plan.steps[0], RunQuery):
            return 0
        tests = self._subject.tests.get(name, ())
        windowed = plan.step(Aggregation) is not None
        beside = (WINDOW_START, "_digest") if windowed else _PLACE
        for add in table.files() if tests else ():
            rows = table.read([add], columns=list(dict.fromkeys((*(t.column for t in tests), *beside))))
            rows = rows.filter(pa.array(passing(tests, rows)))
            if windowed:
                starts = rows.column(WINDOW_START).cast(pa.int64()).to_pylist()
                found.windows[name].update(zip(starts, rows.column("_digest").to_pylist(), strict=True))
            else:
                found.rows[name].update(positions_of(rows))
        if not windowed:
            aside = self.table(quarantine_name(name))
            if aside is not None:
                self._aside(plan, aside, found)
        return len(found.rows[name]) + len(found.windows[name]) - before

    def _aside(self, plan: FlowPlan, aside: DeltaTable, found: Found) -> None:
        """Add quarantine entries whose row has the value in a column, or whose record mentions it."""
        names = (plan.table.name, *plan.streams)
        tests = [test for name in names for test in self._subject.tests.get(name, ())]
        pattern, pairs = self._subject.pattern, json_pairs(tests)
        name = plan.table.name
        for add in aside.files() if tests else ():
            rows = aside.read([add], columns=[*_PLACE, "row", "raw", "detail"])
            rows = rows.filter(pc.or_(pc.is_valid(rows.column("row")), pc.is_valid(rows.column("raw"))))
            texts = zip(rows.column("row").to_pylist(), rows.column("raw").to_pylist(), strict=True)
            for key, (row, raw) in zip(positions_of(rows), texts, strict=True):
                if row is not None and holds(json.loads(row), tests):
                    found.rows[name].add(key)
                if raw is not None and (pairs.search(raw) or (pattern is not None and pattern.search(raw))):
                    found.rows[name].add(key)
                    found.raw[name].add(key)

    # --- from table to table ------------------------------------------------------------------------------------------

    def spread(self, found: Found) -> None:
        """Follow positions up and down, and from one change of a key to all of its changes, until nothing is new."""
        size = -1
        while size != (size := sum(map(len, found.rows.values()))):
            for name, plan in reversed(list(self._flows.items())):
                above = plan.upstream
                if above is not None and self._by_position(plan) and self._has_positions(above):
                    found.rows[above] |= found.rows[name]
            for name, plan in self._flows.items():
                self.spread_down(found, name)
                if plan.table.changes is not None and found.rows[name]:
                    found.rows[name] |= self._changes(plan, found.rows[name])

    def spread_down(self, found: Found, name: TableName) -> None:
        """What a table took in of rows that are the subject's in the tables above it."""
        plan = self._flows[name]
        if plan.upstream is not None and self._has_positions(plan.upstream):
            found.rows[name] |= found.rows[plan.upstream]
        if plan.join is not None and self._has_positions(plan.join.join.table):
            prefix = right_prefix(plan.join)
            found.rows[name] |= {(prefix + s, p) for s, p in found.rows[plan.join.join.table]}

    def _by_position(self, plan: FlowPlan) -> bool:
        """Whether a table's rows have the positions of the rows that they came from."""
        return plan.join is None and plan.step(Aggregation) is None and not isinstance(plan.steps[0], RunQuery)

    def _has_positions(self, name: TableName) -> bool:
        """Whether rows of a table, and so what is made of them, are known by what `found.rows` has of it."""
        return name in self._flows and self._by_position(self._flows[name])

    def _changes(self, plan: FlowPlan, gone: set[Key]) -> set[Key]:
        """All changes of the keys that these changes have, as far as key columns are read as they are."""
        assert plan.table.changes is not None
        keys, made = list(plan.table.changes.keys), {one.name for one in plan.table.derive}
        wanted: set[tuple[Any, ...]] = set()
        tables: list[pa.Table] = []
        for name in (plan.table.name, plan.upstream):
            table = self.table(name) if name is not None else None
            if table is None or not set(keys) <= set(table.snapshot.metadata.schema.names):
                continue
            if name == plan.upstream and made & set(keys):
                continue
            rows = table.read(table.files(), columns=[*keys, *_PLACE])
            wanted |= _rows_of(rows.filter(pa.array(Positions(gone).among(rows))), keys)
            tables.append(rows)
        wanted = {key for key in wanted if None not in key}
        found: set[Key] = set()
        for rows in tables if wanted else ():
            listed = zip(*(rows.column(key).to_pylist() for key in keys), strict=True)
            hit = np.fromiter((key in wanted for key in listed), np.bool_, len(rows))
            found.update(positions_of(rows.filter(pa.array(hit))))
        return found


def passing(tests: Iterable[Test], rows: pa.Table) -> Mask:
    """Which of n rows pass one of the tests whose columns they have."""
    found = np.zeros(len(rows), np.bool_)
    for test in tests:
        if test.column in rows.column_names:
            values = rows.column(test.column)
            if pa.types.is_dictionary(values.type):
                values = values.cast(values.type.value_type)
            if values.type == test.value.type:
                found |= test.mask(values).to_numpy(zero_copy_only=False).astype(np.bool_)
    return found


def holds(row: Mapping[str, Any], tests: Sequence[Test]) -> bool:
    """Whether a quarantined row has the value in one of the columns."""
    return any(test.column in row and row[test.column] == json_form(test.value.as_py()) for test in tests)


def json_pairs(tests: Iterable[Test]) -> re.Pattern[bytes]:
    """Finds `"column": value` in the texts of records."""
    forms = {
        rb'"' + re.escape(test.column.encode()) + rb'"\s*:\s*"?' + re.escape(test.text.encode()) + rb"(?![0-9A-Za-z_.])"
        for test in tests
    }
    return re.compile(b"|".join(sorted(forms)) or rb"(?!)")


def _rows_of(rows: pa.Table, columns: Sequence[str]) -> set[tuple[Any, ...]]:
    return set(zip(*(rows.column(column).to_pylist() for column in columns), strict=True))
