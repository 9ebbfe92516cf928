"""Taking a table over from the embedded engine: a checkpoint with which Spark goes on where that stands.

Spark's batch 0 repeats the flow's last batch, N: it reads nothing of the upstream, and of a stream of its own the rows
that the state stands for, so that dedup, windows and joins know after it what the embedded engine knew. What the batch
gives is passed over, for batch N is committed. Spark is told so by the offset log: its entry 0 is written here, with
W(N).
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.checkpoints import Checkpoint, checkpoint_folders, folder_at
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.deletions import Deletions
from lodestream.engines.embedded.frames import connect, new_attempt
from lodestream.engines.embedded.kept import signed
from lodestream.engines.embedded.remembered import Memory, Point, Remembered
from lodestream.engines.embedded.sessions import open_windows
from lodestream.engines.embedded.sides import MATCHED, JoinState
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.embedded.takeover import check_handover, check_same
from lodestream.engines.spark.chained import offset_at
from lodestream.engines.spark.deletions import KeptDeletions
from lodestream.engines.spark.joins import kept_here
from lodestream.engines.spark.kept_windows import KeptWindows
from lodestream.engines.spark.marks import PARTITIONS, is_stateful
from lodestream.engines.spark.seeds import ALONE, MET, SEED_ASIDE, was
from lodestream.engines.spark.session import is_remote
from lodestream.engines.spark.tables import ABOVE, JOINED, PART, part_of
from lodestream.errors import ConfigError, DataLossRefused, TransientError
from lodestream.lake.actions import Commit
from lodestream.lake.crash import point
from lodestream.lake.disk import LocalDisk, replace_durable
from lodestream.lake.layout import present_app_id, table_path
from lodestream.lake.log import commit_path
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import from_arrow_type, to_arrow
from lodestream.model.steps import Aggregation, Annotate, ApplyChanges, Dedupe, FlowPlan, LookUp, ReadTable, Watermark
from lodestream.model.table import TableName
from lodestream.model.types import Column, Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from lodestream.engines.spark.tables import Tables

_MARKER = 0
"""`ALONE` of a row that only moves the watermark to where it would be."""


class Takeover:
    """Makes the checkpoint for one flow.

    Args:
        plan: the flow.
        around: its surroundings.
        tables: the lake's, as frames of the run's session.
        store: the flow's plans and states.
        kept: folder of the flow's checkpoints.
        table: the flow's table.
        quarantine: its quarantine.
        deletions: those that the query will remember, for a table of changes.
        windows: the open ones, of a flow that folds them.
    """

    def __init__(
        self, plan: FlowPlan, around: Surroundings, tables: Tables, store: FlowStore, kept: str,
        table: DeltaTable, quarantine: DeltaTable, deletions: KeptDeletions | None, windows: KeptWindows | None,
    ) -> None:  # fmt: skip
        self._plan, self._around, self._tables, self._session = plan, around, tables, tables.session
        self._deletions, self._windows = deletions, windows
        self._store, self._kept, self._table, self._quarantine = store, kept, table, quarantine

    def checkpoint(self, commit: Commit, batch: int, stream: Callable[[Checkpoint], DataFrame]) -> Checkpoint:
        """The checkpoint after the embedded engine's last batch, made now.

        `stream` makes the stream of a query that goes on from there.

        Raises:
            ConfigError: this table cannot be handed over.
            CorruptionError: the embedded engine's state is lost.
            DataLossRefused: the upstream's log no longer reaches back to what was taken in last, or what rows looked
                up is gone.
        """
        check_handover(self._plan)
        name = self._plan.table.name
        if is_remote(self._session):
            raise ConfigError(
                "a table that the embedded engine has filled is taken over in a session of this process only; run once "
                "with --master, then with --remote", table=str(name),
            )  # fmt: skip
        path, at = folder_at(self._kept, batch), Point.of(commit, batch)
        offsets: dict[str, Mapping[str, Any]] = {}
        other = offset_at(at.late_us)
        with connect() as connection:
            state = self._state(connection, commit, batch)
            first = self._plan.steps[0]
            if isinstance(first, ReadTable):
                memory = Memory(self._plan, self._around, connection, self._store, self._table, self._quarantine)
                found = memory.at(at)
                check_same(found, state, name)
                made = self._begun(path, first.table, at, offsets)
                made = self._seeded(made, found, at, offsets)
            else:
                made, other = Checkpoint(path, batch, consumed=tuple(state.consumed.values())), {"batch": batch}
        if self._deletions is not None and state.deletions is not None:
            self._deletions.take_over(state.deletions.table, batch)
        if self._windows is not None and state.windows is not None:
            self._windows.take_over(signed(state.windows.table), batch)
        self._write_log(path, at.late_us, [offsets.get(part, other) for part in _parts(stream(made))])
        point("takeover.before")
        made.put(LocalDisk())
        for folder in checkpoint_folders(LocalDisk(), self._kept):
            old = os.path.join(self._kept, folder)
            if old != path:  # the embedded engine has gone on since it was in use
                shutil.rmtree(old, ignore_errors=True)
        self._around.notice(name, f"taken over from the embedded engine at batch {batch}")
        return made

    def _state(self, connection: Any, commit: Commit, batch: int) -> FlowState:
        """What the embedded engine knows."""
        window, join, changes = self._plan.step(Aggregation), self._plan.join, self._plan.step(ApplyChanges)
        state = FlowState()
        state.dedup = DedupMap() if self._plan.step(Dedupe) else None
        state.windows = open_windows(connection, window) if window else None
        state.join = JoinState(join.join) if join else None
        state.deletions = Deletions(changes, self._table.snapshot.metadata.schema) if changes else None
        table_id = self._table.snapshot.metadata.id
        for link in self._store.chain(commit.info["state"], table_id, self._store.epoch, batch):
            state.apply(link)
        return state

    def _begun(self, path: str, above: TableName, at: Point, offsets: dict[str, Mapping[str, Any]]) -> Checkpoint:
        """Where reading of the tables goes on."""
        upstream_batch, offsets[ABOVE] = self._reached(above, at.upto)
        if self._plan.join is None:
            return Checkpoint(path, at.batch, upto=at.upto, upstream_batch=upstream_batch)
        joined_batch, offsets[JOINED] = self._reached(self._plan.join.join.table, at.joined_upto)
        return Checkpoint(
            path, at.batch, upto=at.upto, upstream_batch=upstream_batch, joined_upto=at.joined_upto,
            joined_batch=joined_batch,
        )  # fmt: skip

    def _reached(self, name: TableName, upto: int) -> tuple[int, Mapping[str, Any]]:
        """The batch that made a version of a table, and Delta's offset behind that version."""
        table = DeltaTable.open(self._around.disk, table_path(self._around.lake, name))
        if table is None:
            raise TransientError("upstream table is not there yet", table=str(name))
        if not self._around.disk.exists(commit_path(table.path, max(upto, 0))):
            raise DataLossRefused(
                "the upstream's log no longer reaches back to what was taken in last; run the embedded engine once",
                table=str(self._plan.table.name), upstream=str(name), version=upto,
            )  # fmt: skip
        then, told = table.snapshot_at(max(upto, 0)), _offset if self._tables.by_delta(name) else _version
        return then.txns.get(present_app_id(name, then.metadata.configuration), 0), told(table, upto + 1)

    # --- rows that make state ----------------------------------------------------------------------------------------

    def _seeded(
        self, made: Checkpoint, found: Remembered, at: Point, offsets: dict[str, Mapping[str, Any]]
    ) -> Checkpoint:
        """Store the rows from which Spark makes its state."""
        here, there = (
            self._stored(made.path, f"{name}-{new_attempt()}", rows, offsets)
            for name, rows in (("seed", self._here(found, at)), ("joined", self._there(found, at)))
        )
        return replace(made, seed=here, joined_seed=there)

    def _here(self, found: Remembered, at: Point) -> pa.Table | None:
        """Rows that take their keys, those of open windows or that wait for a partner, and the marker."""
        watermark = self._plan.step(Watermark)
        parts, inside = [], found.inside
        if found.keyed is not None and len(found.keyed):
            parts.append(_marked(found.keyed, aside=True))
        if found.join is not None and self._plan.join is not None and len(found.join.here):
            rows = found.join.here.rows
            on = [name for name, _ in self._plan.join.join.on]
            event = [watermark.event_time.column] if watermark is not None else []
            enrichers = [step for step in self._plan.steps if isinstance(step, Annotate)]
            asked = [name for step in enrichers for name in step.reads]
            said = {name for step in enrichers for name in step.schema.names}  # enrichers say it again
            kept = kept_here(rows.column_names, self._plan)
            wanted = dict.fromkeys([*kept, *on, *event, *self._looked_up, *asked])
            names = [name for name in wanted if name not in said]
            inside = rows.select([*names, MATCHED]).rename_columns([*names, MET])
        if inside is not None and len(inside):
            inside = inside.rename_columns([was(c) if c in self._looked_up else c for c in inside.column_names])
            numbers = pa.array(np.arange(_MARKER + 1, len(inside) + 1))
            parts.append(_marked(inside, aside=False, alone=numbers))
        if watermark and not watermark.follows and is_stateful(self._plan) and at.max_event_us is not None:
            parts.append(_marker(watermark.event_time.column, at.max_event_us))
        return _together(parts)

    @property
    def _looked_up(self) -> list[str]:
        return [here for step in self._plan.steps if isinstance(step, LookUp) for _, here in step.lookup.columns]

    def _there(self, found: Remembered, at: Point) -> pa.Table | None:
        """Rows of the other stream that wait for a partner, and a marker."""
        if found.join is None or self._plan.join is None:
            return None
        step, waiting = self._plan.join, found.join.there
        none = to_arrow(step.reads).empty_table()
        parts = [_marked(none.cast(pa.schema([field.with_nullable(True) for field in none.schema])), aside=False)]
        if len(waiting):
            met = waiting.rows.column(MATCHED)
            parts.append(_marked(waiting.rows.select(step.reads.names).append_column(MET, met), aside=False))
        if at.joined_max_event_us is not None:
            parts.append(_marker(step.join.event_time.column, at.joined_max_event_us))
        rows = _together(parts)
        return rows if rows is not None and len(rows) else None

    def _stored(self, path: str, name: str, rows: pa.Table | None, offsets: dict[str, Mapping[str, Any]]) -> str:
        """Store the rows as a table in the checkpoint's folder; its name, empty for no rows."""
        if rows is None:
            return ""
        columns = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in rows.columns]
        rows, clock_us = pa.table(columns, names=rows.column_names), self._around.clock()
        schema = Schema(tuple(Column(field.name, from_arrow_type(field.type)) for field in rows.schema))
        table = DeltaTable.create(
            LocalDisk(), os.path.join(path, name), schema, table_id=str(uuid.uuid4()), clock_us=clock_us
        )
        table.commit(adds=table.stage(rows, name="seed").adds, clock_us=clock_us)
        offsets[name] = _offset(table, 2)
        return name

    def _write_log(self, path: str, late_us: int, offsets: list[Mapping[str, Any]]) -> None:
        """The query's id, and entry 0 of its offset log, as Spark would have written them before it ran the batch."""
        disk, query = LocalDisk(), json.dumps({"id": str(uuid.uuid4())}).encode()
        replace_durable(disk, os.path.join(path, "metadata"), query)
        jvm: Any = self._session._jvm
        metadata = jvm.org.apache.spark.sql.execution.streaming.checkpointing.OffsetSeqMetadata
        session: Any = self._session._jsparkSession
        told = json.loads(metadata.apply(late_us // 1000, self._around.clock() // 1000, session.conf()).json())
        told["conf"][PARTITIONS] = str(self._session.conf.get(PARTITIONS))  # which is a query's own, so not there yet
        lines = ["v1", *map(json.dumps, (told, *offsets))]
        replace_durable(disk, os.path.join(path, "offsets", "0"), "\n".join(lines).encode())


def seed_rows(session: SparkSession, checkpoint: Checkpoint, name: str) -> DataFrame | None:
    """The rows that a take-over begins with, as a stream; None for none. `name` is that of their folder."""
    if not name:
        return None
    reader = session.readStream.format("delta").option("startingVersion", 0).option(PART, name)
    return reader.load(os.path.join(checkpoint.path, name))


def _marked(rows: pa.Table, *, aside: bool, alone: pa.Array | None = None) -> pa.Table:
    """With the columns of rows that only make state; what is aside waits for nobody, as if it had a partner."""
    rows = rows.append_column(SEED_ASIDE, pa.repeat(pa.scalar(aside), len(rows)))
    if MET not in rows.column_names:
        rows = rows.append_column(MET, pa.repeat(pa.scalar(aside), len(rows)))
    return rows if alone is None else rows.append_column(ALONE, alone)


def _marker(event: str, time_us: int) -> pa.Table:
    time = pa.array([time_us], pa.timestamp("us", tz="UTC"))
    place = pa.array([-1], pa.int64())
    rows = pa.table({event: time, "_source": pa.array([""]), "_position": place})
    return _marked(rows, aside=True, alone=pa.array([_MARKER], pa.int64()))


def _together(parts: Sequence[pa.Table]) -> pa.Table | None:
    return pa.concat_tables(parts, promote_options="permissive") if parts else None


def _parts(stream: DataFrame) -> list[str]:
    """What each source reads in the order in which the offset log has them: one as often as the query names it."""
    leaves: Any = stream._jdf.queryExecution().analyzed().collectLeaves()
    found = [leaves.apply(i) for i in range(leaves.size())]
    return [part_of(leaf) for leaf in found if leaf.isStreaming()]


def _offset(table: DeltaTable, version: int) -> Mapping[str, Any]:
    """Delta's offset after everything before a version."""
    return {
        "sourceVersion": 1, "reservoirId": table.snapshot.metadata.id, "reservoirVersion": version, "index": -1,
        "isStartingVersion": False,
    }  # fmt: skip


def _version(_table: DeltaTable, version: int) -> Mapping[str, Any]:
    """The offset of `tables.CommittedRows` after everything before a version."""
    return {"upto": version - 1}
