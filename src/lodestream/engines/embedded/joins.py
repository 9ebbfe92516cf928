"""Joins two streams a batch at a time: new rows meet each other and the rows that wait."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import naive
from lodestream.engines.embedded.passing import INDEX, Outcome, Pass
from lodestream.engines.embedded.rejects import rejected
from lodestream.engines.embedded.sides import MATCHED, SERIAL, TIME, JoinState, Side
from lodestream.model.arrow import to_arrow_type
from lodestream.model.steps import JoinStreams
from lodestream.model.table import JOIN_META, Join, TableName


def right_source(table: TableName, sources: pa.ChunkedArray) -> pa.ChunkedArray:
    """How the quarantine of a joining table names sources of the other side: `silver.payments/part-1.json`."""
    return pc.binary_join_element_wise(str(table), sources.cast(pa.string()), "/")


def right_prefix(join: JoinStreams) -> str:
    """What stands before the source of a row of the other side, in the quarantine."""
    return f"{join.join.table}/"


def is_right(join: JoinStreams | None, source: str) -> bool:
    """Whether a quarantined row came from the other side."""
    return join is not None and source.startswith(right_prefix(join))


def join_streams(passing: Pass, step: JoinStreams, there: pa.Table) -> None:
    """Join the batch's rows with those of the other side, and both with the rows that wait.

    Args:
        passing: the batch; afterwards its rows are the joined ones.
        step: the join.
        there: the other side's rows of the batch, with `_source`, `_position` and `_ingest_time`.
    """
    held, join, batch = passing.state.join, step.join, passing.batch
    assert held is not None
    if not batch.accept_late:
        passing.reject_late(passing.events() <= batch.late_us)
    serials, old = (held.here.next_serial, held.there.next_serial), (len(held.here), len(held.there))
    events = passing.events()
    held.here.add(passing.settle().drop_columns([INDEX]), events)
    held.there.add(*_on_time(passing, join, there))
    left, right = pairs_of(passing.connection, held, join, old)
    met = (_earlier(held.here, left, old[0]), _earlier(held.there, right, old[1]))
    held.here.meet(left)
    held.there.meet(right)
    rows = [_put_together(step, held.here.take(left), held.there.take(right))]
    alone_here, alone_there = (side.evict(until_us) for side, until_us in held.limits(batch.evict_us))
    if join.kind == "left" and len(alone_here):
        rows.append(_put_together(step, alone_here, _nobody(step, len(alone_here))))
    elif len(alone_here):
        _leave_out(passing, alone_here)
    if len(alone_there):
        at = alone_there.schema.get_field_index("_source")
        named = right_source(join.table, alone_there.column("_source"))
        _leave_out(passing, alone_there.set_column(at, "_source", named))
    passing.out.changes.join = held.since(serials, met)
    passing.out.rows = _numbered(pa.concat_tables(rows), str(passing.table), held)


def _on_time(passing: Pass, join: Join, there: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """The rows of the other side that have an event time and are not late, with it; the others are set aside."""
    at = there.schema.get_field_index("_source")
    given = there.set_column(at, "_source", right_source(join.table, there.column("_source")))
    out = Outcome(there.append_column(INDEX, pa.array(np.arange(len(there), dtype=np.int64))))
    other = Pass(passing.connection, given, passing.batch, passing.state, out, passing.table)
    other.event_column = join.event_time.column
    other.reject_missing_time()
    events, seen = other.events(), passing.state.joined_max_event_us
    if len(events):
        newest = int(events.max())
        passing.state.joined_max_event_us = newest if seen is None else max(seen, newest)
    other.reject_late(events <= passing.batch.late_us)
    rows = other.settle().drop_columns([INDEX])
    passing.out.rejects += out.rejects
    for kind, number in out.counts.items():
        passing.out.count(kind, number)
    return rows, other.events()


def pairs_of(
    connection: duckdb.DuckDBPyConnection, held: JoinState, join: Join, old: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows of both sides that meet, at least one of them new; in order of arrival."""
    here = _keys(held.here, [name for name, _ in join.on])
    there = _keys(held.there, [name for _, name in join.on])
    on = [f"l.k{i} = r.k{i}" for i in range(len(join.on))]
    meet = " AND ".join([*on, f"r.t BETWEEN l.t + ({join.low_us}) AND l.t + ({join.high_us})"])
    parts = {"new_here": here.slice(old[0]), "all_there": there, "old_here": here.slice(0, old[0]),
             "new_there": there.slice(old[1])}  # fmt: skip
    for name, table in parts.items():
        connection.register(name, table)
    try:
        found = connection.sql(
            f"SELECT l.n, r.n AS m FROM new_here l JOIN all_there r ON {meet} UNION ALL"
            f" SELECT l.n, r.n FROM old_here l JOIN new_there r ON {meet} ORDER BY ALL"
        ).to_arrow_table()
    finally:
        for name in parts:
            connection.unregister(name)
    return found.column("n").to_numpy(), found.column("m").to_numpy()


def _keys(side: Side, names: list[str]) -> pa.Table:
    rows = side.rows
    columns = {f"k{i}": rows.column(name) for i, name in enumerate(names)}
    return naive(pa.table({**columns, "t": rows.column(TIME), "n": pa.array(np.arange(len(side), dtype=np.int64))}))


def _earlier(side: Side, numbers: np.ndarray, old: int) -> pa.ChunkedArray:
    """Serials of the rows from before this batch that meet somebody for the first time."""
    rows = side.take(np.unique(numbers[numbers < old]))
    return rows.filter(pc.invert(rows.column(MATCHED))).column(SERIAL)


def _put_together(step: JoinStreams, here: pa.Table, there: pa.Table) -> pa.Table:
    """The rows of both sides, n each, as n joined rows without a position of their own."""
    came, other_came = here.column("_ingest_time"), there.column("_ingest_time")
    later = pc.if_else(pc.fill_null(pc.greater(other_came, came), False), other_came, came)
    own = ("_source", "_position", "_ingest_time", TIME, SERIAL, MATCHED)
    columns = {name: here.column(name) for name in here.column_names if name not in own}
    columns |= {name: there.column(other) for other, name in step.join.columns}
    places = [side.column(name) for side in (here, there) for name in ("_source", "_position")]
    return pa.table({**columns, "_ingest_time": later, **dict(zip(JOIN_META, places, strict=True))})


def _nobody(step: JoinStreams, count: int) -> pa.Table:
    """The other side of `count` rows that met nobody."""
    return pa.table({column.name: pa.nulls(count, to_arrow_type(column.type)) for column in step.reads})


def _leave_out(passing: Pass, alone: pa.Table) -> None:
    """Record rows whose time is over and that are in no pair."""
    reasons = [["unmatched"]] * len(alone)
    batch = passing.batch
    passing.out.rejects.append(
        rejected(alone, "dropped", reasons, batch=batch.batch, clock_us=batch.clock_us, keep_row=False)
    )
    passing.out.count("dropped", len(alone))


def _numbered(rows: pa.Table, table: str, held: JoinState) -> pa.Table:
    """The joined rows with positions of their own: the table's name, and how many it has given before.

    Within the batch they are in the order of the rows that they are made of, which is the same on every engine.
    """
    count = len(rows)
    rows = rows.sort_by([(name, "ascending") for name in JOIN_META])
    positions = pa.array(np.arange(held.given, held.given + count, dtype=np.int64))
    held.given += count
    rows = rows.append_column("_source", pa.array([table], pa.string()).take(pa.array(np.zeros(count, np.int64))))
    return rows.append_column("_position", positions).append_column(INDEX, pa.array(np.arange(count, dtype=np.int64)))
