"""Notes in the lake of why a table's flow stands still, for whoever looks from another process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable

from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.errors import LodestreamError
from lodestream.lake.disk import random_id, write_placed
from lodestream.lake.layout import failure_note
from lodestream.model.table import TableName
from lodestream.runtime.supervise import FlowStatus


class FailureNotes:
    """Keeps one note a table: what its last error was and when. A later commit outdates it.

    Nothing hangs on a note: it is not made durable, and one that cannot be written is left out.

    Args:
        around: disk, lake and clock.
        tables: those that start now; what was noted of them before is taken away.
        on_error: told of every error first.
    """

    def __init__(
        self, around: Surroundings, tables: Iterable[TableName], on_error: Callable[[FlowStatus], None]
    ) -> None:
        self._around, self._on_error = around, on_error
        for name in tables:
            with contextlib.suppress(FileNotFoundError, LodestreamError):
                around.disk.unlink(failure_note(around.lake, name))

    def told(self, status: FlowStatus) -> None:
        """Note the error of a table that waits to try again or has failed."""
        self._on_error(status)
        if not isinstance(status.table, TableName) or status.error is None:
            return
        note = {"time_us": self._around.clock(), "state": status.state, "error": str(status.error)}
        path = failure_note(self._around.lake, status.table)
        with contextlib.suppress(FileNotFoundError, LodestreamError):
            written = f"{path}.{random_id()}"
            write_placed(self._around.disk, written, json.dumps(note).encode())
            self._around.disk.replace(written, path)
