"""Files to bronze to silver to gold, by Lodestream and by Spark, with equal rows: `python -m bench.spine`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from bench import compare, events, peer, profiling, report

ROOT = Path(__file__).parents[1]
PROJECT = Path(__file__).parent / "project"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 0, or 1 when a side failed or the rows are not the same."""
    args = _arguments(arguments)
    say(f"{args.events:,} events (seed {args.seed})")
    dataset = events.ensure(args.cache, events.Spec(args.events, args.files, args.seed))
    say(f"{dataset.size / 1e6:,.0f} MB in {args.files} files under {dataset.folder}")
    work = args.cache / f"work-{os.getpid()}"
    try:
        return _bench(args, dataset, work)
    finally:
        if not args.keep:
            shutil.rmtree(work, ignore_errors=True)


def _bench(args: argparse.Namespace, dataset: events.Dataset, work: Path) -> int:
    missing = "not asked for (--no-spark)" if args.no_spark else peer.java_missing()
    if args.profile:  # a run of its own: it is slower, and not counted
        profiled = _lodestream_once("lodestream, profiled", dataset, work, "--profile", args.profile, *_form(args))
        print(profiled["profile"])
    results = [compare.truth(dataset)]
    ours, result = lodestream(args, dataset, work)
    results.append(result)
    theirs = None
    if missing:
        say(f"Spark does not run: {missing}")
    else:
        theirs, result = spark(args, dataset, work)
        results.append(result)
    differences = _differences(results)
    if differences:
        print("THE ROWS ARE NOT THE SAME", *differences, sep="\n  ")
        return 1
    if not args.json:
        print(report.table(args.events, ours, theirs))
        if missing:
            print(f"\nSpark did not run: {missing}")
    print(json.dumps(report.summary(args.events, ours, theirs)))
    return 0


def lodestream(
    args: argparse.Namespace, dataset: events.Dataset, work: Path
) -> tuple[list[dict[str, Any]], compare.Result]:
    """Run our side `--repeats` times, each in a new process on a new lake; the rows are those of the last."""
    runs = []
    for number in range(1, args.repeats + 1):
        runs.append(_lodestream_once(f"lodestream {number} of {args.repeats}", dataset, work, *_form(args)))
    lake = work / "project" / "lake"
    return runs, compare.tables("lodestream", _delta(lake / "silver" / "events"), _delta(lake / "gold" / "activity"))


def _form(args: argparse.Namespace) -> tuple[str, ...]:
    return ("--portable",) if args.portable else ()


def _lodestream_once(name: str, dataset: events.Dataset, work: Path, *options: str) -> dict[str, Any]:
    project, out = work / "project", work / "lodestream.json"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(PROJECT, project)
    (project / "events").symlink_to(dataset.lines.absolute())
    _settle(dataset)
    return _run(name, [sys.executable, "-m", "bench.lodestream_job", "--project", project, "--out", out, *options], out)


def spark(args: argparse.Namespace, dataset: events.Dataset, work: Path) -> tuple[list[dict[str, Any]], compare.Result]:
    """Run the peer once cold and `--repeats` times warm, in one JVM; the rows are those of the last."""
    out = work / "spark.json"
    command = [
        peer.python(), "-m", "bench.spark_job", "--source", dataset.lines.absolute(), "--work", work / "spark",
        "--out", out, "--runs", str(1 + args.repeats), "--files-per-batch", str(max(1, args.files // 5)),
    ]  # fmt: skip
    _settle(dataset)
    told = _run(f"spark, cold and {args.repeats} times warm", command, out)
    told["runs"][0]["start_up"] = told["start_up"]
    files = [sorted(Path(told[layer]).glob("*.parquet")) for layer in ("silver", "gold")]
    return told["runs"], compare.tables("spark", *files)


def say(text: str) -> None:
    """Progress, apart from what the benchmark prints as its result."""
    print(text, file=sys.stderr, flush=True)


def _run(name: str, command: list[Any], out: Path) -> dict[str, Any]:
    say(f"running {name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("LODESTREAM_")}
    with (out.parent / "log").open("w+b") as log:
        done = subprocess.run(command, cwd=ROOT, env=plain, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode or not out.exists():
            log.seek(0)
            say(log.read().decode(errors="replace")[-8000:])
            raise SystemExit(f"{name} failed with exit code {done.returncode}")
    return json.loads(out.read_text())


def _settle(dataset: events.Dataset) -> None:
    """The same start for every run: input in the page cache, nothing of an earlier run left to write back."""
    for path in dataset.lines.iterdir():
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
    os.sync()


def _delta(table: Path) -> list[Path]:
    return [Path(uri.removeprefix("file://")) for uri in DeltaTable(str(table)).file_uris()]


def _differences(results: Sequence[compare.Result]) -> list[str]:
    """Every result against the truth, and the engines against each other."""
    lines = []
    for i, left in enumerate(results):
        for right in results[i + 1 :]:
            verdict = compare.compare(left, right)
            say(f"{left.name} = {right.name}? {verdict.silver_rows:,} silver rows, {verdict.gold_rows:,} gold rows: "
                + ("no" if verdict.lines else "yes"))  # fmt: skip
            lines += verdict.lines
    return lines


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.spine", description=__doc__)
    parser.add_argument("--events", type=int, default=3_000_000, help="lines to generate (default 3,000,000)")
    parser.add_argument("--files", type=int, default=20, help="files they are cut into (default 20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="runs of which medians are taken (default 3)")
    parser.add_argument("--no-spark", action="store_true", help="run Lodestream only, checked against the generator")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    parser.add_argument(
        "--profile", nargs="?", const="cpu", choices=profiling.TIMERS,
        help="one more run that says where Lodestream's CPU (or wall) time goes",
    )  # fmt: skip
    parser.add_argument("--portable", action="store_true", help="run Lodestream without its native kernels")
    parser.add_argument("--keep", action="store_true", help="leave lakes and checkpoints for a look")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where events and lakes go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
