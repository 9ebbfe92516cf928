"""The row stages of a flow, in their fixed order: python, derive, expect, event time, dedup, lookup, window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.correction import Correction
from lodestream.engines.embedded.frames import quoted, select
from lodestream.engines.embedded.keys import hash_keys
from lodestream.engines.embedded.lookups import LookupTable
from lodestream.engines.embedded.python_step import PythonFunction, run_python
from lodestream.engines.embedded.rejects import rejected
from lodestream.engines.embedded.state import DEDUP_SCHEMA, Changes, FlowState
from lodestream.engines.embedded.windows import assign
from lodestream.errors import ConfigError
from lodestream.model.arrow import to_arrow_type
from lodestream.model.batch import BatchPlan
from lodestream.model.digest import position_digest
from lodestream.model.steps import (
    Aggregation,
    Dedupe,
    Derive,
    Expect,
    FlowPlan,
    LookUp,
    Rule,
    RunPython,
    Select,
    Watermark,
)
from lodestream.model.table import META_COLUMNS
from lodestream.model.types import Schema

INDEX = "_index"
"""Column that holds the number of the input row while a batch passes the stages."""


@dataclass
class Outcome:
    """What a batch of rows became.

    Attributes:
        rows: rows that passed, with their derived and looked-up columns (empty for window flows).
        rejects: quarantine rows.
        closed: closed windows, in the form of `OpenWindows.table`; None without a window stage.
        touched: whether any open window changed.
        changes: what to add to the stored state.
        counts: rows by disposition; `rule:<name>` counts rows that broke a rule.
        schema: the table's new columns when drift changed them, else None.
        reopened: starts of closed windows that accepted late rows belong to.
        correction: the new content of those windows.
    """

    rows: pa.Table
    rejects: list[pa.Table] = field(default_factory=list)
    closed: pa.Table | None = None
    touched: bool = False
    changes: Changes = field(default_factory=Changes)
    counts: dict[str, int] = field(default_factory=dict)
    schema: Schema | None = None
    reopened: frozenset[int] = frozenset()
    correction: Correction | None = None

    def count(self, kind: str, number: int) -> None:
        """Add to a count."""
        if number:
            self.counts[kind] = self.counts.get(kind, 0) + number


class RowStages:
    """Runs the stages of one flow.

    Args:
        connection: the flow's DuckDB.
        plan: the flow.
        functions: finds the user's function of a `python:` step.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, plan: FlowPlan, functions: Callable[[str], PythonFunction]
    ) -> None:
        self._connection = connection
        self._plan = plan
        self._functions = functions

    def run(self, rows: pa.Table, batch: BatchPlan, state: FlowState, lookups: Mapping[str, LookupTable]) -> Outcome:
        """Take n input rows through all stages; `state` is moved on, so it must be that of the batch before."""
        out = Outcome(rows.append_column(INDEX, pa.array(np.arange(len(rows), dtype=np.int64))))
        pass_ = _Pass(self._connection, rows, batch, state, out)
        derive: Derive | None = None
        for step in self._plan.steps:
            match step:
                case RunPython():
                    pass_.settle()
                    run_python(pass_, step, self._functions(step.step.function))
                case Derive():
                    derive = step
                case Expect():
                    pass_.derive_and_expect(derive, step)
                    derive = None
                case _:
                    if derive is not None:
                        pass_.derive_and_expect(derive, None)
                        derive = None
                    pass_.step(step, lookups)
        if derive is not None:
            pass_.derive_and_expect(derive, None)
        out.rows = pass_.settle().drop_columns([INDEX])
        return out

    def passing(self, rows: pa.Table, batch: BatchPlan, lookups: Mapping[str, LookupTable]) -> pa.Table:
        """The rows as they stand before event time is looked at, without touching any state."""
        stateful = (Watermark, Dedupe, Aggregation)
        steps = tuple(step for step in self._plan.steps if not isinstance(step, stateful))
        stages = RowStages(self._connection, replace(self._plan, steps=steps), self._functions)
        return stages.run(rows, batch, FlowState(), lookups).rows


