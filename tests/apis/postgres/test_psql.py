"""psql itself: its meta-commands, \\copy, cancel by Ctrl-C, and what it shows of whom."""

import os
import signal
import subprocess
import time

import pytest

from tests.apis.postgres.lake import KINDS, ROWS
from tests.apis.postgres.packages import installed

pytestmark = pytest.mark.skipif(not installed("postgresql-client", "psql"), reason="psql cannot be had here")

COMMANDS = [
    rf"\{name}"
    for text in (
        "d dt dt+ dn dn+ du dg l l+ df df+ dv dm ds di dT dT+ dp dx db dO dC dD dL dA dE dF",
        "do dc dd dS det des dew deu drds dRp dRs dy dX dPt dAc dAf dconfig ddp z",
    )
    for name in text.split()
]


def environment(shop, user="dev"):
    told = shop.conninfo(user)
    return {
        "PATH": os.environ["PATH"], "PGHOST": told["host"], "PGPORT": str(told["port"]), "PGUSER": user,
        "PGPASSWORD": told["password"], "PGDATABASE": "shop", "PSQLRC": "/dev/null", "PAGER": "",
        "LC_ALL": "C.UTF-8",
    }  # fmt: skip


def psql(shop, *commands, user="dev", options=("-At",)):
    """What psql prints."""
    given = [part for command in commands for part in ("-c", command)]
    done = subprocess.run(
        ["psql", "-v", "ON_ERROR_STOP=1", *options, *given], env=environment(shop, user), capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_meta_command(shop, command):
    psql(shop, command)


def test_tables_are_listed(shop):
    told = psql(shop, r"\dt").splitlines()
    assert told == [f"{table.replace('.', '|')}|table|dev" for table in
                    ("bronze.secrets", "gold.kinds", "gold.orders", "silver.people")]  # fmt: skip
    assert psql(shop, r"\dt gold.*", r"\dt o*").splitlines() == [
        "gold|kinds|table|dev", "gold|orders|table|dev", "gold|orders|table|dev",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [r"\d gold.kinds", r"\d+ kinds"])
def test_a_table_is_described(shop, command):
    told = [line.split("|")[:2] for line in psql(shop, command).splitlines()]
    assert [line[0] for line in told if len(line) == 2][: len(KINDS)] == list(KINDS)
    assert ["money", "numeric(38,10)"] in told
    assert ["names", "text[]"] in told
    assert ["moment", "timestamp with time zone"] in told


def test_the_database_is_listed(shop):
    assert psql(shop, r"\l").startswith("shop|owner|UTF8") or psql(shop, r"\l").startswith("shop|dev|UTF8")


def test_copy_to_a_file(shop, tmp_path):
    psql(shop, rf"\copy (select id, customer from gold.orders order by id) to '{tmp_path}/out.csv' csv header")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert (len(lines), lines[:2]) == (ROWS + 1, ["id,customer", "1,customer 1"])


def test_rows_in_portions(shop):
    told = psql(shop, r"\set FETCH_COUNT 100", "select id from gold.orders order by id")
    assert [int(line) for line in told.split()] == list(range(1, ROWS + 1))


def test_describe_without_running(shop):
    given = r"select id, amount, count(*) over () from gold.orders \gdesc" + "\n"
    done = subprocess.run(
        ["psql", "-At"], input=given, env=environment(shop), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["id|bigint", "amount|numeric(12,2)", "count|bigint"]


def test_ctrl_c_ends_a_question(shop):
    slow = "select count(*) from range(1000000) a, range(1000000) b, range(1000) c"
    with subprocess.Popen(
        ["psql", "-c", slow], env=environment(shop), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(2)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert "canceling statement due to user request" in told
    assert time.monotonic() - begun < 30  # at once, but for a busy machine


def test_nobody_else_s_names_are_shown(shop):
    for command in (r"\d", r"\dt *.*", r"\dn", "select * from pg_class, pg_namespace", r"\d+"):
        told = psql(shop, command, user="alice")
        assert "secrets" not in told
        assert "people" not in told
        assert "kinds" not in told
    assert "gold|orders" in psql(shop, r"\dt", user="alice")
    assert psql(shop, r"\dn", user="carol") == ""


def test_what_is_said_of_tables_is_shown(shop):
    from lodestream.catalog import store
    from lodestream.catalog.entries import Entry
    from tests.apis.postgres.conftest import _EVENT

    with shop.app.catalog.changing(_EVENT) as (rows, at):
        for name, text in (("gold.orders", "what was bought"), ("gold.orders.amount", "in euros")):
            store.put(rows, Entry("comment", name, {"text": text}, who="root", at_us=at))
    for _ in range(100):
        if "in euros" in (told := psql(shop, r"\d+ gold.orders", r"\dt+ gold.orders")):
            break
        time.sleep(0.1)
    assert "in euros" in told
    assert "what was bought" in told
