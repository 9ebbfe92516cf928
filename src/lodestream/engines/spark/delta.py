"""Commits that Spark makes to Delta tables, each as batch N of a flow: nothing happens when the table has reached N."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lodestream.engines.spark.expressions import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def append(frame: DataFrame, path: str, app: str, batch: int, told: str) -> None:
    """Append to a Delta table."""
    writer = frame.write.format("delta").mode("append").option("txnAppId", app).option("txnVersion", batch)
    writer.option("userMetadata", told).save(path)


def merge_into(path: str, frame: DataFrame, keys: Sequence[str], app: str, batch: int, told: str, clauses: str) -> None:
    """One MERGE: the frame's rows `s` meet the rows `t` of a Delta table with equal keys."""
    session = frame.sparkSession
    frame.createOrReplaceTempView("_merged_rows")
    equal = " AND ".join(f"t.{quoted(key)} <=> s.{quoted(key)}" for key in keys)
    settings = {
        "spark.databricks.delta.write.txnAppId": app, "spark.databricks.delta.write.txnVersion": str(batch),
        "spark.databricks.delta.commitInfo.userMetadata": told,
    }  # fmt: skip
    try:
        for name, setting in settings.items():
            session.conf.set(name, setting)
        session.sql(f"MERGE INTO delta.`{path}` t USING _merged_rows s ON {equal} {clauses}")
    finally:
        for name in settings:
            session.conf.unset(name)
