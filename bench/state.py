"""How flows with much state fare: dedup, sessions and a join, batch by batch as state grows: `python -m bench.state`.

Each part fills a bronze table first, then steps the flow under test alone and looks at it after every batch. The parts
`bounded` and `peer` are the dedup again with little memory for state: `bounded` over all keys, `peer` over fewer, which
Spark with state in RocksDB takes in too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import peer
from bench.measure import anonymous_mib, cpu_s, peak_mib, reset_peak
from lodestream.app import open_project
from lodestream.model.table import TableName

_FILE_ROWS = 1_000_000
_START_US = 1_700_000_000_000_000
_BRONZE = (
    "source: {{files: {{path: data/{name}, settle: 0}}}}\nformat: parquet\ncolumns: {{id: bigint, at: timestamp}}\n"
)
_TIME = "event_time: {column: at, delay: 30 seconds}\n"
_TABLES = {
    "bounded": "",
    "peer": "",
    "dedup": "from: stream(bronze.events)\n" + _TIME + "dedup: {keys: [id], within: 30 days}\n",
    "session": "from: stream(bronze.events)\n"
    + _TIME
    + "window: {gap: 1 hour}\ngroup_by: [id]\nmeasures: {n: count(*)}\n",
    "join": "from: stream(bronze.events)\n"
    + _TIME
    + "join: {from: stream(bronze.others), on: id, within: {after: 1 hour},"
    " event_time: {column: at, delay: 30 seconds}, columns: {at: other_at}}\n",
}
_DEDUPS = ("dedup", "bounded", "peer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 0, or 1 when a table does not hold what it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=50_000_000, help="keys of the dedup, all of them held")
    parser.add_argument(
        "--events", type=int, default=10_000_000, help="events of the session window, and of each side of the join"
    )
    parser.add_argument(
        "--peer-keys", type=int, default=5_000_000, help="keys of the part that Spark takes in too, at most --keys"
    )
    parser.add_argument("--memory", default="1 GiB", help="for the state of `bounded`")
    parser.add_argument("--peer-memory", default="128 MiB", help="for the state of `peer`, on our side")
    parser.add_argument("--part", action="append", choices=list(_TABLES), help="only this part; may be repeated")
    args = parser.parse_args(arguments)
    sizes = {"dedup": args.keys, "bounded": args.keys, "peer": min(args.peer_keys, args.keys)}
    cache = Path(".cache/bench")  # a real disk: the folder for temporary files may be memory
    cache.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"cores": os.cpu_count()}
    for part in args.part or _TABLES:
        with tempfile.TemporaryDirectory(dir=cache.absolute()) as work:
            memory = {"bounded": args.memory, "peer": args.peer_memory}.get(part, "1 TiB")
            found[part] = measure(Path(work), part, sizes.get(part, args.events), memory)
            _show(part, found[part])
            if part == "peer":
                found |= _beside_spark(Path(work), found[part])
    print(json.dumps(found))
    return 0 if all(found[part]["right"] for part in args.part or _TABLES) else 1


def measure(root: Path, part: str, events: int, memory: str) -> dict[str, Any]:
    """Step one flow through `events` events.

    Returns:
        `events_per_s` and `events_per_cpu_s` (medians over batches), `wall_s` and `cpu_s` (sums), `curve` (a point
        per batch: rows and bytes of state, those of them in files, seconds, bytes of the stored state, peak resident
        MiB with and MiB after the batch without mapped files), `reopen_s` and `reopen_mib` (a second start, which
        loads the state), `output` (rows) and `right`.
    """
    (root / "tables" / "silver").mkdir(parents=True)
    (root / "tables" / "bronze").mkdir()
    (root / "lodestream.yaml").write_text(
        f"project: state\nlake: lake\nbatch: {{rows_max: {_FILE_ROWS}, bytes_max: 1000000000}}\n"
        f"state: {{memory: {memory}}}\n"
    )
    (root / "tables" / "silver" / "state.yaml").write_text(_TABLES["dedup" if part in _DEDUPS else part])
    for name in ("events", "others") if part == "join" else ("events",):
        (root / "tables" / "bronze" / f"{name}.yaml").write_text(_BRONZE.format(name=name))
        (root / "data" / name).mkdir(parents=True)
        for number, table in enumerate(_events(part, name, events)):
            pq.write_table(table, root / "data" / name / f"{number:04}.parquet")
    app = open_project(str(root))
    app.apply()
    pipeline = app.pipeline()
    bronze = [TableName("bronze", "events"), *([TableName("bronze", "others")] if part == "join" else [])]
    pipeline.run(tables=bronze, until_idle=True)
    flow = pipeline.flow(TableName("silver", "state"))
    flow.open()
    curve: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    reset_peak(os.getpid())
    while True:
        started, cpu = time.perf_counter(), cpu_s(os.getpid())
        done = flow.step(idle=False)
        if done is None:
            break
        for kind, number in done.counts.items():
            counts[kind] = counts.get(kind, 0) + number
        held, held_bytes, spilled_bytes = flow.state.held()
        curve.append(
            {
                "events": counts.get("input", 0), "s": time.perf_counter() - started,
                "cpu_s": max(0.01, cpu_s(os.getpid()) - cpu),  # a clock of ten milliseconds
                "rows": held, "bytes": held_bytes, "spilled_bytes": spilled_bytes,
                "peak_mib": round(peak_mib(os.getpid())), "own_mib": round(anonymous_mib(os.getpid())),
                "stored_bytes": _stored(root),
            }
        )  # fmt: skip
    flow.close()
    again = pipeline.flow(TableName("silver", "state"))
    reset_peak(os.getpid())
    started = time.perf_counter()
    again.open()
    reopen_s, reopen_mib = time.perf_counter() - started, round(anonymous_mib(os.getpid()))
    again.close()
    app.close()
    steps = np.diff([0, *(point["events"] for point in curve)])
    return {
        "events": counts.get("input", 0),
        "events_per_s": round(statistics.median(n / point["s"] for n, point in zip(steps, curve, strict=True))),
        "events_per_cpu_s": round(statistics.median(n / point["cpu_s"] for n, point in zip(steps, curve, strict=True))),
        "wall_s": round(sum(point["s"] for point in curve), 2),
        "cpu_s": round(sum(point["cpu_s"] for point in curve), 2),
        "reopen_s": round(reopen_s, 2),
        "reopen_mib": reopen_mib,
        "output": counts.get("output", 0),
        "curve": curve,
        "right": _right(part, events, counts),
    }


def _beside_spark(root: Path, ours: dict[str, Any]) -> dict[str, Any]:
    """What Spark makes of the same files, and how many times as fast we are; both None where Spark cannot run."""
    missing = peer.java_missing()
    if missing is not None:
        print(f"no peer: {missing}")
        return {"spark": None, "ratio_wall": None, "ratio_cpu": None}
    out = root / "spark.json"
    command = [peer.python(), "-m", "bench.state_spark", "--source", root / "data" / "events", "--work", root / "spark",
               "--out", out]  # fmt: skip
    subprocess.run([str(word) for word in command], cwd=peer.ROOT, check=True)
    spark = json.loads(out.read_text())
    ours["right"] = ours["right"] and spark["output"] == ours["output"]
    ratios = {f"ratio_{kind}": round(spark[f"{kind}_s"] / ours[f"{kind}_s"], 1) for kind in ("wall", "cpu")}
    print(f"spark {spark['version']}, state in RocksDB: {ours['events'] / spark['wall_s']:,.0f}/s,"
          f" {ours['events'] / spark['cpu_s']:,.0f}/CPU s, peak {spark['peak_mib']:,.0f} MiB, {spark['output']:,} rows;"
          f" we are {ratios['ratio_wall']} times as fast, with {ratios['ratio_cpu']} times less CPU time")  # fmt: skip
    return {"spark": spark, **ratios}


def _events(part: str, name: str, events: int) -> Iterator[pa.Table]:
    """Files of events in order of time: a dedup has no key twice but one event in fifty; sessions have a million users;
    in a join each event has one partner up to an hour later."""
    rng = np.random.default_rng(7 if name == "events" else 8)
    span_us = 3_600_000_000 * 4
    for first in range(0, events, _FILE_ROWS):
        number = np.arange(first, min(first + _FILE_ROWS, events), dtype=np.int64)
        at_us = _START_US + (number * span_us) // events
        ids = number * 2_654_435_761 % (1 << 61)
        if part in _DEDUPS and first:
            again = rng.random(len(number)) < 0.02
            ids[again] = rng.integers(0, first, int(again.sum())) * 2_654_435_761 % (1 << 61)
        elif part == "session":
            ids = rng.integers(0, max(1, events // 10), len(number))
        elif name == "others":
            at_us = at_us + 1_800_000_000
        yield pa.table({"id": ids, "at": pa.array(at_us, pa.timestamp("us", tz="UTC"))})


def _stored(root: Path) -> int:
    return sum(
        file.stat().st_size for file in (root / "lake" / "_lodestream" / "flows" / "silver.state").rglob("state/*")
    )


def _right(part: str, events: int, counts: dict[str, int]) -> bool:
    """Whether every event is accounted for, and as what it should be."""
    if part in _DEDUPS:
        return counts.get("output", 0) + counts.get("duplicate", 0) == events and counts.get("late", 0) == 0
    if part == "session":
        return counts.get("input", 0) == events and counts.get("late", 0) == 0
    return counts.get("input", 0) == 2 * events and counts.get("late", 0) == 0


def _show(part: str, found: dict[str, Any]) -> None:
    print(f"{part}: {found['events']:,} events, {found['events_per_s']:,}/s, {found['events_per_cpu_s']:,}/CPU s, "
          f"reopened in {found['reopen_s']} s with {found['reopen_mib']:,} MiB,"
          f" {'right' if found['right'] else 'WRONG'}")  # fmt: skip
    shown = found["curve"][:: max(1, len(found["curve"]) // 10)]
    for point in shown:
        held = ", ".join(f"{n:,} {kind}" for kind, n in point["rows"].items())
        mib = {kind: f"{point[f'{kind}bytes'] / 2**20:,.0f} MiB" for kind in ("", "spilled_", "stored_")}
        print(f"  {point['events']:>12,} events  {point['s']:6.2f} s  {held}, {mib['']}, spilled {mib['spilled_']},"
              f" stored {mib['stored_']}, resident {point['own_mib']:,} MiB,"
              f" at most {point['peak_mib']:,} with mapped files")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
