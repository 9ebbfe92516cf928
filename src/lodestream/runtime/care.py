"""What maintenance does to one table, by itself or when somebody asks: compact, let old rows go, vacuum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from lodestream.engines.embedded.sink_memory import needed
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.lake import compaction, retention, vacuum
from lodestream.lake.actions import AddFile
from lodestream.lake.compaction import Group, Rewritten
from lodestream.lake.layout import QUARANTINE_SUFFIX, present_app_id, table_path
from lodestream.lake.table import DeltaTable
from lodestream.lake.vacuum import Unneeded
from lodestream.model.maintenance import MaintenancePolicy, quarantine_retention_us
from lodestream.model.steps import RunQuery
from lodestream.model.table import TableName
from lodestream.runtime.needs import (
    Flows,
    committed_batch,
    copied_versions,
    needed_files,
    recovered_from,
    streamed_from,
)  # fmt: skip

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Care:
    """One table, or the quarantine of one, and what its declaration says about it.

    Attributes:
        name: the table, or its quarantine.
        owner: the table whose flow writes it.
        around: disk, lake and clock.
        flows: all flows of the project, for who reads whom.
    """

    name: TableName
    owner: TableName
    around: Surroundings
    flows: Flows

    @classmethod
    def of(cls, name: TableName, around: Surroundings, flows: Flows) -> Care:
        """Care of a table or a quarantine by its name."""
        return cls(name, replace(name, name=name.name.removesuffix(QUARANTINE_SUFFIX)), around, flows)

    @property
    def policy(self) -> MaintenancePolicy:
        """What is declared; the defaults for a table that is in the lake alone. A quarantine is not Z-ordered."""
        plan = self.flows.get(self.owner)
        found = plan.table.maintenance if plan is not None else MaintenancePolicy()
        return found if self.name == self.owner else replace(found, z_order=())

    @property
    def keeps_us(self) -> int | None:
        """How long rows are kept; None for ever, as are those of a table that nobody declares."""
        plan = self.flows.get(self.owner)
        if plan is None:
            return None
        if self.name == self.owner:
            return plan.table.keeps_us
        read = [self.flows[name].table.keeps_us if name in self.flows else None for name in plan.streams]
        return quarantine_retention_us(self.owner.layer, plan.table.retention_us, self.policy, read)

    @property
    def replaced_whole(self) -> bool:
        """Whether every batch writes all rows anew, so that nothing piles up."""
        plan = self.flows.get(self.owner)
        return plan is not None and self.name == self.owner and isinstance(plan.steps[0], RunQuery)

    def open(self) -> DeltaTable | None:
        """The table; None when it is not in the lake."""
        return DeltaTable.open(self.around.disk, table_path(self.around.lake, self.name))

    def needed_from(self, table: DeltaTable) -> int:
        """The first version whose log entry somebody still needs."""
        if copied_versions(self.around, self.name):
            return 0
        return min(recovered_from(table, self.owner), self._read_from(table))

    def _read_from(self, table: DeltaTable) -> int:
        """The first version whose rows a stream or a sink still has to read."""
        first = streamed_from(self.around, self.flows, self.name, table)
        plan = self.flows.get(self.owner)
        sinks = plan.sinks if plan is not None and self.name == self.owner else ()
        published, _ = needed(self.around.disk, self.around.lake, sinks)
        return first if published is None else min(first, published)

    def compact(
        self, table: DeltaTable, groups: Iterable[Group], policy: MaintenancePolicy,
        done: Callable[[Rewritten], None] = lambda _done: None, stopping: Callable[[], bool] = lambda: False,
    ) -> list[Rewritten]:  # fmt: skip
        """Rewrite the groups one after the other, each in a commit of its own; ends early when `stopping` says so."""
        found = []
        for group in groups:
            if stopping():
                break
            live = table.refresh().files
            if any(add.path not in live for add in group.files):
                continue
            rewritten = compaction.rewrite(
                table, group, target_bytes=policy.target_file_size, z_columns=policy.z_order,
                clock_us=self.around.clock(),
            )  # fmt: skip
            if rewritten is not None:
                found.append(rewritten)
                done(rewritten)
        return found

    def past(self, table: DeltaTable) -> list[AddFile]:
        """Files all of whose rows are past the table's retention."""
        if self.keeps_us is None or self.replaced_whole:
            return []
        before_ms = (self.around.clock() - self.keeps_us) // 1000
        if self.name != self.owner:  # entries of a day go together: what closes one never goes before it
            before_ms -= before_ms % _DAY_MS
        return retention.expired(
            table.snapshot.files.values(), table.snapshot.metadata.partition_columns, before_ms=before_ms
        )

    def expire(self, table: DeltaTable, files: list[AddFile]) -> int:
        """Let the files go; the number of rows that left."""
        application = present_app_id(self.owner, table.snapshot.metadata.configuration)
        return retention.expire(table, files, application=application, clock_us=self.around.clock())

    def unneeded(self, table: DeltaTable, keep_us: int | None = None) -> list[Unneeded]:
        """Files that may be deleted, by the policy's safety window or another one."""
        table.refresh()
        needed = needed_files(self.around, self.flows, self.name, table, self._read_from(table))
        kept_us = self.policy.deleted_file_retention_us if keep_us is None else keep_us
        return vacuum.unneeded(
            table, now_ms=self.around.clock() // 1000, keep_ms=kept_us // 1000, needed=needed,
            batch=committed_batch(table, self.owner),
        )  # fmt: skip
