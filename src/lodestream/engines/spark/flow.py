"""One flow on Spark: a Structured Streaming query that fills one table, exactly once.

The order of effects in a batch is plan, quarantine commit, main commit, Spark's own commit marker. Batch N of the flow
is Spark's batch N-1; its number is the `txn` of both commits, so a batch that Spark repeats changes nothing.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.checkpoints import Checkpoint, checkpoint_at, checkpoint_of
from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.inputs import reader_group
from lodestream.engines.embedded.kept import is_folded
from lodestream.engines.embedded.readers import Readers
from lodestream.engines.embedded.rebuild import begin_epoch, quarantine_properties, table_properties
from lodestream.engines.embedded.rejects import QUARANTINE
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Committed, Surroundings
from lodestream.engines.embedded.takeover import is_spark
from lodestream.engines.spark.batch import Batch, decide, keep
from lodestream.engines.spark.chained import watermarks_of, windows_as_rows
from lodestream.engines.spark.changes import Merge, Merger
from lodestream.engines.spark.commits import Written, commit_batch, write_files
from lodestream.engines.spark.deletions import KeptDeletions
from lodestream.engines.spark.drift import decoding, with_drift
from lodestream.engines.spark.expressions import quoted
from lodestream.engines.spark.failures import in_our_words, root_cause
from lodestream.engines.spark.folded import Folding
from lodestream.engines.spark.kept_windows import KeptWindows
from lodestream.engines.spark.lookups import pinned_tables
from lodestream.engines.spark.marks import Marks, is_stateful, partitions_of, ranges, reads_commits
from lodestream.engines.spark.pins import pins_of
from lodestream.engines.spark.python_step import called
from lodestream.engines.spark.rows import given_columns
from lodestream.engines.spark.session import reading_tasks
from lodestream.engines.spark.source import ARRIVED, PlannedSource, Recipe
from lodestream.engines.spark.stream import TIME, Beside, stream_of
from lodestream.engines.spark.tables import ABOVE, JOINED, Followed, Tables, first_version
from lodestream.engines.spark.takeover import Takeover, seed_rows
from lodestream.errors import (
    ConfigError,
    ConflictError,
    CorruptionError,
    LodestreamError,
    TransientError,
)
from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import EPOCH_PROPERTY, app_id, epoch_of, flow_folder, quarantine_name, table_path
from lodestream.lake.retention import kept_from_us, later_us
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import (
    Aggregation,
    ApplyChanges,
    FlowPlan,
    ReadSource,
    ReadTable,
    RunPython,
    Watermark,
)
from lodestream.model.table import TableName
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery


Listener = Callable[[Committed], None]
MakeRecipe = Callable[[FlowPlan, int, str, Checkpoint], Recipe]
"""Makes what a source's reader needs from the flow, its epoch, its name among readers and its checkpoint."""
MakeFlow = Callable[[TableName], Flow]
"""Makes the embedded engine's flow of a table."""


