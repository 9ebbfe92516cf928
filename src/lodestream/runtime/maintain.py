"""Keeps the logs of running tables short, beside the writers and never in their way."""

from __future__ import annotations

import threading

from lodestream.engines.embedded.flow import Flow, Surroundings
from lodestream.errors import LodestreamError
from lodestream.lake.table import DeltaTable

_CHECKPOINT_EVERY = 100
_LOOK_EVERY_S = 1.0


class Maintenance:
    """Writes a checkpoint of each table at least every hundred commits.

    Args:
        flows: flows of this run; only their tables are looked after.
        around: disk and clock.
    """

    def __init__(self, flows: list[Flow], around: Surroundings) -> None:
        self._flows = flows
        self._around = around
        self._last: dict[str, int] = {}
        self.errors = 0

    def run(self, stopping: threading.Event) -> None:
        """Look at every table once a second until `stopping` is set."""
        while not stopping.wait(_LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        """One round; a failure is counted and tried again in the next one, for nothing depends on it."""
        for flow in self._flows:
            for table in (getattr(flow, "table", None), getattr(flow, "quarantine", None)):
                if table is None:
                    continue
                version = table.snapshot.version
                if (
                    version - self._last.setdefault(table.path, version - version % _CHECKPOINT_EVERY)
                    < _CHECKPOINT_EVERY
                ):
                    continue
                try:
                    own = DeltaTable.open(self._around.disk, table.path)
                    if own is not None:
                        own.checkpoint(self._around.clock())
                        self._last[table.path] = own.snapshot.version
                except LodestreamError:
                    self.errors += 1
