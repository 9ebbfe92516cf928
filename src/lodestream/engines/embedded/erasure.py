"""The batch that erases: rows leave a table, its quarantine and its state in one commit of its flow, and none comes.

What leaves is named by the position it came from, so the batch is the same whoever runs it, and a plan that was found
half done is finished. Readers of the table take its earlier commits as they were until they have erased too
(`view_of`), so that each knows what it had taken in of the rows that go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.correction import not_covered, taken_in
from lodestream.engines.embedded.dedup import DedupMap
from lodestream.engines.embedded.enrich import Enrichment
from lodestream.engines.embedded.erased_windows import ErasedWindows, erase_windows
from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.inputs import StreamInput
from lodestream.engines.embedded.joins import right_prefix
from lodestream.engines.embedded.keys import hash_keys
from lodestream.engines.embedded.leaving import Erased, Key, Positions
from lodestream.engines.embedded.lookups import LookupTable
from lodestream.engines.embedded.outputs import Output, Prepared, WindowOutput
from lodestream.engines.embedded.passing import Outcome
from lodestream.engines.embedded.rejects import noted_as_erased
from lodestream.engines.embedded.replay import entries_before
from lodestream.engines.embedded.sides import MATCHED, Side
from lodestream.engines.embedded.stages import RowStages
from lodestream.engines.embedded.state import FlowState
from lodestream.lake.actions import ERASE, RemoveFile
from lodestream.lake.layout import ERASURE_PROPERTY, erased_by
from lodestream.lake.rewrite import Mask, rewrite
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan, Erasing
from lodestream.model.steps import Aggregation, Ask, Dedupe, FlowPlan, ReadSource
from lodestream.model.table import JOIN_META, Lookup


@dataclass(frozen=True, slots=True)
class Eraser:
    """What an erasing batch needs of its flow; see `Flow`."""

    plan: FlowPlan
    connection: duckdb.DuckDBPyConnection
    table: DeltaTable
    quarantine: DeltaTable
    state: FlowState
    stream: StreamInput | None
    stages: RowStages
    lookups: dict[Lookup, LookupTable]
    enrichment: Enrichment

    def erase(self, batch: BatchPlan) -> Outcome:
        """Take the rows out of the state, and say what leaves the files."""
        erasing = batch.erasing
        assert erasing is not None
        out = Outcome(pa.table({}))
        gone = Positions({*batch.replay, *self._vanished(batch, erasing)})
        self._forget(batch, gone)
        window = self.plan.step(Aggregation)
        if window is not None:
            out.erased = self._windows(batch, window, gone)
        elif self.plan.join is not None:
            out.erased = self._joined(batch, gone, out)
        else:
            out.erased = Erased(gone.among, aside=gone)
            if isinstance(self.plan.steps[0], ReadSource):
                out.rejects += self._note(batch, self._held(batch, gone))
        return out

    def _note(self, batch: BatchPlan, keys: set[Key]) -> list[pa.Table]:
        """Quarantine rows that say that these positions are erased, and nothing else of them."""
        if not keys:
            return []
        listed = sorted(keys)
        rows = pa.table({"_source": [s for s, _ in listed], "_position": pa.array([p for _, p in listed], pa.int64())})
        return [noted_as_erased(rows, batch)]

    def _held(self, batch: BatchPlan, gone: Positions) -> set[Key]:
        """Those of the positions that the table or its quarantine has."""
        found: set[Key] = set()
        for add in self.table.files():
            rows = self.table.read([add], columns=["_source", "_position"])
            found.update(positions_of(rows.filter(pa.array(gone.among(rows)))))
        entries = entries_before(self.quarantine, batch.batch)
        found.update(positions_of(entries.filter(pa.array(gone.among(entries)))))
        return found

    def _vanished(self, batch: BatchPlan, erasing: Erasing) -> set[Key]:
        """Rows that were taken in from the upstream table and that it no longer has."""
        stream = self.stream
        if not erasing.vanished or stream is None or batch.upto < 0:
            return set()
        return set(positions_of(stream.everything(batch.upto))) - set(positions_of(stream.present()))

    # --- state --------------------------------------------------------------------------------------------------------

    def _forget(self, batch: BatchPlan, gone: Positions) -> None:
        """Take the rows out of the state; its next link then is a new base."""
        state = self.state
        state.last = None
        if not gone:
            return
        if state.deletions is not None:
            table = state.deletions.table
            state.deletions.table = table.filter(pa.array(~gone.among(table)))
        if state.dedup is not None and (rows := self._before(Dedupe, batch, gone)) is not None and len(rows):
            step = self.plan.step(Dedupe)
            assert step is not None
            state.dedup = _without_keys(state.dedup, hash_keys([rows.column(k) for k in step.dedup.keys]), batch)
        if state.answers >= 0:
            self._forget_questions(batch, gone)

    def _before(self, kind: type, batch: BatchPlan, gone: Positions) -> pa.Table | None:
        """The rows that leave as they stood in front of a step, as far as the upstream table had them."""
        stream = self.stream
        if stream is None or batch.upto < 0:
            return None
        rows = stream.everything(batch.upto)
        rows = rows.filter(pa.array(gone.among(rows)))
        return self.stages.before(kind, rows, batch, self.lookups)

    def _forget_questions(self, batch: BatchPlan, gone: Positions) -> None:
        waiting = self.state.waiting
        questions: set[str] = set()
        if waiting.table is not None and len(waiting.table):
            hit = gone.among(waiting.table)
            questions.update(q for q, leaves in zip(waiting.questions, hit.tolist(), strict=True) if leaves)
            waiting.table = waiting.table.filter(pa.array(~hit))
        rows = self._before(Ask, batch, gone)
        if rows is not None and len(rows):
            questions.update(self.enrichment.questions(rows))
        self.enrichment.forget(questions)

    # --- joins --------------------------------------------------------------------------------------------------------

    def _joined(self, batch: BatchPlan, gone: Positions, out: Outcome) -> Erased:
        """Pairs leave with either of their rows; who has no partner any more is noted, unless it waits for another."""
        join, held = self.plan.join, self.state.join
        assert join is not None
        assert held is not None
        prefix = right_prefix(join)
        right = Positions((s.removeprefix(prefix), p) for s, p in gone.keys if s.startswith(prefix))
        left_source, left_position, right_source, right_position = JOIN_META

        def hit(rows: pa.Table) -> Mask:
            pairs = gone.among(rows, left_source, left_position) | right.among(rows, right_source, right_position)
            return pairs | gone.among(rows)

        for side, own in ((held.here, gone), (held.there, right)):
            if len(side):
                side.refill(side.rows.filter(pa.array(~own.among(side.rows))))
        alone = self._alone(hit, JOIN_META[:2], gone, held.here, "")
        alone |= self._alone(hit, JOIN_META[2:], right, held.there, prefix)
        out.rejects += self._note(batch, alone)
        return Erased(hit, (*JOIN_META, "_source", "_position"), aside=gone)

    def _alone(
        self, hit: object, columns: tuple[str, ...], own: Positions, side: Side, prefix: str
    ) -> set[Key]:  # fmt: skip
        """Rows of one side that lose all their partners; those that still wait do so as if they had met nobody."""
        assert callable(hit)
        lost: set[Key] = set()
        kept: set[Key] = set()
        for add in self.table.files():
            rows = self.table.read([add], columns=[*JOIN_META, "_source", "_position"])
            flags = hit(rows).tolist()
            places = zip(rows.column(columns[0]).to_pylist(), rows.column(columns[1]).to_pylist(), strict=True)
            for leaves, key in zip(flags, places, strict=True):
                if key[0] is not None:
                    (lost if leaves else kept).add(key)
        lost -= kept | own.keys
        if lost and len(side):
            waits = Positions(lost).among(side.rows)
            lost -= set(positions_of(side.rows.filter(pa.array(waits))))
            at = side.rows.schema.get_field_index(MATCHED)
            matched = side.rows.column(MATCHED).to_numpy().astype(np.bool_) & ~waits
            side.refill(side.rows.set_column(at, MATCHED, pa.array(matched)))
        return {(prefix + source, position) for source, position in lost}

    # --- windows ------------------------------------------------------------------------------------------------------

    def _windows(self, batch: BatchPlan, step: Aggregation, gone: Positions) -> Erased:
        """See `erase_windows`."""
        stream = self.stream
        assert stream is not None
        aside, missed = not_covered(self.quarantine, batch)
        passed = taken_in(stream, self.stages, self.lookups, replace(batch, kind="replay"), aside)
        leaving = gone.among(passed)
        found: ErasedWindows = erase_windows(
            self.connection, self.plan, step, self.state, passed, leaving, missed, batch
        )
        return Erased(found.hit, found.columns, found.left, gone, found.hot, found.closed)


def _without_keys(keys: DedupMap, gone: tuple[np.ndarray, np.ndarray], batch: BatchPlan) -> DedupMap:
    """The map without these (high, low) keys."""
    high, low, expiry_us = keys.everything(batch.late_us)
    wanted = {(int(h), int(low_)) for h, low_ in zip(*gone, strict=True)}
    near = np.flatnonzero(np.isin(high, gone[0]))
    keep = np.ones(len(high), np.bool_)
    keep[[i for i in near.tolist() if (int(high[i]), int(low[i])) in wanted]] = False
    fresh = DedupMap(spill=keys.spill)
    fresh.load(high[keep], low[keep], expiry_us[keep], batch.late_us)
    return fresh


def stage_erased(table: DeltaTable, erased: Erased, batch: BatchPlan, attempt: str, output: Output) -> Prepared:
    """Write the files again that hold rows that leave; the table's properties then name the erasure."""
    assert batch.erasing is not None
    name = f"erased-{batch.batch}-{attempt}"
    adds, removes = rewrite(table, erased.hit, erased.columns, name, erased.left, hot=erased.hot is None)
    if erased.hot is not None:
        removes += [RemoveFile.of(add) for add in table.hot_files()]
        assert isinstance(output, WindowOutput)
        adds += output.windows_file(erased.hot, batch, f"hot-{name}", hot=True)
    if erased.closed is not None:
        assert isinstance(output, WindowOutput)
        adds += output.windows_file(erased.closed, batch, f"closed-{name}")
    metadata = table.snapshot.metadata
    id_, first = erased_by(metadata.configuration)
    named = f"{batch.erasing.erasure}@{first if id_ == batch.erasing.erasure else batch.batch}"
    metadata = replace(metadata, configuration={**metadata.configuration, ERASURE_PROPERTY: named})
    return Prepared(tuple(adds), removes, metadata=metadata, operation=ERASE)
