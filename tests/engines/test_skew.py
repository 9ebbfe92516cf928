"""Wrong clocks and hot keys: what they do is bounded and can be seen."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lodestream.cli.root import app as command
from lodestream.model.table import TableName
from lodestream.operations.status import read_status
from tests.engines.lakes import Lab

BRONZE = """
source: {files: {path: events, settle: 0 seconds}}
format: json
columns: {id: string, at: timestamp}
"""
COUNTED = """
from: stream(bronze.e)
event_time: {column: at, delay: 10 minutes}
window: {every: 1 hour}
measures: {n: count(*)}
"""
GUARD = 'expect: {not_ahead: {that: "at <= _ingest_time + interval 1 hour"}}\n'
DAY_S = 86_400


def test_a_device_a_day_ahead_is_told_of_and_a_rule_keeps_it_out(tmp_path: Path) -> None:
    """Its one row makes the rows of everybody else late, and `status` says so; a rule sets only that row aside."""
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE)
    lab.table("gold.open", COUNTED)
    lab.table("gold.guarded", COUNTED + GUARD)
    now_s = int(time.time())

    def row(name: str, ahead_s: int) -> dict[str, str]:
        return {"id": name, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s + ahead_s))}

    lab.events([*(row(f"a{n}", -n) for n in range(20)), row("ahead", DAY_S)])
    lab.run()
    lab.events([row(f"b{n}", -n) for n in range(20)])
    lab.run()
    assert [row["kind"] for row in lab.quarantine("gold.open", "kind")] == ["late"] * 20
    assert [row["reasons"] for row in lab.quarantine("gold.guarded", "reasons")] == [["expect:not_ahead"]]
    assert sum(row["n"] for row in lab.rows("gold.guarded", "n")) == 40
    names = [TableName("gold", name) for name in ("open", "guarded")]
    skewed, guarded = read_status(lab.app().disk, lab.app().lake, names, now_us=now_s * 1_000_000)
    assert skewed.freshness_s == -DAY_S
    assert guarded.freshness_s == 0
    told = CliRunner().invoke(command, ["--project", str(lab.root), "status"]).output
    (line,) = [line for line in told.splitlines() if "ahead of this machine's clock" in line]
    assert line.startswith("gold.open: the newest event time, ")
    lab.reconcile()


HOT = """
import json, sys
from pathlib import Path
from lodestream.app import open_project
from lodestream.model.table import TableName

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) >> 10

flow = open_project(sys.argv[1]).pipeline().flow(TableName("gold", "hot"))
flow.open()
grown, rows = [], 0
while (done := flow.step(idle=False)) is not None:
    rows += done.counts["input"]
    grown.append(resident())
print(json.dumps({"rows": rows, "resident_mib": grown, "held": flow.state.held()}))
"""


@pytest.mark.parametrize("events", [600_000, pytest.param(10_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("window", ["{every: 1 day}", "{gap: 1 hour}"])
def test_a_key_with_millions_of_values_in_one_window_is_one_row_of_state(
    tmp_path: Path, events: int, window: str
) -> None:
    """Memory after each batch is that after the third: what a window holds does not depend on how many rows it has."""
    lab = Lab(tmp_path / "p")
    (lab.root / "lodestream.yaml").write_text(f"project: lab\nlake: lake\nbatch: {{rows_max: {events // 12}}}\n")
    lab.table("bronze.e", BRONZE.replace("json", "parquet").replace("id: string", "id: bigint, v: bigint"))
    lab.table("gold.hot", COUNTED.replace("{every: 1 hour}", window) + "group_by: [id]\nemit: final\n")
    text = (lab.root / "tables/gold/hot.yaml").read_text()
    many = "{n: count(*), sum: sum(v), last: max(v), mean: avg(v), spread: stddev(v)}"
    (lab.root / "tables/gold/hot.yaml").write_text(text.replace("{n: count(*)}", many))
    count = events // 12
    for number in range(12):
        at = pa.array(1_700_000_000_000_000 + np.arange(count) * 50 + number * 5_000_000, pa.timestamp("us", tz="UTC"))
        values = np.arange(number * count, (number + 1) * count)
        pq.write_table(
            pa.table({"id": np.full(count, 7), "at": at, "v": values}), lab.root / "events" / f"{number:02}.parquet"
        )
    lab.run(tables=["bronze.e"])
    lab.app().apply()
    done = subprocess.run([sys.executable, "-c", HOT, str(lab.root)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == events
    rows, held, spilled = found["held"]
    assert rows == {"windows": 1}
    assert held + spilled < 10_000
    assert max(found["resident_mib"][3:]) - found["resident_mib"][2] < 50 + 30 * (events // 1_000_000)
