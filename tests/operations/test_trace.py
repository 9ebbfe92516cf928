"""A row is followed to the bytes it came from, and a row that is not there is accounted for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lodestream.errors import ConfigError
from lodestream.lake import crash
from lodestream.lake.actions import RemoveFile
from lodestream.model.table import TableName
from lodestream.operations.trace import Trace, trace
from lodestream.version import VERSION
from tests.cli.conftest import call
from tests.engines.lakes import Lab

BRONZE = """
source: {files: {path: events, settle: 0 seconds}}
format: json
columns: {id: string, at: timestamp, kind: string, amount: "decimal(12,2)"}
keep_raw: true
"""
SILVER = """
from: stream(bronze.e)
derive: {share: 10 / amount, shop: upper(kind)}
expect:
  has_id: {that: id is not null, else: quarantine}
  not_ping: {that: kind <> 'ping', else: drop}
event_time: {column: at, delay: 30 seconds}
dedup: {keys: [id]}
enrich: {lookup: {table: silver.kinds, on: kind, columns: [title]}}
"""
FIRST = [
    {"id": "e1"}, {"id": "e1"}, {"id": None}, {"id": "e3", "kind": "ping"}, {"id": "e4", "amount": 0},
    '{"id": "torn-9', "",
    {"id": "e7", "at": "2024-01-01T01:00:00Z", "kind": "sale"},
]  # fmt: skip


def event(given: Any) -> Any:
    return given if isinstance(given, str) else {"at": "2024-01-01T00:00:01Z", "kind": "view", "amount": 5, **given}


def make(root: Path) -> Lab:
    lab = Lab(root / "p")
    (lab.root / "kinds").mkdir()
    (lab.root / "kinds/kinds.csv").write_text("kind,title\nview,A view\n")
    lab.table(
        "bronze.kinds",
        "source: {files: {path: kinds, settle: 0 seconds}}\nformat: csv\ncolumns: {kind: string, title: string}\n",
    )
    lab.table("silver.kinds", "from: stream(bronze.kinds)\n")
    lab.table("bronze.e", BRONZE)
    lab.table("silver.e", SILVER)
    lab.table("silver.loud", "from: stream(bronze.e)\nderive: {kind: upper(kind)}\n")
    lab.events([event(row) for row in FIRST])
    lab.run()
    return lab


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Has run; tests do not change it."""
    lab = make(tmp_path_factory.mktemp("trace"))
    lab.events([event({"id": "late"})])
    lab.run()
    return lab


@pytest.fixture
def lab(ran: Lab, tmp_path: Path) -> Lab:
    """A copy to be changed."""
    shutil.copytree(ran.root, tmp_path / "p")
    copy = Lab.__new__(Lab)
    copy.root, copy.files = tmp_path / "p", ran.files
    return copy


def ask(lab: Lab, table: str, key: str) -> Trace:
    told = trace(lab.app(), table, key)
    json.dumps(told.to_json())
    assert all("\n" not in line for line in told.lines())
    return told


def why(lab: Lab, table: str, key: str) -> str:
    told = ask(lab, table, key)
    assert not told.found
    assert told.absence is not None
    assert told.absence.message in "\n".join(told.lines())
    return told.absence.reason


