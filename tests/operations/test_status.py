import pyarrow as pa
import pytest

from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import app_id, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import BIGINT, Column, Schema
from lodestream.operations.status import read_status

NAME = TableName("silver", "orders")
CLOCK_US = 1_700_000_000_000_000


@pytest.fixture
def lake(tmp_path):
    return str(tmp_path / "lake")


@pytest.fixture
def table(lake):
    schema = Schema((Column("id", BIGINT),))
    return DeltaTable.create(
        LocalDisk(),
        table_path(lake, NAME),
        schema,
        configuration={"lodestream.epoch": "2"},
        table_id="t",
        clock_us=CLOCK_US,
    )


def commit(table, batch, rows, epoch=2, **info):
    table.commit(
        adds=table.stage(pa.table({"id": range(rows)}), name=f"{epoch}-{batch}").adds, txn=(app_id(NAME, epoch), batch),
        info=info, clock_us=CLOCK_US + batch * 1_000_000,
    )  # fmt: skip


def test_counts_are_summed_over_the_present_epoch(lake, table):
    commit(table, 1, 5, epoch=1, counts={"input": 1000})
    commit(table, 1, 3, counts={"input": 4, "output": 3, "late": 1}, watermark_us=5, max_event_us=CLOCK_US)
    commit(table, 2, 2, counts={"input": 2, "output": 2}, watermark_us=9, max_event_us=CLOCK_US + 4_000_000)
    (found,) = read_status(LocalDisk(), lake, [NAME], now_us=CLOCK_US + 10_000_000)
    assert found.counts == {"input": 6, "output": 5, "late": 1}
    assert (found.rows, found.files, found.version) == (10, 3, 3)
    assert (found.epoch, found.batch, found.planned, found.counted_from) == (2, 2, 2, 1)
    assert (found.watermark_us, found.freshness_s, found.age_s) == (9, 6.0, 8.0)


def test_the_state_of_the_last_batch_is_told(lake, table):
    commit(table, 1, 3, state_rows={"keys": 9}, state_bytes=99)
    commit(table, 2, 3, state_rows={"keys": 7, "windows": 2}, state_bytes=77)
    (found,) = read_status(LocalDisk(), lake, [NAME], now_us=CLOCK_US)
    assert (found.state_rows, found.state_bytes) == ({"keys": 7, "windows": 2}, 77)


def test_a_missing_table_and_a_damaged_one_do_not_hide_the_others(lake, table):
    log = f"{table.path}/_delta_log/{1:020d}.json"
    with open(log, "w") as file:
        file.write("{torn")
    other = TableName("gold", "nope")
    damaged, missing = read_status(LocalDisk(), lake, [NAME, other], now_us=CLOCK_US, pending={other: "create"})
    assert "doctor" in str(damaged.error)
    assert (missing.exists, missing.error, missing.pending) == (False, None, "create")


def test_commits_that_were_cleaned_up_are_said_to_be_missing_from_the_sum(lake, table):
    for batch in range(1, 6):
        commit(table, batch, 1, counts={"input": 1})
    table.checkpoint(CLOCK_US)
    commit(table, 6, 1, counts={"input": 1})
    table.checkpoint(CLOCK_US)
    table.clean_log(keep_versions=1, needed_from=6)
    (found,) = read_status(LocalDisk(), lake, [NAME], now_us=CLOCK_US)
    assert found.counted_from > 1
    assert found.counts["input"] == 7 - found.counted_from
