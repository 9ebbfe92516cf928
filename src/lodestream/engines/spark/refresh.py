"""A `sql:` table on Spark: its query over pinned versions of its inputs, whose result replaces the table."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp

from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.rebuild import table_properties
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Committed, Surroundings
from lodestream.engines.embedded.takeover import is_spark
from lodestream.engines.spark.batch import stored
from lodestream.engines.spark.files import Target, writing, written
from lodestream.engines.spark.tables import Tables
from lodestream.errors import ConfigError, ConflictError
from lodestream.lake.disk import random_id
from lodestream.lake.layout import EPOCH_PROPERTY, app_id, epoch_of, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import FlowPlan, RunQuery
from lodestream.model.table import TableName

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkRefresh:
    """Refreshes one table when an input has a version that the last refresh did not read.

    Args:
        plan: the flow.
        around: its surroundings.
        session: the run's session.
        listener: hears of each refresh.
    """

    def __init__(
        self, plan: FlowPlan, around: Surroundings, session: SparkSession, listener: Callable[[Committed], None]
    ) -> None:
        step = plan.steps[0]
        assert isinstance(step, RunQuery)
        self.plan, self.name, self._step = plan, plan.table.name, step
        self._around, self._session, self._listener = around, session, listener
        self._pins: dict[str, int] = {}
        self.schedule = step.schedule
        self.last_us = 0

    def step(self) -> Committed | None:
        """Refresh if there is something new.

        Raises:
            ConfigError: the query errs on this data; the table keeps its last version.
        """
        pins = self._versions()
        if pins is None or pins == self._pins:
            return None
        around = self._around
        table = DeltaTable.create(
            around.disk, table_path(around.lake, self.name), self.plan.schema,
            configuration={EPOCH_PROPERTY: "1", **table_properties(self.plan)}, table_id=str(uuid.uuid4()),
            clock_us=around.clock(),
        )  # fmt: skip
        epoch = epoch_of(table.snapshot.metadata.configuration)
        app = app_id(self.name, epoch)
        store = FlowStore(around.disk, around.lake, self.name, epoch)
        number = table.snapshot.txns.get(app, 0) + 1
        self._tell_takeover(table, app)
        before = store.plan(number - 1) if number > 1 else None
        if before is not None and dict(before.pins) == pins:
            self._pins = pins
            return None
        batch = store.put_plan(
            BatchPlan(
                epoch=epoch, batch=number, kind="refresh", clock_us=around.clock(), definition=self.plan.definition,
                pins=pins,
            )
        )  # fmt: skip
        # A plan that was left behind may name versions that are gone; the result replaces the whole table in any case.
        return self._run(replace(batch, pins=pins), table, app)

    def _tell_takeover(self, table: DeltaTable, app: str) -> None:
        commit = None if self._pins else last_commit(table, app)
        if commit is not None and not is_spark(commit):
            self._around.notice(self.name, f"taken over from the embedded engine at batch {commit.txns[app]}")

    def _run(self, batch: BatchPlan, table: DeltaTable, app: str) -> Committed | None:
        from pyspark.errors import PySparkException

        info = {
            "batch": batch.batch, "epoch": batch.epoch, "kind": batch.kind, "definition": batch.definition,
            "pins": dict(batch.pins), "code": self._around.code, "query": "refresh",
        }  # fmt: skip
        try:
            rows = stored(self._result(batch), table.snapshot.metadata.schema, self.plan, batch.batch)
            files = written([writing(rows, Target.of(table, f"{batch.batch}-{random_id()}"))])
        except PySparkException as error:
            cause = str(error).strip().splitlines()[0]
            raise ConfigError(
                "query failed; the table keeps its last version", table=str(self.name), cause=cause
            ) from error
        adds = files.get(table.path, ())
        count = sum(add.num_records or 0 for add in adds)
        try:
            table.commit(
                adds=adds, removes=table.files(), txn=(app, batch.batch), info={**info, "counts": {"output": count}},
                clock_us=batch.clock_us, operation="REFRESH", blind=False,
            )  # fmt: skip
        except ConflictError:
            table.discard(adds)
            if table.refresh().txns.get(app, 0) >= batch.batch:  # another process has refreshed it meanwhile
                return None
            raise
        self._pins, self.last_us = dict(batch.pins), batch.clock_us
        done = Committed(batch.batch, "refresh", table.refresh().version, {"output": count})
        self._listener(done)
        return done

    def _result(self, batch: BatchPlan):  # type: ignore[no-untyped-def]
        """The query over views of the pinned versions; a view's name has no dot."""
        tables = Tables(self._session, self._around.disk, self._around.lake)
        for text, version in batch.pins.items():
            tables.at(TableName.parse(text), version).createOrReplaceTempView(_view(text))
        return self._session.sql(over_views(self._step.text, batch.pins))

    def _versions(self) -> dict[str, int] | None:
        pins = {}
        for name in self._step.inputs:
            table = DeltaTable.open(self._around.disk, table_path(self._around.lake, name))
            if table is None:
                return None
            pins[str(name)] = table.snapshot.version
        return pins


def over_views(text: str, tables: object) -> str:
    """The query with each table replaced by its view, which keeps the table's name as alias."""
    query = sqlglot.parse_one(text, dialect="spark")
    for table in list(query.find_all(exp.Table)):
        name = f"{table.db}.{table.name}"
        if table.db and name in tables:  # type: ignore[operator]
            view = exp.to_table(_view(name), dialect="spark")
            view.set("alias", table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name)))
            table.replace(view)
    return query.sql("spark")


def _view(name: str) -> str:
    return "_lodestream_" + name.replace(".", "_")
