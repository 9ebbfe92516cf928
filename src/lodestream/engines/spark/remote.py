"""Flows on a server of Spark Connect: sources are planned, rows computed and batches committed over there.

Everything that a query calls runs in the server's own Python, which needs Lodestream and the lake under the same path.
This process starts the queries, watches them, and reads what the commits say.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.surroundings import Committed, Surroundings, untold
from lodestream.engines.spark.failures import in_our_words
from lodestream.engines.spark.flow import Listener, SparkFlow
from lodestream.engines.spark.session import is_remote
from lodestream.engines.spark.source import Recipe
from lodestream.errors import TransientError
from lodestream.model.steps import FlowPlan
from lodestream.model.table import TableName
from lodestream.ports.plugins import make_enricher

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_TRIES = 5
"""How often a query is started, which takes a Python that the server starts and waits ten seconds for."""


def flow_class(session: object) -> type[SparkFlow]:
    """What runs a flow in that session."""
    return RemoteFlow if is_remote(session) else SparkFlow


class RemoteFlow(SparkFlow):
    """A flow whose batches run at the server. It has a session of its own, for settings of one are not for others."""

    def __init__(self, plan: FlowPlan, around: Surroundings, checkpoints: str, session: Any, *more: Any) -> None:
        super().__init__(plan, around, checkpoints, session.cloneSession(), *more)
        self._told = -1

    def start(self, listener: Listener) -> None:
        """Start the query; `listener` hears of each batch when `settle` or `check` sees its commit.

        Raises:
            LodestreamError: the server cannot start it.
        """
        from pyspark.errors import PySparkException

        self._told = self.table.refresh().version
        for left in reversed(range(_TRIES)):
            try:
                super().start(listener)
                return
            except PySparkException as error:
                told = in_our_words(str(error), str(self.name))
                if not left or not isinstance(told, TransientError):
                    raise told from error

    def stop(self) -> None:
        """End the query and its session at the server. Twice is harmless."""
        from pyspark.errors import PySparkException

        client: Any = self._session.client  # a session that was cloned has not all that its own `stop` needs
        if not client.is_closed:
            with contextlib.suppress(PySparkException):  # the server may be gone, or another thread be first
                super().stop()
                client.release_session()
            client.close()

    def check(self) -> None:
        """Tell of new commits, and raise what ended the query, if it failed."""
        version = self.table.refresh().version
        for commit in self.table.commits(self._told, version):
            info = commit.info
            if info.get("query") == self.checkpoint.query and "batch" in info:
                self.listener(Committed(info["batch"], info["kind"], commit.version, info["counts"]))
        self._told = version
        super().check()

    @property
    def _batches(self) -> ServerBatches:
        around = replace(self._around, handover=None, enricher=make_enricher, notice=untold, budget=None)
        recipe = "" if self._recipe is None else self._recipe.to_text()
        return ServerBatches(self.plan, around, self._checkpoints, recipe, self._poll_s, self._tables.widening)


@dataclass
class ServerBatches:
    """What a query calls with each micro-batch: the flow, opened at the server with the first one."""

    plan: FlowPlan
    around: Surroundings
    checkpoints: str
    recipe: str
    poll_s: float
    widening: frozenset[TableName]
    _flow: SparkFlow | None = field(default=None, repr=False)

    def __call__(self, stream: DataFrame, number: int) -> None:
        """Run one batch."""
        if self._flow is None:
            flow = SparkFlow(
                self.plan, self.around, self.checkpoints, stream.sparkSession, self._recipe, _no_flow, self.poll_s,
                self.widening,
            )  # fmt: skip
            flow.open()
            flow.follow()
            self._flow = flow
        self._flow.run_batch(stream, number)

    def _recipe(self, *_given: object) -> Recipe:
        return Recipe.from_text(self.recipe)


def _no_flow(name: object) -> Any:
    """Stands where the embedded engine would end a batch, which it does before a query starts."""
    raise TransientError("another engine has begun a batch of this table", table=str(name))
