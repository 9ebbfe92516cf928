"""Drift must not make columns that a table cannot have; a single row could end every later read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestream.errors import ConfigError
from tests.engines.lakes import Lab

DATED = """
source: {{files: {{path: events, settle: 0 seconds}}}}
format: {form}
drift: {drift}
keep_raw: true
columns: {{id: string, at: timestamp}}
partition_by: [date(at)]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "p")


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
@pytest.mark.parametrize("name", ["_source", "_raw", "_batch", "ID", "x\x01", "at_date", "AT_DATE"])
def test_fields_that_no_column_can_be_made_of_set_their_rows_aside(lab: Lab, form: str, name: str) -> None:
    lab.table("bronze.e", DATED.format(form=form, drift="widen" if form == "csv" else "add"))
    rows = [{"id": "a", "at": "2024-01-01T00:00:00Z"}, {"id": "b", "at": "2024-01-01T00:00:00Z", name: "x"}]
    for n, row in enumerate(rows):
        path = lab.root / "events" / f"{n}.{form}"
        if form == "json":
            path.write_text(json.dumps(row) + "\n")
        elif form == "csv":
            path.write_text(",".join(f'"{key}"' for key in row) + "\n" + ",".join(row.values()) + "\n")
        else:
            at = pa.scalar(datetime(2024, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC"))
            pq.write_table(pa.Table.from_pylist([row | {"at": at.as_py()}]), path)
    lab.run()
    assert lab.rows("bronze.e", "id") == [{"id": "a"}]
    assert [one["reasons"] for one in lab.quarantine("bronze.e", "reasons")] == [[f"drift:{name}"]]
    lab.reconcile()


def test_of_two_new_fields_that_differ_in_case_the_first_becomes_a_column(lab: Lab) -> None:
    lab.table("bronze.e", DATED.format(form="json", drift="add"))
    nested = {"a": 1, "A": 2, "": 3}
    lab.events([{"id": "e1", "extra": 1}, {"id": "e2", "EXTRA": 2}, {"id": "e3", "nested": nested}])
    lab.run()
    assert lab.rows("bronze.e", "id", "extra") == [{"id": "e1", "extra": 1}, {"id": "e3", "extra": None}]
    assert [one["reasons"] for one in lab.quarantine("bronze.e", "reasons")] == [["drift:EXTRA"]]
    assert pl.read_delta(str(lab.root / "lake/bronze/e")).height == 2
    lab.reconcile()


def test_a_stream_below_a_widened_table_says_that_it_must_be_rebuilt(lab: Lab) -> None:
    source = "source: {files: {path: events, settle: 0 seconds}}\ndrift: widen\ncolumns: {id: int, v: int}\n"
    lab.table("bronze.e", source)
    lab.table("silver.e", "from: stream(bronze.e)\nderive: {z: v + 1}\n")
    lab.events([{"id": 1, "v": 1}])
    lab.run()
    lab.events([{"id": 2, "v": 3_000_000_000}])
    with pytest.raises(ConfigError, match="wider than this one"):
        lab.run()
    with pytest.raises(ConfigError, match="--accept") as refusal:
        lab.run()
    lab.run(accept=str(refusal.value).split("--accept ")[1].split("`")[0])
    assert lab.rows("silver.e", "z") == [{"z": 2}, {"z": 3_000_000_001}]
    lab.reconcile()
