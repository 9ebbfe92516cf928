"""What a run shows while it works: a live table on a terminal, plain lines or JSON elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lodestream.cli.call import Call
from lodestream.cli.output import count, span

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from lodestream.engines.embedded.surroundings import Committed
    from lodestream.model.table import FlowName, TableName
    from lodestream.runtime.on_spark import SparkPipeline
    from lodestream.runtime.pipeline import Pipeline
    from lodestream.runtime.supervise import FlowStatus

_FATES = ("output", "quarantine", "late", "duplicate", "dropped")
_PLAIN_EVERY_S = 2.0
_LIVE_PER_S = 4


class Progress:
    """Follows one run.

    Args:
        call: where to show it.
        tables: the tables that run.
        pipeline: asked for its flows' statuses.
    """

    def __init__(self, call: Call, tables: Collection[TableName], pipeline: Pipeline | SparkPipeline) -> None:
        self._call = call
        self._tables: list[FlowName] = list(tables)
        self._tables += [sink.name for table in tables for sink in pipeline.flows[table].sinks]
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._said: dict[FlowName, float] = {}
        self._rates: dict[FlowName, _Rate] = {name: _Rate() for name in self._tables}
        self._statuses: list[FlowStatus] | None = None
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self._call.json:
            from rich.live import Live

            self._live = Live(
                console=self._call.talk, get_renderable=self._table, refresh_per_second=_LIVE_PER_S, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def committed(self, table: FlowName, batch: Committed) -> None:
        """Take in a batch; called from the flows' threads."""
        with self._lock:
            self._rates[table].add(batch.counts.get("input", 0))
            if self._call.json:
                self._call.emit(
                    {"table": str(table), "batch": batch.batch, "kind": batch.kind, "version": batch.version,
                     "counts": dict(batch.counts)}
                )  # fmt: skip
            elif self._live is None:
                self._plain(table, batch)

    def failed(self, status: FlowStatus) -> None:
        """Say at once that a flow failed or has to try again; called from the flows' threads."""
        with self._lock:
            self._call.say(f"{status.table}: {status.state}: {status.error}")

    def _plain(self, table: FlowName, batch: Committed) -> None:
        """One line per table every two seconds."""
        now = time.monotonic()
        if now - self._said.get(table, -_PLAIN_EVERY_S) < _PLAIN_EVERY_S:
            return
        self._said[table] = now
        rate = self._rates[table]
        self._call.say(f"{table}  batch {batch.batch}  {count(rate.total)} rows in  {count(round(rate.now()))}/s")

    def take(self, statuses: list[FlowStatus]) -> None:
        """Remember how the flows stood at the end."""
        self._statuses = statuses

    def finish(self, *, interrupted: bool) -> None:
        """Say what was done: a table on stdout, or one last JSON object."""
        statuses = self._statuses if self._statuses is not None else self._pipeline.status
        if self._live is not None:
            self._live.stop()
            self._live = None
        seconds = time.monotonic() - self._started
        if self._call.json:
            told = {str(s.table): {"state": s.state, "batches": s.batches, "batch": s.batch, "version": s.version,
                                   "counts": dict(s.counts)} for s in statuses}  # fmt: skip
            self._call.emit({"done": not interrupted, "seconds": round(seconds, 3), "tables": told})
            return
        columns = ["table", "batches", "input", *_FATES, "busy"]
        rows = [
            (str(s.table), count(s.batches), count(s.counts.get("input", 0)),
             *(count(s.counts[fate]) if s.counts.get(fate) else "·" for fate in _FATES), span(s.busy_s))
            for s in statuses
        ]  # fmt: skip
        self._call.table(columns, rows, right=set(columns[1:]))
        total = sum(s.batches for s in statuses)
        self._call.say(
            f"{'interrupted' if interrupted else 'done'}: {total} batches in {span(seconds)}"
            + ("; the next run goes on from here" if interrupted else "")
        )

    def _table(self) -> Table:
        from rich.table import Table

        columns = ("table", "state", "rows in", "rows/s", *_FATES, "batch", "fresh")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in columns:
            table.add_column(name, justify="left" if name in ("table", "state") else "right", no_wrap=True)
        now_us = self._pipeline.around.clock()
        for status in self._pipeline.status:
            fresh = None if status.max_event_us is None else (now_us - status.max_event_us) / 1e6
            rate = self._rates.get(status.table)
            table.add_row(
                str(status.table), _state(status), count(status.counts.get("input", 0)),
                count(round(rate.now() if rate else 0)),
                *(count(status.counts[f]) if status.counts.get(f) else "·" for f in _FATES),
                count(status.batch), span(fresh),
            )  # fmt: skip
        return table


def _state(status: FlowStatus) -> Any:
    from rich.text import Text

    colours = {"running": "green", "failed": "bold red", "retrying": "yellow", "standby": "yellow"}
    text = f"{status.state}: {status.error.message}"[:60] if status.error is not None else status.state
    return Text(text, style=colours.get(status.state, "dim"))


class _Rate:
    """Rows per second over the last five seconds or so."""

    _SPAN_S = 5.0

    def __init__(self) -> None:
        self.total = 0
        self._seen: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def add(self, rows: int) -> None:
        """Count rows that came in now."""
        self.total += rows
        now = time.monotonic()
        self._seen.append((now, self.total))
        while len(self._seen) > 2 and now - self._seen[1][0] > self._SPAN_S:
            self._seen.pop(0)

    def now(self) -> float:
        """Rows per second."""
        first, before = self._seen[0]
        return (self.total - before) / max(time.monotonic() - first, 1e-3)
