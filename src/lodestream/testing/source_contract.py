"""The behaviour that every source is held to; a plugin's tests call `check_source` with a way to make the source."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pyarrow as pa

from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.ports.format import REJECTS, row_schema
from lodestream.ports.source import Decoded, Reading, Source

MINUTE_US = 60_000_000


def drain(
    source: Source, limit: BatchLimit, now_us: int, *, step_us: int = MINUTE_US, rounds_max: int = 10_000
) -> tuple[list[SourceRange], list[Decoded]]:
    """Plan and read until the source has finished: all ranges and all that was read.

    Args:
        source: to be read from its start.
        limit: of one batch.
        now_us: the clock at first.
        step_us: how much the clock goes on between two plans.
        rounds_max: gives up (AssertionError) after so many plans.
    """
    consumed: dict[str, SourceRange] = {}
    ranges: list[SourceRange] = []
    read: list[Decoded] = []
    for _ in range(rounds_max):
        for planned in through_json(source.plan(consumed, limit, now_us)):
            before = consumed.get(planned.unit)
            assert planned.end > planned.start, f"an empty range: {planned}"
            assert before is None or planned.start >= before.end, f"a range was planned twice: {planned} {before}"
            read.extend(source.read(planned))
            ranges.append(planned)
            consumed[planned.unit] = planned
        if source.finished(consumed, now_us):
            assert not source.plan(consumed, limit, now_us), "finished, and yet there is more"
            return ranges, read
        now_us += step_us
    raise AssertionError(f"not finished after {rounds_max} plans")


def through_json(ranges: Sequence[SourceRange]) -> list[SourceRange]:
    """The ranges as a plan file gives them back."""
    return [SourceRange(**json.loads(json.dumps(asdict(planned)))) for planned in ranges]


def check_source(
    make: Callable[[], Source],
    reading: Reading,
    *,
    now_us: int,
    limits: Sequence[BatchLimit] = (BatchLimit(), BatchLimit(rows_max=7), BatchLimit(bytes_max=500)),
) -> pa.Table:
    """Hold a source to the promises of `lodestream.ports.source`; gives all its rows.

    Args:
        make: makes the source anew, as after a restart; what it reads must not change meanwhile and must end.
        reading: what it was made with.
        now_us: a clock at which the source can begin.
        limits: the batches that must all give the same rows.
    """
    first: tuple[pa.Table, pa.Table] | None = None
    for limit in limits:
        source = make()
        ranges, read = drain(source, limit, now_us)
        for piece in read:
            _check_piece(piece, reading)
        rows, rejects = _sorted([piece.rows for piece in read]), _sorted([piece.rejects for piece in read])
        _check_identity(rows, rejects)
        for planned in ranges:
            inside = [p for piece in make().read(planned) for p in _positions(piece)]
            assert all(unit == planned.unit and planned.start <= at < planned.end for unit, at in inside), planned
            assert len(inside) <= limit.rows_max, f"more records than the limit: {planned}"
        if make().traits.replayable:
            again = [piece for planned in ranges for piece in make().read(planned)]
            assert _sorted([p.rows for p in again]).equals(rows), "a range gave other rows the second time"
            assert _sorted([p.rejects for p in again]).equals(rejects), "a range gave other rejects the second time"
        if first is None:
            first = rows, rejects
        assert rows.equals(first[0]), f"the batch limit changed the rows: {limit}"
        assert rejects.equals(first[1]), f"the batch limit changed the rejects: {limit}"
        source.close()
        source.close()
    assert first is not None
    return first[0]


def check_resumes(make: Callable[[], Source], *, now_us: int, limit: BatchLimit) -> None:
    """A new instance goes on where another one stopped, and plans the very same ranges."""
    whole, _ = drain(make(), limit, now_us)
    consumed: dict[str, SourceRange] = {}
    resumed: list[SourceRange] = []
    for _ in range(len(whole) + 2):
        source = make()
        planned = through_json(source.plan(consumed, limit, now_us + len(resumed) * MINUTE_US))
        consumed.update({r.unit: r for r in planned})
        resumed.extend(planned)
        if source.finished(consumed, now_us):
            break
    assert [(r.unit, r.start, r.end) for r in resumed] == [(r.unit, r.start, r.end) for r in whole]


def _check_piece(piece: Decoded, reading: Reading) -> None:
    assert piece.rows.schema.equals(row_schema(reading)), piece.rows.schema
    assert piece.rejects.schema.equals(REJECTS), piece.rejects.schema
    piece.rows.validate(full=True)
    piece.rejects.validate(full=True)
    for table in (piece.rows, piece.rejects):
        positions = table["_position"].to_pylist()
        assert positions == sorted(positions), "rows are not in position order"
    assert all(reasons for reasons in piece.rejects["_reasons"].to_pylist()), "a reject without a reason"


def _check_identity(rows: pa.Table, rejects: pa.Table) -> None:
    names = ["_source", "_position"]
    both = pa.concat_tables([rows.select(names), rejects.select(names)])
    distinct = both.group_by(names).aggregate([])
    assert distinct.num_rows == both.num_rows, "a position came twice"


def _positions(piece: Decoded) -> list[tuple[str, int]]:
    tables = (piece.rows, piece.rejects)
    return [
        (unit, at)
        for table in tables
        for unit, at in zip(table["_source"].to_pylist(), table["_position"].to_pylist(), strict=True)
    ]


def _sorted(tables: list[pa.Table]) -> pa.Table:
    together = pa.concat_tables(tables)
    return together.sort_by([("_source", "ascending"), ("_position", "ascending")]).combine_chunks()
