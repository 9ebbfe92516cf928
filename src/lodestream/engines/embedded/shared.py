"""A flow that several processes fill together: plans put their batches in one order, and each runs its own.

Every process reads the partitions that the source's group gives it. It folds all plans that stand, committed or not,
into the positions it goes on from, and puts its own plan behind them; put-if-absent decides who gets a number. Reading,
decoding and writing of data files runs at the same time everywhere; the commits follow in the order of the plans. A
plan whose maker has died is run by whoever waits for it. So a partition that changes hands, or that two processes
believe to own, loses and doubles nothing: what a plan holds is taken, and nothing is taken outside a plan.
"""

from __future__ import annotations

import os
import time

from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.frames import new_attempt
from lodestream.engines.embedded.inputs import Input, SourceInput
from lodestream.engines.embedded.members import MEMBERS_MAX, Membership
from lodestream.engines.embedded.surroundings import Ahead, Committed
from lodestream.errors import ConflictError, CorruptionError
from lodestream.lake.crash import point
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import FlowPlan, ReadSource

_OVERDUE_S = 10.0
"""How long a batch of a process that cannot be seen from here may keep others waiting."""
_TURN_S = 0.002


def is_shared(plan: FlowPlan) -> bool:
    """Whether processes share the partitions of a flow's source (`share: true`)."""
    first = plan.steps[0]
    return isinstance(first, ReadSource) and first.source.settings.get("share") is True


class SharedFlow(Flow):
    """A flow over a source with `share: true`; see the module. Its table keeps no state but positions."""

    plans_ahead = MEMBERS_MAX

    _membership: Membership | None = None
    _mine: Ahead | None = None
    _seen = -1
    _awaited: tuple[int, float] = (0, 0.0)

    def open(self) -> None:
        """Open the tables and join those who fill them; raises what `Flow.open` raises."""
        self._mine = None
        super().open()
        self._seen = self.table.snapshot.version

    def _make_input(self) -> Input:
        if self._membership is None:
            self._membership = Membership(os.path.join(self.around.disk.beside(self.store.root), "members"))
            self.member = self._membership.join()
        return super()._make_input()

    def step(self, *, idle: bool = True) -> Committed | None:
        """Take in what others committed; then plan, compute or commit what is ours, as far as it is our turn."""
        self._follow()
        pending = self._pending()
        if self._mine is None:
            if pending and self._falls_to_us(pending[0]):
                return self._run(pending[0])
            self._mine = self._plan_ours(pending)
            if self._mine is None:
                return None
            self._follow()
            pending = self._pending()
        mine = self._mine
        if mine.plan.batch == self.state.batch + 1:
            self._mine = None
            committed = self._run(mine.plan, mine)
            self._seen = self.table.snapshot.version
            return committed
        if pending and self._falls_to_us(pending[0]):
            return self._run(pending[0])
        time.sleep(_TURN_S)
        return None

    def close(self) -> None:
        """Leave."""
        super().close()
        if self._membership is not None:
            self._membership.leave()
            self._membership = None

    def _pending(self) -> list[BatchPlan]:
        """The plans that stand and are not committed, in order."""
        found: list[BatchPlan] = []
        while (plan := self.store.plan(self.state.batch + len(found) + 1)) is not None:
            found.append(plan)
        return found

    def _plan_ours(self, pending: list[BatchPlan]) -> Ahead | None:
        """Put our next plan behind those that stand, and do all of it that needs no turn; None without new input."""
        assert isinstance(self.input, SourceInput)
        consumed = dict(self.state.consumed)
        for plan in pending:
            consumed.update({planned.unit: planned for planned in plan.ranges})
        planned = self.input.next_after(consumed)
        if planned is None:
            return None
        plan = BatchPlan(
            epoch=self.epoch, batch=self.state.batch + len(pending) + 1, kind=planned.kind,
            clock_us=max([self.around.clock(), self.state.clock_us, *(one.clock_us for one in pending)]),
            definition=self.plan.definition, ranges=planned.ranges, pins=self._lookups.pins(),
            late_us=self.state.late_us, evict_us=self.state.late_us, owner=self.member,
        )  # fmt: skip
        if self.store.put_plan(plan) != plan:
            return None  # somebody else has this number; the next step folds that plan in and asks again
        point("shared.planned")
        attempt = new_attempt()
        outcome = self._compute(plan)
        ahead = Ahead(plan, attempt, outcome, self._stage(outcome, plan, attempt))
        point("shared.ahead")
        return ahead

    def _follow(self) -> None:
        """Take in the batches that others committed.

        Raises:
            ConflictError: the table's columns changed, or it was begun anew; open again.
        """
        before = self.table.snapshot.metadata
        if self.table.refresh().txns.get(self.app_id, 0) <= self.state.batch:
            return
        if self.table.snapshot.metadata != before:
            raise ConflictError("another process changed the table; opening it again", table=str(self.name))
        for commit in self.table.commits(self._seen):
            if commit.txns.get(self.app_id, 0) > self.state.batch:
                try:
                    self.state.apply(self.store.link(str(commit.info["state"])))
                except CorruptionError:  # older states are deleted behind a new base: begin from there
                    self._load_state()
            self._seen = commit.version

    def _falls_to_us(self, plan: BatchPlan) -> bool:
        """Whether we are to run a plan that we did not just make: its maker is nobody, dead, ourselves, or too slow."""
        assert self._membership is not None
        if plan.owner in ("", self.member) or self._membership.is_dead(plan.owner):
            return True
        if self._awaited[0] != plan.batch:
            self._awaited = plan.batch, time.monotonic()
        return time.monotonic() - self._awaited[1] > _OVERDUE_S
