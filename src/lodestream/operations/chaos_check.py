"""Judges a lake after a crash test, from source files and tables alone: Polars, and nothing of the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

DELAY_US = 30_000_000
KEY = ["_source", "_position"]
GOLD = {"activity": (1, False), "activity_final": (2, True)}


@dataclass
class Verdict:
    """What the checker found; everything but `produced` should be zero."""

    produced: int = 0
    lost: int = 0
    duplicated: int = 0
    unaccounted: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, what: str, number: int, kind: str) -> None:
        """Add `number` findings of a kind, with a note that says where."""
        if number:
            setattr(self, kind, getattr(self, kind) + number)
            self.notes.append(f"{what}: {number}")


def check(events: Path, lake: Path, gold: Mapping[str, tuple[int, bool]] = GOLD) -> Verdict:
    """Compare the records of the JSON-lines files in `events` with the tables of the crash test's project.

    Args:
        events: folder of the source files.
        lake: root folder of the lake.
        gold: the window tables to judge: their length in minutes, and whether they hold final windows only.
    """
    verdict = Verdict()
    source = _records(events)
    verdict.produced = len(source)
    bronze, bronze_aside = _table(lake / "bronze" / "events"), _aside(lake / "bronze" / "events__quarantine")
    _account(verdict, "bronze", source.select(KEY), bronze, bronze_aside)
    verdict.count("bronze row differs from its record", _differing(bronze, source), "unaccounted")
    unreadable = bronze_aside.join(source.filter("readable"), on=KEY, how="semi")
    verdict.count("readable record set aside", len(unreadable), "unaccounted")
    silver, silver_aside = _table(lake / "silver" / "events"), _aside(lake / "silver" / "events__quarantine")
    _account(verdict, "silver", bronze.select(KEY), silver, silver_aside)
    _judge_silver(verdict, bronze, silver, silver_aside)
    for name, (every_min, final) in gold.items():
        _judge_windows(verdict, name, silver, lake, every_min, final=final)
    return verdict


def _records(folder: Path) -> pl.DataFrame:
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        offset = 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                value = json.loads(line)
                rows.append((path.name, offset, True, value.get("event_id"), value.get("amount")))
            except ValueError:
                rows.append((path.name, offset, False, None, None))
            offset += len(line)
    return pl.DataFrame(
        rows,
        schema={
            "_source": pl.String, "_position": pl.Int64, "readable": pl.Boolean, "id": pl.String, "value": pl.Float64
        },
        orient="row",
    )  # fmt: skip


def _table(path: Path) -> pl.DataFrame:
    return pl.scan_delta(str(path)).collect()


def _aside(path: Path) -> pl.DataFrame:
    """The last word on each position that was set aside, and the windows that a row missed."""
    rows = _table(path)
    return rows.filter(pl.col("kind") != "late_window").sort("_batch").unique(KEY, keep="last", maintain_order=True)


def _account(verdict: Verdict, layer: str, given: pl.DataFrame, output: pl.DataFrame, aside: pl.DataFrame) -> None:
    away = aside.filter(pl.col("kind") != "resolved")
    verdict.count(f"{layer}: row twice", len(output) - len(output.unique(KEY)), "duplicated")
    verdict.count(f"{layer}: in table and set aside", len(output.join(away, on=KEY, how="semi")), "duplicated")
    accounted = pl.concat([output.select(KEY), away.select(KEY)])
    verdict.count(f"{layer}: lost", len(given.join(accounted, on=KEY, how="anti")), "lost")
    verdict.count(f"{layer}: from nowhere", len(accounted.join(given, on=KEY, how="anti")), "unaccounted")


def _differing(bronze: pl.DataFrame, source: pl.DataFrame) -> int:
    joined = bronze.join(source, on=KEY)
    same_id = pl.col("event_id").eq_missing(pl.col("id"))
    same_value = pl.col("amount").cast(pl.Float64).eq_missing(pl.col("value"))
    return len(joined.filter(~(same_id & same_value)))


def _judge_silver(verdict: Verdict, bronze: pl.DataFrame, silver: pl.DataFrame, aside: pl.DataFrame) -> None:
    """A row may only be set aside for what is true of it."""
    rows = aside.join(bronze, on=KEY, suffix="_bronze")
    invalid = pl.col("event_id").is_null() | ~pl.col("amount").ge(0).fill_null(value=False)
    wrong = rows.filter((pl.col("kind") == "quarantine") & ~invalid)
    verdict.count("good row quarantined", len(wrong), "lost")
    dropped = rows.filter((pl.col("kind") == "dropped") & (pl.col("type").str.to_lowercase() != "ping"))
    verdict.count("good row dropped", len(dropped), "lost")
    passed = silver.filter(invalid | (pl.col("type") == "ping"))
    verdict.count("bad row passed", len(passed), "unaccounted")
    duplicates = rows.filter(pl.col("kind") == "duplicate")
    verdict.count(
        "row called a duplicate without its like", len(duplicates.join(silver, on="event_id", how="anti")), "lost"
    )
    verdict.count("duplicate of a row that came later", _early_duplicates(duplicates, silver), "lost")
    _judge_lateness(verdict, bronze, silver, aside)
    near = silver.sort("event_time").with_columns(gap=pl.col("event_time").diff().over("event_id"))
    twice = near.filter(pl.col("gap").dt.total_microseconds() < DELAY_US)
    verdict.count("duplicate within the delay passed", len(twice), "duplicated")


def _early_duplicates(duplicates: pl.DataFrame, silver: pl.DataFrame) -> int:
    """Rows called duplicates although all their likes came after them; files are read in order of name."""
    pairs = duplicates.join(silver, on="event_id", suffix="_kept")
    earlier = pl.lit(value=False)
    for column in ("_position", "_source", "_batch"):
        kept = pl.col(f"{column}_kept")
        earlier = (kept < pl.col(column)) | ((kept == pl.col(column)) & earlier)
    return len(pairs.filter(~earlier).join(pairs.filter(earlier), on=KEY, how="anti").unique(KEY))


def _judge_lateness(verdict: Verdict, bronze: pl.DataFrame, silver: pl.DataFrame, aside: pl.DataFrame) -> None:
    """A row of batch n is late exactly when it is not above W(n - 1), which the batches before n - 1 have left."""
    seen = aside.filter(pl.col("kind").is_in(["late", "duplicate"])).join(bronze, on=KEY, suffix="_bronze")
    columns = [*KEY, "_batch", "kind", "event_time"]
    rows = pl.concat([silver.with_columns(kind=pl.lit("output")).select(columns), seen.select(columns)])
    newest = rows.group_by("_batch").agg(pl.col("event_time").max().dt.epoch("us").alias("newest")).sort("_batch")
    before = newest.select(
        (pl.col("_batch") + 2).alias("after"),
        watermark=((pl.col("newest").cum_max() - DELAY_US) // 1000 * 1000).clip(lower_bound=0),
    )
    judged = rows.sort("_batch").join_asof(
        before.sort("after"), left_on="_batch", right_on="after", strategy="backward"
    )
    late = pl.col("event_time").dt.epoch("us") <= pl.col("watermark").fill_null(0)
    verdict.count("row in time called late", len(judged.filter((pl.col("kind") == "late") & ~late)), "lost")
    verdict.count("late row taken in", len(judged.filter((pl.col("kind") != "late") & late)), "unaccounted")


def _judge_windows(
    verdict: Verdict, name: str, silver: pl.DataFrame, lake: Path, every_min: int, *, final: bool
) -> None:
    path = lake / "gold" / name
    found = _table(path)
    notes = _table(lake / "gold" / f"{name}__quarantine")
    late = notes.filter(pl.col("kind") == "late")
    rows = silver.join(late, on=KEY, how="anti")
    minute = pl.col("event_time").dt.truncate("1m")
    spread = pl.concat(
        [rows.with_columns(window_start=minute.dt.offset_by(f"-{k}m")) for k in range(every_min)], how="vertical"
    )
    missed = (
        notes.filter(pl.col("kind") == "late_window")
        .with_columns(
            starts=pl.col("detail").str.json_path_match("$.window_starts_us").str.json_decode(pl.List(pl.Int64))
        )
        .explode("starts")
        .with_columns(window_start=pl.from_epoch("starts", time_unit="us").dt.replace_time_zone("UTC"))
        .select(*KEY, "window_start")
    )
    spread = spread.join(missed, on=[*KEY, "window_start"], how="anti")
    expected = spread.group_by("window_start", "type").agg(events=pl.len(), amount=pl.col("amount").sum())
    if final:
        watermark = _watermark(path)
        end_us = pl.col("window_start").dt.epoch("us") + every_min * 60_000_000
        expected = expected.filter(end_us <= watermark)
    keys = ["window_start", "type"]
    verdict.count(f"{name}: window twice", len(found) - len(found.unique(keys)), "duplicated")
    both = expected.join(found, on=keys, how="full", suffix="_found", coalesce=True)
    wrong = both.filter(
        ~(
            pl.col("events").cast(pl.Int64).eq_missing(pl.col("events_found"))
            & pl.col("amount").cast(pl.Float64).eq_missing(pl.col("amount_found").cast(pl.Float64))
        )
    )
    verdict.count(f"{name}: window with other content than its rows", len(wrong), "unaccounted")


def _watermark(path: Path) -> int:
    """The watermark that the last batch ran with, from the table's own log."""
    for log in sorted((path / "_delta_log").glob("*.json"), reverse=True):
        for line in log.read_text().splitlines():
            info = json.loads(line).get("commitInfo", {})
            if "watermark_us" in info:
                return int(info["watermark_us"])
    return 0
