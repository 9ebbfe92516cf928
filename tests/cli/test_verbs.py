import csv
import io
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import ROWS, call, make_orders


def test_init_writes_a_project_that_runs(tmp_path):
    for template in ("basic", "orders"):
        folder = tmp_path / template
        result = call("init", str(folder), "--template", template, "--json")
        assert result.code == 0
        assert (folder / "lodestream.yaml").read_text().count(f"project: {template}") == 1
        assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(
            result.json["files"]
        )
        assert call("test", project=folder).code == 0
        assert call("plan", project=folder).code == 0


def test_the_basic_template_reads_its_files(tmp_path):
    call("init", str(tmp_path), "--template", "basic")
    for path in (tmp_path / "data/events").iterdir():
        os.utime(path, (1, 1))
    assert call("run", "--until-idle", project=tmp_path).code == 0
    assert call("query", "select count(*) n from silver.events", "--json", project=tmp_path).json == {"n": 3}
    assert call("reconcile", project=tmp_path).code == 0


def test_init_never_overwrites(tmp_path):
    (tmp_path / "lodestream.yaml").write_text("mine")
    result = call("init", str(tmp_path))
    assert result.code == 3
    assert "lodestream.yaml" in result.err
    assert (tmp_path / "lodestream.yaml").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [tmp_path / "lodestream.yaml"]


def test_plan_shows_changes_and_their_hash(own_orders, tmp_path):
    assert call("plan", "--json", project=own_orders).json["changes"] == []
    silver = own_orders / "tables/silver/orders.yaml"
    silver.write_text(silver.read_text().replace("amount / quantity", "amount / quantity * 2"))
    file = tmp_path / "plan.json"
    told = call("plan", "--json", "--out", str(file), project=own_orders).json
    change = next(one for one in told["changes"] if one["table"] == "silver.orders")
    assert (change["kind"], change["rebuild"]) == ("rebuild", True)
    assert any("→" in line for line in change["lines"])
    assert json.loads(file.read_text()) == told
    shown = call("plan", project=own_orders)
    assert f"lodestream run --accept {told['accept']}" in shown.out


def test_run_refuses_a_rebuild_that_nobody_accepted(own_orders, tmp_path):
    for name in ("revenue_per_minute", "revenue_per_product"):
        (own_orders / f"tables/gold/{name}.yaml").unlink()
    silver = own_orders / "tables/silver/orders.yaml"
    silver.write_text(silver.read_text().replace("amount / quantity", "amount / quantity * 2"))
    refused = call("run", "--until-idle", project=own_orders)
    assert refused.code == 3
    assert "--accept" in refused.err
    assert call("run", "--until-idle", "--accept", "000000000000", project=own_orders).code == 3
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    assert call("run", "--until-idle", "--plan", str(bad), project=own_orders).code == 3
    file = tmp_path / "plan.json"
    call("plan", "--out", str(file), project=own_orders)
    assert call("run", "--until-idle", "--plan", str(file), project=own_orders).code == 0
    doubled = "select count(*) n from silver.orders where abs(unit_price - amount / quantity * 2) > 0.01"
    assert call("query", doubled, "--json", project=own_orders).json == {"n": 0}
    assert call("reconcile", "silver.orders", project=own_orders).code == 0


def test_run_tells_each_batch_and_the_sum(tmp_path):
    folder = make_orders(tmp_path / "shop", 500)
    events = call("run", "--until-idle", "--json", project=folder).lines
    assert events[-1]["done"] is True
    counts = events[-1]["tables"]["bronze.orders"]["counts"]
    assert counts["input"] == 500
    batches = [event for event in events[:-1] if event["table"] == "bronze.orders"]
    assert sum(event["counts"]["input"] for event in batches) == 500
    again = call("run", "--until-idle", "--json", project=folder).lines[-1]
    assert again["tables"]["bronze.orders"]["batches"] == 0


def test_run_one_table_or_one_batch(tmp_path):
    folder = make_orders(tmp_path / "shop", 500)
    told = call("run", "--once", "--table", "bronze.orders", "--json", project=folder).lines[-1]
    assert list(told["tables"]) == ["bronze.orders"]
    assert told["tables"]["bronze.orders"]["batches"] == 1
    assert call("run", "--until-idle", "-t", "silver.orders", project=folder).code == 0
    unknown = call("run", "--once", "--table", "silver.ordres", project=folder)
    assert unknown.code == 3
    assert "nearest='silver.orders'" in unknown.err


