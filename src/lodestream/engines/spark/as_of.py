"""Lookups as of a moment on Spark: what a history said of each row's key at the time that the row names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lodestream.engines.spark.expressions import quoted
from lodestream.model.steps import LookUp
from lodestream.model.table import VALID_FROM, VALID_TO

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_TURN = "_turn"


def unsent(there: DataFrame, rows: DataFrame) -> DataFrame:
    """What a stream is joined with must not be sent to all tasks: that is read before a batch has a plan."""
    return there.hint("merge") if rows.isStreaming else there


def met_then(
    rows: DataFrame, there: DataFrame, step: LookUp, keys: Sequence[str], values: Sequence[str], many: str
) -> DataFrame:
    """A left join to the rows of a history that held at the moment of each row.

    Args:
        rows: rows, each with a position of its own.
        there: one version of the history.
        step: the lookup.
        keys: names to join the key columns of `there` under.
        values: names for the looked-up columns.
        many: name of the column that says that a row met more than one.
    """
    lookup = step.lookup
    assert lookup.as_of is not None
    begins, ends = f"{keys[0]}_from", f"{keys[0]}_to"
    there = there.selectExpr(
        *(f"{quoted(theirs)} AS {key}" for key, (_, theirs) in zip(keys, lookup.on, strict=True)),
        *(f"{quoted(theirs)} AS {name}" for name, (theirs, _) in zip(values, lookup.columns, strict=True)),
        f"{VALID_FROM} AS {begins}", f"{VALID_TO} AS {ends}",
    )  # fmt: skip
    when = rows[quoted(lookup.as_of)]
    met = (there[begins] <= when) & (there[ends].isNull() | (when < there[ends]))
    for key, (ours, _) in zip(keys, lookup.on, strict=True):
        met = met & (rows[quoted(ours)] == there[key])
    joined = rows.join(unsent(there, rows), met, "left").drop(*keys, begins, ends)
    if step.unique:  # the spans of a key do not overlap
        return joined.selectExpr("*", f"false AS {many}")
    position = "PARTITION BY _source, _position"
    counted = joined.selectExpr(
        "*",
        f"count(1) OVER ({position}) > 1 AS {many}",
        f"row_number() OVER ({position} ORDER BY _position) AS {_TURN}",
    )
    return counted.where(f"{_TURN} = 1").drop(_TURN)
