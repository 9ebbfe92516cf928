"""Holds a lake to the reference semantics: the same recorded batches must have given the same rows.

Nothing here asks the engine. Batches come from the recorded plans, tables from their Delta logs and Parquet files, and
what should be there from `lodestream.semantics`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lodestream.model.batch import BatchPlan
from lodestream.model.digest import fold, position_digest
from lodestream.model.table import JOIN_META, Changes, TableName
from lodestream.semantics.chained import windows_of
from lodestream.semantics.changes import table_of
from lodestream.semantics.lookups import Row
from lodestream.semantics.stages import Batch, Outcome, Position, Spec, position_of, run_stream
from lodestream.testing.events import File
from lodestream.testing.streams import BRONZE, HISTORY, USERS, Stream

Mistake = str


class Recorded:
    """A table as its log tells: rows at any version, and which version is which batch.

    Reads JSON commits only, so the log must not have been cleaned.
    """

    def __init__(self, lake: Path, name: str, flow: TableName) -> None:
        self._path = lake / flow.layer / name
        self._live: list[frozenset[str]] = []
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self.version_of: dict[int, int] = {}
        live: frozenset[str] = frozenset()
        for version, commit in enumerate(sorted((self._path / "_delta_log").glob("*.json"))):
            actions = [json.loads(line) for line in commit.read_text().splitlines()]
            live -= {a["remove"]["path"] for a in actions if "remove" in a}
            live |= {a["add"]["path"] for a in actions if "add" in a}
            self._live.append(live)
            for action in actions:
                if action.get("txn", {}).get("appId", "").startswith(f"lodestream/{flow}/"):
                    self.version_of[action["txn"]["version"]] = version
        self.batch_of = {version: batch for batch, version in self.version_of.items()}

    def at(self, version: int = -1) -> list[dict[str, Any]]:
        """All rows of a version; -1 is the last. Timestamps are microseconds."""
        return [row for path in sorted(self._live[version]) for row in self._file(path)] if self._live else []

    def _file(self, path: str) -> list[dict[str, Any]]:
        if path not in self._rows:
            table = pq.ParquetFile(self._path / path).read()
            fields = [f.with_type(pa.int64()) if pa.types.is_timestamp(f.type) else f for f in table.schema]
            self._rows[path] = table.cast(pa.schema(fields)).to_pylist()
        return self._rows[path]


@dataclass
class _Flow:
    """What one flow was asked and what it left."""

    name: TableName
    plans: list[BatchPlan]
    table: Recorded
    quarantine: Recorded

    @classmethod
    def read(cls, lake: Path, name: TableName) -> _Flow:
        written = sorted((lake / "_lodestream" / "flows" / str(name)).glob("1/plans/*.json"))
        plans = [BatchPlan.from_json(path.read_bytes()) for path in written]
        return cls(name, plans, Recorded(lake, name.name, name), Recorded(lake, f"{name.name}__quarantine", name))


def differences(stream: Stream, lake: Path) -> list[Mistake]:
    """All differences between the lake that ran `stream` until idle and its meaning; empty when it is right."""
    found: list[Mistake] = []
    accepted: dict[TableName, list[Sequence[Row]]] = {}
    flows = {name: _Flow.read(lake, name) for name in (BRONZE, USERS, *stream.specs)}
    for name, files in ((BRONZE, stream.files), (USERS, stream.users)):
        if f"tables/bronze/{name.name}.yaml" in stream.declarations:
            accepted[name] = list(_ingest(flows[name], files, found))
            _compare_rows(flows[name], accepted[name], found)
            found += [
                f"{name}: not what a torn record leaves: {r}" for r in flows[name].quarantine.at() if not _torn(r)
            ]
    accepted.setdefault(USERS, [])
    marks: dict[TableName, list[int]] = {}
    for name, spec in stream.specs.items():
        upstream = stream.upstream.get(name, name)
        if upstream == name:  # it reads the events themselves
            accepted[name] = list(_ingest(flows[name], stream.files, found))
        batches = list(_batches(flows[name], flows[upstream], accepted[upstream], flows, accepted[USERS]))
        if spec.join is not None:
            other = spec.join.table
            batches = _with_joined(flows[name], batches, flows[other], accepted[other])
        if stream.specs.get(upstream, Spec()).window is not None:
            batches = list(
                _following(flows[name], batches, flows[upstream], accepted[upstream], marks[upstream], found)
            )
        outcomes = run_stream(spec, batches)
        marks[name] = [out.mark.evict_us for out in outcomes]
        accepted[name] = [out.accepted if spec.window is None else windows_of(name, spec, out) for out in outcomes]
        _compare_plans(flows[name], spec, outcomes, found)
        _compare_rejects(flows[name], batches, outcomes, found)
        if spec.join is not None:
            _compare_joined(flows[name], outcomes, found)
        elif spec.changes is not None:
            _compare_changes(flows[name], spec.changes, outcomes, found)
        elif spec.window is None:
            _compare_rows(flows[name], accepted[name], found)
        else:
            _compare_windows(flows[name], spec, outcomes, found)
        taken, offered = sum(len(batch.rows) for batch in batches), sum(map(len, accepted[upstream]))
        if taken != offered and upstream != name:
            found.append(f"{name}: took {taken} of {offered} rows of {upstream}")
    return found


def _ingest(flow: _Flow, files: Sequence[File], found: list[Mistake]) -> Iterator[Sequence[Row]]:
    """Rows of each batch that reads files; the records that it takes, and the torn ones in its quarantine, compared."""
    records = [record for file in files for record in file.records()]
    taken: Counter[Position] = Counter()
    accepted, rejected = [], []
    for plan in flow.plans:
        ranges = {(r.unit, r.start, r.end) for r in plan.ranges}
        here = [(p, row) for p, row in records if any(p[0] == u and start <= p[1] < end for u, start, end in ranges)]
        taken.update(position for position, _ in here)
        stamp = {"_ingest_time": plan.clock_us}
        accepted.append([{**row, "_source": p[0], "_position": p[1], **stamp} for p, row in here if row is not None])
        rejected += [(plan.batch, p, "quarantine") for p, row in here if row is None]
    if taken != Counter(position for position, _ in records):
        found.append(f"{flow.name}: took {sum(taken.values())} of {len(records)} records, or some twice")
    torn = [_mark(row)[:3] for row in flow.quarantine.at() if _torn(row)]
    _same(found, f"{flow.name} torn records", Counter(rejected), Counter(torn))
    yield from accepted


def _batches(
    flow: _Flow,
    upstream: _Flow,
    rows: Sequence[Sequence[Row]],
    flows: Mapping[TableName, _Flow],
    known: Sequence[Sequence[Row]],
) -> Iterator[Batch]:
    """The batches of a stream table, from its recorded plans; of a history that it looks up, the version pinned."""
    users = flows[USERS]
    for plan in flow.plans:
        pins = {}
        if str(USERS) in plan.pins:
            seen = [batch for version, batch in users.table.batch_of.items() if version <= plan.pins[str(USERS)]]
            pins[USERS] = [row for batch in sorted(seen) for row in known[batch - 1]]
        if str(HISTORY) in plan.pins:
            pins[HISTORY] = list[Row](flows[HISTORY].table.at(plan.pins[str(HISTORY)]))
        read = rows[plan.batch - 1] if upstream is flow else _between(upstream, rows, plan.after, plan.upto)
        yield Batch(read, pins, kept_us=plan.kept_us)


def _with_joined(flow: _Flow, batches: Sequence[Batch], other: _Flow, rows: Sequence[Sequence[Row]]) -> list[Batch]:
    """The batches with the rows that their plans take from the other stream."""
    made = []
    for plan, batch in zip(flow.plans, batches, strict=True):
        made.append(replace(batch, joined=_between(other, rows, plan.joined_after, plan.joined_upto)))
    return made


def _between(flow: _Flow, rows: Sequence[Sequence[Row]], after: int, upto: int) -> list[Row]:
    """Of a flow's rows by batch those that its versions `after` < v <= `upto` added."""
    numbers = [flow.table.batch_of[v] for v in range(after + 1, upto + 1) if v in flow.table.batch_of]
    return [row for number in numbers for row in rows[number - 1]]


