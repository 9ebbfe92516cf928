"""The small tables beside the plans of flows on Spark, which stay small however long a query runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from lodestream.engines.spark.kept import KeptTable
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import BIGINT, Column, Schema
from tests.engines.lakes import Lab

MINUTE_US = 60_000_000


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.table("bronze.e", "source: {files: {path: events}}\nformat: json\ncolumns: {id: bigint}\n")
    return lab


def kept(lab: Lab, clock: Callable[[], int]) -> KeptTable:
    around = replace(lab.app().pipeline().around, clock=clock)
    return KeptTable(around, TableName("gold", "t"), 1, "windows", Schema((Column("n", BIGINT),)))


def test_it_neither_keeps_nor_remembers_what_each_batch_removes(lab: Lab) -> None:
    now = [0]
    table = kept(lab, lambda: now[0])
    for batch in range(1, 251):
        now[0] = batch * MINUTE_US
        table.files_before(batch)
        table.take_over(pa.table({"n": [batch]}), batch)
        table.take_over(pa.table({"n": [-1]}), batch)  # done again
    found = table.opened()
    assert found is not None
    assert found.read(table.files_before(251))["n"].to_pylist() == [250]
    assert len(found.snapshot.tombstones) <= 11
    assert [path.name for path in Path(table.path).glob("*.parquet")] == [add.file for add in found.files()]
    assert len(list(Path(table.path, "_delta_log").glob("*.json"))) <= 200  # since the checkpoint before the last
    fresh = DeltaTable.open(LocalDisk(), table.path)
    assert fresh is not None
    assert len(fresh.snapshot.tombstones) <= 120


def test_what_another_engine_left_to_delete_is_deleted_at_the_take_over(lab: Lab) -> None:
    now = [MINUTE_US]
    for batch in (1, 2):
        kept(lab, lambda: now[0]).take_over(pa.table({"n": [batch]}), batch)
    now[0] = 60 * MINUTE_US
    table = kept(lab, lambda: now[0])
    table.take_over(pa.table({"n": [3]}), 3)
    assert len(list(Path(table.path).glob("*.parquet"))) == 2  # those of 3, and of 2, which may be asked for again
    assert table.files_before(3) != table.files_before(4)
    assert len(list(Path(table.path).glob("*.parquet"))) == 1
