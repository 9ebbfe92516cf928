"""The lake as a trace looks at it: rows by key, the batch that wrote them, what was set aside."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.replay import open_entries
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.store import FlowStore
from lodestream.errors import ConfigError, CorruptionError, DataLossRefused
from lodestream.lake.actions import AddFile, Commit, Metadata
from lodestream.lake.disk import Disk
from lodestream.lake.layout import app_id, epoch_of, erased_by, present_app_id, quarantine_name, table_path
from lodestream.lake.log import list_log, read_commit
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.batch import BatchPlan, SourceRange
from lodestream.model.chained import as_rows
from lodestream.model.project import Project
from lodestream.model.steps import FlowPlan
from lodestream.model.table import WINDOW_END, WINDOW_START, TableName
from lodestream.operations.tracing.findings import Entry, Written
from lodestream.operations.tracing.keys import Test, all_of, place
from lodestream.operations.tracing.plain import bytes_text, moment
from lodestream.ports.registry import SchemaRegistry
from lodestream.runtime.pipeline import Pipeline


class Opened(Protocol):
    """What a trace needs of an opened project."""

    @property
    def project(self) -> Project:
        """The declarations."""

    @property
    def lake(self) -> str:
        """Root folder of the lake."""

    @property
    def home(self) -> str:
        """Folder of what only this machine needs of the lake."""

    @property
    def disk(self) -> Disk:
        """The lake's disk."""

    @property
    def flows(self) -> Mapping[TableName, FlowPlan]:
        """The compiled flows."""

    def pipeline(self) -> Pipeline:
        """The runnable flows, for the user's functions."""

    def resolve(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings with values in the place of their references."""

    def registry(self, name: str) -> SchemaRegistry:
        """A schema registry by name."""


class View:
    """One look at a lake; each table is opened once and read at the version it then had."""

    def __init__(self, app: Opened) -> None:
        self.app = app
        self.flows = app.flows
        self._tables: dict[TableName, DeltaTable | None] = {}
        self._written: dict[tuple[TableName, int], Written] = {}

    @cached_property
    def pipeline(self) -> Pipeline:
        """Finds the user's functions."""
        return self.app.pipeline()

    def table(self, name: TableName) -> DeltaTable | None:
        """The table, or None while it is not in the lake."""
        if name not in self._tables:
            self._tables[name] = DeltaTable.open(self.app.disk, table_path(self.app.lake, name))
        return self._tables[name]

    def epoch(self, name: TableName) -> int:
        """The table's rebuild generation."""
        table = self.table(name)
        return epoch_of(table.snapshot.metadata.configuration) if table else 1

    def committed(self, name: TableName) -> int:
        """The last batch of the table's flow, 0 before the first."""
        table = self.table(name)
        return table.snapshot.txns.get(app_id(name, self.epoch(name)), 0) if table else 0

    def last(self, name: TableName) -> Mapping[str, Any]:
        """`commitInfo` of the last batch; empty before the first."""
        table = self.table(name)
        commit = last_commit(table, app_id(name, self.epoch(name))) if table else None
        return commit.info if commit else {}

    def planned(self, name: TableName, batch: int) -> BatchPlan | None:
        """Plan N of the table's flow, if it is still kept."""
        return FlowStore(self.app.disk, self.app.lake, name, self.epoch(name)).plan(batch)

    def consumed(self, name: TableName) -> dict[str, SourceRange]:
        """Per source unit the range that was read last; its end is where reading goes on.

        Raises:
            CorruptionError: the flow's state is damaged.
        """
        table, batch = self.table(name), self.committed(name)
        if table is None or not batch:
            return {}
        epoch, state = self.epoch(name), FlowState()
        store = FlowStore(self.app.disk, self.app.lake, name, epoch)
        for link in store.chain(str(self.last(name)["state"]), table.snapshot.metadata.id, epoch, batch):
            state.apply(link)
        return state.consumed

    # --- rows --------------------------------------------------------------------------------------------------------

    def find(
        self, table: DeltaTable, tests: Sequence[Test], *, adds: Iterable[AddFile] | None = None, limit: int = 10
    ) -> tuple[int, list[dict[str, Any]]]:
        """How many rows pass all tests, and the first of them; one file is in memory at a time."""
        names = list(dict.fromkeys(test.column for test in tests))
        count, rows = 0, list[dict[str, Any]]()
        for add in table.files() if adds is None else adds:
            keys = table.read([add], columns=names)
            hits = pa.array(range(len(keys)), pa.int64()).filter(_flat(all_of(tests, keys)))
            count += len(hits)
            if len(hits) and len(rows) < limit:
                rows += table.read([add]).take(hits[: limit - len(rows)]).to_pylist()
        return count, rows

    def at(self, name: TableName, source: str, position: int) -> dict[str, Any] | None:
        """The row of a source position in a row-level table."""
        table = self.table(name)
        if table is None:
            return None
        _, rows = self.find(table, place(source, position), limit=1)
        return rows[0] if rows else None

    def windows_as_rows(self, name: TableName, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
        """The positions by which windows of a table are known to windows made of them."""
        table, groups = self.table(name), [group.name for group in self.flows[name].table.group_by]
        assert table is not None
        kinds = {field.name: field for field in to_arrow(table.snapshot.metadata.schema)}
        schema = pa.schema([kinds[column] for column in (WINDOW_START, WINDOW_END, *groups)])
        taken = [{column: row[column] for column in schema.names} for row in rows]
        known = as_rows(pa.Table.from_pylist(taken, schema=schema), name, groups)
        return list(zip(known.column("_source").to_pylist(), known.column("_position").to_pylist(), strict=True))

    def window_at(self, name: TableName, source: str, position: int) -> dict[str, Any] | None:
        """The window that is known by this position to windows made of it; None when there is no such window."""
        table = self.table(name)
        if table is None or self.flows[name].table.window is None:
            return None
        start = pa.scalar(position, pa.timestamp("us", tz="UTC"))
        _, rows = self.find(table, [Test(WINDOW_START, start, "")], limit=sys.maxsize)
        known = self.windows_as_rows(name, rows)
        return next((row for row, key in zip(rows, known, strict=True) if key == (source, position)), None)

    # --- batches -----------------------------------------------------------------------------------------------------

    def commit(self, name: TableName, batch: int) -> Commit | None:
        """The commit of a batch of the present epoch; None when the log no longer has it."""
        table, application = self.table(name), app_id(name, self.epoch(name))
        if table is None:
            return None
        versions = sorted(v for v in list_log(table.disk, table.path).commits if v <= table.snapshot.version)
        low, high = 0, len(versions)
        while low < high:  # batches grow with versions; versions of other writers lie between
            probe = middle = (low + high) // 2
            try:
                commit = read_commit(table.disk, table.path, versions[probe])
                while application not in commit.txns and probe + 1 < high:
                    probe += 1
                    commit = read_commit(table.disk, table.path, versions[probe])
            except FileNotFoundError:  # cleaned up since it was listed; the oldest go first
                low = probe + 1
                continue
            found = commit.txns.get(application)
            if found == batch:
                return commit
            low, high = (probe + 1, high) if found is not None and found < batch else (low, middle)
        return None

    def written(self, name: TableName, batch: int) -> Written:
        """Everything known about a batch and the definition it ran with."""
        known = self._written.get((name, batch))
        if known is None:
            known = self._written[name, batch] = self._look_up(name, batch)
        return known

    def _look_up(self, name: TableName, batch: int) -> Written:
        table, flow = self.table(name), self.flows[name]
        assert table is not None
        commit, plan = self.commit(name, batch), self.planned(name, batch)
        notes = list[str]()
        metadata: Metadata | None = table.snapshot.metadata
        info: Mapping[str, Any] = commit.info if commit else {}
        if commit is None:
            notes.append("the log no longer has this commit" + ("; told from the batch's plan" if plan else ""))
        try:
            metadata = table.snapshot_at(commit.version).metadata if commit else None
        except DataLossRefused:
            notes.append("the log no longer has the table's metadata of that version")
            metadata = None
        ran = info.get("definition") or (plan.definition if plan else None)
        if metadata is None and ran == table.snapshot.metadata.configuration.get("lodestream.hash"):
            metadata = table.snapshot.metadata  # nothing that decides rows has changed since
        spot = flow.table.declared_at
        return Written(
            table=str(name), batch=batch, epoch=self.epoch(name), version=commit.version if commit else None,
            time=moment(commit.timestamp_ms * 1000 if commit else plan.clock_us if plan else None),
            kind=info.get("kind") or (plan.kind if plan else None), attempt=info.get("attempt"), code=info.get("code"),
            hash=ran, declaration=_declaration(metadata),
            schema=tuple((c.name, str(c.type)) for c in metadata.schema) if metadata else (),
            declared_at=f"{spot.file}:{spot.line}" if spot else None, changed_since=ran != flow.definition,
            counts=info.get("counts") or {}, pins=info.get("pins") or (plan.pins if plan else {}),
            upto=info.get("upto", plan.upto if plan else -1), notes=tuple(notes),
        )  # fmt: skip

    # --- what was set aside ------------------------------------------------------------------------------------------

    def entries(self, name: TableName, source: str, position: int) -> tuple[Entry, ...]:
        """Every quarantine entry of a position, in batch order."""
        table = self.table(quarantine_name(name))
        if table is None:
            return ()
        _, rows = self.find(table, place(source, position), limit=sys.maxsize)
        return self.as_entries(name, sorted(rows, key=lambda row: int(row["_batch"])))

    def as_entries(self, name: TableName, rows: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
        """All quarantine rows of one position, in batch order, as entries."""
        if not rows:
            return ()
        listed = pa.table(
            {"index": range(len(rows)), **{c: [r[c] for r in rows] for c in ("_source", "_position", "kind")}}
        )
        standing = set(open_entries(listed).column("index").to_pylist())
        last_resolved = max((i for i, row in enumerate(rows) if row["kind"] == "resolved"), default=-1)
        found = []
        for i, row in enumerate(rows):
            state = "open" if i in standing else "resolved" if i < last_resolved else "superseded"
            if row["kind"] in ("late_window", "resolved"):
                state = "note"
            if row["_batch"] > self.committed(name):
                state = "not committed"
            found.append(self._entry(name, row, state))
        return tuple(found)

    def _entry(self, name: TableName, row: Mapping[str, Any], state: str) -> Entry:
        reasons = tuple(row["reasons"] or ())
        broken = {reason.split(":")[1] for reason in reasons if reason.startswith(("expect:", "drop:"))}
        declared: Any = ()
        if broken and row["_batch"] <= self.committed(name):
            declared = self.written(name, row["_batch"]).declaration.get("expect", ())
        return Entry(
            source=row["_source"], position=row["_position"], kind=row["kind"], reasons=reasons, rule=row["rule"],
            that=tuple((str(r[0]), str(r[1]), str(r[2])) for r in declared if r[0] in broken), batch=row["_batch"],
            time=row["_time"].isoformat().replace("+00:00", "Z"), detail=_decoded(row["detail"]),
            row=_decoded(row["row"]), raw=None if row["raw"] is None else bytes_text(row["raw"]), state=state,
        )  # fmt: skip


def _declaration(metadata: Metadata | None) -> dict[str, Any]:
    told = json.loads(metadata.configuration.get("lodestream.definition", "{}")) if metadata else {}
    return told if isinstance(told, dict) else {}


def at_version(table: DeltaTable, version: int) -> tuple[list[AddFile], str | None]:
    """The files of a version, or of the newest one with a note when that is no longer kept.

    Where rows were erased since, the files that hold what is left of it, with a note too.
    """
    try:
        return _erased_since(table, version) or (table.read_version(version), None)
    except (DataLossRefused, ConfigError, CorruptionError):
        return (
            table.files(),
            f"version {version} is no longer kept; these are the rows of version {table.snapshot.version}",
        )


def _erased_since(table: DeltaTable, version: int) -> tuple[list[AddFile], str] | None:
    """The live files whose rows had all come by a version, when rows of it were erased; else None."""
    configuration = table.snapshot.metadata.configuration
    if not erased_by(configuration)[0]:
        return None
    then = table.snapshot_at(version)
    if then.files.keys() <= table.snapshot.files.keys():
        return None
    name = TableName(*table.path.split(os.sep)[-2:])
    last = then.txns.get(present_app_id(name, configuration), 0)

    def had_come(add: AddFile) -> bool:
        batches = table.read([add], columns=["_batch"]).column("_batch")
        return add.path in then.files or (pc.max(batches).as_py() or 0) <= last

    return [add for add in table.files() if had_come(add)], f"rows were erased since version {version}"


def _flat(mask: pa.ChunkedArray | pa.Array) -> pa.Array:
    return mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask


def _decoded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