def _following(
    flow: _Flow, batches: Sequence[Batch], upstream: _Flow, rows: Sequence[Sequence[Row]], marks: Sequence[int],
    found: list[Mistake],
) -> Iterator[Batch]:  # fmt: skip
    """Batches of windows of windows: each with the watermark of the table above, which must not run ahead of rows."""
    upto = -1
    for plan, batch in zip(flow.plans, batches, strict=True):
        upto = max(upto, plan.upto)
        waiting = [m for n, m in enumerate(marks, 1) if upstream.table.version_of[n] > upto and rows[n - 1]]
        if plan.evict_us not in (0, *marks) or any(plan.evict_us >= mark for mark in waiting):
            found.append(f"{flow.name}: batch {plan.batch} has watermark {plan.evict_us}, not one of {upstream.name}")
        yield replace(batch, watermark_us=plan.evict_us)
    if marks and (not flow.plans or flow.plans[-1].evict_us < marks[-1]) and marks[-1] > 0:
        found.append(f"{flow.name}: stopped before watermark {marks[-1]} of {upstream.name}")


def _compare_plans(flow: _Flow, spec: Spec, outcomes: Sequence[Outcome], found: list[Mistake]) -> None:
    _same(found, f"{flow.name} batches", list(range(1, len(flow.plans) + 1)), sorted(flow.table.version_of))
    if spec.event_time is None:
        return
    expected = [(out.mark.late_us, out.mark.evict_us) for out in outcomes]
    _same(found, f"{flow.name} watermarks", expected, [(plan.late_us, plan.evict_us) for plan in flow.plans])
    stateful = any(part is not None for part in (spec.dedup, spec.window, spec.join))
    if stateful and outcomes and outcomes[-1].mark != outcomes[-1].after.mark:
        late_us, evict_us = outcomes[-1].after.mark.late_us, outcomes[-1].after.mark.evict_us
        if evict_us > late_us:
            found.append(f"{flow.name}: stopped before the batch that has watermark {evict_us}")