def test_query_formats(orders, tmp_path):
    sql = "select product, orders, revenue from gold.revenue_per_product order by product limit 2"
    lines = call("query", sql, "--format", "json", project=orders).lines
    assert [line["product"] for line in lines] == ["chair", "clock"]
    assert isinstance(lines[0]["orders"], int)
    rows = list(csv.DictReader(io.StringIO(call("query", sql, "-f", "csv", project=orders).out)))
    assert [int(row["orders"]) for row in rows] == [line["orders"] for line in lines]
    file = tmp_path / "out.parquet"
    told = call("query", sql, "-f", "parquet", "-o", str(file), project=orders)
    assert (told.code, told.out) == (0, "")
    assert pq.read_table(file).column("product").to_pylist() == ["chair", "clock"]
    table = call("query", sql, project=orders)
    assert table.out.split("\n")[0].split() == ["product", "orders", "revenue"]
    assert "2 rows" in table.err


def test_query_reads_stdin_and_cuts(orders):
    result = call(
        "query", "-", "--max-rows", "5", "--json", project=orders, stdin="select _position from bronze.orders"
    )
    assert len(result.lines) == 5
    assert "cut after 5 rows" in result.err
    assert len(call("query", "from range(3)", "--max-rows", "3", "--json", project=orders).lines) == 3
    shown = call("query", "select * from range(2000)", project=orders)
    assert "cut after 1000 rows" in shown.err


def test_query_reads_older_versions(own_orders):
    before = call("query", "select count(*) n from silver.orders", "--json", project=own_orders).json["n"]
    versions = call("table", "history", "silver.orders", "--json", project=own_orders).lines
    assert versions[-1]["operation"] == "CREATE TABLE"
    sql = "select count(*) n from silver.orders"
    old = call("query", sql, "--as-of", "silver.orders=0", "--json", project=own_orders).json["n"]
    assert (old, before > 0) == (0, True)
    assert call("query", sql, "--as-of", "silver.orders", project=own_orders).code == 3


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("selec 1", 3),
        ("select * from silver.nope", 3),
        ("select nope from silver.orders", 3),
        ("delete from silver.orders", 8),
        ("with x as (copy (select 1) to 'x.csv') select 1", 8),
        ("select * from read_csv('/etc/passwd')", 8),
        ("select getenv('HOME')", 8),
    ],
)
def test_query_refuses(orders, sql, code):
    result = call("query", sql, project=orders)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error: ")


def test_output_that_cannot_be_written(orders):
    assert call("query", "select 1", "-o", "/nowhere/x.csv", project=orders).code == 3


def test_control_characters_do_not_reach_the_terminal(orders):
    shown = call("query", "select 'a' || chr(27) || '[31m' || chr(10) || 'b' as x", project=orders)
    assert "\x1b" not in shown.out
    assert r"a\x1b[31m\nb" in shown.out


def test_tail_shows_the_newest(orders):
    rows = call("tail", "bronze.orders", "-n", "3", "--json", project=orders).lines
    newest = ROWS - 1
    assert len(rows) == 3
    assert rows[-1]["_position"] == newest
    text = call("tail", "silver.orders__quarantine", "-n", "2", project=orders).out.splitlines()
    assert len(text) == 3
    assert call("tail", "silver.nope", project=orders).code == 3


def test_status_tells_every_table(orders):
    tables = {one["table"]: one for one in call("status", "--json", project=orders).json["tables"]}
    assert list(tables) == ["bronze.orders", "silver.orders", "gold.revenue_per_minute", "gold.revenue_per_product"]
    bronze, silver = tables["bronze.orders"], tables["silver.orders"]
    assert bronze["counts"]["input"] == ROWS
    assert bronze["rows"] == bronze["counts"]["output"]
    assert silver["counts"]["input"] == bronze["rows"]
    fates = ("output", "quarantine", "late", "duplicate", "dropped")
    assert sum(silver["counts"].get(fate, 0) for fate in fates) == silver["counts"]["input"]
    assert silver["freshness_s"] > 0
    assert silver["watermark"].startswith("2023-12-31T23:59") or silver["watermark"].startswith("2024-01-01")
    assert all(one["error"] is None and one["pending"] is None for one in tables.values())
    assert "bronze.orders" in call("status", project=orders).out


