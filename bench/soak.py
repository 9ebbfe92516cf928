"""A pipeline for half an hour at a steady rate: does anything grow? `python -m bench.soak`. The last line is JSON.

Made-up events go through bronze, silver (dedup) and gold (windows) in one process, with retention, compaction, vacuum
and cleaning of the log at work. What they do in days they do here in minutes: `--kept-seconds` is how long rows, log
entries and deleted files are kept. Every series is held to the straight line through its second half.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import soak_plot
from bench.measure import anonymous_mib
from bench.soak_plot import Points
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable

ROOT = Path(__file__).parents[1]
TABLES = ("bronze.orders", "silver.orders", "gold.per_country")
_PROJECT = {
    "lodestream.yaml": "project: soak\nlake: lake\n",
    "tables/bronze/orders.yaml": """
source: {{generator: {{stream: orders, rate: {rate}, rows: {rows}, chaos: {{duplicate: 0.01, malformed: 0.002}}}}}}
{kept}""",
    "tables/silver/orders.yaml": """
from: stream(bronze.orders)
expect: {{has_id: {{that: order_id is not null, else: quarantine}}}}
event_time: {{column: ordered_at, delay: 5 seconds}}
dedup: {{keys: [order_id]}}
{kept}""",
    "tables/gold/per_country.yaml": """
from: stream(silver.orders)
event_time: {{column: ordered_at, delay: 5 seconds}}
window: {{every: 10 seconds}}
group_by: [country, product]
measures: {{orders: count(*), amount: sum(amount)}}
emit: updates
{kept}""",
}
_KEPT = """retention: {0} seconds
maintain: {{log_retention: {0} seconds, deleted_file_retention: {0} seconds}}
"""
_PANELS = {
    "memory, MiB": ("memory own", "memory resident"),
    "commit, ms": ("commit p50", "commit p99"),
    "event to gold, ms": ("latency p50", "latency p99"),
    "live files": tuple(f"files {name.partition('.')[0]}" for name in TABLES),
    "log entries": tuple(f"entries {name.partition('.')[0]}" for name in TABLES),
    "files on disk": tuple(f"stored {name.partition('.')[0]}" for name in TABLES),
    "tables on disk, MiB": ("disk tables",),
    "state, MiB": ("state held",),
    "open files": ("open files",),
}
_SHARE = 0.1
_FLOORS = {"memory": 16.0, "commit": 5.0, "latency": 50.0, "files": 8.0, "entries": 100.0, "stored": 50.0, "disk": 16.0,
           "state": 4.0, "open": 4.0}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak. Returns 0, or 1 when a series grows, the rate is not held or rows are missing."""
    args = _arguments(arguments)
    cache = Path(".cache/bench")  # a real disk: the folder for temporary files may be memory
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.absolute(), prefix="soak-") as work:
        series, ended = run(Path(work), args)
    found = {name: trend(points) for name, points in series.items()}
    for name, one in found.items():
        one["flat"] = flat(name, one)
        verdict = "" if one["flat"] else "  GROWS"
        print(f"{name:<18} mean {one['mean']:>10,.4g}, {one['per_minute']:>+10.3g} a minute,"
              f" {one['growth']:>+9.3g} in the second half ± {one['error']:.2g}{verdict}")  # fmt: skip
    wrong = [*missing(ended["counts"], args.rows), *(f"{name} grows" for name, one in found.items() if not one["flat"])]
    if ended["behind_s"] > args.every_seconds + 10:
        wrong.append(f"the rate was not held: {ended['behind_s']} s behind in the end")
    if args.plot is not None:
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        args.plot.write_text(picture(args, series, found))
    print("flat, and every row accounted for" if not wrong else "; ".join(wrong))
    print(json.dumps({
        "minutes": args.minutes, "rate": args.rate, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
        "behind_s": ended["behind_s"], "series": found, "flat": not wrong, "wrong": wrong,
    }))  # fmt: skip
    return 1 if wrong else 0


def run(root: Path, args: argparse.Namespace) -> tuple[dict[str, Points], dict[str, Any]]:
    """Run the project in a process of its own and look at it.

    Returns:
        Series of (minutes, value), and how it ended: `counts` by flow, `behind_s` after the last event.
    """
    kept = _KEPT.format(round(args.kept_seconds))
    for name, text in _PROJECT.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(rate=args.rate, rows=args.rows, kept=kept))
    out = root / "notes.jsonl"
    command = [sys.executable, "-m", "bench.soak_job", "--project", root, "--out", out, "--kept-seconds",
               args.kept_seconds, "--every-seconds", args.every_seconds]  # fmt: skip
    seen: list[tuple[float, dict[str, float]]] = []
    with subprocess.Popen([str(word) for word in command], cwd=ROOT) as job:
        looker = _Looker(root / "lake", job.pid)
        try:
            while job.poll() is None:
                time.sleep(args.every_seconds)
                if (look := looker.look()) is not None:
                    seen.append((time.time(), look))
        finally:
            job.kill()
    if job.returncode:
        raise SystemExit(f"the pipeline ended with {job.returncode}")
    *notes, ended = map(json.loads, out.read_text().splitlines())
    started = seen[0][0] if seen else ended["at"]  # the tables are there, and events come
    seen += [(note["at"], _noted(note)) for note in notes]
    series: dict[str, list[tuple[float, float]]] = {name: [] for names in _PANELS.values() for name in names}
    end = started + args.minutes * 60
    for at, values in sorted(seen, key=lambda one: one[0]):
        for name, value in values.items():
            if started <= at <= end:
                series[name].append(((at - started) / 60, value))
    return dict(series), {"counts": ended["counts"], "behind_s": round(ended["at"] - end, 1)}