def _compare_rejects(flow: _Flow, batches: Sequence[Batch], outcomes: Sequence[Outcome], found: list[Mistake]) -> None:
    expected: Counter[tuple[Any, ...]] = Counter()
    inputs = {position_of(row): row for batch in batches for row in batch.rows}
    others = {(f"{BRONZE}/{r['_source']}", r["_position"]): r for batch in batches for r in batch.joined}
    for plan, out in zip(flow.plans, outcomes, strict=True):
        for position, disposition in out.dispositions.items():
            if disposition.kind != "output":
                expected[(plan.batch, position, disposition.kind, disposition.reasons, ())] += 1
        for position, starts in out.missed.items():
            expected[(plan.batch, position, "late_window", ("late_window",), starts)] += 1
    set_aside = [row for row in flow.quarantine.at() if not _torn(row)]
    _same(found, f"{flow.name} quarantine", expected, Counter(map(_mark, set_aside)))
    for row in set_aside:
        kept = None if row["row"] is None else json.loads(row["row"])
        given = inputs.get(position_of(row), {})
        if position_of(row) in others and kept is not None:  # of the other stream only what is read
            given = {name: others[position_of(row)].get(name) for name in kept}
        if row["kind"] in ("duplicate", "dropped"):
            if kept is not None:
                found.append(f"{flow.name}: keeps a row for nothing: {row}")
        elif kept is None or any(kept.get(c) != given.get(c) for c in ("key", "region", "user_id", "amount", "code")):
            found.append(f"{flow.name}: keeps another row than it was given: {row}")


def _compare_rows(flow: _Flow, accepted: Sequence[Sequence[Row]], found: list[Mistake]) -> None:
    rows = flow.table.at()
    expected = {}
    for plan, batch in zip(flow.plans, accepted, strict=True):
        expected.update({position_of(row): {**row, "_batch": plan.batch} for row in batch})
    columns = list(next(iter(expected.values()), {}))
    _same(
        found, f"{flow.name} rows", expected, {position_of(r): {c: r.get(c, "absent") for c in columns} for r in rows}
    )
    if len(rows) != len({position_of(row) for row in rows}):
        found.append(f"{flow.name}: a row is there twice")


def _compare_joined(flow: _Flow, outcomes: Sequence[Outcome], found: list[Mistake]) -> None:
    """Joined rows, by the two rows that each was made from; their own positions count from 0 on."""
    rows = flow.table.at()
    expected = {}
    for plan, out in zip(flow.plans, outcomes, strict=True):
        for row in out.accepted:
            expected[tuple(row[name] for name in JOIN_META)] = {**row, "_batch": plan.batch, "_source": str(flow.name)}
    columns = list(next(iter(expected.values()), {}))
    actual = {tuple(r[name] for name in JOIN_META): {c: r.get(c, "absent") for c in columns} for r in rows}
    _same(found, f"{flow.name} rows", expected, actual)
    _same(found, f"{flow.name} positions", list(range(len(rows))), sorted(row["_position"] for row in rows))
    if len(rows) != len(actual):
        found.append(f"{flow.name}: two rows are there twice as a pair")


