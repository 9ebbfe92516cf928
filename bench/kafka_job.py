"""Lodestream on the benchmark's topic, once, in this fresh process; run by `bench.kafka`.

It ends when the topic is read, or with `--on` when it is told to (SIGTERM). Each commit is noted with the time at which
it was durable and visible, in `commits.jsonl` of the project, as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench import measure, profiling


def main() -> None:
    args = _arguments()
    if args.portable:
        sys.modules["lodestream_native"] = None  # as if it were not installed
    me = os.getpid()
    started = time.perf_counter()
    from lodestream.app import open_project

    start_up = {"wall_s": time.perf_counter() - started, "cpu_s": measure.cpu_s(me)}
    cpu, system, wall = measure.cpu_s(me), measure.system_s(me), time.time()
    threads = profiling.ThreadProfiles(args.profile) if args.profile else None
    if threads:
        threads.start()
    ended = _run(open_project(str(args.project), lake="lake"), args)
    report: dict[str, Any] = {
        "start_up": start_up,
        "wall_s": ended - wall,
        "cpu_s": measure.cpu_s(me) - cpu,
        "system_s": measure.system_s(me) - system,
        "peak_mib": measure.peak_mib(me),
        "native": getattr(sys.modules.get("lodestream.native"), "KERNELS", None) is not None,
    }
    if threads:
        threads.stop()
        report["profile"] = threads.report((time.time() - wall) if args.profile == "wall" else report["cpu_s"])
    args.out.write_text(json.dumps(report))


def _run(app: Any, args: argparse.Namespace) -> float:
    """Run it; returns when the last commit was durable, in seconds since 1970."""
    app.apply()
    pipeline = app.pipeline()
    signal.signal(signal.SIGTERM, lambda *_: pipeline.stop())
    tables = [name for name in app.flows if args.layers == "all" or name.layer == args.layers]
    lock, last = threading.Lock(), 0.0
    with (args.project / "commits.jsonl").open("a", buffering=1) as file:

        def heard(table: Any, committed: Any) -> None:
            nonlocal last
            with lock:
                last = time.time()
                file.write(json.dumps([table.layer, committed.version, last]) + "\n")

        pipeline.run(until_idle=not args.on, tables=tables, listener=heard)
    return last


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", choices=("bronze", "all"), default="all")
    parser.add_argument("--on", action="store_true", help="go on until SIGTERM")
    parser.add_argument("--profile", choices=profiling.TIMERS, help="report where the time goes")
    parser.add_argument("--portable", action="store_true", help="without the native kernels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
