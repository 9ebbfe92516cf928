"""The commit of a batch is found in a log that others write to as well."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import app_id, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import BIGINT, Column, Schema
from lodestream.operations.tracing.view import View

NAME = TableName("silver", "e")


@pytest.mark.parametrize("seed", range(8))
def test_every_batch_is_found_and_no_other(tmp_path: Path, seed: int) -> None:
    lake, chance = str(tmp_path), random.Random(seed)
    table = DeltaTable.create(
        LocalDisk(), table_path(lake, NAME), Schema((Column("id", BIGINT),)), table_id="t", clock_us=1,
        configuration={"lodestream.epoch": "2"},
    )  # fmt: skip
    versions: dict[int, int] = {}
    for batch in range(1, 6):  # an earlier epoch
        table.commit(txn=(app_id(NAME, 1), batch), clock_us=1)
    for batch in range(1, 12):
        for _ in range(chance.choice((0, 0, 1, 5))):
            table.commit(clock_us=1)
        versions[batch] = table.commit(txn=(app_id(NAME, 2), batch), info={"batch": batch}, clock_us=1)
    app: Any = SimpleNamespace(lake=lake, disk=LocalDisk(), flows={})
    view = View(app)
    found = {batch: commit.version for batch in range(15) if (commit := view.commit(NAME, batch))}
    assert found == versions
    assert view.committed(NAME) == 11
    assert view.last(NAME)["batch"] == 11