def _compare_windows(flow: _Flow, spec: Spec, outcomes: Sequence[Outcome], found: list[Mistake]) -> None:
    """Every version that ended a batch, for readers see each of them."""
    names = ["window_end", *spec.measures, "_rows", "_digest", *(("_final", "_covers") if spec.completeness else ())]
    for plan, out in zip(flow.plans, outcomes, strict=True):
        if plan.batch not in flow.table.version_of:
            continue
        expected = {
            key: {name: row[name] for name in names if name in row} | covered(row, final=key not in out.after.opened)
            for key, row in out.after.table.items()
        }
        expected = {key: {name: row[name] for name in names} for key, row in expected.items()}
        rows = flow.table.at(flow.table.version_of[plan.batch])
        stored = {(r["window_start"], tuple(r[g] for g in spec.group_by)): {n: r[n] for n in names} for r in rows}
        _same(found, f"{flow.name} windows after batch {plan.batch}", expected, stored)
        if len(rows) != len(stored):
            found.append(f"{flow.name}: a window is there twice after batch {plan.batch}")


def _compare_changes(flow: _Flow, changes: Changes, outcomes: Sequence[Outcome], found: list[Mistake]) -> None:
    """Every version that ended a batch: it holds what all changes so far make."""
    for plan, out in zip(flow.plans, outcomes, strict=True):
        if plan.batch not in flow.table.version_of:
            continue
        expected = {position_of(row): row for row in table_of(out.after.changes, changes)}
        rows = flow.table.at(flow.table.version_of[plan.batch])
        stored = {position_of(row): {name: value for name, value in row.items() if name != "_batch"} for row in rows}
        _same(found, f"{flow.name} rows after batch {plan.batch}", expected, stored)
        if len(rows) != len(stored):
            found.append(f"{flow.name}: a row is there twice after batch {plan.batch}")


def covered(row: Row, *, final: bool) -> dict[str, Any]:
    """What a window table stores of the positions of a window: a digest, and an entry per source."""
    sources: dict[str, list[int]] = {}
    for source, position in row["_positions"]:
        sources.setdefault(source, []).append(position)
    entries = [
        {"source": source, "first": min(found), "last": max(found), "rows": len(found),
         "digest": digest_of(frozenset((source, position) for position in found))}
        for source, found in sorted(sources.items())
    ]  # fmt: skip
    return {"_digest": digest_of(row["_positions"]), "_final": final, "_covers": entries}


def digest_of(positions: frozenset[Position]) -> int:
    """The digest of a set of positions, as window tables store it."""
    sources, offsets = [source for source, _ in positions], [offset for _, offset in positions]
    return fold(position_digest(pa.array(sources, pa.string()), pa.array(offsets, pa.int64())))


def _torn(row: Mapping[str, Any]) -> bool:
    """Whether a row of a quarantine is a record that did not decode."""
    return bool(row["raw"] and row["reasons"]) and all(reason.startswith("parse:") for reason in row["reasons"])


def _mark(row: Mapping[str, Any]) -> tuple[Any, ...]:
    starts = json.loads(row["detail"])["window_starts_us"] if row["kind"] == "late_window" else ()
    return row["_batch"], position_of(row), row["kind"], tuple(row["reasons"]), tuple(starts)


def _same(found: list[Mistake], what: str, expected: Any, actual: Any) -> None:
    if expected == actual:
        return
    if isinstance(expected, Counter):
        found.append(f"{what}: missing {dict(expected - actual)}, unexpected {dict(actual - expected)}")
    elif isinstance(expected, dict):
        missing = {k: expected[k] for k in expected if k not in actual}
        unexpected = {k: actual[k] for k in actual if k not in expected}
        other = {k: (expected[k], actual[k]) for k in expected if k in actual and expected[k] != actual[k]}
        found.append(f"{what}: missing {missing}, unexpected {unexpected}, (expected, actual) {other}")
    else:
        found.append(f"{what}: expected {expected}, actual {actual}")