def start_of(number: int) -> int:
    """Where the record `number` of the first file begins."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in map(event, FIRST)]
    return sum(len(line) + 1 for line in lines[:number])


def test_a_row_leads_to_its_batches_definitions_and_bytes(ran: Lab) -> None:
    told = ask(ran, "silver.e", "0000.jsonl:0")
    assert (told.found, told.kind, told.matches, told.absence) == (True, "rows", 1, None)
    silver, bronze = told.hops
    assert silver.row is not None
    assert (silver.table, silver.row["id"], silver.row["shop"], silver.row["title"]) == (
        "silver.e",
        "e1",
        "VIEW",
        "A view",
    )
    made = silver.written
    assert made is not None
    commit = next(c for c in ran.delta("silver.e").commits(-1) if c.version == made.version)
    assert (made.batch, made.epoch, made.kind, made.code) == (1, 1, "data", VERSION)
    assert (made.attempt, made.counts) == (commit.info["attempt"], commit.info["counts"])
    assert made.hash == ran.app().flows[TableName("silver", "e")].definition
    assert made.declaration["expect"][0] == ["has_id", "id IS NOT NULL", "quarantine"]
    assert (made.declared_at, made.changed_since) == ("tables/silver/e.yaml:2", False)
    assert ("share", "decimal(17,13)") in made.schema
    assert (bronze.table, bronze.written and bronze.written.version) == ("bronze.e", 1)
    record = told.record
    assert record is not None
    assert (record.path, record.size, record.state) == ("events/0000.jsonl", start_of(1), "there")
    assert json.loads(record.text or "") == event(FIRST[0])
    assert (record.agrees, record.unchanged) == (True, True)
    assert record.schema == (("id", "string"), ("at", "timestamp"), ("kind", "string"), ("amount", "decimal(12,2)"))


def test_a_row_tells_what_it_was_joined_with(ran: Lab) -> None:
    (found,) = ask(ran, "silver.e", "id=e1").hops[0].lookups
    assert (found.table, found.row) == ("silver.kinds", {"kind": "view", "title": "A view"})
    assert found.trace == "lodestream trace silver.kinds kinds.csv:11"
    (nothing,) = ask(ran, "silver.e", "id=e7").hops[0].lookups
    assert (nothing.on, nothing.row) == ({"kind": "sale"}, None)
    csv = ask(ran, "silver.kinds", "kinds.csv:11").record
    assert csv is not None
    assert (csv.text, csv.row) == ("view,A view", {"kind": "view", "title": "A view"})


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (1, "duplicate", "lodestream trace silver.e 0000.jsonl:0  # the row that stands for it"),
        (2, "quarantine", "rule has_id: id IS NOT NULL, else quarantine"),
        (3, "dropped", "rule not_ping"),
        (4, "quarantine", "derive:share:error"),
        (5, "quarantine", "parse:json"),
        (6, "blank", "is blank"),
    ],
)
def test_every_fate_of_a_row_is_told_with_what_to_type(ran: Lab, number: int, reason: str, words: str) -> None:
    key = f"0000.jsonl:{start_of(number)}"
    assert why(ran, "silver.e", key) == reason
    told = ask(ran, "silver.e", key)
    assert any(words in line for line in told.lines())
    assert told.hops[-1].table == "bronze.e"
    assert told.record is not None
    assert told.record.position == start_of(number)


def test_a_quarantined_row_says_how_to_take_it_again(ran: Lab) -> None:
    absence = ask(ran, "silver.e", f"0000.jsonl:{start_of(2)}").absence
    assert absence is not None
    (entry,) = absence.entries
    assert (entry.kind, entry.reasons, entry.rule, entry.batch, entry.state) == (
        "quarantine", ("expect:has_id",), "has_id", 1, "open",
    )  # fmt: skip
    assert entry.row is not None
    assert (entry.row["id"], entry.row["kind"]) == (None, "view")
    assert absence.next[0].startswith(f"lodestream quarantine replay silver.e --position 0000.jsonl:{start_of(2)}")
    late = ask(ran, "silver.e", "0001.jsonl:0").absence
    assert late is not None
    assert (late.reason, late.next) == (
        "late", ("lodestream quarantine replay silver.e --position 0001.jsonl:0 --accept-late",),
    )  # fmt: skip


def test_positions_that_are_no_records(ran: Lab) -> None:
    inside = ask(ran, "silver.e", f"0000.jsonl:{start_of(1) + 5}").absence
    assert inside is not None
    assert (inside.reason, inside.next) == ("inside_a_record", (f"lodestream trace silver.e 0000.jsonl:{start_of(1)}",))
    unknown = ask(ran, "silver.e", "0000.json:0").absence
    assert unknown is not None
    assert (unknown.reason, unknown.next) == ("unknown_unit", ("lodestream trace silver.e 0000.jsonl:0",))
    assert why(ran, "bronze.e", "0000.jsonl:100000") == "beyond_the_end"
    assert why(ran, "silver.kinds", "kinds.csv:3") == "head"
    assert why(ran, "silver.e", "../lodestream.yaml:0") == "unknown_unit"


def test_a_row_that_was_not_read_yet(lab: Lab) -> None:
    lab.events([event({"id": "new"})])
    assert why(lab, "silver.e", "0002.jsonl:0") == "not_read_yet"
    assert (ask(lab, "silver.e", "0002.jsonl:0").absence or 0).table == "bronze.e"  # type: ignore[union-attr]
    lab.run(tables=["bronze.e"])
    told = ask(lab, "silver.e", "0002.jsonl:0")
    assert told.absence is not None
    assert (told.absence.reason, told.absence.table) == ("not_read_yet", "silver.e")
    assert told.hops[1].row is not None
    assert why(lab, "silver.e", "id=new") == "not_read_yet"


def test_a_table_that_is_not_in_the_lake(lab: Lab) -> None:
    lab.table("silver.other", "from: stream(bronze.e)\n")
    assert why(lab, "silver.other", "0000.jsonl:0") == "not_in_lake"
    shutil.rmtree(lab.root / "lake")
    assert why(lab, "silver.e", "0000.jsonl:0") == "not_in_lake"


def test_a_batch_that_stopped_half_way(lab: Lab) -> None:
    lab.events([event({"id": None, "at": "2024-01-01T02:00:00Z"})])
    lab.run(tables=["bronze.e"])

    class StoppedError(Exception):
        pass

    def stop(name: str) -> None:
        if name == "quarantine.after":
            raise StoppedError

    flow = lab.app().pipeline().flow(TableName("silver", "e"))
    flow.open()
    crash.install(stop)
    try:
        with pytest.raises(StoppedError):
            flow.step()
    finally:
        crash.install(None)
        flow.close()
    told = ask(lab, "silver.e", "0002.jsonl:0").absence
    assert told is not None
    assert (told.reason, told.entries[0].state) == ("not_committed", "not committed")
    lab.run()
    assert why(lab, "silver.e", "0002.jsonl:0") == "quarantine"


def test_a_row_that_is_nowhere_is_called_by_its_name(lab: Lab) -> None:
    table = lab.delta("silver.e")
    table.commit(removes=[RemoveFile.of(add) for add in table.files()], clock_us=1)
    absence = ask(lab, "silver.e", "0000.jsonl:0").absence
    assert absence is not None
    assert (absence.reason, absence.next[0]) == ("unaccounted", "lodestream reconcile silver.e")
    table = lab.delta("bronze.e")
    table.commit(removes=[RemoveFile.of(add) for add in table.files()], clock_us=1)
    assert why(lab, "bronze.e", "0000.jsonl:0") == "unaccounted"


def test_a_replayed_row_keeps_its_history_and_the_rule_of_that_time(lab: Lab) -> None:
    position = start_of(2)
    lab.table("silver.e", SILVER.replace("id is not null", "kind is not null"))
    app = lab.run()
    gone = ask(lab, "silver.e", f"0000.jsonl:{position}").absence
    assert gone is not None
    assert gone.entries[0].that == (("has_id", "id IS NOT NULL", "quarantine"),)  # not the present rule
    flow = app.pipeline().flow(TableName("silver", "e"))
    flow.open()
    flow.submit_replay([("0000.jsonl", position)], accept_late=True)
    flow.close()
    told = ask(lab, "silver.e", f"0000.jsonl:{position}")
    assert told.found
    assert [(entry.kind, entry.state) for entry in told.hops[0].history] == [
        ("quarantine", "resolved"),
        ("resolved", "note"),
    ]
    made = told.hops[0].written
    assert made is not None
    assert (made.kind, made.changed_since) == ("replay", False)
    before = ask(lab, "silver.e", "0000.jsonl:0").hops[0].written
    assert before is not None
    assert before.changed_since
    assert before.declaration["expect"][0][1] == "id IS NOT NULL"


def test_a_rebuilt_table_names_its_epoch(lab: Lab) -> None:
    lab.table("silver.e", SILVER.replace("upper(kind)", "lower(kind)"))
    with pytest.raises(ConfigError) as refusal:
        lab.run()
    lab.run(accept=str(refusal.value).split("--accept ")[1].split("`")[0])
    made = ask(lab, "silver.e", "0000.jsonl:0").hops[0].written
    assert made is not None
    assert made.epoch == 2
    assert made.version is not None
    assert made.version > 3
    assert why(lab, "silver.e", f"0000.jsonl:{start_of(2)}") == "quarantine"


def test_a_source_file_that_changed_or_went(lab: Lab) -> None:
    path = lab.root / "events/0000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"e1"', b'"e2"', 1))
    record = ask(lab, "silver.e", "0000.jsonl:0").record
    assert record is not None
    assert (record.agrees, record.unchanged) == (False, False)
    path.unlink()
    told = ask(lab, "silver.e", "0000.jsonl:0")
    assert told.found
    assert told.record is not None
    assert (told.record.state, told.record.text) == ("gone", None)
    assert why(lab, "silver.e", "0000.jsonl:7") == "source_gone"


def test_a_commit_that_the_log_no_longer_has(lab: Lab) -> None:
    for _ in range(3):
        table = lab.delta("bronze.e")
        table.commit(clock_us=1_800_000_000_000_000)
        table.checkpoint(1_800_000_000_000_000)
    assert lab.delta("bronze.e").clean_log(keep_versions=1, needed_from=100) > 1
    told = ask(lab, "silver.e", "0000.jsonl:0")
    made = told.hops[1].written
    assert made is not None
    assert (made.version, made.kind, made.time is None) == (None, "data", False)
    assert "no longer has this commit" in made.notes[0]
    assert made.hash == lab.app().flows[TableName("bronze", "e")].definition
    assert told.record is not None
    assert told.record.unchanged


def test_a_key_that_finds_nothing_is_looked_for_in_quarantines_and_upstream(ran: Lab) -> None:
    assert why(ran, "silver.e", "id=e3") == "dropped"  # its row is upstream only
    assert why(ran, "silver.e", "id=e4") == "quarantine"
    assert why(ran, "silver.e", "id=null,kind=view") == "quarantine"
    torn = ask(ran, "silver.e", "id=torn-9")
    assert torn.absence is not None
    assert (torn.absence.table, torn.absence.entries[0].raw) == ("bronze.e", '{"id": "torn-9')
    assert why(ran, "silver.e", "id=torn") == "quarantine"
    assert why(ran, "silver.e", "id=tor") == "no_such_row"
    assert why(ran, "silver.e", "id=never") == "no_such_row"
    assert why(ran, "bronze.e", "id=never") == "no_such_row"
    made = ask(ran, "silver.e", "shop=NEVER").absence
    assert made is not None
    assert "makes shop itself" in made.message
    loud = ask(ran, "silver.loud", "kind=view").absence  # not the kind that its input has
    assert loud is not None
    assert "makes kind itself" in loud.message
    seventh = f"lodestream trace silver.e 0000.jsonl:{start_of(7)}  # has other values"
    assert ask(ran, "silver.e", "id=e7,shop=VIEW").others == (seventh,)
    both = ask(ran, "silver.e", "id=e1,shop=SALE")  # one of the two came out with another shop, one is a duplicate
    assert both.others == ("lodestream trace silver.e 0000.jsonl:0  # has other values",)
    assert both.absence is not None
    assert both.absence.reason == "duplicate"


def test_several_rows_with_a_key(ran: Lab) -> None:
    told = ask(ran, "bronze.e", "kind=view")
    assert (told.found, told.matches, len(told.others)) == (True, 5, 4)
    assert told.others[-1] == "lodestream trace bronze.e 0001.jsonl:0"


def test_wrong_tables_columns_and_keys_are_refused_with_the_nearest(ran: Lab) -> None:
    for table, key, words in (
        ("silver.f", "id=1", "nearest='silver.e'"),
        ("silver.e", "idd=1", "nearest='id'"),
        ("silver.e", "0000.jsonl", "SOURCE:POSITION"),
        ("silver.e", "at=yesterday", "2013-01-01T05:00:00Z"),
        ("silver.e", "amount=lots", "decimal(12,2)"),
    ):
        with pytest.raises(ConfigError, match=words.replace("(", r"\(").replace(")", r"\)")):
            trace(ran.app(), table, key)


def test_the_verb_prints_json_and_ends_with_a_code(ran: Lab) -> None:
    there = call("trace", "silver.e", "id=e1", "--json", project=ran.root)
    assert there.code == 0
    told = there.json
    assert set(told) == {
        "table", "key", "kind", "found", "matches", "hops", "windows", "query", "record", "absence", "others",
    }  # fmt: skip
    assert (told["found"], told["absence"], told["hops"][0]["row"]["amount"]) == (True, None, "5.00")
    assert told["hops"][1]["written"]["declaration"]["source"] == {"files": {"path": "events", "settle": "0 seconds"}}
    gone = call("trace", "silver.e", f"0000.jsonl:{start_of(2)}", "--json", project=ran.root)
    assert (gone.code, gone.json["absence"]["reason"]) == (1, "quarantine")
    shown = call("trace", "silver.e", f"0000.jsonl:{start_of(2)}", project=ran.root)
    assert shown.code == 1
    assert "next: lodestream quarantine replay silver.e" in shown.out
    for table, key in (("silver.nope", "id=e1"), ("silver.e", "nope=1"), ("silver.e", "nope")):
        assert call("trace", table, key, project=ran.root).code == 3
    assert "window_start=" in call("trace", "silver.e", "nope", project=ran.root).err


def test_control_characters_in_data_do_not_reach_the_terminal(lab: Lab) -> None:
    lab.events([event({"id": "\x1b[31mred\n", "at": "2024-01-01T02:00:00Z"})])
    lab.run()
    told = ask(lab, "silver.e", "0002.jsonl:0")
    assert told.found
    assert not any("\x1b" in line for line in told.lines())
    assert pc.any(pc.equal(lab.read("silver.e").column("id"), pa.scalar("\x1b[31mred\n"))).as_py()
