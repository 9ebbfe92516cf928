"""The three layers on Lodestream's own engine, once, in this fresh process; run by `bench.spine`.

What is timed goes from opening the project to the last durable commit. Starting Python and importing the package is
timed apart, as starting the JVM is for the peer.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import time
from pathlib import Path

from bench import measure


def main() -> None:
    args = _arguments()
    me = os.getpid()
    started = time.perf_counter()
    from lodestream.app import open_project

    start_up = {"wall_s": time.perf_counter() - started, "cpu_s": measure.cpu_s(me)}
    profile = cProfile.Profile() if args.profile else None
    cpu, wall = measure.cpu_s(me), time.perf_counter()
    if profile:
        profile.enable()
    project = open_project(args.project)
    project.run(until_idle=True)
    if profile:
        profile.disable()
    report = {
        "start_up": start_up,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": measure.cpu_s(me) - cpu,
        "peak_mib": measure.peak_mib(me),
    }
    if profile:
        profile.dump_stats(args.profile)
        pstats.Stats(str(args.profile))
    args.out.write_text(json.dumps(report))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--profile", type=Path, help="write cProfile statistics here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
