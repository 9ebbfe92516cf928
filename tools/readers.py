"""Runs tests and lets readers that others wrote read every table that they leave behind: `python -m tools.readers`.

Tests that break tables on purpose leave some that we cannot read either; those are counted, not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lodestream.errors import LodestreamError
from tests.apis.sharing.peer import Anywhere
from tests.lake.outside import READERS
from tests.lake.rows import rows_of, tables_under, with_ours
from tools.function_rows import ROOT, spark_python

_TESTS = ("tests/lake", "tests/engines", "tests/runtime", "tests/operations", "tests/query", "tests/sinks")
_SHOWN = 20
_LIMITS = {
    # Polars takes a value of 300 characters from the name of its folder; delta-sharing's kernel takes the escapes that
    # its client writes for other characters
    "test_others_read_every_parti": ("polars", "delta-sharing"),
    "odd_partitions": ("delta-sharing",),
    "test_partition_columns_of_each": ("dataset",),  # of delta-rs, cannot parse a negative decimal
    # INT96 before 1677 and after 2262
    "test_timestamps_as_spark_write": ("delta-rs", "dataset", "polars", "delta-sharing", "delta-sharing-parquet"),
    "test_a_foreign_checkpoint": ("delta-rs", "dataset", "polars", "spark"),  # damaged; we go by the commits
    "test_a_whole_checkpoint_that": ("delta-rs", "dataset", "polars", "spark"),
    "test_any_flipped_byte": ("delta-rs", "dataset", "polars", "spark"),
    "test_the_hint_is_never": ("delta-rs", "dataset", "polars", "spark"),
}
"""What readers cannot read, by the beginning of the name of a test or table: limits of theirs, and damaged logs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 when tests fail or a reader gives other rows."""
    parser = argparse.ArgumentParser(prog="tools.readers", description=__doc__)
    parser.add_argument("--no-spark", action="store_true", help="leave out Spark, which takes half a second a table")
    parser.add_argument("--folder", type=Path, help="read the tables under this folder, and run no tests")
    parser.add_argument("tests", nargs="*", default=_TESTS, help="what to run")
    args = parser.parse_args(arguments)
    if args.folder is not None:
        return _read(args.folder, spark=not args.no_spark)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "2",
            "--dist",
            "loadfile",
            f"--basetemp={folder}/tests",
            *args.tests,
        ]
        failed = subprocess.run(command, cwd=ROOT, check=False).returncode
        return _read(Path(folder), spark=not args.no_spark) or failed


def _read(folder: Path, *, spark: bool) -> int:
    counts, wrong = Counter[str](), []
    with _readers() as readers:
        for path in tables_under(folder):
            try:
                ours = with_ours(str(path))
            except LodestreamError:
                counts["broken"] += 1
                continue
            wanted = rows_of(ours, ours.column_names)
            counts["tables"] += 1
            counts["rows"] += len(wanted)
            for name, read in readers.items():
                if name in _unable(path):
                    counts["left out"] += 1
                    continue
                try:
                    found = rows_of(read(str(path)), ours.column_names)
                except Exception as error:  # whatever others raise
                    wrong.append(f"{path}: {name} raises {type(error).__name__}: {str(error)[:200]}")
                    continue
                if found != wanted:
                    wrong.append(f"{path}: {name} gives {len(found)} rows instead of {len(wanted)}")
    names = list(readers)
    if spark and shutil.which("java"):
        told = _on_spark(folder)
        names.append("spark")
        wrong += [f"spark: {line}" for line in told["differences"] if "spark" not in _unable(Path(line))]
        if len(told["read"]) != counts["tables"]:
            wrong.append(f"spark read {len(told['read'])} tables instead of {counts['tables']}")
    print(*wrong[:_SHOWN], sep="\n")
    print(f"{counts['tables']:,} tables with {counts['rows']:,} rows, read by {', '.join(names)}:")
    print(f"{len(wrong)} differences; {counts['broken']} tables are broken, {counts['left out']} reads are left out")
    return 1 if wrong else 0


@contextlib.contextmanager
def _readers() -> Iterator[Mapping[str, Callable[[str], Any]]]:
    """Those in this process, and the client of Delta Sharing in one of its own, in both formats."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Anywhere(Path(folder))) as shared:
        yield READERS | {
            name: partial(shared.rows, use_delta_format=delta)
            for name, delta in (("delta-sharing", True), ("delta-sharing-parquet", False))
        }


def _unable(path: Path) -> tuple[str, ...]:
    return next((names for start, names in _LIMITS.items() if f"/{start}" in str(path)), ())


def _on_spark(folder: Path) -> dict[str, list[str]]:
    command = [str(spark_python()), "-m", "tests.engines.spark.reading", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    told: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    raise SystemExit(main())