class _Looker:
    """Looks at the process and its tables from outside."""

    def __init__(self, lake: Path, pid: int) -> None:
        self._lake, self._pid, self._disk = lake, pid, LocalDisk()
        self._tables: dict[str, DeltaTable] = {}

    def look(self) -> dict[str, float] | None:
        """Values by series; None when the process or a table is not there."""
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
            found = {
                "memory own": anonymous_mib(self._pid),
                "memory resident": int(status.partition("VmRSS:")[2].split()[0]) / 1024,
                "open files": float(len(os.listdir(f"/proc/{self._pid}/fd"))),
            }
        except (OSError, IndexError):
            return None
        size = 0
        for name in TABLES:
            layer, _, table = name.partition(".")
            folder = self._lake / layer / table
            handle = self._tables.get(name) or DeltaTable.open(self._disk, str(folder))
            if handle is None:
                return None
            self._tables[name] = handle
            found[f"files {layer}"] = len(handle.refresh().files)
            found[f"stored {layer}"], stored = _stored(folder, ".parquet")
            found[f"entries {layer}"], logged = _stored(folder / "_delta_log", ".json")
            size += stored + logged
        return found | {"disk tables": size / 2**20}


def _stored(folder: Path, suffix: str) -> tuple[int, int]:
    """Number of files with a suffix, and bytes of all files in a folder."""
    count, size = 0, 0
    for entry in os.scandir(folder):
        try:
            if entry.is_file():
                count += entry.name.endswith(suffix)
                size += entry.stat().st_size
        except FileNotFoundError:
            continue
    return count, size


def _noted(note: Mapping[str, Any]) -> dict[str, float]:
    found = {"state held": note["state_bytes"] / 2**20}
    if commits := note["commits_ms"]:
        found |= {f"commit p{q}": float(np.percentile(commits, q)) for q in (50, 99)}
    if oldest := note["oldest_ms"]:
        middle = (np.array(oldest) + np.array(note["newest_ms"])) / 2
        found |= {"latency p50": float(np.median(middle)), "latency p99": float(np.percentile(oldest, 99))}
    return found


def trend(points: Points) -> dict[str, Any]:
    """The straight line through the second half of a series, by least squares.

    Returns:
        `mean`, `per_minute` (slope), `growth` (slope times the length of that half), `error` (standard error of the
        growth, as if samples were independent), `start` (value of the line at zero minutes) and `samples`.
    """
    half = points[-1][0] / 2 if points else 0.0
    at, values = (np.array([point[i] for point in points if point[0] >= half]) for i in range(2))
    if len(at) < 3:
        return {"mean": 0.0, "per_minute": 0.0, "growth": 0.0, "error": 0.0, "start": 0.0, "samples": len(at)}
    slope, start = np.polyfit(at, values, 1)
    spread = np.sqrt(((values - start - slope * at) ** 2).sum() / (len(at) - 2) / ((at - at.mean()) ** 2).sum())
    length = at[-1] - at[0]
    told = {
        "mean": values.mean(),
        "per_minute": slope,
        "growth": slope * length,
        "error": spread * length,
        "start": start,
    }
    return {name: float(f"{value:.6g}") for name, value in told.items()} | {"samples": len(at)}


def flat(name: str, one: Mapping[str, Any]) -> bool:
    """Whether a series does not grow: by less than a tenth of its mean, or than what is nothing of its kind, or than
    chance makes of it (two standard errors)."""
    allowed = max(_SHARE * one["mean"], _FLOORS[name.partition(" ")[0]])
    return bool(one["samples"] >= 3 and one["growth"] - 2 * one["error"] <= allowed)


def missing(counts: Mapping[str, Mapping[str, int]], rows: int) -> list[str]:
    """What does not add up: every event is a row of bronze or set aside, and so on up to gold."""
    wrong, coming = [], rows
    for name in TABLES:
        told = counts[name]
        fates = {fate: told.get(fate, 0) for fate in ("output", "quarantine", "duplicate", "late", "dropped")}
        if name.startswith("gold"):
            fates["output"] = told.get("input", 0) - fates["late"]  # rows go into windows
        if told.get("input", 0) != coming or sum(fates.values()) != coming:
            wrong.append(f"{name} was given {coming} rows and says {dict(told)}")
        coming = fates["output"]
    return wrong


def picture(args: argparse.Namespace, series: Mapping[str, Points], found: Mapping[str, Mapping[str, Any]]) -> str:
    """The plot of all series, as SVG."""
    panels = {title: {name: series[name] for name in names} for title, names in _PANELS.items()}
    lines = {name: (one["start"], one["per_minute"]) for name, one in found.items()}
    title = f"{args.minutes:g} minutes at {args.rate:,} events/s; straight lines: least squares over the second half"
    return soak_plot.svg(title, panels, lines)


def _arguments(arguments: Iterable[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=20_000, help="events per second")
    parser.add_argument("--every-seconds", type=float, default=5, help="between two samples")
    parser.add_argument("--kept-seconds", type=float, help="rows, log entries, deleted files; a tenth of the time")
    parser.add_argument("--plot", type=Path, help="where to write the picture, an SVG file")
    args = parser.parse_args(None if arguments is None else list(arguments))
    args.rows = round(args.minutes * 60 * args.rate)
    args.kept_seconds = args.kept_seconds or max(2.0, args.minutes * 6)
    return args


if __name__ == "__main__":
    sys.exit(main())
