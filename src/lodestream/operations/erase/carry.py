"""Erases a subject from a lake: tables from source to gold, one batch of each flow, then files, then the proof."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from lodestream.engines.embedded.barred import near, texts_of
from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.history import flow_commit
from lodestream.engines.embedded.leaving import Positions
from lodestream.engines.embedded.locks import try_lock
from lodestream.engines.embedded.rejects import ERASED
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.takeover import is_spark
from lodestream.errors import ConfigError, ConflictError
from lodestream.lake.crash import point
from lodestream.lake.disk import settle
from lodestream.lake.erasures import Bar, Erasure, erasures, keyed, put_erasure, secret
from lodestream.lake.layout import epoch_of, erased_by, erasures_folder, quarantine_name
from lodestream.model.batch import Erasing
from lodestream.model.steps import Aggregation, FlowPlan, ReadSource, RunQuery
from lodestream.model.table import Session, TableName
from lodestream.operations.backup.known import copies
from lodestream.operations.erase.find import Finder, Found
from lodestream.operations.erase.proof import Proof, look_through
from lodestream.operations.erase.purge import Purge, Purged
from lodestream.operations.erase.subject import Subject, subject_of
from lodestream.operations.tracing.view import Opened

_TRIES = 200
_ROUNDS = 20

RULES = (
    "rows that came from a record of the subject leave every table, quarantine and state, whatever they became",
    "of a table of changes all changes of a key leave together",
    "a window all of whose rows leave goes; open windows and sessions are made again without them; a closed window"
    " keeps its measures, which are sums over several people, unless a measure is made of the subject's column",
    "a pair of two streams leaves with either of its rows",
    "tables made by a query are refreshed",
    "versions before the erasure can be read no more where a file held the subject",
    "what was published to a sink is not called back; a table of changes publishes the deletion of its keys",
    "the audit log, backups and copies outside the lake stay as they are",
)
"""What holds, in words for the report."""


@dataclass
class Done:
    """What was done to one table.

    Attributes:
        version: of the last commit that erased from it.
        rows: how many rows left it; of windows, how many windows went.
        aside: how many entries left its quarantine, those that say `erased` not counted.
        purged: files that were deleted.
    """

    version: int | None = None
    rows: int = 0
    aside: int = 0
    purged: Purged = field(default_factory=Purged)


class Carrier:
    """One erasure of a project's lake.

    Args:
        app: the project.
        asked: the subjects, see `subject_of`.
        now_us: the time, microseconds since 1970 UTC.
    """

    def __init__(self, app: Opened, asked: Sequence[str], now_us: int) -> None:
        self._disk, self._lake, self._flows, self._app = app.disk, app.lake, app.flows, app
        self.subject: Subject = subject_of(asked, app.flows)
        self._finder = Finder(app.disk, app.lake, app.flows, self.subject)
        self._now_us = now_us

    # --- looking ------------------------------------------------------------------------------------------------------

    def would(self) -> dict[str, dict[str, int]]:
        """Positions and windows by table, as they are now; nothing is changed."""
        self._check()
        found = self._finder.everything()
        return {
            str(name): {"positions": len(found.rows[name]), "windows": len(found.windows[name])}
            for name in self._flows
            if found.rows[name] or found.windows[name]
        }

    def _check(self) -> None:
        """Raise ConfigError for what cannot be done, before anything is."""
        for name, plan in self._flows.items():
            tests = self.subject.tests.get(name, ())
            inherited = self.subject.inherited.get(name, frozenset())
            for column in plan.partition_columns:
                if column in inherited or any(test.column == column for test in tests):
                    fix = "partition the table by something else, accept the plan and run it, then erase"
                    message = "the subject's column makes the names of folders"
                    raise ConfigError(message, table=str(name), column=column, fix=fix)
            above = self._flows.get(plan.upstream) if plan.upstream else None
            if above is not None and isinstance(above.table.window, Session) and plan.step(Aggregation) is not None:
                raise ConfigError("windows are made of sessions, which may be parted", table=str(name))
            table = self._finder.table(name)
            commit = flow_commit(table, name) if table is not None else None
            if commit is not None and is_spark(commit):
                fix = "lodestream run --until-idle takes the table over; then erase"
                raise ConfigError("Spark fills this table", table=str(name), fix=fix)

    def hashed(self) -> str:
        """The subject as a keyed hash, for records of what was done."""
        asked = sorted(f"{table or ''}.{column}={value}" for table, column, value in self.subject.asked)
        return keyed(secret(self._disk, self._lake), *asked)

    # --- doing --------------------------------------------------------------------------------------------------------

    def erase(self, tell: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
        """Erase, delete and prove; one that was broken off is finished by asking for the same subject again.

        Args:
            tell: hears what is being done.

        Returns:
            The report, as it is kept; `proven` says whether nothing is left.

        Raises:
            ConfigError: it cannot be done, or another erasure is not finished.
            ConflictError: somebody else erases, or a table's flow does not let go.
        """
        self._check()
        folder = erasures_folder(self._lake)
        settle(self._disk, folder)
        os.makedirs(here := self._disk.beside(folder), exist_ok=True)
        lock = try_lock(os.path.join(here, "lock"))
        if lock is None:
            raise ConflictError("another process erases from this lake")
        try:
            return self._erase(tell)
        finally:
            os.close(lock)

    def _erase(self, tell: Callable[[str], None]) -> dict[str, Any]:
        one = self._begin()
        found = self._finder.everything()
        self._recall(one, found)
        self._finder.spread(found)
        places = {(str(name), *key) for name, keys in found.raw.items() for key in keys} | set(one.places)
        one = replace(one, places=tuple(sorted(places)))
        put_erasure(self._disk, self._lake, one)
        done: dict[TableName, Done] = {}
        if not one.erased:
            touched: set[TableName] = set()
            for name, plan in self._flows.items():
                if self._concerns(name, plan, found, touched):
                    tell(f"{name}: erasing")
                    touched.add(name)
                    done[name] = self._table(one, name, plan, found)
                    point("erase.table")
            one = replace(one, erased=True)
            put_erasure(self._disk, self._lake, one)
            point("erase.erased")
        purge = Purge(self._disk, self._lake, self.subject)
        tell("deleting files")
        for name, plan in self._flows.items():
            purged = purge.table(plan, Positions(found.rows[name]))
            if purged.files or purged.states or purged.kept_for or name in done:
                done.setdefault(name, Done()).purged = purged
            point("erase.purged")
        purge.caches()
        tell("looking through every file")
        proof = look_through(self._disk, self._lake, self._flows, self.subject)
        report = self._report(one, done, proof)
        put_erasure(self._disk, self._lake, replace(one, report=report))
        point("erase.done")
        return report

    def _begin(self) -> Erasure:
        """The erasure of this subject that is not finished, or a new one, made durable."""
        key, subject = secret(self._disk, self._lake), self.hashed()
        standing = erasures(self._disk, self._lake)
        for one in standing:
            if one.report is None and one.subject == subject:
                return one
            if one.report is None:
                fix = "ask for the same subject again"
                raise ConfigError("an erasure is not finished", columns=", ".join(one.columns), id=one.id, fix=fix)
        bars = [
            self._bar(key, name, test.column, test.value)
            for name, tests in self.subject.tests.items()
            if isinstance(self._flows[name].steps[0], ReadSource)
            for test in tests
            if test.column in self._flows[name].steps[0].schema  # type: ignore[union-attr]
        ]
        last = int(standing[-1].id) if standing else 0
        number = max(self._now_us, last + 1)
        one = Erasure(f"{number:020d}", number, subject, self.subject.columns, tuple(bars))
        put_erasure(self._disk, self._lake, one)
        point("erase.begun")
        return one

    def _bar(self, key: bytes, table: TableName, column: str, value: pa.Scalar) -> Bar:
        texts = texts_of(pa.chunked_array([pa.array([value.as_py()], value.type)]))
        return Bar(str(table), column, int(near(key, texts)[0]), keyed(key, texts[0].as_py()))

    def _recall(self, one: Erasure, found: Found) -> None:
        """What an erasure that was broken off had already found, from the plans that it made."""
        for name, plan in self._flows.items():
            table = self._finder.table(name)
            if table is None or isinstance(plan.steps[0], RunQuery):
                continue
            store = FlowStore(self._disk, self._lake, name, epoch_of(table.snapshot.metadata.configuration))
            for number in range(store.last_planned(), 0, -1):
                standing = store.plan(number)
                if standing is None or standing.clock_us < one.time_us:
                    break
                if standing.erasing is not None and standing.erasing.erasure == one.id:
                    found.rows[name].update(standing.replay)

    def _concerns(self, name: TableName, plan: FlowPlan, found: Found, touched: set[TableName]) -> bool:
        """Whether a table has to be gone through: it holds the subject, reads a table that did, or its source may."""
        if self._finder.table(name) is None:
            return False
        first = plan.steps[0]
        if isinstance(first, RunQuery):
            return not touched.isdisjoint(first.inputs)
        bars = isinstance(first, ReadSource) and name in self.subject.tests
        return bars or bool(found.rows[name] or found.windows[name]) or not touched.isdisjoint(plan.streams)

    def _table(self, one: Erasure, name: TableName, plan: FlowPlan, found: Found) -> Done:
        """Erase from one table, again until it has nothing of the subject any more."""
        if isinstance(plan.steps[0], RunQuery):
            return self._refresh(name, plan)
        self._finder.spread_down(found, name)
        before = self._sizes(name)
        for _ in range(_ROUNDS):
            self._batch(one, name, plan, found)
            point("erase.batch")
            again = Found()
            if not self._finder.add(again, name):
                break
            found.rows[name] |= again.rows[name]
            found.windows[name] = again.windows[name]
        table = self._finder.table(name)
        assert table is not None
        after = self._sizes(name)
        return Done(table.snapshot.version, before[0] - after[0], before[1] - after[1])

    def _batch(self, one: Erasure, name: TableName, plan: FlowPlan, found: Found) -> None:
        erasing = Erasing(
            one.id, one.time_us, tuple(sorted(found.windows[name])), self._again(name, plan), self._vanished(name, plan)
        )  # fmt: skip
        table = self._finder.table(name)
        assert table is not None
        if erased_by(table.snapshot.metadata.configuration)[0] == one.id:
            fresh = Found()
            if not self._finder.add(fresh, name):
                return  # done before it was broken off

        def settled() -> bool:
            """Whether the plan was made, and another process has run it."""
            return erased_by(table.refresh().metadata.configuration)[0] == one.id

        self._app.pipeline().beside(
            name, lambda flow: flow.submit_erasure(found.rows[name], erasing), settled, tries=_TRIES
        )

    def _again(self, table: TableName, plan: FlowPlan) -> bool:
        """Whether a measure is made of the subject's column, so that it may show the value."""
        step = plan.step(Aggregation)
        if step is None:
            return False
        inherited = self.subject.inherited.get(table, frozenset())
        return any(name in inherited and str(plan.schema[name].type) != "bigint" for name, _ in step.measures)

    def _vanished(self, name: TableName, plan: FlowPlan) -> bool:
        """Whether rows are known by positions that a table above gave them itself: it is asked which are gone."""
        while plan.upstream is not None and plan.upstream in self._flows:
            plan = self._flows[plan.upstream]
            if plan.join is not None or plan.step(Aggregation) is not None:
                return True
        return False

    def _refresh(self, name: TableName, plan: FlowPlan) -> Done:
        """Run the query of a table again until it has read its inputs as they are now."""
        first = plan.steps[0]
        assert isinstance(first, RunQuery)

        def refreshed(flow: Flow) -> int:
            while flow.step(idle=True) is not None:
                pass
            return flow.table.snapshot.version

        return Done(self._app.pipeline().beside(name, refreshed, tries=_TRIES))

    def _sizes(self, name: TableName) -> tuple[int, int]:
        """Rows of a table, and entries of its quarantine that say more than that a row was erased."""
        table, aside = self._finder.table(name), self._finder.table(quarantine_name(name))
        rows = sum(add.num_records or 0 for add in table.files()) if table is not None else 0
        if aside is None:
            return rows, 0
        kinds = aside.read(aside.files(), columns=["kind"]).column("kind").to_pylist()
        return rows, len(kinds) - kinds.count(ERASED)

    # --- telling ------------------------------------------------------------------------------------------------------

    def _report(self, one: Erasure, done: Mapping[TableName, Done], proof: Proof) -> dict[str, Any]:
        barred = {bar.table for bar in one.bars}
        sources = [
            {"table": str(name), "source": plan.steps[0].source.name, "barred": str(name) in barred}
            for name, plan in self._flows.items()
            if isinstance(plan.steps[0], ReadSource)
        ]
        kept = sorted({sink for each in done.values() for sink in each.purged.kept_for})
        report: dict[str, Any] = {
            "id": one.id, "time_us": one.time_us, "columns": list(one.columns), "subject": one.subject,
            "tables": {
                str(name): {
                    "version": each.version, "rows": each.rows, "quarantined": each.aside,
                    "files_deleted": each.purged.files, "bytes_deleted": each.purged.size,
                    "states_deleted": each.purged.states,
                }
                for name, each in done.items()
            },
            "sources": sources,
            "sinks": [str(sink.name) for name in done for sink in self._flows[name].sinks],
            "kept_for_sinks": kept, "copies": copies(self._disk, self._lake),
            "files_searched": proof.files, "bytes_searched": proof.size, "left": proof.left, "unread": proof.unread,
            "source_logs": proof.sources, "rules": list(RULES), "proven": proof.ok and not kept,
        }  # fmt: skip
        told = [f"{name}={report[name]!r}" for name in sorted(report)]
        return report | {"signature": keyed(secret(self._disk, self._lake), *told)}
