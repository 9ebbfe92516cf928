"""Shows rows flow through the tables while the demo runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

ASIDE = ("quarantine", "late", "duplicate", "dropped")
_LINE_EVERY_S = 2.0


class Watch:
    """Counts batches and rows per table as they are committed; a context manager that shows them meanwhile.

    Args:
        console: where to.
        tables: names in the order they are shown.
        clock: seconds, monotonic.
    """

    def __init__(self, console: Console, tables: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, dict[str, int]] = {name: {"batches": 0, "output": 0, "aside": 0} for name in tables}
        self._live = Live(get_renderable=self._table, console=console, transient=True) if console.is_terminal else None
        self._last_line_s = clock()

    def __enter__(self) -> Watch:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif error is None and not any(seen["batches"] for seen in self._seen.values()):
            self._console.print("  nothing new")
        elif error is None:
            self._line()

    def committed(self, table: str, counts: Mapping[str, int]) -> None:
        """Note one batch of a table; may be called from any thread."""
        with self._lock:
            seen = self._seen[table]
            seen["batches"] += 1
            # rows of a query replace each other; rows of a flow add up
            seen["output"] = counts.get("output", 0) + (seen["output"] if "input" in counts or not counts else 0)
            seen["aside"] += sum(counts.get(fate, 0) for fate in ASIDE)
            now = self._clock()
            due = self._live is None and now - self._last_line_s >= _LINE_EVERY_S
            if due:
                self._last_line_s = now
        if due:
            self._line()

    def _line(self) -> None:
        layers: dict[str, tuple[int, int]] = {}
        with self._lock:
            for name, seen in self._seen.items():
                layer = name.partition(".")[0]
                output, aside = layers.get(layer, (0, 0))
                layers[layer] = (output + seen["output"], aside + seen["aside"])
        parts = [f"{layer} {output:,} rows, {aside:,} set aside" for layer, (output, aside) in layers.items()]
        self._console.print("  " + " · ".join(parts), soft_wrap=True, highlight=False)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("table", no_wrap=True)
        for name in ("batches", "rows", "set aside"):
            table.add_column(name, justify="right", min_width=9)
        with self._lock:
            for name, seen in self._seen.items():
                style = None if seen["batches"] else "dim"
                table.add_row(name, f"{seen['batches']:,}", f"{seen['output']:,}", f"{seen['aside']:,}", style=style)
        return table
