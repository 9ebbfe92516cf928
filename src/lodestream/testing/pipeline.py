"""Unit tests of a user's tables: rows in, rows and quarantine out, on the real engine with a clock of the test's own.

A test file `tests/NAME.yaml` holds one case or a list of them:

    name: an order that comes twice is one order
    table: silver.orders
    clock: 2024-05-01T12:00:00Z          # optional
    given:
      bronze.orders: [{order_id: a, …}]  # or {batches: [[…], […]]}; `records: ['…']` are raw records of a source
    expect:
      rows: [{order_id: a}]              # only the named columns are compared; the order of rows does not matter
      quarantine: [{kind: duplicate}]
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestream.engines.embedded.flow import Flow
from lodestream.errors import ConfigError, LodestreamError
from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import quarantine_name, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.project import Project
from lodestream.model.steps import Ask, FlowPlan, ReadSource, RunQuery
from lodestream.model.table import META_COLUMNS, Component, TableName
from lodestream.model.types import Schema
from lodestream.project.mistakes import Mistakes, ProjectError, nearest
from lodestream.project.nodes import from_yaml
from lodestream.runtime.pipeline import Pipeline
from lodestream.testing.rows import as_arrow, differences, moment_us

_CLOCK = "2024-01-01T00:00:00Z"
_SECOND_US = 1_000_000
_STEPS_MAX = 1000
_KEYS = ("name", "table", "clock", "given", "expect")


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes:
        file: path relative to the project folder.
        name: what it shows.
        table: the table under test.
        given: input rows by table, batch by batch; raw records under `records`.
        rows: expected rows, None to leave them alone.
        quarantine: expected quarantine entries, None to leave them alone.
        clock_us: time of the first batch; each further one is a second later.
    """

    file: str
    name: str
    table: TableName
    given: Mapping[str, Sequence[Sequence[Any]]]
    rows: Sequence[Mapping[str, Any]] | None
    quarantine: Sequence[Mapping[str, Any]] | None
    clock_us: int