class _Pass:
    """One batch on its way through the stages."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        given: pa.Table,
        batch: BatchPlan,
        state: FlowState,
        out: Outcome,
    ) -> None:
        self.connection = connection
        self.given = given
        self.batch = batch
        self.state = state
        self.out = out
        self.event_column = ""
        self._alive: np.ndarray | None = None

    def step(self, step: object, lookups: Mapping[str, LookupTable]) -> None:
        match step:
            case Watermark():
                self.watermark(step)
            case Dedupe():
                self.dedupe(step)
            case LookUp():
                self.look_up(step, lookups[str(step.lookup.table)])
            case Aggregation():
                self.aggregate(step)
            case Select():
                kept = [*step.columns, *(c for c in (*META_COLUMNS, "_raw") if c in self.out.rows.column_names)]
                self.out.rows = self.out.rows.select([*dict.fromkeys([*kept, INDEX])])
            case _:
                pass  # reading and writing are the flow's

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of the rows that still stand."""
        values = self.out.rows.column(name)
        return values if self._alive is None else values.filter(pa.array(self._alive))

    def drop(self, gone: np.ndarray) -> np.ndarray:
        """Take the flagged rows, of those that still stand, out of the batch; returns their input numbers.

        The table is copied once for the whole batch, in `settle`, not once for every stage.
        """
        bad: np.ndarray = self.column(INDEX).to_numpy()[gone]
        if self._alive is None:
            self._alive = ~gone
        else:
            self._alive[np.flatnonzero(self._alive)[gone]] = False
        return bad

    def settle(self) -> pa.Table:
        """Copy out the rows that still stand."""
        if self._alive is not None:
            self.out.rows = self.out.rows.filter(pa.array(self._alive))
            self._alive = None
        return self.out.rows

    def reject(
        self,
        mask: np.ndarray,
        kind: str,
        reasons: list[list[str]] | pa.Array,
        details: list[str | None] | None = None,
    ) -> None:
        """Set aside the current rows where `mask` is true; `reasons` has one list per such row."""
        self.record(self.drop(mask), kind, reasons, details)

    def record(
        self,
        bad: np.ndarray,
        kind: str,
        reasons: list[list[str]] | pa.Array,
        details: list[str | None] | None = None,
    ) -> None:
        """Write quarantine rows for the input rows numbered `bad`."""
        keep_row = kind not in ("duplicate", "dropped")
        unwanted = {"_batch", "_raw"} if keep_row else set(self.given.column_names) - {"_source", "_position"}
        source = self.given.drop_columns([c for c in self.given.column_names if c in unwanted])
        # A filter is ten times as fast as a take here; rows are set aside in order but for the python step's.
        if len(bad) > 1 and (np.diff(bad) <= 0).any():
            source = source.take(pa.array(bad))
        else:
            chosen = np.zeros(len(source), np.bool_)
            chosen[bad] = True
            source = source.filter(pa.array(chosen))
        self.out.rejects.append(
            rejected(
                source, kind, reasons, batch=self.batch.batch, clock_us=self.batch.clock_us,
                keep_row=keep_row, details=details,
            )
        )  # fmt: skip
        self.out.count(kind, len(bad))

    def derive_and_expect(self, derive: Derive | None, expect: Expect | None) -> None:
        columns = derive.columns if derive else ()
        rules = expect.rules if expect else ()
        self.settle()
        derived = {name for name, _ in columns}
        needed = {c for _, e in columns for c in e.columns} | {c for r in rules for c in r.condition.columns}
        rows = self.out.rows
        inner = [(c, quoted(c)) for c in rows.column_names if c in needed and c not in derived]
        inner += [(name, e.duckdb) for name, e in columns]
        flags: list[tuple[str, str, str]] = []  # (reason, effect, true where it holds)
        for i, (name, e) in enumerate(columns):
            if e.error is not None:
                inner.append((f"_e{i}", f"coalesce({e.error}, false)"))
                flags.append((f"derive:{name}:error", "quarantine", f"_e{i}"))
        for rule in rules:
            flags += _broken(rule)
        stopping = [sql for _, effect, sql in flags if effect != "warn"]
        warnings = [(reason, sql) for reason, effect, sql in flags if effect == "warn"]
        items = [(name, quoted(name)) for name, _ in columns]
        items.append(("_bad", " OR ".join(f"({sql})" for sql in stopping) or "false"))
        items += [(f"_w{i}", sql) for i, (_, sql) in enumerate(warnings)]
        source = rows.select([c for c in rows.column_names if c in needed or c == "_position"])
        result = select(self.connection, source, items, inner)
        bad = _mask(result.column("_bad"))
        for i, (reason, _) in enumerate(warnings):
            self.out.count(f"rule:{reason.split(':')[1]}", int(pc.sum(result.column(f"_w{i}")).as_py() or 0))
        for name, e in columns:
            value = result.column(name).cast(to_arrow_type(e.type))
            at = self.out.rows.schema.get_field_index(name)
            self.out.rows = (
                self.out.rows.set_column(at, name, value) if at >= 0 else self.out.rows.append_column(name, value)
            )
        if bad.any():
            hits = [(f"f{i}", sql) for i, (_, _, sql) in enumerate(flags)]
            detail = select(self.connection, source.filter(pa.array(bad)), hits, inner)
            self._set_aside(bad, detail, [(reason, effect) for reason, effect, _ in flags])

    def _set_aside(self, bad: np.ndarray, detail: pa.Table, flags: list[tuple[str, str]]) -> None:
        matrix = np.column_stack([_mask(detail.column(f"f{i}")) for i in range(len(flags))])
        for i, (reason, effect) in enumerate(flags):
            hits = int(matrix[:, i].sum())
            if hits and effect == "fail":
                raise ConfigError(
                    "an expectation with `else: fail` is not met; mend the rows or the rule",
                    rule=reason, rows=hits, batch=self.batch.batch,
                )  # fmt: skip
            if reason.startswith(("expect:", "drop:")) and effect != "warn":
                self.out.count(f"rule:{reason.split(':')[1]}", hits)
        quarantines = np.array([effect == "quarantine" for _, effect in flags])
        codes = np.array([reason for reason, _ in flags], dtype=object)
        counted = np.array([effect != "warn" for _, effect in flags])
        kept: np.ndarray = matrix[:, quarantines].sum(axis=1) > 0
        # Reasons of quarantine come first, so that a row's main reason is why it is kept.
        order = np.argsort(~quarantines, kind="stable")
        reasons = [list(codes[order][(row & counted)[order]]) for row in matrix]
        indexes = self.drop(bad)
        for kind, chosen in (("quarantine", kept), ("dropped", ~kept)):
            if chosen.any():
                self.record(indexes[chosen], kind, [r for r, c in zip(reasons, chosen, strict=True) if c])

    def watermark(self, step: Watermark) -> None:
        self.event_column = step.event_time.column
        missing = pc.is_null(self.column(self.event_column))
        if pc.any(missing).as_py():
            mask = _mask(missing)
            self.reject(mask, "quarantine", [["null_event_time"]] * int(mask.sum()))
        events = self.events()
        if len(events):
            newest = int(events.max())
            seen = self.state.max_event_us
            self.state.max_event_us = newest if seen is None else max(seen, newest)

    def events(self) -> np.ndarray:
        """Event times of the current rows, int64 microseconds."""
        times: np.ndarray = self.column(self.event_column).cast(pa.int64()).to_numpy()
        return times

    def dedupe(self, step: Dedupe) -> None:
        assert self.state.dedup is not None
        if not self.batch.accept_late:
            self.reject_late(self.events() <= self.batch.late_us)
        events = self.events()
        if not len(events):
            return
        high, low = hash_keys([self.column(key) for key in step.dedup.keys])
        expiry_us = events + step.expiry_us
        first = self.state.dedup.claim(high, low, expiry_us, self.batch.late_us)
        kept = first & (expiry_us > self.batch.evict_us)  # what expires by W(n) leaves the state in this batch
        self.out.changes.dedup = pa.table([high[kept], low[kept], expiry_us[kept]], schema=DEDUP_SCHEMA)
        if not first.all():
            self.reject(~first, "duplicate", [["duplicate"]] * int((~first).sum()))

    def reject_late(self, late: np.ndarray) -> None:
        if late.any():
            self.reject(late, "late", [["late"]] * int(late.sum()))

    def look_up(self, step: LookUp, table: LookupTable) -> None:
        found, ambiguous = table.find(self.settle())
        for column, values in zip(step.schema, found, strict=True):
            value = values.cast(to_arrow_type(column.type))
            at = self.out.rows.schema.get_field_index(column.name)
            self.out.rows = (
                self.out.rows.set_column(at, column.name, value)
                if at >= 0
                else self.out.rows.append_column(column.name, value)
            )
        if ambiguous.any():
            reason = [["lookup_ambiguous", f"lookup:{step.lookup.table}"]]
            self.reject(ambiguous, "quarantine", reason * int(ambiguous.sum()))

    def aggregate(self, step: Aggregation) -> None:
        windows = self.state.windows
        assert windows is not None
        self._reject_errors(step)
        rows = self.settle()
        if len(rows):
            every_us, step_us = step.window.every_us, step.window.step_us
            row, start_us = assign(rows.column(self.event_column).cast(pa.int64()), every_us, step_us)
            on_time = start_us + every_us > self.batch.late_us
            if self.batch.accept_late:
                self.out.reopened = frozenset(start_us[~on_time].tolist())
                row, start_us = row[on_time], start_us[on_time]
            elif not on_time.all():
                rows, row, start_us = self._reject_late_windows(row, start_us, on_time)
            if len(row):
                hashes = position_digest(rows.column("_source"), rows.column("_position"))
                needed = {c for _, e in step.group_by for c in e.columns} | {
                    c for _, m in step.measures for c in m.columns
                }
                spread = rows.select([c for c in rows.column_names if c in needed])
                if step_us != every_us:
                    spread, hashes = spread.take(pa.array(row)), hashes[row]
                changed = windows.fold(spread, start_us, hashes)
                self.out.changes.windows = changed
                self.out.touched = True
        self.out.count("output", len(self.settle()))
        self.out.closed = windows.close(self.batch.evict_us)
        if self.out.changes.windows is not None:  # a window that closes in this batch needs no state
            starts = self.out.changes.windows.column("_start_us")
            self.out.changes.windows = self.out.changes.windows.filter(
                pc.greater(starts, self.batch.evict_us - step.window.every_us)
            )
        self.out.rows = self.out.rows.slice(0, 0)

    def _reject_errors(self, step: Aggregation) -> None:
        checks = [(f"group:{name}:error", e.error) for name, e in step.group_by if e.error is not None]
        checks += [
            (f"measure:{name}:error", m.initial_error) for name, m in step.measures if m.initial_error is not None
        ]
        if not checks or not len(self.settle()):
            return
        flags = select(self.connection, self.out.rows, [(reason, f"coalesce({sql}, false)") for reason, sql in checks])
        matrix = np.column_stack([_mask(flags.column(reason)) for reason, _ in checks])
        bad: np.ndarray = matrix.sum(axis=1) > 0
        if bad.any():
            names = [reason for reason, _ in checks]
            reasons = [[n for n, hit in zip(names, row, strict=True) if hit] for row in matrix[bad]]
            self.reject(bad, "quarantine", reasons)

    def _reject_late_windows(
        self, row: np.ndarray, start_us: np.ndarray, on_time: np.ndarray
    ) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        """Set aside rows that are late for all their windows; note those late for some."""
        count = len(self.out.rows)
        late_windows = np.bincount(row[~on_time], minlength=count)
        open_windows = np.bincount(row[on_time], minlength=count)
        partly = (late_windows > 0) & (open_windows > 0)
        if partly.any():
            missed = {int(i): [] for i in np.flatnonzero(partly)}  # type: dict[int, list[int]]
            for i, start in zip(row[~on_time].tolist(), start_us[~on_time].tolist(), strict=True):
                if i in missed:
                    missed[i].append(start)
            indexes = self.column(INDEX).to_numpy()[partly]
            details = [f'{{"window_starts_us": {sorted(starts)}}}' for starts in missed.values()]
            self.record(indexes, "late_window", [["late_window"]] * len(details), list(details))
        gone = open_windows == 0
        row, start_us = row[on_time], start_us[on_time]
        if gone.any():
            self.reject_late(gone)
            row = (np.cumsum(~gone) - 1)[row]
        return self.settle(), row, start_us


def _broken(rule: Rule) -> list[tuple[str, str, str]]:
    """(reason, effect, DuckDB boolean) for a rule that is not met, and for one that errs."""
    condition, prefix = rule.condition, "drop" if rule.otherwise == "drop" else "expect"
    broken = f"NOT coalesce({condition.duckdb}, false)"
    if condition.error is None:
        return [(f"{prefix}:{rule.name}", rule.otherwise, broken)]
    error = f"coalesce({condition.error}, false)"
    return [
        (f"{prefix}:{rule.name}:error", rule.otherwise, error),
        (f"{prefix}:{rule.name}", rule.otherwise, f"({broken} AND NOT {error})"),
    ]


def _mask(column: pa.ChunkedArray) -> np.ndarray:
    flags: np.ndarray = column.to_numpy().astype(np.bool_, copy=False)
    return flags
