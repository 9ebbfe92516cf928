"""What becomes of the windows that rows leave: which go, which are made again, which only say that they cover less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.sessions import END, open_windows
from lodestream.engines.embedded.state import FlowState
from lodestream.engines.embedded.windows import START, OpenWindows, assign
from lodestream.lake.rewrite import Mask
from lodestream.model.batch import BatchPlan, Erasing
from lodestream.model.digest import position_digest
from lodestream.model.steps import Aggregation, FlowPlan, Watermark
from lodestream.model.table import WINDOW_END, WINDOW_START, Session

_U64 = (1 << 64) - 1
_GONE: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True)
class ErasedWindows:
    """How files of windows change.

    Attributes:
        hit, columns, left: as in `Erased`.
        hot: the new content of the file of open windows, None when there is none.
        closed: sessions that were open, and are over now that others no longer reach into them.
    """

    hit: Callable[[pa.Table], Mask]
    columns: tuple[str, ...]
    left: Callable[[pa.Table, Mask], pa.Table]
    hot: pa.Table | None
    closed: pa.Table | None


def erase_windows(
    connection: duckdb.DuckDBPyConnection, plan: FlowPlan, step: Aggregation, state: FlowState, rows: pa.Table,
    leaving: Mask, missed: set[tuple[str, int, int]], batch: BatchPlan,
) -> ErasedWindows:  # fmt: skip
    """Decide about every window that covers a row that leaves, and take those that are open out of the state.

    A window all of whose rows leave goes. Open windows, sessions, and all of them when `erasing.again` or the table
    tells its completeness, are made again from the rows that stay, if the upstream table still has them all. Any other
    keeps its measures, and from now on covers only the rows that stay (`_rows`, `_digest`).

    Args:
        rows: n rows that the windows were made from, those that leave among them, after the row stages.
        leaving: n flags.
        missed: (source, position, window start) of rows that were late for one of their windows only.
    """
    assert batch.erasing is not None
    assert state.windows is not None
    decide = _Verdict(connection, plan, step, rows, leaving, missed, batch.erasing)
    if len(state.windows.table):
        state.windows.refill(decide.open(state.windows.table))
    closed = state.windows.finished(state.windows.close(batch.evict_us))
    hot = state.windows.finished(state.windows.table, final=False) if step.emit == "updates" else None
    columns = (WINDOW_START, WINDOW_END, "_rows", "_digest", *decide.groups)
    return ErasedWindows(decide.hit, columns, decide.left, hot, closed if len(closed) else None)


class _Verdict:
    def __init__(
        self, connection: duckdb.DuckDBPyConnection, plan: FlowPlan, step: Aggregation, rows: pa.Table, leaving: Mask,
        missed: set[tuple[str, int, int]], erasing: Erasing,
    ) -> None:  # fmt: skip
        self.step, self.missed, self.erasing = step, missed, erasing
        self.groups = [name for name, _ in step.group_by]
        self.sessions = isinstance(step.window, Session)
        self.fresh: Callable[[], OpenWindows] = lambda: open_windows(connection, step)
        watermark = plan.step(Watermark)
        assert watermark is not None
        event = watermark.event_time.column
        timed = pc.is_valid(rows.column(event))
        self.event = event
        rows, leaving = rows.filter(timed), leaving[timed.to_numpy().astype(np.bool_)]
        self.less = self._folded(rows.filter(pa.array(leaving)), None)
        wanted = {self._key(one) for one in self.less.to_pylist()}
        self.parts = _by_group(self.less.to_pylist(), self.groups)
        self.rest = self._folded(rows.filter(pa.array(~leaving)), wanted) if wanted else self.less
        self.again = _by_group(self.rest.to_pylist(), self.groups)
        self.finished = _by_group(self._shown(self.rest), self.groups)
        self.windows = {(start, digest & _U64) for start, digest in erasing.windows}
        self.starts = np.array([*self.less.column(START).to_pylist(), *(start for start, _ in self.windows)], np.int64)

    def _key(self, one: dict[str, Any]) -> tuple[Any, ...]:
        group = tuple(one[name] for name in self.groups)
        return group if self.sessions else (one[START], *group)

    def _folded(self, rows: pa.Table, wanted: set[tuple[Any, ...]] | None) -> pa.Table:
        """The windows of these rows, in the form of the state; only the wanted ones."""
        fresh = self.fresh()
        if not len(rows):
            return fresh.table
        row, start_us = assign(rows.column(self.event).cast(pa.int64()), self.step.window)
        if self.missed:
            places = positions_of(rows)
            keep = [
                (*places[i], start) not in self.missed for i, start in zip(row.tolist(), start_us.tolist(), strict=True)
            ]
            row, start_us = row[keep], start_us[keep]
        if not len(row):
            return fresh.table
        spread = rows.take(pa.array(row))
        folded = fresh.fold(spread, start_us, position_digest(spread.column("_source"), spread.column("_position")))
        if wanted is None:
            return folded
        return folded.filter(pa.array([self._key(one) in wanted for one in folded.to_pylist()], pa.bool_()))

    def _shown(self, windows: pa.Table) -> list[dict[str, Any]]:
        """The windows as the table has them."""
        return self.fresh().finished(windows).to_pylist() if len(windows) else []

    # --- verdicts -----------------------------------------------------------------------------------------------------

    def _leave(self, group: tuple[Any, ...], start: int, end: int) -> tuple[int, int]:
        """How many rows leave a window, and the digest of their positions."""
        count = digest = 0
        for one in self._within(self.parts, group, start, end, START, None):
            count, digest = count + one["_rows"], digest ^ one["_digest"] & _U64
        return count, digest

    def _within(
        self, found: dict[tuple[Any, ...], list[dict[str, Any]]], group: tuple[Any, ...], start: int, end: int,
        column: str, micros: Callable[[Any], int] | None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        listed = found.get(group, _GONE)
        at = [one[column] if micros is None else micros(one[column]) for one in listed]
        if self.sessions:
            return [one for one, begins in zip(listed, at, strict=True) if start <= begins < end]
        return [one for one, begins in zip(listed, at, strict=True) if begins == start]

    def _made_again(self, rows: int, left: int, parts: list[dict[str, Any]], *, is_open: bool) -> bool:
        """Whether a window is replaced by what the rows that stay make, and they are all there."""
        wanted = is_open or self.sessions or self.erasing.again or self.step.completeness
        return wanted and sum(one["_rows"] for one in parts) == rows - left

    def open(self, windows: pa.Table) -> pa.Table:
        """The open windows without the rows that leave."""
        kept: list[dict[str, Any]] = []
        changed = False
        for one in windows.to_pylist():
            group, start = tuple(one[name] for name in self.groups), one[START]
            end = one[END] if self.sessions else start + self.step.window.span_us
            count, digest = self._leave(group, start, end)
            named = (start, one["_digest"] & _U64) in self.windows
            if not count and not named:
                kept.append(one)
                continue
            changed = True
            if named or count >= one["_rows"]:
                continue
            parts = self._within(self.again, group, start, end, START, None)
            if self._made_again(one["_rows"], count, parts, is_open=True):
                kept += parts
            else:
                kept.append(one | {"_rows": one["_rows"] - count, "_digest": one["_digest"] ^ digest})
        return pa.Table.from_pylist(kept, schema=windows.schema) if changed else windows

    def hit(self, rows: pa.Table) -> Mask:
        """Which of the windows of a file change."""
        flags = np.ones(len(rows), np.bool_)
        if not self.sessions:  # most windows of most files are none of these
            flags = np.isin(rows.column(WINDOW_START).cast(pa.int64()).to_numpy(), self.starts)
        near = np.flatnonzero(flags)
        flags[near] = [self._touched(one) for one in _listed(rows.take(pa.array(near)))]
        return flags

    def _touched(self, one: dict[str, Any]) -> bool:
        if (one[WINDOW_START], one["_digest"] & _U64) in self.windows:
            return True
        group = tuple(one[name] for name in self.groups)
        return self._leave(group, one[WINDOW_START], one[WINDOW_END])[0] > 0

    def left(self, rows: pa.Table, hit: Mask) -> pa.Table:
        """What stays of a file's windows."""
        stays = rows.filter(pa.array(~hit))
        touched = rows.filter(pa.array(hit))
        kept: list[dict[str, Any]] = []
        for plain, one in zip(touched.to_pylist(), _listed(touched), strict=True):
            group, start, end = tuple(one[n] for n in self.groups), one[WINDOW_START], one[WINDOW_END]
            count, digest = self._leave(group, start, end)
            if (start, one["_digest"] & _U64) in self.windows or count >= one["_rows"]:
                continue
            parts = self._within(self.finished, group, start, end, WINDOW_START, _micros)
            if self._made_again(one["_rows"], count, parts, is_open=False):
                kept += [plain | part | {"_batch": plain["_batch"]} for part in parts]
            else:
                kept.append(plain | {"_rows": one["_rows"] - count, "_digest": _signed(one["_digest"] ^ digest)})
        if not kept:
            return stays
        return pa.concat_tables([stays, pa.Table.from_pylist(kept, schema=rows.schema)])


def _listed(rows: pa.Table) -> list[dict[str, Any]]:
    """Windows as dictionaries, their bounds in microseconds."""
    for name in (WINDOW_START, WINDOW_END):
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows.column(name).cast(pa.int64()))
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def _by_group(windows: list[dict[str, Any]], groups: list[str]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in windows:
        found.setdefault(tuple(one[name] for name in groups), []).append(one)
    return found


def _micros(moment: Any) -> int:
    return int(pa.scalar(moment).cast(pa.int64()).as_py())


def _signed(digest: int) -> int:
    digest &= _U64
    return digest - (1 << 64) if digest >> 63 else digest