def test_status_works_before_the_first_run_and_with_mistakes(tmp_path):
    folder = make_orders(tmp_path / "shop")
    told = call("status", "--json", project=folder).json
    assert [one["exists"] for one in told["tables"]] == [False] * 4
    assert {one["pending"] for one in told["tables"]} == {"create"}
    (folder / "tables/silver/orders.yaml").write_text("from: stream(bronze.nope)\n")
    told = call("status", "--json", project=folder)
    assert told.code == 0
    assert told.json["mistakes"] >= 1


def test_explain_shows_steps_and_lineage(orders):
    told = call("explain", "gold.revenue_per_minute", "--json", project=orders).json
    assert told["reads"] == ["silver.orders"]
    assert told["columns"]["revenue"]["origins"] == ["bronze.orders.amount"]
    assert any("windows of 1 minute" in step for step in told["steps"])
    assert "revenue = sum(amount)" in call("explain", "gold.revenue_per_minute", project=orders).out


def test_reconcile_proves_and_ends_with_1_when_a_row_is_missing(own_orders):
    told = call("reconcile", "--json", project=own_orders)
    assert (told.code, told.json["reconciled"]) == (0, True)
    quarantine = own_orders / "lake/silver/orders__quarantine/_delta_log"
    for commit in sorted(quarantine.glob("*.json"))[1:]:
        commit.unlink()
    told = call("reconcile", "silver.orders", "--json", project=own_orders)
    assert (told.code, told.json["reconciled"]) == (1, False)
    assert told.json["tables"][0]["problems"]


def test_quarantine_is_listed_shown_and_replayed(own_orders):
    entries = call("quarantine", "list", "--json", project=own_orders).json["entries"]
    count = {(one["table"], one["reason"]): one["count"] for one in entries}
    small, torn = count["silver.orders", "expect:small_enough"], count["bronze.orders", "parse:json"]
    shown = call("quarantine", "show", "silver.orders", "--json", "-n", "0", project=own_orders).lines
    assert len(shown) == small
    assert json.loads(shown[0]["row"])["order_id"]
    raw = call("quarantine", "show", "bronze.orders", "--reason", "parse:json", "--json", "-n", "0", project=own_orders)
    assert len(raw.lines) == torn
    assert raw.lines[0]["raw"].startswith("{")
    silver = own_orders / "tables/silver/orders.yaml"
    silver.write_text(silver.read_text().replace("amount < 990", "amount < 5000"))
    replay = ("quarantine", "replay", "silver.orders", "--reason", "expect:small_enough", "--json")
    assert call(*replay, "--dry-run", project=own_orders).json["chosen"] == small
    early = call(*replay, project=own_orders)
    assert early.code == 3
    assert "lodestream run" in early.err
    call("run", "--until-idle", project=own_orders)
    told = call(*replay, project=own_orders).json
    assert told["replayed"] == small
    late = told["counts"].get("late", 0)
    assert told["counts"].get("output", 0) + told["counts"].get("duplicate", 0) + late == small
    again = call(*replay, project=own_orders)
    assert again.code == 3
    if late:
        more = call("quarantine", "replay", "silver.orders", "--all", "--json", project=own_orders)
        assert more.code == 3
        assert "--accept-late" in more.err
        taken = ("quarantine", "replay", "silver.orders", "--all", "--accept-late", "--json")
        assert call(*taken, project=own_orders).json["replayed"] >= late
    assert call("reconcile", "silver.orders", project=own_orders).code == 0


def test_one_position_is_replayed(own_orders):
    first = call("quarantine", "show", "silver.orders", "--json", "-n", "1", project=own_orders).lines[0]
    where = f"{first['_source']}:{first['_position']}"
    told = call("quarantine", "replay", "silver.orders", "-p", where, "--dry-run", "--json", project=own_orders).json
    assert told["chosen"] == 1
    assert call("quarantine", "replay", "silver.orders", project=own_orders).code == 3
    assert call("quarantine", "replay", "silver.orders", "-p", "nonsense", project=own_orders).code == 3
    assert call("quarantine", "replay", "silver.orders", "-p", "nowhere:1", project=own_orders).code == 3


