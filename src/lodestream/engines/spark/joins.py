"""A join of two streams by Spark's own: pairs, and beside them who leaves its state without a partner.

The join is always full outer, so that nobody leaves unseen. Two rules of Spark's are not those of the reference
semantics, and are made so here: it takes NULL keys for equal, and where a bound belongs to the range it keeps a row a
millisecond too long.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from lodestream.engines.spark.expressions import literal, quoted
from lodestream.engines.spark.rows import EVENT_US, FAILED, FATE, HITS, WARNED
from lodestream.engines.spark.seeds import MET, SEED_ASIDE
from lodestream.model.steps import FlowPlan, JoinStreams, Write
from lodestream.model.table import JOIN_META

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

HERE, THERE = "_here", "_there"
"""The two rows of a pair as structs; one of them is NULL when a row left without a partner."""
GIVEN_THERE = "_given_there"
"""A row of the other stream as the quarantine keeps it."""

KEPT_THERE = (GIVEN_THERE, "_source", "_position", EVENT_US, FATE, HITS, WARNED, FAILED)
"""What the batch writer is given of each row of the other stream."""

_OTHER_TIME = "_other_time"
_EXACT, _NEXT_TO_NOTHING = "decimal(35,22)", "0.0000000000000000000001"
"""Seconds with more digits than times have, and less than any difference of two times."""
_AT, _PARTITION_BITS = "_at", 33


def judged_there(frame: DataFrame, step: JoinStreams) -> DataFrame:
    """Every row of the other stream, with its fate so far; `_source` is as the quarantine names it."""
    join = step.join
    time = quoted(join.event_time.column)
    named = f"concat({literal(f'{join.table}/')}, _source)"
    given = [named if name == "_source" else quoted(name) for name in step.reads.names]
    given = [f"{text} AS {quoted(name)}" for text, name in zip(given, step.reads.names, strict=True)]
    there = ["_source", "_position", "_ingest_time", *dict.fromkeys(other for other, _ in join.columns)]
    keys = [f"{quoted(other)} AS _k{i}" for i, (_, other) in enumerate(join.on)]
    keys += [SEED_ASIDE] if SEED_ASIDE in frame.columns else []
    return frame.selectExpr(
        f"struct({', '.join(given)}) AS {GIVEN_THERE}",
        f"struct({', '.join(map(quoted, there))}, {_met(frame.columns)}) AS {THERE}", *keys,
        f"{named} AS _source", "_position", f"{time} AS {_OTHER_TIME}", f"unix_micros({time}) AS {EVENT_US}",
        f"CASE WHEN {time} IS NULL THEN 'quarantine' END AS {FATE}",
        f"CASE WHEN {time} IS NULL THEN array('null_event_time') ELSE array() END AS {HITS}",
        f"cast(array() AS array<string>) AS {WARNED}", f"cast(array() AS array<string>) AS {FAILED}",
    )  # fmt: skip


def paired(here: DataFrame, there: DataFrame, plan: FlowPlan, time: str) -> DataFrame:
    """`HERE` and `THERE` of all pairs, and of all rows that leave without one.

    Args:
        here: the rows that go on, with their watermark.
        there: `judged_there`.
        plan: the flow.
        time: Spark's event-time column of `here`.
    """
    from pyspark.sql import functions as fn

    step = plan.join
    assert step is not None
    join = step.join
    left = here.selectExpr(
        f"struct({', '.join(map(quoted, kept_here(here.columns, plan)))}, {_met(here.columns)}) AS {HERE}", time,
        *(f"{quoted(name)} AS _k{i}" for i, (name, _) in enumerate(join.on)), "_source", "_position",
        *([SEED_ASIDE] if SEED_ASIDE in here.columns else []),
    )  # fmt: skip
    left = _keyed(left, len(join.on), "<").select(HERE, time, "_key")
    right = there.where(f"{FATE} IS NULL")
    right = right.withWatermark(_OTHER_TIME, f"{join.event_time.delay_us} microseconds")
    right = _keyed(right, len(join.on), ">").select(THERE, _OTHER_TIME, fn.col("_key").alias("_other_key"))
    keys = [f"_key.k{i} = _other_key.k{i}" for i in range(len(join.on) + 1)]
    bounds = [_after(time, _OTHER_TIME, -join.high_us), _after(_OTHER_TIME, time, join.low_us)]
    return left.join(right, fn.expr(" AND ".join([*keys, *bounds])), "full_outer").select(HERE, THERE)


def _keyed(frame: DataFrame, count: int, mark: str) -> DataFrame:
    """With `_key`: a struct of the keys, and what keeps rows apart that have a NULL among them, or meet nobody."""
    aside = [f"coalesce({SEED_ASIDE}, false)"] if SEED_ASIDE in frame.columns else []
    lone = " OR ".join([*(f"_k{i} IS NULL" for i in range(count)), *aside])
    keys = ", ".join(f"_k{i} AS k{i}" for i in range(count))
    apart = f"CASE WHEN {lone} THEN concat('{mark}', _position, ' ', _source) ELSE '' END AS k{count}"
    return frame.selectExpr("*", f"struct({keys}, {apart}) AS _key")


def _after(one: str, other: str, distance_us: int) -> str:
    """Spark SQL: one time is at or after the other plus a distance.

    It is written as strictly after next to nothing less. So Spark, which works out from it how long rows wait, does
    not take the bound itself into the range: it would add a millisecond, the unit of its watermarks.
    """
    bound = f"cast({other} + INTERVAL {distance_us} microseconds AS {_EXACT})"
    return f"cast({one} AS {_EXACT}) > {bound} - {_NEXT_TO_NOTHING}"


def _met(columns: list[str]) -> str:
    return f"coalesce({MET}, false) AS {MET}" if MET in columns else f"false AS {MET}"


def kept_here(columns: list[str], plan: FlowPlan) -> list[str]:
    """The columns of a row here that the table stores or computes others from."""
    write = plan.step(Write)
    assert write is not None
    needed = {*write.schema.names, "_source", "_position", "_ingest_time"}
    needed |= {name for partition in write.partitions for name in partition.expression.columns}
    return [name for name in columns if name in needed]


def output_of(pairs: DataFrame, plan: FlowPlan, given: int) -> tuple[DataFrame, DataFrame]:
    """The joined rows in the table's columns, with positions of their own in the order of those that they are made of.

    The first frame is what they are made from, which is kept in memory, for a second sort would part it otherwise.

    Args:
        pairs: those of the micro-batch that the table gets.
        plan: the flow.
        given: how many rows the table has been given before.
    """
    from pyspark.sql import functions as fn

    step = plan.join
    assert step is not None
    own = ("_source", "_position", "_ingest_time", MET)
    kept = [f"{HERE}.{quoted(name)}" for name in pairs.select(f"{HERE}.*").columns if name not in own]
    taken = [f"{THERE}.{quoted(other)} AS {quoted(name)}" for other, name in step.join.columns]
    places = [f"{side}.{name}" for side in (HERE, THERE) for name in own[:2]]
    rows = pairs.selectExpr(
        *kept, *taken, f"greatest({HERE}._ingest_time, {THERE}._ingest_time) AS _ingest_time",
        *(f"{text} AS {name}" for text, name in zip(places, JOIN_META, strict=True)),
    ).orderBy(*JOIN_META)  # fmt: skip
    rows = rows.withColumn(_AT, fn.monotonically_increasing_id()).persist()
    part, within = f"shiftright({_AT}, {_PARTITION_BITS})", f"({_AT} & {(1 << _PARTITION_BITS) - 1}L)"
    sizes = {row["part"]: row["count"] for row in rows.groupBy(fn.expr(part).alias("part")).count().collect()}
    begins = accumulate((sizes[number] for number in sorted(sizes)), initial=given)
    listed = ", ".join(f"{number}L, {begin}L" for number, begin in zip(sorted(sizes), begins, strict=False))
    return rows, rows.selectExpr(
        "*", f"{literal(str(plan.table.name))} AS _source", f"map({listed})[{part}] + {within} AS _position"
    )


def alone_in(pairs: DataFrame, plan: FlowPlan) -> DataFrame:
    """`_source` and `_position` of rows that left without a partner and are in no joined row, as quarantine has it."""
    assert plan.join is not None
    join = plan.join.join
    here = pairs.where(f"{THERE} IS NULL AND NOT {HERE}.{MET}").selectExpr(
        f"{HERE}._source AS _source", f"{HERE}._position AS _position"
    )
    named = f"concat({literal(f'{join.table}/')}, {THERE}._source) AS _source"
    there = pairs.where(f"{HERE} IS NULL AND NOT {THERE}.{MET}").selectExpr(named, f"{THERE}._position AS _position")
    return there if join.kind == "left" else here.unionByName(there)


def joined_in(pairs: DataFrame, plan: FlowPlan) -> DataFrame:
    """The pairs that the table gets; in a left join also rows here that left without a partner."""
    assert plan.join is not None
    paired = f"{HERE} IS NOT NULL AND {THERE} IS NOT NULL"
    alone = f"{HERE} IS NOT NULL AND {THERE} IS NULL AND NOT {HERE}.{MET}"
    return pairs.where(paired if plan.join.join.kind == "inner" else f"({paired}) OR ({alone})")