class SparkFlow:
    """Fills one table. Call `open`, then `start`; a query that ended is started again by a new `SparkFlow`.

    Args:
        plan: the flow.
        around: the flow's surroundings; a lake in a folder must be one that Spark sees too.
        checkpoints: root folder of the checkpoints, that of the lake or another one that Spark sees.
        session: the run's session.
        make_recipe: for a flow that reads a source.
        embedded: ends a batch that the embedded engine has begun.
        poll_s: how often to look for new rows.
        widening: tables whose columns drift may widen.
    """

    def __init__(
        self, plan: FlowPlan, around: Surroundings, checkpoints: str, session: SparkSession, make_recipe: MakeRecipe,
        embedded: MakeFlow, poll_s: float, widening: frozenset[TableName] = frozenset(),
    ) -> None:  # fmt: skip
        self.plan, self.name = plan, plan.table.name
        self.query: StreamingQuery | None = None
        self.error: Exception | None = None
        self._calls: list[Callable[[DataFrame, int], None]] = []
        self._followed: list[Followed] = []
        self._around, self._session, self._checkpoints = around, session, checkpoints
        self._tables = Tables(session, around.disk, around.lake, widening)
        self._readers = Readers(around.disk, around.lake)
        self._recipe: Recipe | None = None
        self._make_recipe, self._embedded, self._poll_s = make_recipe, embedded, poll_s
        self._window = plan.step(Aggregation)
        self._watermark = plan.step(Watermark)
        self._merger: Merger | None = None
        self._folding = Folding(plan) if is_folded(plan) else None
        self._stateful = is_stateful(plan)
        self.listener: Listener = lambda _committed: None

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the tables and see that the checkpoint is theirs.

        Raises:
            ConfigError: the table was made by another definition, or cannot be taken over from the embedded engine; or
                there is no function of that name.
            CorruptionError: the checkpoint is lost, or that of another lake.
        """
        around = self._around
        self.table = self._open_table(table_path(around.lake, self.name), main=True)
        configuration = self.table.snapshot.metadata.configuration
        if configuration.get("lodestream.hash") != self.plan.definition:
            raise ConfigError(
                "table was made by another definition; see lodestream plan, then run with the accepted plan",
                table=str(self.name),
            )
        self.epoch = epoch_of(configuration)
        self._read = decoding(self.plan, self.table.snapshot.metadata.schema)
        self.quarantine = self._open_table(table_path(around.lake, quarantine_name(self.name)), main=False)
        if epoch_of(self.quarantine.snapshot.metadata.configuration) < self.epoch:
            begin_epoch(self.quarantine, self.epoch, clock_us=around.clock())
        self.app_id = app_id(self.name, self.epoch)
        self.store = FlowStore(around.disk, around.lake, self.name, self.epoch)
        self._kept = self.store.root if not around.disk.atomic else os.path.join(
            flow_folder(self._checkpoints, self.name), self.table.snapshot.metadata.id, str(self.epoch)
        )  # fmt: skip
        if (step := self.plan.step(RunPython)) is not None:
            around.functions(step.step.function)  # what is not there is told here, not by a worker
        changes, schema = self.plan.step(ApplyChanges), self.table.snapshot.metadata.schema
        deletions = windows = None
        if changes is not None:
            deletions = KeptDeletions(around, self.name, self.epoch, changes, schema)
            self._merger = Merger(self.plan, changes, self.table, deletions)
        if self._folding is not None:
            windows = self._open_windows = KeptWindows(around, self.name, self.epoch, self._folding.state)
        tables = self._tables, self.store, self._kept, self.table, self.quarantine
        takeover = Takeover(self.plan, around, *tables, deletions, windows)
        while (checkpoint := self._checkpoint(takeover)) is None:
            self._finish_embedded()
        self.checkpoint = checkpoint

    def _open_table(self, path: str, *, main: bool) -> DeltaTable:
        properties = {EPOCH_PROPERTY: "1", **(table_properties if main else quarantine_properties)(self.plan)}
        return DeltaTable.create(
            self._around.disk, path, self.plan.schema if main else QUARANTINE,
            partition_columns=self.plan.partition_columns if main else (), configuration=properties,
            table_id=str(uuid.uuid4()), clock_us=self._around.clock(),
        ).forgetful()  # fmt: skip

    def _checkpoint(self, takeover: Takeover) -> Checkpoint | None:
        """The checkpoint to go on with; None when the embedded engine has begun a batch that only it can end.

        Without its checkpoint Spark would begin again, and every batch would be passed over as done already.
        """
        disk, root = LocalDisk(), self._kept
        batch = self.table.snapshot.txns.get(self.app_id, 0)
        commit = last_commit(self.table, self.app_id)
        self._info: Mapping[str, Any] = commit.info if commit is not None else {}
        pending = self.store.plan(batch + 1)
        if commit is not None and not is_spark(commit):
            made = checkpoint_at(disk, root, batch)
            if pending is None or self._fits(pending, made):
                return made or takeover.checkpoint(commit, batch, self._stream)
            return None
        made = checkpoint_of(disk, root, self._info["query"]) if batch else checkpoint_at(disk, root, 0)
        if made is None or not max(batch, self.store.last_planned() - 1) <= made.started <= batch + 1:
            raise self._lost(batch)
        return made if pending is None or self._fits(pending, made) else None

    def _fits(self, plan: BatchPlan, checkpoint: Checkpoint | None) -> bool:
        """Whether the query would make the same plan: that of a source is followed, whoever made it."""
        if isinstance(self.plan.steps[0], ReadSource):
            return plan.kind in ("data", "no_data")
        if checkpoint is None or plan.batch > checkpoint.started or plan.kind == "replay":
            return False
        before, marks = self._range(checkpoint, checkpoint.number_of(plan.batch))
        told = plan.after, plan.upto, plan.joined_after, plan.joined_upto, plan.late_us, plan.evict_us
        made = before.upto, marks.upto, before.joined_upto, marks.joined_upto, marks.late_us, marks.evict_us
        return told == made

    def _finish_embedded(self) -> None:
        """Have the embedded engine run the batch that it has planned."""
        flow = self._embedded(self.name)
        try:
            flow.open()
            flow.step(idle=False)
        finally:
            flow.close()
        self.table.refresh()
        self.quarantine.refresh()

    def _lost(self, batch: int) -> CorruptionError:
        return CorruptionError(
            "the checkpoint of Spark is lost or another one; put it back, go on with the embedded engine, or begin the "
            f"table again: lodestream table restore {self.name} --version 0 --rewind",
            table=str(self.name), batch=batch, folder=self._kept,
        )  # fmt: skip

    # --- running -----------------------------------------------------------------------------------------------------

    def start(self, listener: Listener) -> None:
        """Start the query; `listener` hears of each batch, on a thread of Spark's."""
        self.listener = listener
        updates = self._window is not None and self._window.emit == "updates" and self._folding is None
        mode = "update" if updates else "append"
        writer = self._stream(self.checkpoint).writeStream.queryName(str(self.name)).outputMode(mode)
        writer = writer.option("checkpointLocation", self.checkpoint.path).foreachBatch(self._batches)
        self.query = writer.trigger(processingTime=f"{self._poll_s} seconds").start()

    def follow(self) -> None:
        """Know the tables that are read without starting a query: batches run here, the query is another process's."""
        self._stream(self.checkpoint)

    def _stream(self, checkpoint: Checkpoint) -> DataFrame:
        self._followed = []
        seed, there = (seed_rows(self._session, checkpoint, name) for name in (checkpoint.seed, checkpoint.joined_seed))
        frame, step = self._input(checkpoint), self.plan.step(RunPython)
        if step is not None:
            frame = called(frame, self.plan, step, self._around.functions)
        joined, lookups, parts = self._joined(checkpoint), self._lookups(checkpoint), partitions_of(checkpoint)
        return stream_of(frame, self._read, Beside(self._markers(), joined, lookups, seed, there, parts))

    @property
    def outdated(self) -> bool:
        """Whether columns have come in since the query began, which until it is begun anew reads each batch twice."""
        return decoding(self.plan, self.table.snapshot.metadata.schema).steps[0] != self._read.steps[0]

    def settle(self) -> None:
        """Wait until all rows that are there are taken in, and the batches that only move the watermark are done.

        Raises:
            LodestreamError: the query failed.
        """
        from pyspark.errors import PySparkException

        assert self.query is not None
        try:
            self.query.processAllAvailable()
        except PySparkException as error:
            raise self.failure(error) from error
        self.check()

    def check(self) -> None:
        """Raise what ended the query, if it failed."""
        assert self.query is not None
        if self.error is not None or self.query.exception() is not None:
            raise self.failure(self.query.exception())

    def failure(self, error: object) -> LodestreamError:
        """What ended the query, in our words."""
        if isinstance(self.error, LodestreamError):
            return self.error
        text = f"{root_cause(self.query)}\n{self.error or error}".strip()
        return in_our_words(text, str(self.name))

    def stop(self) -> None:
        """End the query; a batch that is under way is done again by the next start. Twice is harmless."""
        if self.query is not None:
            self.query.stop()
        self._calls.clear()

    def _input(self, checkpoint: Checkpoint) -> DataFrame:
        first = self.plan.steps[0]
        columns = given_columns(self.plan)
        if isinstance(first, ReadSource):
            group = reader_group(self.name, self.table.snapshot.metadata.id, self.epoch)
            recipe = self._make_recipe(self._read, self.epoch, group, checkpoint)
            self._recipe = replace(recipe, tasks=reading_tasks(self._session))
            format_name = f"lodestream_{self.name.layer}_{self.name.name}"
            self._session.dataSource.register(PlannedSource.named(format_name, self._recipe))
            return self._session.readStream.format(format_name).load()
        assert isinstance(first, ReadTable)
        if first.windows is not None:
            return windows_as_rows(self._new_rows(first.table, checkpoint), first, ARRIVED)
        rows = self._new_rows(first.table, checkpoint)
        return rows.selectExpr(*map(quoted, columns), f"_batch AS {ARRIVED}")

    def _joined(self, checkpoint: Checkpoint) -> DataFrame | None:
        """The other stream of a join."""
        if self.plan.join is None:
            return None
        rows = self._new_rows(self.plan.join.join.table, checkpoint, joined=True)
        return rows.select(*map(quoted, self.plan.join.reads.names))

    def _markers(self) -> DataFrame | None:
        """The watermarks of the table above, when its watermark is this one's."""
        if self._watermark is None or self._watermark.follows is None:
            return None
        return watermarks_of(self._tables, self._watermark.follows, TIME)

    def _lookups(self, checkpoint: Checkpoint) -> tuple[DataFrame, ...]:
        """The tables looked up, where what is looked up is counted or joined."""
        if self.plan.join is None and (self._window is None or self._folding is not None):
            return ()
        return pinned_tables(self._tables, self.plan, self.epoch, checkpoint)

    def _new_rows(self, name: TableName, checkpoint: Checkpoint, *, joined: bool = False) -> DataFrame:
        """The rows that a table's commits add; after a take-over only those that were not taken in before it."""
        path = table_path(self._around.lake, name)
        upstream = DeltaTable.follow(self._around.disk, path)
        if upstream is None:
            raise TransientError("upstream table is not there yet", table=path)
        label, part = f"{self.name.layer}_{self.name.name}", JOINED if joined else ABOVE
        # After a take-over Delta reads the last version again, in the batch that gives nothing.
        reached = checkpoint.joined_upto if joined else checkpoint.upto
        begin = max(reached, 0) if checkpoint.batch else first_version(upstream)
        self._followed.append(Followed(upstream, begin))
        told = self._range(checkpoint, checkpoint.number_of(checkpoint.started))[1]
        known, ours = told.joined_upto if joined else told.upto, reads_commits(checkpoint)
        rows = self._tables.following(name, upstream, label, part, begin, known, ours=ours)
        before = checkpoint.joined_batch if joined else checkpoint.upstream_batch
        return rows.where(f"_batch > {before}") if checkpoint.batch else rows

    # --- one batch ---------------------------------------------------------------------------------------------------

    @property
    def _batches(self) -> Callable[[DataFrame, int], None]:
        """What the query calls. Java holds on to it and Python to the query, a ring that `stop` has to cut."""
        calls = self._calls
        calls.append(self.run_batch)
        return lambda stream, number: calls[0](stream, number)

    def run_batch(self, stream: DataFrame, number: int) -> None:
        """Run one batch of the query."""
        try:
            self._run_batch(stream, number)
        except Exception as error:
            self.error = error
            raise

    def _run_batch(self, stream: DataFrame, number: int) -> None:
        if self._is_done(number):
            if self._stateful:  # what is not computed leaves Spark without the state that the next batch begins with
                stream.write.format("noop").mode("overwrite").save()
            return
        batch = self._planned(number)
        with ExitStack() as held:
            given, merge = self._info.get("given") or 0, None
            stored = self.table.snapshot.metadata.schema
            taken = with_drift(keep(stream, held), batch, self._read, self.plan, stored, self._reading)
            stream = taken.stream if taken.plan is self._read else keep(taken.stream, held)
            decided = decide(stream, taken.plan, batch, self._tables, held, given)
            if self._merger is not None and decided.output is not None:
                merge = self._merger.merge(decided.output, batch, held)
                decided.counts |= merge.counted
            files = self._written(decided, batch, taken.schema, merge, held)
            self._commit_quarantine(files, batch)
            self._commit_deletions(files, batch)
            self._commit_windows(files, batch)
            self._commit_main(files, decided, batch)
        version = self.table.refresh().version
        self.listener(Committed(batch.batch, batch.kind, version, decided.counts))

    def _reading(self, plan: FlowPlan) -> Recipe:
        """What a reader needs that decodes to other columns."""
        first = plan.steps[0]
        assert isinstance(first, ReadSource)
        assert self._recipe is not None
        return replace(self._recipe, step=replace(self._recipe.step, schema=first.schema))

    def _written(
        self, decided: Batch, batch: BatchPlan, schema: Schema, merge: Merge | None, held: ExitStack
    ) -> Written:
        """The data files of the batch."""
        folded = kept = None
        if self._folding is not None and self._moves(decided, batch):
            assert decided.going is not None
            before, kept = self._open_windows.files_before(batch.batch), self._open_windows.table
            folded = keep(self._folding.fold(decided.going, before, kept, batch), held)
        tables = self._tables, self.table, self.quarantine, self.app_id
        return write_files(decided, batch, self.plan, *tables, schema, merge, folded, kept)

    def _moves(self, decided: Batch, batch: BatchPlan) -> bool:
        """Whether windows may change: a row came, or the watermark moved on."""
        return bool(decided.counts.get("output") or decided.reopened) or batch.evict_us > batch.late_us

    def _is_done(self, number: int) -> bool:
        """Whether the table has the batch: from this query, or that with which it took over.

        Raises:
            ConflictError: the embedded engine, or another query, has gone on with the table.
        """
        batch = self.checkpoint.batch_of(number)
        reached = self.table.refresh().txns.get(self.app_id, 0)
        if reached < batch:
            return False
        commit = last_commit(self.table, self.app_id)
        ours = commit is not None and commit.info.get("query") == self.checkpoint.query
        if reached > batch or not (ours or batch == self.checkpoint.batch):
            raise self._overtaken(batch)
        return True

    def _overtaken(self, batch: int) -> ConflictError:
        return ConflictError(
            "another engine or process has gone on with this table; end it, then start Spark again, which takes over "
            "from there", table=str(self.name), batch=batch,
        )  # fmt: skip

    def _planned(self, number: int) -> BatchPlan:
        """The batch's plan: as it stands, or made from Spark's offset log."""
        batch = self.checkpoint.batch_of(number)
        plan = self.store.plan(batch) or self.store.put_plan(self._made(number, batch))
        if not self._fits(plan, self.checkpoint):
            raise self._overtaken(batch)
        if self._stateful and isinstance(self.plan.steps[0], ReadSource):
            _, marks = self._range(self.checkpoint, number)
            if (plan.late_us, plan.evict_us) != (marks.late_us, marks.evict_us):
                raise CorruptionError("plan and checkpoint have other watermarks", table=str(self.name), batch=batch)
        return plan

    def _made(self, number: int, batch: int) -> BatchPlan:
        before, marks = self._range(self.checkpoint, number)
        spans = ((before.upto, marks.upto), (before.joined_upto, marks.joined_upto))
        for followed, (after, until) in zip(self._followed, spans, strict=False):
            followed.check(after, until, self.name)
        return BatchPlan(
            epoch=self.epoch, batch=batch, kind="data" if any(upto > after for after, upto in spans) else "no_data",
            clock_us=self._around.clock(), definition=self.plan.definition, after=before.upto, upto=marks.upto,
            joined_after=before.joined_upto, joined_upto=marks.joined_upto,
            pins=pins_of(self.plan.looked_up, self._readers), late_us=marks.late_us,
            evict_us=marks.evict_us,
            kept_us=later_us(
                kept_from_us(self._followed[0].table, self.plan.upstream) if self.plan.upstream else None,
                kept_from_us(self.quarantine, self.name),
            ),
        )  # fmt: skip

    def _range(self, checkpoint: Checkpoint, number: int) -> tuple[Marks, Marks]:
        """What is said of the query's batch before one, and of that one."""
        return ranges(checkpoint, number, self.plan, self._info)

    def _commit_quarantine(self, files: Written, batch: BatchPlan) -> None:
        if not files.aside:
            return
        info = {"batch": batch.batch, "query": self.checkpoint.query}
        try:
            commit_batch(self.quarantine, files.aside, (), batch, self.app_id, info, {})
        except ConflictError:  # another process runs the same plan and was first; its rows are ours
            if self.quarantine.refresh().txns.get(self.app_id, 0) < batch.batch:
                raise

    def _commit_deletions(self, files: Written, batch: BatchPlan) -> None:
        if files.deletions is not None:
            table, info = files.deletions.table, {"batch": batch.batch, "query": self.checkpoint.query}
            try:
                commit_batch(table, files.remembering, files.deletions.removes, batch, self.app_id, info, {})
            except ConflictError as error:
                raise self._overtaken(batch.batch) from error

    def _commit_windows(self, files: Written, batch: BatchPlan) -> None:
        if files.open is not None:
            self._open_windows.replace(files.open, batch)

    def _commit_main(self, files: Written, decided: Batch, batch: BatchPlan) -> None:
        info: dict[str, Any] = {
            "batch": batch.batch, "epoch": self.epoch, "kind": batch.kind, "counts": decided.counts,
            "definition": batch.definition, "watermark_us": batch.evict_us, "upto": batch.upto,
            "pins": dict(batch.pins), "code": self._around.code, "query": self.checkpoint.query,
            "max_event_us": _newest(decided.max_event_us, self._info.get("max_event_us")),
        }  # fmt: skip
        if self.plan.join is not None:
            given = (self._info.get("given") or 0) + decided.counts.get("output", 0)
            newest = _newest(decided.joined_max_event_us, self._info.get("joined_max_event_us"))
            info |= {"joined_upto": batch.joined_upto, "joined_max_event_us": newest, "given": given}
        if self._merger is not None:
            info |= self._merger.remembered()
        if self._folding is not None:
            info |= self._open_windows.held()
        try:
            marks = self._recipe.marks(batch.ranges) if self._recipe is not None and batch.ranges else {}
            written = files.metadata, files.operation
            commit_batch(self.table, files.adds, files.removes, batch, self.app_id, info, marks, *written)
        except ConflictError as error:
            raise self._overtaken(batch.batch) from error
        self._info = info


def _newest(*times_us: int | None) -> int | None:
    return max((time for time in times_us if time is not None), default=None)