def test_restore_explains_itself_and_begins_again(own_orders):
    for name in ("revenue_per_minute", "revenue_per_product"):
        (own_orders / f"tables/gold/{name}.yaml").unlink()
    count = "select count(*) n from silver.orders"
    before = call("query", count, "--json", project=own_orders).json
    refused = call("table", "restore", "silver.orders", "--version", "1", project=own_orders)
    assert refused.code == 5
    assert "--rewind" in refused.err
    assert call("table", "restore", "silver.orders", "--version", "99", "--rewind", "-y", project=own_orders).code == 3
    unasked = call("table", "restore", "silver.orders", "--version", "1", "--rewind", project=own_orders)
    assert unasked.code == 3
    dry = call(
        "table", "restore", "silver.orders", "--version", "1", "--rewind", "--dry-run", "--json", project=own_orders
    )
    assert dry.json == {"restored": [], "would": ["silver.orders"]}
    assert call("query", count, "--json", project=own_orders).json == before
    done = call(
        "table", "restore", "silver.orders", "--version", "1", "--rewind", "--yes", "--json", project=own_orders
    )
    assert done.json["restored"] == ["silver.orders"]
    assert call("query", count, "--json", project=own_orders).json == {"n": 0}
    assert call("run", "--until-idle", project=own_orders).code == 0
    assert call("query", count, "--json", project=own_orders).json == before
    assert call("reconcile", "silver.orders", project=own_orders).code == 0


def test_trace_walks_to_the_source_or_says_why_not(orders):
    row = call("tail", "silver.orders", "-n", "1", "--json", project=orders).lines[0]
    told = call("trace", "silver.orders", f"{row['_source']}:{row['_position']}", "--json", project=orders)
    assert (told.code, told.json["found"]) == (0, True)
    assert [hop["table"] for hop in told.json["hops"]] == ["silver.orders", "bronze.orders"]
    by_key = call("trace", "silver.orders", f"order_id={row['order_id']}", project=orders)
    assert by_key.code == 0
    assert f"{row['_source']}:{row['_position']}" in by_key.out
    aside = call("quarantine", "show", "silver.orders", "--json", "-n", "1", project=orders).lines[0]
    why = call("trace", "silver.orders", f"{aside['_source']}:{aside['_position']}", project=orders)
    assert why.code == 1
    assert aside["reasons"][0] in why.out
    assert call("trace", "silver.orders", "nope=1", project=orders).code == 3


def test_test_shows_what_differs(own_orders):
    file = own_orders / "tests/silver_orders.yaml"
    file.write_text(file.read_text().replace("{order_id: b, big: true", "{order_id: b, big: false"))
    result = call("test", project=own_orders)
    assert result.code == 1
    assert "FAIL  tests/silver_orders.yaml" in result.out
    assert "- row is missing: {order_id: b, big: False" in result.out
    told = call("test", "--json", "-k", "comes twice", project=own_orders).lines
    assert [one["ok"] for one in told] == [False]
    assert call("test", "tests/nope.yaml", project=own_orders).code == 3


def test_schema_accepts_the_templates():
    schema = call("schema").json
    assert schema["properties"].keys() >= {"source", "from", "sql", "expect", "window", "measures"}
    assert "path" in json.dumps(schema["properties"]["source"])
    for key, told in schema["properties"].items():
        assert told, f"{key} is not described"


def test_schema_goes_to_a_file(tmp_path):
    file = tmp_path / "schema.json"
    assert call("schema", "--out", str(file)).out == ""
    assert json.loads(file.read_text())["title"] == "A Lodestream table"


