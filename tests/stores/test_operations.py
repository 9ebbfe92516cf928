"""A lake in an object store is proven, erased from and searched for what is wrong as one in a folder."""

import time

import deltalake
import pyarrow.parquet as pq
import pytest

from lodestream.app import open_project
from lodestream.lake.rewrite import rewrite
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.health import examine
from tests.cli.conftest import call
from tests.stores.test_projects import project

ERASED = 17
NAMES = [TableName.parse(name) for name in ("bronze.orders", "silver.orders", "gold.revenue")]


def accounts(root):
    """What `reconcile` tells of each table."""
    return {one["table"]: one for one in call("reconcile", "--json", project=root).json["tables"]}


def ran(folder, lake):
    root = project(folder, lake, 1)
    with open_project(root) as app:
        app.run()
    return root


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return accounts(ran(tmp_path_factory.mktemp("local") / "p", "lake"))


def test_it_adds_up_and_what_is_erased_or_lost_is_known(remote, tmp_path, expected):
    root = ran(tmp_path / "p", remote.declared)
    assert accounts(root) == expected
    assert all(one["reconciled"] for one in expected.values())
    erases(root, remote, tmp_path)
    names_orphans(remote)
    names_what_is_lost(root, remote)


def erases(root, remote, folder):
    before = ids(remote)
    call("query", "select count(*) from silver.orders where id > 0", project=root)
    assert holding(folder, ERASED), "there are copies on this machine"
    report = call("erase", "--subject", f"id={ERASED}", "--yes", "--json", project=root).json
    assert report["proven"], report
    assert report["tables"]["silver.orders"]["files_deleted"]
    assert ids(remote) == [[one for one in table if one != ERASED] for table in before]
    assert all(ERASED in table for table in before)
    assert not holding(folder, ERASED)
    assert all(one["reconciled"] for one in accounts(root).values())


def ids(remote):
    """Those of bronze and silver, as delta-rs reads them."""
    tables = (f"{remote.lake}/{name}/orders" for name in ("bronze", "silver"))
    return [
        sorted(
            deltalake.DeltaTable(table, storage_options=remote.options)
            .to_pyarrow_table(columns=["id"])["id"]
            .to_pylist()
        )
        for table in tables
    ]


def holding(folder, wanted):
    """Copies of data files in which a row has the id."""
    tables = {path: pq.read_table(path, partitioning=None) for path in folder.rglob("*.parquet")}
    return [path for path, rows in tables.items() if "id" in rows.column_names and wanted in rows["id"].to_pylist()]


def names_orphans(remote):
    disk, now_s = remote.disk(), time.time()
    disk.write(f"{remote.lake}/bronze/orders/at_date=2024-01-01/part-9-x.snappy.parquet", b"half")
    disk.write(f"{remote.lake}/silver/orders/part-9-y.snappy.parquet", b"half")
    found = examine(remote.lake, disk, NAMES, repair=False, now_s=now_s + 7200)
    assert [(one.check, one.text[:8]) for one in found if one.code == "L302"] == [
        ("bronze.orders", "1 files "), ("silver.orders", "1 files "),
    ]  # fmt: skip
    assert "L302" not in [one.code for one in examine(remote.lake, disk, NAMES, repair=False, now_s=now_s)]


def names_what_is_lost(root, remote):
    disk = remote.disk()
    silver = DeltaTable.open(disk, f"{remote.lake}/silver/orders")
    adds, removes = rewrite(silver, lambda rows: rows["id"].to_numpy() == 3, ["id"], "lossy")
    silver.commit(adds=adds, removes=removes, clock_us=time.time_ns() // 1000)
    (problem,) = accounts(root)["silver.orders"]["problems"]
    assert problem.startswith("input position is neither in output nor in quarantine: 1 positions")
    disk.unlink(silver.file_path(silver.files()[0]))
    found = examine(remote.lake, disk, NAMES, repair=False, now_s=time.time())
    assert [(one.check, one.code) for one in found if one.level == "error"] == [("silver.orders", "L301")]
