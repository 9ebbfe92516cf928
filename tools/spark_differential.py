"""Runs tests/engines/spark/differential.py in the environment of Spark: `python -m tools.spark_differential 300`."""

from __future__ import annotations

import os
import subprocess
import sys

from tools.function_rows import ROOT, spark_python


def main() -> None:
    """Arguments are those of the program; so is the exit code."""
    command = [str(spark_python()), "-m", "tests.engines.spark.differential", *sys.argv[1:]]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
