"""One process of the merge that `bench.lake` measures: fills a table, or merges changes into it and says its peak."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import anonymous_mib, peak_mib
from lodestream.app import open_project
from lodestream.model.table import TableName

_CUSTOMERS, _CHANGES = TableName("silver", "customers"), TableName("bronze", "changes")
_BRONZE = (
    "source: {files: {path: changes, settle: 0}}\nformat: parquet\n"
    "columns: {id: bigint, seq: bigint, name: string, city: string, spent: double}\n"
)
_SILVER = "from: stream(bronze.changes)\nchanges: {keys: [id], sequence_by: [seq]}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one step. The last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--changes", type=int, required=True)
    parser.add_argument("--step", choices=("fill", "merge"), required=True)
    args = parser.parse_args(arguments)
    if args.step == "fill":
        fill(args.root, args.changes)
    else:
        print(json.dumps(merge(args.root, args.changes)))
    return 0


def fill(root: Path, changes: int) -> None:
    """Make a project whose table has twice as many rows as will change, and the changes in bronze beside it."""
    for layer, name, text in (("bronze", "changes", _BRONZE), ("silver", "customers", _SILVER)):
        (root / "tables" / layer).mkdir(parents=True)
        (root / "tables" / layer / f"{name}.yaml").write_text(text)
    (root / "changes").mkdir()
    (root / "lodestream.yaml").write_text(
        f"project: merge\nlake: lake\nbatch: {{rows_max: {changes}, bytes_max: 4000000000}}\n"
    )
    for part in range(2):
        _write(root, part, np.arange(part * changes, (part + 1) * changes, dtype=np.int64))
    app = open_project(str(root))
    app.run()
    everywhere = np.random.default_rng(7).permutation(2 * changes)[:changes].astype(np.int64)
    _write(root, 2, everywhere)
    app.pipeline().run(tables=[_CHANGES], until_idle=True)
    app.close()


def merge(root: Path, changes: int) -> dict[str, object]:
    """Merge the changes and look at the process.

    Returns:
        `peak_mib`: highest resident size of the process since its start, `before_mib` that before the
        batch, `own_mib` what it holds afterwards without mapped files, `s` the batch's seconds, `changes` and `rows`,
        and `wrong`.
    """
    app = open_project(str(root))
    flow = app.pipeline().flow(_CUSTOMERS)
    flow.open()
    before, started = _peak_mib(), time.perf_counter()
    done, batches = flow.step(idle=False), 0
    counted: dict[str, int] = {}
    while done is not None:
        batches += 1
        for kind, number in done.counts.items():
            counted[kind] = counted.get(kind, 0) + number
        done = flow.step(idle=False)
    seconds, peak = time.perf_counter() - started, _peak_mib()
    own = anonymous_mib(os.getpid())
    rows = flow.table.read(flow.table.files(), columns=["id", "seq"])
    flow.close()
    app.close()
    seqs = rows.column("seq").to_numpy()
    right = len(rows) == 2 * changes == len(np.unique(rows.column("id").to_numpy()))
    right = right and int((seqs == 2).sum()) == changes and counted.get("output") == changes
    wrong = [] if right and batches == 1 else [f"merge: {batches} batches, {counted}, {len(rows)} rows"]
    return {"peak_mib": peak, "before_mib": before, "own_mib": round(own), "s": round(seconds, 2), "changes": changes,
            "rows": 2 * changes, "wrong": wrong}  # fmt: skip


def _write(root: Path, seq: int, ids: np.ndarray) -> None:
    names = [f"customer {number:x}" for number in (ids * 2_654_435_761 % (1 << 61)).tolist()]
    rows = pa.table({
        "id": ids, "seq": np.full(len(ids), seq), "name": names,
        "city": pa.array([f"city {number}" for number in range(1000)]).take(pa.array(ids % 1000)),
        "spent": (ids % 100_000) / 64 + seq,
    })  # fmt: skip
    pq.write_table(rows, root / "changes" / f"{seq}.parquet")


def _peak_mib() -> int:
    return round(peak_mib(os.getpid()))  # not ru_maxrss, which begins with that of the process that started this one


if __name__ == "__main__":
    raise SystemExit(main())
