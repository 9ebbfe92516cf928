"""Commits batches to a table, each until it is acknowledged, when told to: `committing.py PATH COUNT`."""

from __future__ import annotations

import sys
import time

import pyarrow as pa

from lodestream.errors import LodestreamError
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable


def main(path: str, count: int) -> None:
    """Print `ready`, wait for a line, then print `done N TRIES` after each batch that is acknowledged."""
    table = DeltaTable.open(LocalDisk(), path)
    assert table is not None
    pa.table({"id": [1]}).select(["id"])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(1, count + 1):
        for tries in range(1, 200):
            try:
                if table.refresh().txns.get("app", 0) < number:
                    staged = table.stage(pa.table({"id": [number], "day": ["a"]}), name=f"{number}-{tries}")
                    table.commit(adds=staged.adds, txn=("app", number), clock_us=number)
                break
            except LodestreamError:
                time.sleep(0.01)
        else:
            raise SystemExit("gave up")
        print(f"done {number} {tries}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
