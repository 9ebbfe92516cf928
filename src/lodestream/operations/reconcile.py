"""Proves for a table that every input position is accounted for exactly once.

The law of every flow: input = output, quarantine, late, duplicate, dropped or open, and no position twice. The proof
reads tables with delta-rs and sources as plain files; it shares no reading code with the engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from lodestream.drivers.record_log.layout import log_folder
from lodestream.lake.layout import app_id, epoch_of, flow_folder, quarantine_name, table_path
from lodestream.model.chained import as_rows
from lodestream.model.digest import position_digest
from lodestream.model.steps import Aggregation, Ask, FlowPlan, ReadSource, ReadTable, RunQuery, Watermark
from lodestream.model.table import WINDOW_END, WINDOW_START, Session, Window
from lodestream.operations.account import Report
from lodestream.operations.completeness_check import COLUMNS, check_completeness
from lodestream.operations.http_positions import positions_between
from lodestream.operations.kafka_positions import offsets_between
from lodestream.operations.lake_files import LakeFiles
from lodestream.operations.positions import (
    I64,
    Coder,
    Consumed,
    avro_rows,
    batch_info,
    consumed_ranges,
    expired_above,
    expired_rows,
    last_batch,
    line_starts,
    multiline_rows,
    read_columns,
    read_upto,
    repeated,
    together,
)
from lodestream.operations.reconcile_changes import columns_held, columns_needed, judge
from lodestream.operations.reconcile_joins import check_join
from lodestream.operations.session_check import check_sessions
from lodestream.operations.waiting_positions import waiting_positions

if TYPE_CHECKING:
    from lodestream.ports.plugins import Resolve

KINDS = ("quarantine", "late", "duplicate", "dropped", "erased")
_EXAMPLES = 5
_LET_GO_ASIDE = "retention has taken entries of the quarantine: only positions are checked, not what was made of them"
_NONE: I64 = np.empty(0, np.int64)
_Key = tuple[int, tuple[object, ...]]
"""Start in microseconds, and the groups."""


def reconcile(root: str, lake: str | LakeFiles, plan: FlowPlan, resolve: Resolve = lambda settings: settings) -> Report:
    """Check one table.

    Args:
        root: project folder, which source paths are relative to.
        lake: root folder of the lake; its files where it is in an object store.
        plan: the table's flow.
        resolve: puts values in the place of references in a source's settings.
    """
    return Check(root, lake if isinstance(lake, LakeFiles) else LakeFiles(lake), plan, resolve).run()


class Check:
    """One table under examination."""

    def __init__(self, root: str, files: LakeFiles, plan: FlowPlan, resolve: Resolve) -> None:
        self.root, self.files, self.lake, self.plan, self.resolve = root, files, files.lake, plan, resolve
        self.vanished: list[tuple[str, int, int]] = []
        self.let_go = self.let_go_above = self.let_go_aside = 0
        self.name = plan.table.name
        self.report = Report(self.name)
        self.coder = Coder()

    def run(self) -> Report:
        """Examine it."""
        report = self.report
        if isinstance(self.plan.steps[0], RunQuery):
            report.skipped = "a query's rows have no positions; it is refreshed from its inputs as a whole"
            return report
        path = table_path(self.lake, self.name)
        table = self.files.table(path)
        if table is None:
            report.skipped = "not in the lake yet"
            return report
        epoch = epoch_of(table.metadata().configuration)
        application = app_id(self.name, epoch)
        batch = last_batch(table, application)
        info = batch_info(self.files, path, batch, application)
        self.let_go_aside = expired_above(
            self.files.table(table_path(self.lake, quarantine_name(self.name))), self.name
        )
        if self.plan.join is not None:
            return self.joined(table, batch, info)
        self.let_go = expired_rows(table, application)
        given = self.input_positions(epoch, batch, info)
        report.input = len(given)
        if len(np.unique(given)) != len(given):
            report.problems.append("input holds a position twice")
        aside, notes = self.set_aside(batch)
        window = self.plan.step(Aggregation)
        if self.plan.table.changes is not None:
            self.compare_changes(table, given, aside)
        elif window is None:
            rows = read_columns(self.files, table, ("_source", "_position"))
            output = self.coder.encode(rows.column("_source"), rows.column("_position"))
            self.compare(given, output, aside, self.waiting(epoch, info))
        else:
            self.compare(given, np.setdiff1d(given, together(aside)), aside)
            if self.let_go or self.let_go_above or self.let_go_aside:
                report.skipped = "retention has taken rows: only what was set aside is checked, not the windows"
                return report
            _Windows(self, window, info).check(table, given, aside, notes)
        return report

    def joined(self, table: DeltaTable, batch: int, info: Mapping[str, object]) -> Report:
        """The rows of both streams of a join."""
        report, (aside, _) = self.report, self.set_aside(batch)
        found = check_join(self.files, self.plan, table, info, self.coder, aside)
        report.input = len(found.given)
        self.compare(np.setdiff1d(found.given, np.union1d(found.waiting, found.lost)), found.paired, aside)
        report.counts["open"] = len(found.waiting)
        if self.let_go_aside >= len(found.lost) > 0:
            report.counts["expired"] = len(found.lost)
        else:
            self.problem("input position is neither in output nor in quarantine, and its time is over", found.lost)
        if self.let_go_aside:
            report.skipped = _LET_GO_ASIDE
            return report
        report.problems += found.problems
        report.notes += found.notes
        return report

    def waiting(self, epoch: int, info: Mapping[str, object]) -> I64:
        """Positions of the rows that wait for an answer."""
        if not any(isinstance(step, Ask) for step in self.plan.steps) or "state" not in info:
            return np.empty(0, np.int64)
        folder = os.path.join(flow_folder(self.lake, self.name), str(epoch), "state")
        rows = waiting_positions(folder, str(info["state"]), self.files.read)
        return self.coder.encode(rows.column("_source"), rows.column("_position"))

    def input_positions(self, epoch: int, batch: int, info: Mapping[str, object]) -> I64:
        """Every position that the flow has read by `batch`."""
        first = self.plan.steps[0]
        if isinstance(first, ReadSource):
            return self.source_positions(first, consumed_ranges(self.files, self.name, epoch, batch))
        assert self.plan.upstream
        upto = int(str(info.get("upto", -1)))
        path = table_path(self.lake, self.plan.upstream)
        upstream = self.files.table(path, upto if upto >= 0 else None)
        self.let_go_above = expired_above(upstream, self.plan.upstream)
        if upstream is None or upto < 0:
            empty = pa.schema([("_source", pa.string()), ("_position", pa.int64())])
            self.upstream = pa.schema([*empty, *(pa.field(c, pa.int64()) for c in self.event_columns())]).empty_table()
            return np.empty(0, np.int64)
        have = {field.name for field in upstream.schema().fields}
        if isinstance(first, ReadTable) and first.windows is not None:
            groups = {named.text.strip() for named in self.plan.table.group_by} & have
            columns = dict.fromkeys([WINDOW_START, WINDOW_END, *first.windows, *sorted(groups)])
            self.upstream = as_rows(
                read_upto(self.files, self.plan.upstream, upstream, columns), self.plan.upstream, first.windows
            )
            return self.coder.encode(self.upstream.column("_source"), self.upstream.column("_position"))
        groups = {named.text.strip() for named in self.plan.table.group_by} & have
        self.upstream = read_upto(
            self.files,
            self.plan.upstream,
            upstream,
            list(dict.fromkeys(["_source", "_position", *self.event_columns(), *sorted(groups), *self.deciding()])),
        )
        return self.coder.encode(self.upstream.column("_source"), self.upstream.column("_position"))

    def event_columns(self) -> list[str]:
        """The event-time column, when the upstream table has it as it is used."""
        step = self.plan.step(Watermark)
        derived = {d.name for d in self.plan.table.derive}
        return [step.event_time.column] if step and step.event_time.column not in derived else []

    def deciding(self) -> list[str]:
        """The upstream columns that decide which of its changes a table holds."""
        return (columns_needed(self.plan) or []) if self.plan.table.changes is not None else []

    def compare_changes(self, table: DeltaTable, given: I64, aside: Mapping[str, I64]) -> None:
        """The table against the changes that were not set aside: each is output, superseded or a deletion."""
        report, kept = self.report, ~np.isin(given, together(aside))
        self.compare(given, given[kept], aside)
        held = read_columns(self.files, table, columns_held(self.plan))
        report.counts = {**report.counts, "output": len(held)}
        output = self.coder.encode(held.column("_source"), held.column("_position"))
        self.problem("position in the table was not taken in", np.setdiff1d(output, given[kept]))
        if self.let_go_aside:
            report.skipped = _LET_GO_ASIDE
            return
        if not len(given[kept]):
            return
        if columns_needed(self.plan) is None:
            report.skipped = "keys or order are made by a function or a lookup: only what was set aside is checked"
            return
        verdict = judge(self.plan, self.upstream.filter(pa.array(kept)), held)
        report.counts |= {"superseded": verdict.superseded, "deleted": verdict.deleted}
        for what, found in verdict.wrong:
            self.problem(what, self.coder.encode(found.column("_source"), found.column("_position")))

    def source_positions(self, first: ReadSource, units: Mapping[str, Consumed]) -> I64:
        """Positions of the records in the source itself, found without the engine's reader."""
        parts: list[I64] = [np.empty(0, np.int64)]
        for unit, consumed in units.items():
            if first.source.name == "kafka":
                places = self.offsets(first, unit, consumed)
            elif first.source.name == "http":
                places = self.posted(unit, consumed)
            else:
                places = self.record_starts(first, unit, consumed.end)
            parts.append(self.coder.encode(pa.array([unit] * len(places), pa.string()), pa.array(places)))
        return np.concatenate(parts)

    def record_starts(self, first: ReadSource, unit: str, end: int) -> I64:
        """Positions of the records of a file, or of what stands for one, up to `end`."""
        settings = first.source.settings
        if first.source.name == "generator":
            return np.arange(end, dtype=np.int64)
        base = os.path.join(self.root, str(settings.get("path", "")))
        folder = base if os.path.isdir(base) else os.path.dirname(base)
        while not os.path.isdir(folder) or any(c in os.path.basename(folder) for c in "*?["):
            folder = os.path.dirname(folder)
        path = os.path.join(folder, unit)
        if not os.path.exists(path):
            self.report.problems.append(f"source file is gone, its records cannot be checked: {unit}")
            return np.empty(0, np.int64)
        if first.format.name == "parquet":
            try:
                found: int = pq.read_metadata(path).num_rows
            except (OSError, pa.ArrowInvalid):
                return np.zeros(1, np.int64)  # a file that cannot be read is one record in quarantine
            return np.arange(min(end, found), dtype=np.int64)
        if first.format.name == "avro":
            return np.arange(min(end, avro_rows(path)), dtype=np.int64)
        shape = first.format.settings
        header = first.format.name == "csv" and bool(shape.get("header", True))
        if shape.get("multiline"):
            quote = str(shape.get("quote", '"') or "")
            rows = multiline_rows(path, delimiter=str(shape.get("delimiter", ",")), quote=quote, header=header)
            return np.arange(min(end, rows), dtype=np.int64)
        return line_starts(path, end, header=header)

    def offsets(self, first: ReadSource, unit: str, consumed: Consumed) -> I64:
        """Offsets of a Kafka partition; a gap that was recorded counts as one position, at its start."""
        from lodestream.drivers.kafka_topics import TopicIds
        from lodestream.sources._kafka_units import parse as parse_unit
        from lodestream.sources.kafka import KafkaSettings

        settings = KafkaSettings(**self.resolve(first.source.settings))
        topic, _, number = parse_unit(unit)
        committed = settings.isolation == "read_committed"
        librdkafka = settings.librdkafka(self.root)
        if consumed.topic_id is not None and TopicIds(librdkafka).of([topic]).get(topic) != consumed.topic_id:
            found, low = np.empty(0, np.int64), consumed.end  # the topic is gone, or another one has its name
        else:
            found, low = offsets_between(librdkafka, topic, number, consumed.start, consumed.end, committed=committed)
        if low > consumed.start:
            self.vanished.append((unit, consumed.start, min(low, consumed.end)))
        for start, end in consumed.gaps:
            found = np.append(found[(found < start) | (found >= end)], start)
        return found

    def posted(self, unit: str, consumed: Consumed) -> I64:
        """Sequence numbers of an HTTP stream."""
        folder = log_folder(self.files.home, unit.removeprefix("http/"))
        found, low = positions_between(folder, consumed.start, consumed.end)
        if low > consumed.start:
            self.vanished.append((unit, consumed.start, min(low, consumed.end)))
        return found

    def still_given(self, given: I64, accounted: I64) -> I64:
        """The input, with the positions that the source no longer shows as the table has them."""
        for unit, start, end in self.vanished:
            low, high = self.coder.encode(pa.array([unit] * 2), pa.array([start, end])).tolist()
            extra = accounted[(accounted >= low) & (accounted < high)]
            self.report.notes.append(
                f"{unit}: {len(extra)} positions below {end} are no longer in the source and were not looked at"
            )
            given = np.union1d(given, extra)
        self.report.input = len(given)
        return given

    def set_aside(self, batch: int) -> tuple[dict[str, I64], pa.Table]:
        """Open quarantine entries by kind, and the notes on windows that a row missed."""
        table = self.files.table(table_path(self.lake, quarantine_name(self.name)))
        empty: dict[str, I64] = {kind: np.empty(0, np.int64) for kind in KINDS}
        columns = ("_source", "_position", "_batch", "kind", "detail")
        rows = read_columns(self.files, table, columns) if table is not None else None
        if rows is None or not len(rows):
            return empty, pa.table({"key": pa.array([], pa.int64()), "detail": pa.array([], pa.string())})
        keys = self.coder.encode(rows.column("_source"), rows.column("_position"))
        kinds = np.array(rows.column("kind").to_pylist(), dtype=object)
        batches = np.asarray(rows.column("_batch").to_numpy(), np.int64)
        counted = batches <= batch  # later ones belong to a batch that is not committed yet
        noted = counted & (kinds == "late_window")
        notes = pa.table({"key": pa.array(keys[noted]), "detail": rows.column("detail").filter(pa.array(noted))})
        order = np.flatnonzero(counted & ~noted)
        order = order[np.argsort(batches[order], kind="stable")]
        # The last word on a position stands: reversed, the first one that np.unique meets.
        _, newest = np.unique(keys[order][::-1], return_index=True)
        last = order[::-1][newest]
        within = [f"{k}@{b}" for k, b in zip(keys[order].tolist(), batches[order].tolist(), strict=True)]
        if len(set(within)) != len(within):
            self.report.problems.append("quarantine holds a position twice in one batch")
        return {kind: keys[last[kinds[last] == kind]] for kind in KINDS}, notes

    def compare(self, given: I64, output: I64, aside: Mapping[str, I64], waiting: I64 = _NONE) -> None:
        """Input against output, quarantine and what waits, as sets of positions."""
        report = self.report
        report.counts = {
            "output": len(output), **{kind: len(keys) for kind, keys in aside.items()}, "open": len(waiting)
        }  # fmt: skip
        unique = np.unique(output)
        self.problem("output holds a position more than once", repeated(output))
        away = together(aside)
        given = self.still_given(given, np.union1d(unique, away)) if self.vanished else given
        self.problem("position is in output and in quarantine", np.intersect1d(unique, away))
        self.problem("position waits more than once", repeated(waiting))
        self.problem("position waits and is settled", np.intersect1d(waiting, np.union1d(unique, away)))
        accounted = np.union1d(np.union1d(unique, away), waiting)
        lost, extra = np.setdiff1d(given, accounted), np.setdiff1d(accounted, given)
        if len(lost) and len(lost) <= self.let_go + self.let_go_aside:
            report.counts["expired"] = len(lost)
            lost = _NONE
        if len(extra) and len(extra) <= self.let_go_above:
            report.notes.append(f"{len(extra)} positions have left the table above by its retention: taken as they are")
            extra = _NONE
        self.problem("input position is neither in output nor in quarantine", lost)
        self.problem("position was never in the input", extra)

    def problem(self, what: str, keys: I64) -> None:
        """Note what is wrong with these positions, if there are any."""
        if len(keys):
            examples = ", ".join(":".join(map(str, self.coder.decode(int(k)))) for k in keys[:_EXAMPLES])
            self.report.problems.append(f"{what}: {len(keys)} positions, such as {examples}")


