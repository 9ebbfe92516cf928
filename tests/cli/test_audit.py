import shutil
import sqlite3

import pytest

from lodestream.app import open_project
from lodestream.ports.authority import Event
from tests.cli.conftest import call


@pytest.fixture
def audited(orders, tmp_path):
    """A project whose log has three records of somebody."""
    folder = shutil.copytree(orders, tmp_path / "shop")
    shutil.rmtree(folder / "lake/_lodestream/access", ignore_errors=True)  # what was asked in other tests
    log = open_project(str(folder)).audit
    log.record(Event("root", "cli", "cli", "grant", "allowed", ("gold.revenue",), detail={"to": "alice"}))
    log.record(Event("alice", "key:1", "rest", "query", "allowed", ("gold.revenue",), detail={"sql": "select 7"}))
    log.record(Event("bob", "key:2", "postgres", "query", "refused", ("silver.orders",)))
    log.close()
    return folder


def listed(project, *options):
    return [
        (one["principal"], one["action"]) for one in call("audit", "list", *options, "--json", project=project).lines
    ]


def test_the_log_is_listed(audited):
    assert listed(audited) == [("bob", "query"), ("alice", "query"), ("root", "grant"), ("lodestream", "begin")]
    assert listed(audited, "--principal", "bob") == [("bob", "query")]
    assert listed(audited, "--decision", "refused") == [("bob", "query")]
    assert listed(audited, "--action", "grant") == [("root", "grant")]
    assert listed(audited, "--table", "gold.revenue") == [("alice", "query"), ("root", "grant")]
    assert listed(audited, "-n", "1") == [("bob", "query")]
    assert len(listed(audited, "--since", "1 hour")) == 4
    assert listed(audited, "--since", "2100-01-01") == []
    shown = call("audit", "list", project=audited).out
    assert "gold.revenue" in shown
    assert "sql=select ?" in shown
    assert "7" not in shown.split("sql=")[1].splitlines()[0]


def test_wrong_options_are_told(audited):
    assert call("audit", "list", "--since", "soon", project=audited).code == 3
    assert call("audit", "list", "--decision", "perhaps", project=audited).code == 3
    assert call("audit", "verify", "--anchors", "nowhere", project=audited).code == 3


def test_a_whole_log_is_verified(audited):
    result = call("audit", "verify", project=audited)
    assert result.code == 0
    assert "4 records are as they were written" in result.out
    assert call("audit", "verify", "--json", project=audited).json["ok"] is True


def test_a_changed_record_is_named(audited):
    with sqlite3.connect(audited / "lake/_lodestream/access/catalog.db") as database:
        database.execute("DROP TRIGGER audit_log_kept")
        database.execute("UPDATE audit_log SET principal = 'nobody' WHERE seq = 4")
    database.close()
    result = call("audit", "verify", project=audited)
    assert result.code == 1
    assert "record 4 was changed" in result.out
    found = call("audit", "verify", "--json", project=audited)
    assert found.code == 1
    assert found.json["problems"][0] == {"seq": 4, "kind": "changed", "message": "record 4 was changed"}


def test_what_is_done_at_the_command_line_is_recorded(audited):
    made = call("keys", "create", "feed", "--scope", "ingest:orders", "--json", project=audited).json
    call("keys", "rotate", made["id"], project=audited)
    call("keys", "revoke", made["id"], project=audited)
    reason = call("quarantine", "list", "--json", project=audited).json["entries"]
    if reason:
        call("quarantine", "show", reason[0]["table"], "--json", project=audited)
    call("query", "select 1 as one from gold.revenue_per_minute where country = 'CANARY'", project=audited)
    call("table", "restore", "gold.revenue_per_product", "--version", "0", "--rewind", "--yes", project=audited)
    done = [action for _, action in listed(audited)]
    assert {"key", "rotate key", "revoke key", "query", "rewind"} <= set(done)
    assert not reason or "quarantine" in done
    told = call("audit", "list", "--json", project=audited).out
    assert made["key"].rpartition("_")[2] not in told
    assert "CANARY" not in told
    assert call("audit", "verify", project=audited).code == 0


def test_a_query_that_fails_on_a_row_leaves_no_value_behind(audited):
    """DuckDB's message names the value; whoever may see it is told, the log is not."""
    values = call("query", "select distinct country from gold.revenue_per_minute", "--json", project=audited).lines
    failed = call("query", "select cast(country as int) as n from gold.revenue_per_minute", project=audited)
    assert failed.code == 3
    named = [row["country"] for row in values if f"'{row['country']}'" in failed.err]
    assert named, failed.err
    told = call("audit", "list", "--json", project=audited).out
    assert "cast(country as int)" in told
    assert not [value for value in named if f"'{value}'" in told or f'"{value}"' in told]
