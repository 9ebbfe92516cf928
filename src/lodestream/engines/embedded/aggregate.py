"""The window stage: rows into their open windows, late and erring ones aside."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import select
from lodestream.engines.embedded.passing import INDEX, Pass, mask_of
from lodestream.engines.embedded.windows import assign
from lodestream.model.digest import position_digest
from lodestream.model.steps import Aggregation
from lodestream.model.table import Session


def aggregate(passing: Pass, step: Aggregation) -> None:
    """Fold the current rows into their windows and close those that the watermark has passed."""
    windows = passing.state.windows
    assert windows is not None
    _reject_errors(passing, step)
    rows = passing.settle()
    if len(rows):
        row, start_us = assign(rows.column(passing.event_column).cast(pa.int64()), step.window)
        on_time = start_us + step.window.span_us > passing.batch.late_us
        again = (passing.batch.accept_late or step.late == "update") and not isinstance(step.window, Session)
        kept_us = passing.batch.kept_us
        taken = on_time | (kept_us is None or start_us >= kept_us) if again else on_time
        if not taken.all():
            rows, row, start_us = _reject_late_windows(passing, row, start_us, taken)
            on_time = on_time[taken]
        if again:
            passing.out.reopened = frozenset(start_us[~on_time].tolist())
            row, start_us = row[on_time], start_us[on_time]
        if len(row):
            hashes = position_digest(rows.column("_source"), rows.column("_position"))
            spread = rows.select([c for c in rows.column_names if c in windows.needed])
            if not np.array_equal(row, np.arange(len(spread))):
                spread, hashes = spread.take(pa.array(row)), hashes[row]
            changed = windows.fold(spread, start_us, hashes)
            passing.out.changes.windows = changed
            passing.out.touched = True
    passing.out.count("output", len(passing.settle()))
    passing.out.closed = windows.close(passing.batch.evict_us)
    if passing.out.changes.windows is not None:  # a window that closes in this batch needs no state
        changed = passing.out.changes.windows
        passing.out.changes.windows = changed.filter(pc.greater(windows.ends(changed), passing.batch.evict_us))
    passing.out.rows = passing.out.rows.slice(0, 0)


def _reject_errors(passing: Pass, step: Aggregation) -> None:
    checks = [(f"group:{name}:error", e.error) for name, e in step.group_by if e.error is not None]
    checks += [(f"measure:{name}:error", m.initial_error) for name, m in step.measures if m.initial_error is not None]
    if not checks or not len(passing.settle()):
        return
    flags = select(
        passing.connection, passing.out.rows, [(reason, f"coalesce({sql}, false)") for reason, sql in checks]
    )
    matrix = np.column_stack([mask_of(flags.column(reason)) for reason, _ in checks])
    bad: np.ndarray = matrix.sum(axis=1) > 0
    if bad.any():
        names = [reason for reason, _ in checks]
        reasons = [[n for n, hit in zip(names, row, strict=True) if hit] for row in matrix[bad]]
        passing.reject(bad, "quarantine", reasons)


def _reject_late_windows(
    passing: Pass, row: np.ndarray, start_us: np.ndarray, on_time: np.ndarray
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Set aside rows that are late for all their windows; note those late for some."""
    count = len(passing.out.rows)
    late_windows = np.bincount(row[~on_time], minlength=count)
    open_windows = np.bincount(row[on_time], minlength=count)
    partly = (late_windows > 0) & (open_windows > 0)
    if partly.any():
        missed: dict[int, list[int]] = {int(i): [] for i in np.flatnonzero(partly)}
        for i, start in zip(row[~on_time].tolist(), start_us[~on_time].tolist(), strict=True):
            if i in missed:
                missed[i].append(start)
        indexes = passing.column(INDEX).to_numpy()[partly]
        details = [f'{{"window_starts_us": {sorted(starts)}}}' for starts in missed.values()]
        passing.record(indexes, "late_window", [["late_window"]] * len(details), list(details))
    gone = open_windows == 0
    row, start_us = row[on_time], start_us[on_time]
    if gone.any():
        passing.reject_late(gone)
        row = (np.cumsum(~gone) - 1)[row]
    return passing.settle(), row, start_us
