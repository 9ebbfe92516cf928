"""A small lake written by the engine's committer."""

import datetime as dt
import itertools
from pathlib import Path

import pyarrow as pa
import pytest

from lodestream.catalog import audit_table, store
from lodestream.catalog.anchors import Anchors
from lodestream.catalog.audit import AuditLog
from lodestream.catalog.catalog import Catalog
from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import Column, Schema, parse_type
from lodestream.query.service import QueryService

CLOCK_US = 1_700_000_000_000_000
COLUMNS = {
    "id": "bigint", "amount": "decimal(10,2)", "seen_at": "timestamp", "name": "string", "_source": "string",
    "_position": "bigint",
}  # fmt: skip


def schema_of(columns: dict[str, str]) -> Schema:
    return Schema(tuple(Column(name, parse_type(kind)) for name, kind in columns.items()))


def moment(day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime(2024, 5, day, hour, tzinfo=dt.UTC)


def make(lake: str, name: str, columns: dict[str, str], partitions: tuple[str, ...] = ()) -> DeltaTable:
    return DeltaTable.create(
        LocalDisk(), table_path(lake, TableName.parse(name)), schema_of(columns), partition_columns=partitions,
        table_id=f"id-{name}", clock_us=CLOCK_US,
    )  # fmt: skip


def append(table: DeltaTable, rows: pa.Table, name: str) -> int:
    return table.commit(adds=table.stage(rows, name=name).adds, clock_us=CLOCK_US)


@pytest.fixture
def lake(tmp_path):
    root = str(tmp_path / "lake")
    orders = make(root, "silver.orders", COLUMNS)
    append(orders, pa.table({"id": [1, 2], "seen_at": [moment(1), moment(2, 3)], "name": ["a", "b"]}), "1")
    append(orders, pa.table({"id": [3], "seen_at": [moment(2, 4)], "name": ["c"]}), "2")
    days = make(
        root,
        "gold.days",
        {"id": "bigint", "seen_at": "timestamp", "seen_date": "date", "kind": "string"},
        ("seen_date", "kind"),
    )
    append(
        days,
        pa.table(
            {
                "id": [1, 2, 3],
                "seen_at": [moment(1), moment(2), None],
                "seen_date": [dt.date(2024, 5, 1), dt.date(2024, 5, 2), None],
                "kind": ["x y", "a/b=c'd", None],
            }
        ),
        "1",
    )
    return root


@pytest.fixture
def service(lake):
    found = QueryService(LocalDisk(), lake, threads=1)
    yield found
    found.close()


def ask(root: str, text: str) -> pa.Table:
    """The answer to one query over a lake."""
    service = QueryService(LocalDisk(), root, threads=1)
    try:
        return service.table(text)
    finally:
        service.close()


def catalog_at(folder: Path) -> Catalog:
    """A catalog with its audit log, in a folder."""
    folder.mkdir(exist_ok=True)
    place, time = str(folder / "catalog.db"), itertools.count(1)
    log = AuditLog(store.open_store(place, audit_table.tables(place)), Anchors(str(folder)), lambda: next(time))
    return Catalog(store.open_store(place), lambda: next(time), log)