class _Windows:
    """Checks window rows: every window covers exactly the positions that fall into it."""

    def __init__(self, check: Check, step: Aggregation, info: Mapping[str, object]) -> None:
        self.check_, self.step = check, step
        self.watermark_us = int(str(info.get("watermark_us", 0)))

    def check(self, table: DeltaTable, given: I64, aside: Mapping[str, I64], notes: pa.Table) -> None:
        report, upstream = self.check_.report, self.check_.upstream
        columns = self.check_.event_columns()
        if not columns:
            report.skipped = "the event time is made in this flow: only what was set aside is checked, not the windows"
            return
        if self.step.completeness:
            report.problems += check_completeness(read_columns(self.check_.files, table, COLUMNS), self.watermark_us)
        groups = self.group_columns(table, upstream)
        if isinstance(self.step.window, Session):
            self._check_sessions(table, groups, columns[0], ~np.isin(given, together(aside)))
            return
        rows = read_columns(self.check_.files, table, ("window_start", "_rows", "_digest", *groups))
        kept = ~np.isin(given, together(aside))
        left = upstream.filter(pa.array(kept))
        labels = list(zip(*(left.column(column).to_pylist() for column in groups.values()), strict=True))
        expected = self.expected(left, columns[0], given[kept], labels or [()] * len(left), _missed(notes))
        self._compare(rows, list(groups), expected)

    def _check_sessions(self, table: DeltaTable, groups: Mapping[str, str], event: str, kept: np.ndarray) -> None:
        report, window = self.check_.report, self.step.window
        if len(groups) < len(self.step.group_by):
            report.skipped = "a group is made in this flow: only what was set aside is checked, not the sessions"
            return
        left = self.check_.upstream.filter(pa.array(kept))
        hashes = position_digest(left.column("_source"), left.column("_position")).tolist()
        times = left.column(event).cast(pa.int64()).to_pylist()
        events: dict[tuple[object, ...], list[tuple[int, int]]] = {}
        for label, *pair in zip(_labels(left, groups.values()), times, hashes, strict=True):
            events.setdefault(label, []).append((pair[0], pair[1]))
        rows = read_columns(self.check_.files, table, (WINDOW_START, WINDOW_END, "_rows", "_digest", *groups))
        bounds = [rows.column(name).cast(pa.int64()).to_pylist() for name in (WINDOW_START, WINDOW_END)]
        stored: dict[tuple[object, ...], list[tuple[int, int, int, int]]] = {}
        for label, start, end, count, digest in zip(
            _labels(rows, groups), *bounds, rows.column("_rows").to_pylist(), rows.column("_digest").to_pylist(),
            strict=True,
        ):  # fmt: skip
            stored.setdefault(label, []).append((start, end, count, digest & 0xFFFFFFFFFFFFFFFF))
        final = self.step.emit == "final"
        found = check_sessions(events, stored, window.span_us, self.watermark_us, final=final)
        report.counts |= {"open": found.open, "output": report.counts["output"] - found.open}
        report.problems += found.problems

    def group_columns(self, table: DeltaTable, upstream: pa.Table) -> dict[str, str]:
        """Upstream column by group, for the groups that are such a column just as it is."""
        declared = self.check_.plan.table
        made = {named.name for named in declared.derive} | {n for lookup in declared.lookups for _, n in lookup.columns}
        stored = {field.name for field in table.schema().fields}
        return {
            named.name: named.text.strip()
            for named in declared.group_by
            if named.text.strip() in upstream.column_names and named.text.strip() not in made and named.name in stored
        }

    def expected(
        self,
        rows: pa.Table,
        event_column: str,
        keys: I64,
        labels: list[tuple[object, ...]],
        missed: set[tuple[int, int]],
    ) -> dict[_Key, list[int]]:
        """Number and digest of the positions of each window; counts the rows whose windows are still open."""
        assert isinstance(self.step.window, Window)
        every_us, step_us = self.step.window.every_us, self.step.window.step_us
        events = rows.column(event_column).cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.int64)
        hashes = position_digest(rows.column("_source"), rows.column("_position"))
        expected: dict[_Key, list[int]] = {}
        first = events // step_us * step_us
        is_open = np.zeros(len(keys), np.bool_)
        for k in range(-(-every_us // step_us)):
            starts = first - k * step_us
            for i in np.flatnonzero(starts + every_us > events):
                start = int(starts[i])
                if missed and (int(keys[i]), start) in missed:
                    continue
                is_open[i] |= start + every_us > self.watermark_us
                entry = expected.setdefault((start, labels[i]), [0, 0])
                entry[0] += 1
                entry[1] ^= int(hashes[i])
        counts = self.check_.report.counts
        counts |= {"open": int(is_open.sum()), "output": counts["output"] - int(is_open.sum())}
        return expected

    def _compare(self, rows: pa.Table, groups: list[str], expected: dict[_Key, list[int]]) -> None:
        found: dict[_Key, list[int]] = {}
        starts = rows.column("window_start").cast(pa.int64()).to_pylist() if len(rows) else []
        labels = list(zip(*(rows.column(name).to_pylist() for name in groups), strict=True)) or [()] * len(rows)
        for start, label, count, digest in zip(
            starts, labels, rows.column("_rows").to_pylist(), rows.column("_digest").to_pylist(), strict=True
        ):
            entry = found.setdefault((start, label), [0, 0])
            entry[0] += count
            entry[1] ^= digest & 0xFFFFFFFFFFFFFFFF
        visible = {
            window: entry
            for window, entry in expected.items()
            if self.step.emit == "updates" or window[0] + self.step.window.span_us <= self.watermark_us
        }
        wrong = [window for window in visible.keys() | found.keys() if visible.get(window) != found.get(window)]
        if wrong:
            window = min(wrong, key=repr)
            self.check_.report.problems.append(
                f"window covers other positions than fall into it: {len(wrong)} windows,"
                f" such as window_start_us={window[0]} groups={dict(zip(groups, window[1], strict=True))}"
                f" expected_rows={visible.get(window, [0])[0]} found_rows={found.get(window, [0])[0]}"
            )


def _labels(rows: pa.Table, groups: Iterable[str]) -> list[tuple[object, ...]]:
    columns = [rows.column(name).to_pylist() for name in groups]
    return list(zip(*columns, strict=True)) if columns else [()] * len(rows)


def _missed(notes: pa.Table) -> set[tuple[int, int]]:
    return {
        (key, start)
        for key, detail in zip(notes.column("key").to_pylist(), notes.column("detail").to_pylist(), strict=True)
        for start in json.loads(detail)["window_starts_us"]
    }
