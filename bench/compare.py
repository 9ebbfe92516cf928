"""Are two results the same rows? Silver by its multiset of ids, gold by its multiset of whole rows.

The closing event and its window are left out: on one side its window is still open, on the other it is not written yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from bench import events


@dataclass(frozen=True)
class Result:
    """One side's tables, as two DuckDB relations in SQL.

    Attributes:
        name: who made it.
        silver: a query that gives `event_id`.
        gold: a query that gives `minute_us, type, country, events, cents`.
    """

    name: str
    silver: str
    gold: str


@dataclass
class Verdict:
    """What differs; `lines` is empty when nothing does."""

    silver_rows: int
    gold_rows: int
    lines: list[str] = field(default_factory=list)


def truth(dataset: events.Dataset) -> Result:
    """What the generator knows that silver and gold must hold."""
    return Result("truth", f"from read_parquet({_text(dataset.ids)})", f"from read_parquet({_text(dataset.gold)})")


def tables(name: str, silver: Sequence[Path], gold: Sequence[Path]) -> Result:
    """A side's silver and gold from the Parquet files that hold them."""
    return Result(
        name,
        f"select event_id from read_parquet({_list(silver)}, hive_partitioning=false)",
        "select epoch_us(window_start) as minute_us, type, country, events, cast(amount * 100 as bigint) as cents "
        f"from read_parquet({_list(gold)}, hive_partitioning=false)",
    )


def compare(left: Result, right: Result, shown: int = 5) -> Verdict:
    """Compare two sides; each difference is a line that says how many rows differ and shows `shown` of them."""
    with duckdb.connect(config={"threads": 2}) as con:
        for side, result in (("a", left), ("b", right)):
            con.execute(
                f"create temp table silver_{side} as select event_id, count(*) as copies from ({result.silver}) "
                f"where event_id is distinct from '{events.CLOSING_ID}' group by all"
            )
            con.execute(
                f"create temp table gold_{side} as select *, count(*) as copies from "
                f"(select minute_us, type, country, events, cents from ({result.gold})) "
                "where type is distinct from 'closing' group by all"
            )
        verdict = Verdict(_count(con, "silver_a"), _count(con, "gold_a"))
        for table in ("silver", "gold"):
            for side, other, mine, theirs in (("a", "b", left.name, right.name), ("b", "a", right.name, left.name)):
                only = f"(from {table}_{side} except from {table}_{other})"
                count = con.sql(f"select count(*) from {only}").fetchall()[0][0]
                if count:
                    rows = con.sql(f"from {only} order by all limit {shown}").fetchall()
                    verdict.lines.append(f"{table}: {count} rows of {mine} are not in {theirs}, such as {rows}")
    return verdict


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(con.sql(f"select coalesce(sum(copies), 0) from {table}").fetchall()[0][0])


def _list(paths: Sequence[Path]) -> str:
    return "[" + ", ".join(_text(path) for path in paths) + "]"


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
