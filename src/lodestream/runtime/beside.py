"""What the driver of a run on Spark does itself: tables whose rows wait for somebody's answers, and sinks.

Both wait for others most of the time, and what bounds them is whom they ask or tell, not this machine. So they are the
embedded engine's flows, as they are, over the tables that Spark fills.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from lodestream.engines.embedded.surroundings import Committed
from lodestream.errors import LodestreamError
from lodestream.model.steps import Ask
from lodestream.model.table import FlowName, TableName
from lodestream.runtime.pipeline import Pipeline
from lodestream.runtime.supervise import FlowStatus

_JOIN_S = 0.1

Listener = Callable[[FlowName, Committed], None]


class Beside:
    """Runs them, until they are idle or until told to stop.

    Args:
        pipeline: the flows on the embedded engine; nobody else runs it.

    Attributes:
        chosen: the tables of the run.
        publishing: the tables whose sinks run.
        error: what made one of them fail.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._thread: threading.Thread | None = None
        self.chosen: Sequence[TableName] = ()
        self.publishing: Sequence[TableName] = ()
        self.error: LodestreamError | None = None

    @property
    def tables(self) -> list[TableName]:
        """Those of the chosen tables whose rows wait for answers."""
        return [name for name in self.chosen if self._pipeline.flows[name].step(Ask) is not None]

    def make(self, table: TableName) -> None:
        """Make the table, so that others can read it."""
        flow = self._pipeline.flow(table)
        try:
            flow.open()
        finally:
            flow.close()

    def settle(self, table: TableName, listener: Listener) -> None:
        """Run a table until every row that is there has its answer. Raises LodestreamError: what made it fail."""
        self._pipeline.run(tables=[table], publishing=(), until_idle=True, listener=listener)

    def publish(self, listener: Listener) -> None:
        """Run the sinks until all is published. Raises LodestreamError: what made one fail."""
        if self._pipeline.sinks(self.publishing):
            self._pipeline.run(tables=(), publishing=self.publishing, until_idle=True, listener=listener)

    def caught_up(self, table: TableName) -> None:
        """A table that is looked up has taken in what was there."""
        self._pipeline.mark_caught_up(table)

    def start(self, listener: Listener) -> None:
        """Run all, until `stop`."""
        if self.tables or self._pipeline.sinks(self.publishing):
            self._thread = threading.Thread(target=self._run, args=(listener,), name="beside Spark", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raise what made one of them fail."""
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End after the batches that are under way; twice is harmless."""
        self._pipeline.stop()
        while self._thread is not None and self._thread.is_alive():
            self._pipeline.stop()
            self._thread.join(_JOIN_S)

    def _run(self, listener: Listener) -> None:
        try:
            self._pipeline.run(tables=self.tables, publishing=self.publishing, listener=listener, on_error=self._failed)
        except LodestreamError as error:
            self.error = error

    def _failed(self, status: FlowStatus) -> None:
        if status.state == "failed":
            self.error = status.error
