"""Taking a table over from the embedded engine: a checkpoint with which Spark goes on where that stands.

Spark's batch 0 repeats the flow's last batch, N: it reads nothing of the upstream, and of a second stream the rows
that the state stands for, so that dedup and windows know after it what the embedded engine knew. What the batch gives
is passed over, for batch N is committed. Spark is told so by the offset log: its entry 0 is written here, with W(N).
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.checkpoints import Checkpoint, checkpoint_folders, folder_at
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.frames import connect, new_attempt
from lodestream.engines.embedded.sessions import open_windows
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.embedded.takeover import (
    IN_WINDOWS,
    TAKES_KEY,
    Point,
    Remembered,
    check_handover,
    check_same,
    remembered,
)
from lodestream.engines.spark.rows import WINDOW_ERRORS
from lodestream.engines.spark.session import is_remote
from lodestream.engines.spark.stream import ALONE
from lodestream.errors import ConfigError, DataLossRefused, TransientError
from lodestream.lake.actions import Commit
from lodestream.lake.crash import point
from lodestream.lake.disk import LocalDisk, replace_durable
from lodestream.lake.layout import present_app_id, table_path
from lodestream.lake.log import commit_path
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import from_arrow_type
from lodestream.model.steps import Aggregation, Dedupe, FlowPlan, ReadTable, Watermark
from lodestream.model.types import Column, Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from lodestream.engines.spark.tables import Tables

_PARTITIONS = "spark.sql.shuffle.partitions"
_ASIDE = "_aside"
_MARKER = 0
"""Of a row that only moves the watermark to where it would be."""


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
    """

    def __init__(
        self, plan: FlowPlan, around: Surroundings, tables: Tables, store: FlowStore, kept: str,
        table: DeltaTable, quarantine: DeltaTable,
    ) -> None:  # fmt: skip
        self._plan, self._around, self._tables, self._session = plan, around, tables, tables.session
        self._store, self._kept, self._table, self._quarantine = store, kept, table, quarantine

    def checkpoint(self, commit: Commit, batch: int, stream: Callable[[Checkpoint], DataFrame]) -> Checkpoint:
        """The checkpoint after the embedded engine's last batch, made now.

        `stream` makes the stream of a query that goes on from there.

        Raises:
            ConfigError: this table cannot be handed over.
            CorruptionError: the embedded engine's state is lost.
            DataLossRefused: the upstream's log no longer reaches back to what was taken in last.
        """
        check_handover(self._plan)
        if is_remote(self._session):
            raise ConfigError(
                "a table that the embedded engine has filled is taken over in a session of this process only; run once "
                "with --master, then with --remote", table=str(self._plan.table.name),
            )  # fmt: skip
        path, at, first = folder_at(self._kept, batch), Point.of(commit, batch), self._plan.steps[0]
        seed: DeltaTable | None = None
        with connect() as connection:
            state = self._state(connection, commit, batch)
            if isinstance(first, ReadTable):
                found = remembered(self._plan, self._around, connection, self._quarantine, at)
                check_same(found, state, self._plan.table.name)
                upstream = self._upstream(first, at)
                told = _offset if self._tables.by_delta(first.table) else _version
                made, offset = self._after_table(path, first, upstream, at), told(upstream, at.upto + 1)
                if found.dedup is not None or found.windows is not None:
                    seed = self._seed(os.path.join(path, name := f"seed-{new_attempt()}"), found, at)
                    made = replace(made, seed=name)
            else:
                made, offset = Checkpoint(path, batch, consumed=tuple(state.consumed.values())), {"batch": batch}
        sources = [ALONE in columns for columns in _sources(stream(made))]
        offsets = [_offset(seed, 2) if is_seed and seed is not None else offset for is_seed in sources]
        self._write_log(path, at.late_us, offsets)
        point("takeover.before")
        made.put(LocalDisk())
        for name in checkpoint_folders(LocalDisk(), self._kept):
            old = os.path.join(self._kept, name)
            if old != path:  # the embedded engine has gone on since it was in use
                shutil.rmtree(old, ignore_errors=True)
        self._around.notice(self._plan.table.name, f"taken over from the embedded engine at batch {batch}")
        return made

    def _state(self, connection: Any, commit: Commit, batch: int) -> FlowState:
        """What the embedded engine knows."""
        window = self._plan.step(Aggregation)
        state = FlowState()
        state.dedup = DedupMap() if self._plan.step(Dedupe) else None
        state.windows = open_windows(connection, window) if window else None
        table_id = self._table.snapshot.metadata.id
        for link in self._store.chain(commit.info["state"], table_id, self._store.epoch, batch):
            state.apply(link)
        return state

    def _upstream(self, first: ReadTable, at: Point) -> DeltaTable:
        upstream = DeltaTable.open(self._around.disk, table_path(self._around.lake, first.table))
        if upstream is None:
            raise TransientError("upstream table is not there yet", table=str(first.table))
        if not self._around.disk.exists(commit_path(upstream.path, max(at.upto, 0))):
            raise DataLossRefused(
                "the upstream's log no longer reaches back to what was taken in last; run the embedded engine once",
                table=str(self._plan.table.name), upstream=str(first.table), version=at.upto,
            )  # fmt: skip
        return upstream

    def _after_table(self, path: str, first: ReadTable, upstream: DeltaTable, at: Point) -> Checkpoint:
        then = upstream.snapshot_at(max(at.upto, 0))
        application = present_app_id(first.table, then.metadata.configuration)
        return Checkpoint(path, at.batch, upto=at.upto, upstream_batch=then.txns.get(application, 0))

    def _seed(self, path: str, found: Remembered, at: Point) -> DeltaTable:
        """Store the rows, and one that takes Spark's watermark to where the next batch has it."""
        watermark = self._plan.step(Watermark)
        assert watermark is not None
        takes, inside = (found.rows.column(name).to_numpy() for name in (TAKES_KEY, IN_WINDOWS))
        numbers = pa.array(np.arange(1, len(takes) + 1), mask=takes.astype(np.bool_))
        rows = found.rows.drop_columns([TAKES_KEY, IN_WINDOWS])
        rows = rows.append_column(ALONE, numbers).append_column(_ASIDE, pa.array(~inside.astype(np.bool_)))
        if at.max_event_us is not None:
            event = watermark.event_time.column
            values = {event: at.max_event_us, "_source": "", "_position": -1, ALONE: _MARKER, _ASIDE: True}
            marker = [pa.array([values.get(field.name)], field.type) for field in rows.schema]
            rows = pa.concat_tables([rows, pa.Table.from_arrays(marker, schema=rows.schema)])
        schema = Schema(tuple(Column(field.name, from_arrow_type(field.type)) for field in rows.schema))
        table = DeltaTable.create(LocalDisk(), path, schema, table_id=str(uuid.uuid4()), clock_us=self._around.clock())
        adds = table.stage(rows, name="seed").adds if len(rows) else ()
        table.commit(adds=adds, clock_us=self._around.clock())
        return table

    def _write_log(self, path: str, late_us: int, offsets: list[Mapping[str, Any]]) -> None:
        """The query's id, and entry 0 of its offset log, as Spark would have written them before it ran the batch."""
        disk, query = LocalDisk(), json.dumps({"id": str(uuid.uuid4())}).encode()
        replace_durable(disk, os.path.join(path, "metadata"), query)
        jvm: Any = self._session._jvm
        metadata = jvm.org.apache.spark.sql.execution.streaming.checkpointing.OffsetSeqMetadata
        session: Any = self._session._jsparkSession
        told = json.loads(metadata.apply(late_us // 1000, self._around.clock() // 1000, session.conf()).json())
        told["conf"][_PARTITIONS] = str(self._session.conf.get(_PARTITIONS))  # which is a query's own, so not there yet
        lines = ["v1", *map(json.dumps, (told, *offsets))]
        replace_durable(disk, os.path.join(path, "offsets", "0"), "\n".join(lines).encode())


def seed_rows(session: SparkSession, checkpoint: Checkpoint) -> DataFrame | None:
    """The rows that a take-over begins with, as a stream; None for none."""
    if not checkpoint.seed:
        return None
    reader = session.readStream.format("delta").option("startingVersion", 0)
    rows = reader.load(os.path.join(checkpoint.path, checkpoint.seed))
    errors = f"CASE WHEN {_ASIDE} THEN array('seed') ELSE cast(array() AS array<string>) END AS {WINDOW_ERRORS}"
    return rows.selectExpr("*", errors).drop(_ASIDE)


def _sources(stream: DataFrame) -> list[str]:
    """The columns of each source in the order in which the offset log has them: one as often as the query names it."""
    leaves: Any = stream._jdf.queryExecution().analyzed().collectLeaves()
    found = (leaves.apply(i) for i in range(leaves.size()))
    return [str(leaf.output().mkString(",")) for leaf in found if leaf.isStreaming()]


def _offset(table: DeltaTable, version: int) -> Mapping[str, Any]:
    """Delta's offset after everything before a version."""
    return {
        "sourceVersion": 1, "reservoirId": table.snapshot.metadata.id, "reservoirVersion": version, "index": -1,
        "isStartingVersion": False,
    }  # fmt: skip


def _version(_table: DeltaTable, version: int) -> Mapping[str, Any]:
    """The offset of `tables.CommittedRows` after everything before a version."""
    return {"upto": version - 1}
