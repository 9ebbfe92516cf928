"""Random streams through Spark, the reference semantics and the embedded engine; the last line says what was compared.

python -m tools.spark_differential [STREAMS] [FIRST]      makes the environment of Spark, and runs this in it
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lodestream.engines.spark.session import open_session
from tests.engines.spark.scenarios import SMALL, changes, sourced, stream

KINDS = (changes, sourced, stream, stream, stream, stream)
"""In turn: changes, a source with event time, and tables of tables."""

AT_ONCE = 3
"""Streams side by side: while one waits for a trigger or a worker, others use the cores."""


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 60_000
    total = {"streams": 0, "operators": 0, "rows_compared": 0, "mismatches": 0}
    session = open_session("local[2]", settings=SMALL)

    def run(seed: int) -> dict[str, object]:
        made = KINDS[seed % len(KINDS)]
        try:
            with tempfile.TemporaryDirectory() as folder:  # queries have names, which are unique in a session
                return made(Path(folder, "site"), session.newSession(), seed)
        except Exception:
            return {"batches": 0, "rows": 0, "operators": 0, "mistakes": [traceback.format_exc()]}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(run, seed): seed for seed in range(first, first + count)}
        try:
            for done in as_completed(running):
                seed, answer = running[done], done.result()
                total["streams"] += 1
                total["operators"] += answer["operators"]
                total["rows_compared"] += answer["rows"]
                total["mismatches"] += len(answer["mistakes"])
                print(f"{seed}: {answer['batches']} batches, {answer['rows']} rows", file=sys.stderr, flush=True)
                for mistake in answer["mistakes"]:
                    print(f"{seed}: {mistake}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:  # what was compared so far is told, and fewer streams are in it
            pool.shutdown(wait=False, cancel_futures=True)
    session.stop()
    print(json.dumps(total))
    sys.exit(total["mismatches"] > 0)


if __name__ == "__main__":
    main()
