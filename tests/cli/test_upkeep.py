"""Upkeep by hand: what it would do, what it did, what others see of it."""

import json
import os
import pathlib
import subprocess
import sys
import uuid

import pyarrow as pa
import pytest

from lodestream.app import now_us
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from tests.cli.conftest import call
from tests.lake.outside import agree

TABLE = "silver.orders"


@pytest.fixture
def many(own_orders):
    """The project, with its silver rows in 20 files more, one row in each."""
    table = DeltaTable.open(LocalDisk(), str(own_orders / "lake/silver/orders"))
    row = table.read(table.files()).slice(0, 1)
    for number in range(20):
        staged = table.stage(row.set_column(0, "order_id", pa.array([f"extra-{number}"])), name=f"0-{uuid.uuid4().hex}")
        table.commit(adds=staged.adds, clock_us=now_us())
    return own_orders


def path(project) -> str:
    return str(project / "lake/silver/orders")


def test_optimize_shows_first_and_then_does(many):
    before = agree(path(many), ["order_id", "amount"])
    told = call("table", "optimize", TABLE, "--dry-run", "--json", project=many).json
    assert (told["groups"], told["files_to_rewrite"], told["rewritten"]) == (1, 21, 0)
    assert told["files"]["before"] == told["files"]["after"]
    done = call("table", "optimize", TABLE, "--json", "--z-order", "amount, country", project=many).json
    assert done["rewritten"] >= 1
    assert done["files"]["after"] < told["files"]["before"]
    assert done["z_order"] == ["amount", "country"]
    assert agree(path(many), ["order_id", "amount"]) == before
    shown = call("table", "history", TABLE, project=many).out
    assert "OPTIMIZE" in shown
    assert call("reconcile", "gold.revenue_per_minute", project=many).code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--z-order", "nope"], "no such column"), (["--target-size", "big"], "not a size"),
        (["--z-order", "amount,amount"], "distinct"),
    ],
)  # fmt: skip
def test_optimize_refuses(own_orders, options, told):
    refused = call("table", "optimize", TABLE, *options, project=own_orders)
    assert (refused.code, told in refused.err) == (3, True)


def test_vacuum_shows_first_and_then_deletes(many):
    call("table", "optimize", TABLE, project=many)
    data = pathlib.Path(path(many), "part-0-orphan-0.snappy.parquet")
    data.write_bytes(b"x")
    os.utime(data, (0, 0))
    told = call("table", "vacuum", TABLE, "--dry-run", "--json", project=many).json
    assert (told["files"], told["orphans"], told["deleted"]) == ([data.name], 1, 0)
    assert "orphan" in call("table", "vacuum", TABLE, "--dry-run", project=many).out
    assert data.exists()
    assert call("table", "vacuum", TABLE, "--json", project=many).json["deleted"] == 1
    assert not data.exists()
    assert "nothing to delete" in call("table", "vacuum", TABLE, project=many).out
    for text in ("1 hour", "soon"):
        assert call("table", "vacuum", TABLE, "--retain", text, project=many).code == 3


def test_expire_says_what_is_kept(own_orders):
    told = call("table", "expire", TABLE, "--dry-run", "--json", project=own_orders).json
    assert (told["retention_s"], told["files"]) == (730 * 86_400, 0)
    assert "for ever" in call("table", "expire", "gold.revenue_per_product", "--dry-run", project=own_orders).out


def test_checkpoint_shows_first_and_then_writes(own_orders):
    told = call("table", "checkpoint", TABLE, "--dry-run", "--json", project=own_orders).json
    assert told["last_checkpoint"] is None
    call("table", "checkpoint", TABLE, project=own_orders)
    assert (
        call("table", "checkpoint", TABLE, "--dry-run", "--json", project=own_orders).json["last_checkpoint"]
        is not None
    )
    assert len(agree(path(own_orders), ["order_id"])) > 1000


def test_status_shows_the_policy(own_orders):
    file = own_orders / "tables/silver/orders.yaml"
    file.write_text(
        file.read_text() + "\nmaintain: {z_order: [amount], target_file_size: 8 MB, log_retention: 2 days}\n"
    )
    shown = call("status", project=own_orders).out
    assert "upkeep of" in shown
    assert "8.0 MiB" in shown
    (silver,) = [t for t in call("status", "--json", project=own_orders).json["tables"] if t["table"] == TABLE]
    assert silver["maintenance"]["z_order"] == ["amount"]
    assert silver["maintenance"]["log_retention_s"] == 2 * 86_400
    assert silver["maintenance"]["quarantine_retention_s"] == 730 * 86_400
    assert "maintain.z_order" in call("plan", project=own_orders).out


def test_ctrl_c_ends_after_the_files_under_way(many):
    """The process is stopped in the middle of the first of many groups; every row is there afterwards."""
    before = agree(path(many), ["order_id"])
    script = (
        "import os, signal, sys\n"
        "from lodestream.lake import crash\n"
        "from lodestream.cli.root import main\n"
        "crash.install(lambda name: os.kill(os.getpid(), signal.SIGINT) if name == 'compact.staged' else None)\n"
        "main(sys.argv[1:])\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "-C",
        str(many),
        "table",
        "optimize",
        TABLE,
        "--target-size",
        "64 KB",
        "--json",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 130, ended.stderr
    assert "stopping after the files under way" in ended.stderr
    assert agree(path(many), ["order_id"]) == before
    assert json.loads(call("table", "optimize", TABLE, "--json", project=many).out)["rewritten"] >= 0
