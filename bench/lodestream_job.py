"""The three layers on Lodestream's own engine, once, in this fresh process; run by `bench.spine`.

What is timed goes from opening the project to the last durable commit. Starting Python and importing the package is
timed apart, as starting the JVM is for the peer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from bench import measure, profiling


def main() -> None:
    args = _arguments()
    if args.portable:
        sys.modules["lodestream_native"] = None  # type: ignore[assignment] # as if it were not installed
    me = os.getpid()
    started = time.perf_counter()
    from lodestream import native
    from lodestream.app import open_project

    start_up = {"wall_s": time.perf_counter() - started, "cpu_s": measure.cpu_s(me)}
    cpu, system, wall = measure.cpu_s(me), measure.system_s(me), time.perf_counter()
    threads = profiling.ThreadProfiles(args.profile) if args.profile else None
    if threads:
        threads.start()
    open_project(str(args.project), lake="lake").run(until_idle=True)
    report = {
        "native": native.STATE,
        "start_up": start_up,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": measure.cpu_s(me) - cpu,
        "system_s": measure.system_s(me) - system,
        "peak_mib": measure.peak_mib(me),
    }
    if threads:
        threads.stop()
        report["profile"] = threads.report(report[f"{args.profile}_s"])
    args.out.write_text(json.dumps(report))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", choices=profiling.TIMERS, help="report where the time goes")
    parser.add_argument("--portable", action="store_true", help="without the native kernels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