@dataclass(frozen=True)
class Verdict:
    """What a test found; it passes when there are no differences."""

    case: Case
    differences: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the test passed."""
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        case = self.case
        return {
            "file": case.file, "name": case.name, "table": str(case.table), "ok": self.ok,
            "differences": list(self.differences),
        }  # fmt: skip


def find_cases(root: str, files: Iterable[str] | None = None) -> list[Case]:
    """The tests of a project, in order of file and place.

    Args:
        root: project folder.
        files: test files relative to it; all of `tests/*.yaml` when None.

    Raises:
        ConfigError: a file is not there or not a test file.
    """
    chosen = sorted(Path(root, "tests").glob("*.yaml")) if files is None else [Path(root, file) for file in files]
    return [case for path in chosen for case in _read(path, root)]


def _read(path: Path, root: str) -> list[Case]:
    file = os.path.relpath(path, root)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError("no such test file", file=file, reason=str(error)) from None
    mistakes = Mistakes()
    node = from_yaml(data, file, mistakes)
    if mistakes.found:
        raise ProjectError(mistakes.found)
    written = node.plain() if node is not None else None
    cases = written if isinstance(written, list) else [written]
    return [_case(file, number, one) for number, one in enumerate(cases, 1)]


def _case(file: str, number: int, written: Any) -> Case:
    where: dict[str, object] = {"file": file, "test": number}
    if not isinstance(written, dict):
        raise ConfigError("a test is a mapping with table, given and expect", **where)
    for key in written:
        if key not in _KEYS:
            raise ConfigError("unknown key in a test", key=key, nearest=nearest(key, _KEYS), **where)
    given, expect = written.get("given", {}), written.get("expect")
    if not isinstance(given, dict) or not isinstance(expect, dict) or not expect.keys() <= {"rows", "quarantine"}:
        raise ConfigError("a test needs given: {table: rows} and expect: {rows: […], quarantine: […]}", **where)
    try:
        table = TableName.parse(str(written.get("table", "")))
        clock_us = moment_us(written.get("clock", _CLOCK))
    except ValueError as error:
        raise ConfigError(str(error), **where) from None
    return Case(
        file, str(written.get("name", f"test {number}")), table,
        {name: _batches(rows, where) for name, rows in given.items()},
        _rows(expect.get("rows"), where), _rows(expect.get("quarantine"), where), clock_us,
    )  # fmt: skip


def _batches(written: Any, where: Mapping[str, object]) -> list[list[Any]]:
    batches = written["batches"] if isinstance(written, dict) and set(written) == {"batches"} else [written]
    if not isinstance(batches, list) or not all(isinstance(batch, list) for batch in batches):
        raise ConfigError("given rows are a list, or {batches: [[…], […]]}", **where)
    return batches


def _rows(written: Any, where: Mapping[str, object]) -> list[dict[str, Any]] | None:
    if written is None:
        return None
    if not isinstance(written, list) or not all(isinstance(row, dict) for row in written):
        raise ConfigError("expected rows are a list of mappings", **where)
    return written


class _Forgetful(LocalDisk):
    """A disk that keeps nothing over a power loss, which no unit test has: it saves the waiting."""

    def fsync(self, path: str) -> None:
        """Do not wait."""

    def sync_directory(self, path: str) -> None:
        """Do not wait."""


def run_case(project: Project, flows: Mapping[TableName, FlowPlan], case: Case) -> Verdict:
    """Run one test in a folder of its own that is gone afterwards.

    Args:
        project: for the folder of `python:` functions.
        flows: the project's compiled flows.
        case: the test.
    """
    plan = flows.get(case.table)
    if plan is None:
        near = nearest(str(case.table), map(str, flows))
        raise ConfigError("no such table", table=str(case.table), nearest=near, file=case.file)
    with tempfile.TemporaryDirectory(prefix="lodestream-test-") as folder:
        try:
            bench = _Bench(project, flows, case, plan, folder)
            bench.run()
            found = [*bench.rows_differ(), *bench.quarantine_differs()]
        except LodestreamError as error:
            found = [f"error: {error}"]
    return Verdict(case, tuple(found))


class _Bench:
    """One test under way: its lake, its inputs, its flow."""

    def __init__(
        self, project: Project, flows: Mapping[TableName, FlowPlan], case: Case, plan: FlowPlan, folder: str
    ) -> None:
        self.case, self.plan, self.flows = case, plan, flows
        self.disk = _Forgetful()
        self.lake = os.path.join(folder, "lake")
        self.records = os.path.join(folder, "records")
        self.now_us = case.clock_us
        first = plan.steps[0]
        if isinstance(first, ReadSource):
            os.makedirs(self.records)
            files = Component("files", {"path": self.records, "settle": 0})
            plan = replace(plan, steps=(replace(first, source=files), *plan.steps[1:]))
        self.pipeline = Pipeline(
            project.root, {case.table: plan}, lake=self.lake, disk=self.disk, clock=self._clock, handover=False,
            limit=project.limit,
        )  # fmt: skip

    def _clock(self) -> int:
        return self.now_us

    def run(self) -> None:
        """Give the inputs batch by batch; the flow comes to rest after each, so the watermark has moved on."""
        self._check_given()
        first = self.plan.steps[0]
        main = "records" if isinstance(first, ReadSource) else str(self.plan.upstream)
        for name, batches in self.case.given.items():
            if name != main:
                self._give_table(TableName.parse(name), batches)
        flow = self.pipeline.flow(self.case.table)
        try:
            if main in self.case.given and not isinstance(first, ReadSource):
                self._give_table(TableName.parse(main), [])
            flow.open()
            batches = self.case.given.get(main, [])
            for number, batch in enumerate(batches):
                self._give(main, number, batch)
                self._settle(flow)
            if not batches:
                self._settle(flow)
        finally:
            flow.close()

    def _settle(self, flow: Flow) -> None:
        """Step the flow until it has nothing left to do, as it does before anything more arrives."""
        for _ in range(_STEPS_MAX):
            if flow.step(idle=True) is None:
                break
            self.now_us += _SECOND_US

    def _check_given(self) -> None:
        """Every table that the flow reads must be given, and nothing else."""
        first = self.plan.steps[0]
        needed = {str(name) for name in self.plan.waits_for}
        needed.add("records" if isinstance(first, ReadSource) else str(self.plan.upstream))
        if isinstance(first, RunQuery):
            needed = {str(name) for name in first.inputs}
        facts = {"table": str(self.case.table), "file": self.case.file}
        if any(isinstance(step, Ask) for step in self.plan.steps):
            raise ConfigError("this table asks a service, and a test asks nobody; test the tables around it", **facts)
        for name in self.case.given:
            if name not in needed:
                raise ConfigError("the table does not read this", given=name, reads=", ".join(sorted(needed)), **facts)
        if missing := sorted(needed - set(self.case.given)):
            raise ConfigError("the table reads more than is given", missing=", ".join(missing), **facts)

    def _give(self, name: str, number: int, batch: Sequence[Any]) -> None:
        if name == "records":
            data = "".join(f"{record}\n" for record in batch).encode("utf-8", "surrogateescape")
            Path(self.records, f"{number:06}.txt").write_bytes(data)
        else:
            self._give_table(TableName.parse(name), [batch])

    def _give_table(self, name: TableName, batches: Sequence[Sequence[Any]]) -> None:
        """Write rows as the upstream flow would have: with provenance, one commit a batch."""
        schema = self._schema(name)
        table = DeltaTable.create(
            self.disk, table_path(self.lake, name), schema, table_id=f"test-{name}", clock_us=self.now_us
        )
        for batch in batches:
            done = sum(add.num_records or 0 for add in table.files())
            rows = self._stamped(
                as_arrow(batch, schema.without(*META_COLUMNS)), schema, done, table.snapshot.version + 1
            )
            staged = table.stage(rows, name=str(table.snapshot.version))
            table.commit(adds=staged.adds, clock_us=self.now_us)

    def _schema(self, name: TableName) -> Schema:
        """Columns of an input: as its own flow stores them, without physical partitions."""
        known = self.flows.get(name)
        if known is None:
            raise ConfigError("no such table", table=str(name), nearest=nearest(str(name), map(str, self.flows)))
        return known.schema

    def _stamped(self, rows: pa.Table, schema: Schema, done: int, batch: int) -> pa.Table:
        count = len(rows)
        stamps: dict[str, pa.Array] = {
            "_source": pa.array(["given"] * count, pa.string()),
            "_position": pa.array(range(done, done + count), pa.int64()),
            "_ingest_time": pa.array([self.now_us] * count, pa.timestamp("us", tz="UTC")),
            "_batch": pa.array([batch] * count, pa.int64()),
        }
        for name, values in stamps.items():
            if name in schema and name not in rows.column_names:
                rows = rows.append_column(name, values)
        return rows

    def rows_differ(self) -> list[str]:
        """Expected rows against those of the table."""
        if self.case.rows is None:
            return []
        return differences("row", self.case.rows, self._read(self.case.table), self.plan.schema)

    def quarantine_differs(self) -> list[str]:
        """Expected entries against those of its quarantine."""
        if self.case.quarantine is None:
            return []
        name = quarantine_name(self.case.table)
        table = DeltaTable.open(self.disk, table_path(self.lake, name))
        schema = table.snapshot.metadata.schema if table is not None else Schema()
        return differences("quarantine entry", self.case.quarantine, self._read(name), schema)

    def _read(self, name: TableName) -> pa.Table:
        table = DeltaTable.open(self.disk, table_path(self.lake, name))
        if table is None:
            return to_arrow(self.plan.schema).empty_table()
        return table.read(table.files())
