"""One flow: plans a batch, runs it, and commits rows and positions together, exactly once.

The order of effects in a batch is plan, quarantine commit, state, main commit; the main commit is the commit point.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from lodestream.engines.embedded.barred import barred_from
from lodestream.engines.embedded.correction import Correction, correct, not_covered, span_of, taken_in
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.deletions import Deletions
from lodestream.engines.embedded.drift import evolved, stored_columns
from lodestream.engines.embedded.enrich import Enrichment
from lodestream.engines.embedded.erasure import Eraser, stage_erased
from lodestream.engines.embedded.frames import connect, new_attempt, positions_of
from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.inputs import (
    Input,
    MakeSource,
    Planned,
    RefreshInput,
    SourceInput,
    Span,
    StreamInput,
    reader_group,
)  # fmt: skip
from lodestream.engines.embedded.lookups import Lookups
from lodestream.engines.embedded.merge import DELETES, Merger
from lodestream.engines.embedded.outputs import Output, Prepared, make_output
from lodestream.engines.embedded.passing import Outcome
from lodestream.engines.embedded.readers import Readers
from lodestream.engines.embedded.rebuild import begin_epoch, quarantine_properties, table_properties
from lodestream.engines.embedded.refusals import refuse_replay
from lodestream.engines.embedded.rejects import QUARANTINE, commit_rejects
from lodestream.engines.embedded.replay import replayed_rows, resolutions
from lodestream.engines.embedded.sessions import open_windows
from lodestream.engines.embedded.sides import JoinState
from lodestream.engines.embedded.stages import RowStages
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.store import FlowStore, StateFile
from lodestream.engines.embedded.submitted import submitted
from lodestream.engines.embedded.surroundings import Ahead, Committed, Surroundings
from lodestream.engines.embedded.takeover import is_spark, take_over
from lodestream.errors import ConfigError, ConflictError, CorruptionError, LodestreamError, TransientError
from lodestream.lake.actions import Commit
from lodestream.lake.crash import point
from lodestream.lake.layout import EPOCH_PROPERTY, app_id, epoch_of, erased_by, quarantine_name, table_path
from lodestream.lake.retention import kept_from_us, later_us
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchKind, BatchPlan, Erasing, Mend
from lodestream.model.steps import (
    Aggregation,
    ApplyChanges,
    Dedupe,
    FlowPlan,
    LookUp,
    ReadSource,
    ReadTable,
    RunQuery,
    Watermark,
)  # fmt: skip
from lodestream.model.types import Schema
from lodestream.ports.source import Acknowledges, Marks, Source


class Flow:
    """Fills one table, batch by batch.

    Call `open` first and again after every error; then `step` as often as wanted. Not for use by two threads at once;
    two processes may run the same flow, one of them then gets ConflictError.
    """

    plans_ahead = 1
    """How many plans there may be that are not committed yet."""

    def __init__(self, plan: FlowPlan, around: Surroundings, make_source: MakeSource | None = None) -> None:
        self.plan = plan
        self.around = around
        self.input: Input | None = None
        self._other: StreamInput | None = None
        self._make_source = make_source
        self.name = plan.table.name
        self.member = ""
        self._spill = around.spill(plan)
        self._connection = connect(self._spill.query_memory, self._spill.folder) if self._spill else connect()
        self.enrichment = Enrichment(plan, around)
        self._stages = RowStages(self._connection, plan, around.functions, self.enrichment)
        self._dedupe = plan.step(Dedupe)
        self._window = plan.step(Aggregation)
        self._changes = plan.step(ApplyChanges)
        self._watermark = plan.step(Watermark)
        self._join = plan.join
        self._readers = Readers(around.disk, around.lake)
        lookups = [s for s in plan.steps if isinstance(s, LookUp)]
        self._lookups = Lookups(self._connection, self._readers, lookups)

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Create the tables if need be and load the state that the last main commit names.

        Raises:
            ConfigError: the table was made by another definition and must be rebuilt, or the lake is not to be written.
            CorruptionError: plan, state and table do not fit together.
        """
        disk, name = self.around.written(), self.name
        self.table = self._open_table(table_path(self.around.lake, name), main=True)
        configuration = self.table.snapshot.metadata.configuration
        self.epoch = epoch_of(configuration)
        if configuration.get("lodestream.hash") != self.plan.definition:
            raise ConfigError(
                "table was made by another definition; see lodestream plan, then run with the accepted plan",
                table=str(name),
            )
        self.quarantine: DeltaTable | None = None
        if not isinstance(self.plan.steps[0], RunQuery):
            self.quarantine = self._open_table(table_path(self.around.lake, quarantine_name(name)), main=False)
            self._match_epoch(self.quarantine)
        if self._spill is not None:
            self._spill.begin()
        self.app_id = app_id(name, self.epoch)
        self.store = FlowStore(disk, self.around.lake, name, self.epoch)
        self._load_state()
        self.enrichment.open(self.state, self.epoch)
        self.close_source()
        self.input = self._make_input()
        join = self._join
        self._other = (
            StreamInput(join.join.table, join.reads, self.name, self.around, applied=self._erasure) if join else None
        )
        self.output: Output = make_output(self.plan, self._connection, self.table)

    def _open_table(self, path: str, *, main: bool) -> DeltaTable:
        table = DeltaTable.follow(self.around.disk, path)
        if table is not None:
            return table
        configuration = {EPOCH_PROPERTY: "1", **(table_properties if main else quarantine_properties)(self.plan)}
        return DeltaTable.create(
            self.around.disk,
            path,
            self.plan.schema if main else QUARANTINE,
            partition_columns=self.plan.partition_columns if main else (),
            configuration=configuration,
            table_id=str(uuid.uuid4()),
            clock_us=self.around.clock(),
        ).forgetful()

    def _match_epoch(self, quarantine: DeltaTable) -> None:
        """After a rebuild the quarantine starts empty too; its earlier versions stay readable."""
        if epoch_of(quarantine.snapshot.metadata.configuration) < self.epoch:
            begin_epoch(quarantine, self.epoch, clock_us=self.around.clock())

    def _load_state(self) -> None:
        """Load the state that the last main commit names.

        Raises:
            ConflictError: another process moved the flow on meanwhile, so that plans and state are newer than our view.
        """
        batch = self.table.snapshot.txns.get(self.app_id, 0)
        try:
            self._read_state(batch)
        except CorruptionError as error:
            if self.table.refresh().txns.get(self.app_id, 0) > batch:
                raise ConflictError("another process runs the same flow", table=str(self.name)) from error
            raise

    def _read_state(self, batch: int) -> None:
        planned = self.store.last_planned()
        if planned > batch + self.plans_ahead or (batch and planned < batch):
            raise CorruptionError(
                "plans and table do not fit together; lodestream doctor names what to do",
                table=str(self.name), planned=planned, committed=batch,
            )  # fmt: skip
        self.state = state = FlowState()  # lets go of what was held before
        state.dedup = DedupMap(spill=self._spill) if self._dedupe else None
        state.windows = open_windows(self._connection, self._window, self._spill) if self._window else None
        state.join = JoinState.beside(self._join.join, self._spill) if self._join else None
        if self._changes is not None:
            state.deletions = Deletions(self._changes, self.table.snapshot.metadata.schema)
            self._merger = Merger(self._connection, self._changes, self.table)
        if batch:
            commit = self._commit_of(batch)
            if is_spark(commit):
                take_over(
                    state, self.plan, self.around, self._connection, self.quarantine, self.store, self.table, commit
                )
            else:
                named, table_id = commit.info["state"], self.table.snapshot.metadata.id
                for link in self.store.chain(named, table_id, self.epoch, batch, self._spill):
                    state.apply(link)
        if self._spill is not None:
            self._spill.holds(state.held()[1])

    def _commit_of(self, batch: int) -> Commit:
        """The main commit of a batch; it is near the end of the log, and log cleanup keeps it."""
        commit = last_commit(self.table, self.app_id)
        if commit is None or commit.txns[self.app_id] != batch:
            raise CorruptionError("no commit of the last batch in the log", table=str(self.name), batch=batch)
        return commit

    def _make_input(self) -> Input:
        first = self.plan.steps[0]
        if isinstance(first, ReadSource):
            stored = self.table.snapshot.metadata.schema
            columns = stored_columns(first.schema, stored, self.plan.schema)
            return SourceInput(self._open_source, columns, self.around, barred_from(self.around, self.name))
        if isinstance(first, RunQuery):
            return RefreshInput(first, self._readers)
        assert isinstance(first, ReadTable)
        return StreamInput(first.table, first.schema, self.name, self.around, first.windows, self._erasure)

    def _erasure(self) -> str:
        return erased_by(self.table.snapshot.metadata.configuration)[0]

    def _open_source(self, columns: Schema) -> Source:
        assert self._make_source is not None
        group = reader_group(self.name, self.table.snapshot.metadata.id, self.epoch)
        return self._make_source(columns, group, self.member)

    # --- one batch ---------------------------------------------------------------------------------------------------

    def step(self, *, idle: bool = True) -> Committed | None:
        """Run the pending batch, or plan and run the next one; None when there is nothing to do now.

        Args:
            idle: whether upstream is quiet, so that a no-data batch or a refresh makes sense.

        Raises:
            ConflictError: another process runs this flow and was first; open again before the next step.
        """
        pending = self.store.plan(self.state.batch + 1)
        if pending is None:
            planned = self._plan_next(idle=idle)
            if planned is None:
                return None
            pending = self.store.put_plan(planned)
        return self._run(pending)

    def submit_replay(
        self, positions: list[tuple[str, int]], *, accept_late: bool,
        mends: Mapping[tuple[str, int], Mend] = MappingProxyType({}),
    ) -> Committed:  # fmt: skip
        """Run quarantined rows through the flow again, after a pending batch. Raises ConfigError: `refuse_replay`."""
        refuse_replay(self.plan, positions, mends)
        mended = tuple((*key, mends[key].to_json()) for key in positions if key in mends)
        return self._submit("replay", replay=tuple(positions), accept_late=accept_late, mended=mended)

    def submit_erasure(self, positions: Iterable[tuple[str, int]], erasing: Erasing) -> Committed:
        """Take rows, known as its input or quarantine has them, out of all that it keeps, after a pending batch."""
        return self._submit("erase", replay=tuple(sorted(positions)), erasing=erasing)

    def _submit(self, kind: BatchKind, **what: Any) -> Committed:
        """Run a batch that takes in nothing new, once those that are planned have run."""
        while True:
            plan = submitted(
                kind, self.state, self.around.clock(), epoch=self.epoch, definition=self.plan.definition,
                kept_us=self._kept_from_us(), pins=self._lookups.pins(), **what,
            )  # fmt: skip
            standing = self.store.put_plan(plan)
            committed = self._run(standing)
            if standing == plan:
                return committed

    def _plan_next(self, *, idle: bool) -> BatchPlan | None:
        if isinstance(self.input, RefreshInput) and not idle:
            return None
        assert self.input is not None
        clock_us = max(self.around.clock(), self.state.clock_us)
        planned = self.input.next(self.state, self.enrichment.room(self.state))
        if planned is None and self.enrichment.has_news(self.state, clock_us):
            planned = Planned("data", after=self.state.upto, upto=self.state.upto)
        joined = self._other.next_after(self.state.joined_upto) if self._other else None
        evict_us = self._next_watermark()
        if planned is None:
            stateful = any(step is not None for step in (self._dedupe, self._window, self._join))
            if joined is None and (not idle or not stateful or evict_us <= self.state.late_us):
                return None
            kind: BatchKind = "no_data" if joined is None else "data"
            planned = Planned(kind, after=self.state.upto, upto=self.state.upto)
        return BatchPlan(
            epoch=self.epoch, batch=self.state.batch + 1, kind=planned.kind, clock_us=clock_us,
            definition=self.plan.definition, ranges=planned.ranges, after=planned.after, upto=planned.upto,
            joined_after=joined.after if joined else self.state.joined_upto,
            joined_upto=joined.upto if joined else self.state.joined_upto,
            pins=planned.pins or self._lookups.pins(), late_us=self.state.late_us, evict_us=evict_us,
            kept_us=self._kept_from_us(),
            **self.enrichment.counted(clock_us),
        )  # fmt: skip

    def _kept_from_us(self) -> int | None:
        upstream = self.input.kept_from_us() if isinstance(self.input, StreamInput) else None
        return later_us(upstream, kept_from_us(self.quarantine, self.plan.table.name) if self.quarantine else None)

    def _next_watermark(self) -> int:
        """W of the next batch; 0 without event time."""
        if self._watermark is None:
            return 0
        if self._watermark.follows is not None:
            assert isinstance(self.input, StreamInput)
            return max(self.state.late_us, self.input.watermark_us)
        joined_delay_us = self._join.join.event_time.delay_us if self._join else None
        return self.state.watermark(self._watermark.event_time.delay_us, joined_delay_us)

    def _run(self, batch: BatchPlan, ahead: Ahead | None = None) -> Committed:
        """Compute and commit a batch; `ahead` is what was computed already."""
        if batch.batch != self.state.batch + 1 or batch.epoch != self.epoch:
            raise CorruptionError("plan does not follow the state", table=str(self.name), batch=batch.batch)
        self._refuse_half_done(batch)
        attempt = ahead.attempt if ahead is not None else new_attempt()
        state = self.state
        if ahead is not None:
            outcome = ahead.outcome
        else:
            query = self.input if isinstance(self.input, RefreshInput) else None
            batch, outcome = query.refresh(batch, self._connection) if query else (batch, self._compute(batch))
        self._commit_quarantine(batch, attempt, outcome)
        state.batch, state.clock_us, state.late_us = batch.batch, batch.clock_us, batch.evict_us
        state.upto, state.joined_upto, state.pins = batch.upto, batch.joined_upto, dict(batch.pins)
        for planned in batch.ranges:
            state.consumed[planned.unit] = planned
        outcome.changes.ledger = batch.ranges
        point("state.before")
        link = state.link(self.table.snapshot.metadata.id, self.epoch, attempt, outcome.changes)
        staged = ahead.staged if ahead is not None else Prepared()
        try:
            size = self.store.put_state(link, self._spill)
            point("state.after")
            if ahead is None:
                staged = self._stage(outcome, batch, attempt)
            point("main.staged")
            version = self._commit_main(batch, attempt, link, outcome, staged)
        except (ConflictError, TransientError):
            self._take_back(staged, link)
            raise
        point("main.after")
        state.linked(link, size)
        self.enrichment.committed()
        if link.previous is None and state.batch > 1:
            self.store.forget_before(link.name, state.batch, self.around.clock())
        if self.around.handover is not None and staged.rows is not None:
            self.around.handover.put(self.table.path, version, staged.rows)
        source: object = self.source
        if isinstance(source, Acknowledges):
            source.acknowledge(state.consumed)
        return Committed(batch.batch, batch.kind, version, outcome.counts)

    def _stage(self, outcome: Outcome, batch: BatchPlan, attempt: str) -> Prepared:
        """Write the data files."""
        if outcome.erased is not None:
            return stage_erased(self.table, outcome.erased, batch, attempt, self.output)
        if isinstance(self.input, SourceInput):
            outcome.schema = evolved(self.table.snapshot.metadata.schema, self.input.schema)
        return self.output.stage(outcome, self.state, batch, attempt)

    def _commit_main(self, batch: BatchPlan, attempt: str, link: StateFile, outcome: Outcome, staged: Prepared) -> int:
        info = {
            "batch": batch.batch, "epoch": self.epoch, "attempt": attempt, "state": link.name, "kind": batch.kind,
            "counts": outcome.counts, "definition": batch.definition, "watermark_us": batch.evict_us,
            "max_event_us": self.state.max_event_us, "upto": batch.upto, "pins": dict(batch.pins),
            "code": self.around.code,
        }  # fmt: skip
        rows, held, spilled = self.state.held()
        if rows:
            info |= {"state_rows": rows, "state_bytes": held, "state_spilled_bytes": spilled}
        if self._spill is not None:
            self._spill.holds(held)
        return self.table.commit(
            adds=staged.adds, removes=staged.removes, txn={self.app_id: batch.batch, **self._marks(batch)},
            info=info | self.state.joined(),
            metadata=staged.metadata, clock_us=batch.clock_us, operation=staged.operation,
        )  # fmt: skip

    def _marks(self, batch: BatchPlan) -> dict[str, int]:
        """Positions that the source wants written under names of their own."""
        source: object = self.source
        marks = source.marks(batch.ranges) if isinstance(source, Marks) else {}
        return {f"{self.app_id}/{name}": position for name, position in marks.items()}

    def _take_back(self, staged: Prepared, link: StateFile) -> None:
        """Delete what a failed attempt wrote, or a disk that is full would fill up further with every new attempt.

        An attempt whose commit took place after all keeps its files.
        """
        with contextlib.suppress(LodestreamError):
            self.table.discard(staged.adds)
            commit = last_commit(self.table, self.app_id)
            if commit is None or commit.info.get("state") != link.name:
                self.store.discard_state(link.name)

    def _refuse_half_done(self, batch: BatchPlan) -> None:
        """A batch whose quarantine rows were decided by one definition must not get its output from another."""
        if batch.definition == self.plan.definition or self.quarantine is None:
            return
        if self.quarantine.refresh().txns.get(self.app_id, 0) >= batch.batch:
            raise ConfigError(
                "a batch is half done under the earlier definition; run once with that, then change it",
                table=str(self.name), batch=batch.batch,
            )  # fmt: skip

    def _compute(self, batch: BatchPlan) -> Outcome:
        if batch.kind == "erase":
            return self._erase(batch)
        if batch.kind == "replay":
            assert self.quarantine is not None
            rows, rejects = replayed_rows(
                self.quarantine,
                batch,
                self.plan,
                self.input.read_again if isinstance(self.input, SourceInput) else None,
            )
        else:
            assert self.input is not None
            rows, rejects = self.input.read(batch)
        joined = self._other.between(batch.joined_after, batch.joined_upto) if self._other else None
        outcome = self._stages.run(rows, batch, self.state, self._lookups.at(batch.pins), joined)
        outcome.reject_first(rejects)
        outcome.count("input", sum(len(part) for part in (rows, rejects, joined) if part is not None))
        if self._window is None:
            outcome.count("output", len(outcome.rows))
        if self._changes is not None:
            self._merge(outcome, batch)
        if outcome.reopened:
            outcome.correction = self._correct(batch, outcome)
        if batch.kind == "replay":
            outcome.rejects.append(resolutions(batch, positions_of(rows), outcome.rejects))
        return outcome

    def _erase(self, batch: BatchPlan) -> Outcome:
        assert self.quarantine is not None
        if isinstance(self.input, SourceInput):
            self.input.barred = barred_from(self.around, self.name)
        stream = self.input if isinstance(self.input, StreamInput) else None
        return Eraser(
            self.plan, self._connection, self.table, self.quarantine, self.state, stream, self._stages,
            self._lookups.at(batch.pins), self.enrichment,
        ).erase(batch)  # fmt: skip

    def _merge(self, outcome: Outcome, batch: BatchPlan) -> None:
        """Decide what the batch's changes do to the table."""
        deletions = self.state.deletions
        assert deletions is not None
        forgotten = None
        if batch.accept_late:
            assert self.quarantine is not None
            rows = self._taken_in(batch, not_covered(self.quarantine, batch)[0])
            forgotten = rows.filter(rows.column(DELETES))
        outcome.merge, outcome.changes.deletions = self._merger.merge(outcome.rows, deletions, forgotten)
        deletions.forget(batch.evict_us)
        outcome.count("superseded", outcome.merge.superseded)

    def _correct(self, batch: BatchPlan, outcome: Outcome) -> Correction:
        """Compute closed windows again from all rows that belong to them, the late ones of this batch included."""
        assert self.quarantine is not None
        assert self._window is not None
        assert self._watermark is not None
        aside, missed = not_covered(self.quarantine, batch, outcome.rejects)
        event, fresh = self._watermark.event_time.column, open_windows(self._connection, self._window)
        rows = self._taken_in(batch, aside, span_of(self.plan, event, self._window, outcome.reopened))
        return correct(fresh, self._window, rows, event, outcome.reopened, missed)

    def _taken_in(self, batch: BatchPlan, aside: set[tuple[str, int]], span: Span | None = None) -> pa.Table:
        """All upstream rows but those set aside, as they stand before event time is looked at."""
        assert isinstance(self.input, StreamInput)
        return taken_in(self.input, self._stages, self._lookups.at(batch.pins), batch, aside, span)

    def _commit_quarantine(self, batch: BatchPlan, attempt: str, outcome: Outcome) -> None:
        table = self.quarantine
        if table is None or not (outcome.rejects or outcome.erased):
            return
        if table.refresh().txns.get(self.app_id, 0) >= batch.batch:
            return
        commit_rejects(table, self.app_id, batch, attempt, outcome.rejects, outcome.erased)
        point("quarantine.after")

    @property
    def source(self) -> Source | None:
        """The source of an ingest flow that is open."""
        return self.input.source if isinstance(self.input, SourceInput) else None

    def close_source(self) -> None:
        """Let go of the source."""
        if self.source is not None:
            self.source.close()

    def close(self) -> None:
        """Let go of the source and the connection."""
        self.close_source()
        self.enrichment.close()
        self._connection.close()
        if self._spill is not None:
            self._spill.end()