def _break(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_doctor_finds_nothing_where_nothing_is_wrong(orders):
    told = call("doctor", "--json", project=orders)
    assert (told.code, told.json["ok"]) == (0, True)
    assert {one["level"] for one in told.json["findings"]} <= {"ok", "note"}
    assert "native kernels" in [one["check"] for one in told.json["findings"]]
    assert call("version", "--json").json["native"] in told.json["findings"][0]["text"]


@pytest.mark.parametrize("tail", [b"", b'{"commitInfo": {'], ids=["empty", "torn"])
def test_doctor_repairs_a_broken_last_commit(own_orders, tail):
    log = own_orders / "lake/silver/orders/_delta_log"
    newest = max(log.glob("*.json"))
    _break(log / f"{int(newest.stem) + 1:020d}.json", tail)
    assert call("query", "select 1 from silver.orders", project=own_orders).code == 6
    assert call("status", project=own_orders).code == 0
    found = call("doctor", "--json", project=own_orders)
    assert found.code == 1
    assert any(one["check"] == "silver.orders" and one["level"] == "error" for one in found.json["findings"])
    mended = call("doctor", "--repair", "--json", project=own_orders)
    assert mended.code == 0, mended.out
    assert any(one["level"] == "repaired" for one in mended.json["findings"])
    assert call("run", "--until-idle", project=own_orders).code == 0
    assert call("reconcile", "silver.orders", project=own_orders).code == 0


def test_doctor_names_lost_files_and_state(own_orders):
    data = next((own_orders / "lake/silver/orders").glob("*.parquet"))
    data.unlink()
    next((own_orders / "lake/silver/orders__quarantine").glob("*.parquet")).unlink()
    for state in (own_orders / "lake/_lodestream/flows/gold.revenue_per_minute/1/state").iterdir():
        state.unlink()
    found = call("doctor", "--json", project=own_orders)
    assert found.code == 1
    bad = {one["check"]: one for one in found.json["findings"] if one["level"] == "error"}
    assert "missing" in bad["silver.orders"]["text"]
    assert "missing" in bad["silver.orders__quarantine"]["text"]
    assert "state" in bad["gold.revenue_per_minute"]["text"]
    assert call("reconcile", "silver.orders", project=own_orders).code == 6
    assert call("run", "--until-idle", project=own_orders).code == 6
    # what the findings say to type brings all of it back
    assert "table restore silver.orders --version 0 --rewind" in bad["silver.orders"]["fix"]
    assert "table restore silver.orders --version 0 --rewind" in bad["silver.orders__quarantine"]["fix"]
    assert "table restore gold.revenue_per_minute --version 0" in bad["gold.revenue_per_minute"]["fix"]
    again = call("table", "restore", "silver.orders", "--version", "0", "--rewind", "--yes", project=own_orders)
    assert again.code == 0
    assert call("run", "--until-idle", project=own_orders).code == 0
    assert call("doctor", project=own_orders).code == 0
    assert call("reconcile", project=own_orders).code == 0


def test_doctor_tells_mistakes_of_the_declarations(own_orders):
    silver = own_orders / "tables/silver/orders.yaml"
    silver.write_text(silver.read_text() + "bogus: 1\n")
    found = call("doctor", "--json", project=own_orders)
    assert found.code == 1
    assert any("bogus" in one["text"] for one in found.json["findings"] if one["check"] == "declarations")


def test_doctor_looks_at_saved_queries(own_orders):
    folder = own_orders / "queries"
    folder.mkdir()
    (folder / "good.sql").write_text("-- parameters: {id: bigint}\nselect * from silver.orders where id = $id\n")
    told = call("doctor", "--json", project=own_orders)
    assert {"level": "ok", "check": "queries", "text": "1 saved", "fix": "", "code": ""} in told.json["findings"]
    (folder / "bad.sql").write_text("-- titel: x\nselect 1\n")
    (folder / "worse.sql").write_text("drop table x\n")
    told = call("doctor", "--json", project=own_orders)
    assert told.code == 1
    texts = [one["text"] for one in told.json["findings"] if one["check"] == "queries"]
    assert texts[0].startswith("queries/bad.sql:1")
    assert texts[1].startswith("queries/worse.sql: ")


def test_doctor_looks_at_dashboards(own_orders):
    folder = own_orders / "dashboards"
    folder.mkdir()
    panel = "- {{title: {0}, kind: number, sql: {1}}}\n"
    good = panel.format("Good", "select count(*) from silver.orders")
    (folder / "good.yaml").write_text(f"title: Good\npanels:\n{good}")
    told = call("doctor", "--json", project=own_orders)
    assert told.code == 0
    assert {"level": "ok", "check": "dashboards", "text": "1 with 1 queries", "fix": "", "code": ""} in told.json[
        "findings"
    ]
    (folder / "bad.yaml").write_text("title: Bad\n")
    lost = panel.format("Lost", "select * from gold.nothing") + panel.format("Wrong", "selct 1")
    (folder / "good.yaml").write_text(f"title: Good\npanels:\n{good}{lost}")
    told = call("doctor", "--json", project=own_orders)
    assert told.code == 1
    texts = [one["text"] for one in told.json["findings"] if one["check"] == "dashboards"]
    assert texts[0].startswith("dashboards/bad.yaml:1")
    assert texts[1] == "dashboards/good.yaml, Lost: no such table: gold.nothing"
    assert texts[2].startswith("dashboards/good.yaml, Wrong: ")
