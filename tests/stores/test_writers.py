"""Eight processes that make one table and append to it at once: `test_writers.py WRITER LAKE …`."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from lodestream.lake.log import list_log
from lodestream.lake.opening import open_lake
from lodestream.lake.table import DeltaTable
from lodestream.model.types import BIGINT, Column, Schema

WRITERS, COMMITS = 8, 5


def write(writer: int, lake: str, root: str, store: dict[str, str], commits: int) -> None:
    lake, disk = open_lake(lake, root, store)
    table = DeltaTable.create(
        disk, f"{lake}/silver/t", Schema((Column("id", BIGINT),)), table_id=f"t{writer}", clock_us=0
    )
    for number in range(1, commits + 1):
        staged = table.stage(pa.table({"id": [writer * 1000 + number]}), name=uuid.uuid4().hex)
        table.commit(adds=staged.adds, txn=(f"app{writer}", number), clock_us=number)
        if number % 4 == 0:
            table.checkpoint()


def race(place, commits: int) -> None:
    told = [place.lake, place.root, json.dumps(place.store), str(commits)]
    command = [sys.executable, "-m", "tests.stores.test_writers"]
    writers = [subprocess.Popen([*command, str(n), *told], cwd=Path(__file__).parents[2]) for n in range(WRITERS)]
    assert [writer.wait(300) for writer in writers] == [0] * WRITERS
    table = DeltaTable.open(place.disk(), f"{place.lake}/silver/t")
    wanted = sorted(w * 1000 + n for w in range(WRITERS) for n in range(1, commits + 1))
    assert table.snapshot.version == WRITERS * commits
    assert sorted(list_log(place.disk(), table.path).commits) == list(range(WRITERS * commits + 1))
    assert [c.metadata.id for c in table.commits(-1) if c.metadata] == [table.snapshot.metadata.id]
    assert table.snapshot.txns == {f"app{w}": commits for w in range(WRITERS)}
    assert sorted(table.read(table.files())["id"].to_pylist()) == wanted
    judge = deltalake.DeltaTable(table.path, storage_options=place.options or None)
    assert sorted(judge.to_pyarrow_table()["id"].to_pylist()) == wanted


def test_eight_writers_make_one_table_and_append(remote):
    race(remote, COMMITS)


@pytest.mark.long
def test_eight_writers_for_long(place):
    race(place, 60)


if __name__ == "__main__":
    write(int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), int(sys.argv[5]))
