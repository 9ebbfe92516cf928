"""What a lake that the benchmark fills says of itself: how far it is, and when each row was there to be read.

Read from the Delta logs and data files alone, not through the engine; only the times of commits are noted by the job.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

LAYERS = {"bronze": "events", "silver": "events", "gold": "activity"}
_SKIPPED_S = 0.1  # share of a live run at its beginning that does not count: starting the engine


@dataclass(frozen=True)
class Commit:
    """One version of a table.

    Attributes:
        version: its number.
        taken: input rows of its batch.
        upto: last version of the table above that is in it.
        files: data files that it added.
    """

    version: int
    taken: int
    upto: int
    files: list[Path]


def commits(table: Path, after: int = -1) -> Iterator[Commit]:
    """The versions after `after` that are there now."""
    version = after + 1
    while (path := table / "_delta_log" / f"{version:020d}.json").exists():
        taken, upto, files = 0, -1, []
        for line in path.read_text().splitlines():
            action = json.loads(line)
            if info := action.get("commitInfo"):
                taken, upto = info.get("counts", {}).get("input", 0), info.get("upto", -1)
            elif added := action.get("add"):
                files += [table / added["path"]] if added["dataChange"] else []
        yield Commit(version, taken, upto, files)
        version += 1


class Progress:
    """Follows a lake until it has taken in a number of messages."""

    def __init__(self, lake: Path) -> None:
        self._tables = {layer: lake / layer / name for layer, name in LAYERS.items()}
        self.seen: dict[str, list[Commit]] = {layer: [] for layer in LAYERS}

    def look(self) -> None:
        """Take in what was committed since."""
        for layer, table in self._tables.items():
            self.seen[layer] += commits(table, len(self.seen[layer]) - 1)

    def taken(self, layer: str = "bronze") -> int:
        """Rows that a layer has taken in."""
        return sum(commit.taken for commit in self.seen[layer])

    def complete(self, messages: int) -> int | None:
        """The gold version that has the last of so many messages in it; None when there is none yet."""
        taken, last = 0, -1
        for commit in self.seen["bronze"]:
            taken += commit.taken
            last = commit.version
            if taken >= messages:
                break
        if taken < messages:
            return None
        for layer in ("silver", "gold"):
            found = next((commit.version for commit in self.seen[layer] if commit.upto >= last), None)
            if found is None:
                return None
            last = found
        return last


def commit_times(project: Path) -> dict[tuple[str, int], float]:
    """When each version was durable, in seconds since 1970, by layer and version."""
    found = {}
    for line in (project / "commits.jsonl").read_text().splitlines():
        layer, version, time_s = json.loads(line)
        found[layer, version] = time_s
    return found


def latencies(project: Path) -> dict[str, dict[str, float]]:
    """Milliseconds from a row's event time to the commit that made it visible: mean, p50 and p99, by layer.

    A row is visible in gold with the first version that has taken in the silver version in which it is.
    """
    times, lake = commit_times(project), project / "lake"
    bronze, silver, gold = (list(commits(lake / layer / name)) for layer, name in LAYERS.items())
    shown = [(commit.upto, times["gold", commit.version]) for commit in gold if ("gold", commit.version) in times]
    waits: dict[str, list[npt.NDArray[np.float64]]] = {layer: [] for layer in LAYERS}
    began = min((int(_event_times(commit)[0]) for commit in bronze if commit.files), default=0)
    ended = max((int(_event_times(commit)[-1]) for commit in bronze if commit.files), default=0)
    counted = began + int((ended - began) * _SKIPPED_S)
    for layer, found in (("bronze", bronze), ("silver", silver)):
        for commit in found:
            rows = _event_times(commit)
            rows = rows[rows >= counted]
            if len(rows):
                waits[layer].append(times[layer, commit.version] * 1e3 - rows / 1e3)
                if layer == "silver":
                    when = next(time_s for upto, time_s in shown if upto >= commit.version)
                    waits["gold"].append(when * 1e3 - rows / 1e3)
    return {layer: _figures(np.concatenate(parts)) for layer, parts in waits.items() if parts}


def _event_times(commit: Commit) -> npt.NDArray[np.int64]:
    """Event times of the rows that a commit added, rising, in microseconds since 1970."""
    parts = [pq.read_table(file, columns=["event_time"])["event_time"].cast("timestamp[us]").cast("int64")
             for file in commit.files]  # fmt: skip
    return np.sort(np.concatenate([part.to_numpy() for part in parts])) if parts else np.empty(0, np.int64)


def _figures(wait_ms: npt.NDArray[np.float64]) -> dict[str, float]:
    p50, p99 = np.percentile(wait_ms, [50, 99])
    return {"mean": round(float(wait_ms.mean()), 1), "p50": round(float(p50), 1), "p99": round(float(p99), 1)}


def lost_or_doubled(lake: Path, ends: Mapping[str, int]) -> list[str]:
    """Whether bronze and its quarantine have every message exactly once; a line per partition where they do not.

    Args:
        lake: the lake's root.
        ends: number of messages by source (`topic/partition`).
    """
    table = lake / "bronze" / LAYERS["bronze"]
    files = [path for commit in commits(table) for path in commit.files]
    files += [path for commit in commits(table.with_name(table.name + "__quarantine")) for path in commit.files]
    if not files:
        return ["bronze is empty"]
    # As many numbers as 0 … n-1, none beyond, with the same sum and the same sum of squares.
    rows: Sequence[Any] = duckdb.sql(
        "select _source, count(*), min(_position), max(_position), sum(_position::hugeint), "
        f"sum(_position::hugeint * _position) from read_parquet({[str(file) for file in files]}, union_by_name=true, "
        "hive_partitioning=false) group by all"
    ).fetchall()
    found = {source: tuple(numbers) for source, *numbers in rows}
    wanted = {
        source: (n, 0, n - 1, n * (n - 1) // 2, (n - 1) * n * (2 * n - 1) // 6) for source, n in ends.items() if n
    }
    return [
        f"bronze: {source} has {found.get(source)}, not {wanted.get(source)} (count, first, last, sum, squares)"
        for source in sorted(found.keys() | wanted.keys())
        if found.get(source) != wanted.get(source)
    ]
