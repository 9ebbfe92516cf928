"""Every kind of damage to a lake: what doctor says of it, and what --repair brings back."""

import json
import os
import random

import pytest

from lodestream.lake.actions import add_json
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.project.codes import CODES
from tests.cli.conftest import call

BRONZE, SILVER, GOLD = "bronze.orders", "silver.orders", "gold.revenue_per_minute"


def log(project, table=SILVER):
    return project / "lake" / table.replace(".", "/") / "_delta_log"


def next_commit(project, table=SILVER):
    return log(project, table) / f"{int(max(log(project, table).glob('*.json')).stem) + 1:020d}.json"


def rows(project, table=SILVER) -> list[str]:
    found = call("query", f"select * from {table}", "--json", project=project)
    assert found.code == 0, found.err
    return sorted(repr({k: v for k, v in row.items() if k not in ("_batch", "_ingest_time")}) for row in found.lines)


def checkpointed(project):
    assert call("table", "checkpoint", SILVER, project=project).code == 0
    return max(log(project).glob("*.checkpoint.parquet"))


def empty_tail(project):
    next_commit(project).write_bytes(b"")


def torn_tail(project):
    next_commit(project).write_bytes(b'{"commitInfo": {"timest')


def damaged_checkpoint(project):
    path = checkpointed(project)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def dangling_hint(project):
    (log(project) / "_last_checkpoint").write_text('{"version": 99, "size": 1}')


def stale_garbage_hint(project):
    checkpointed(project)
    (log(project) / "_last_checkpoint").write_text("garbage")


def lost_files(project):
    for file in (project / "lake/silver/orders").glob("*.parquet"):
        file.unlink()


def cut_file(project):
    file = next((project / "lake/bronze/orders").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])


def lost_state(project):
    for file in (project / f"lake/_lodestream/flows/{GOLD}/1/state").iterdir():
        file.unlink()


HEALED = {
    "empty tail": (empty_tail, "L201"), "torn tail": (torn_tail, "L201"),
    "damaged checkpoint": (damaged_checkpoint, "L202"), "dangling hint": (dangling_hint, "L203"),
    "garbage hint": (stale_garbage_hint, "L203"), "lost files": (lost_files, "L301"),
    "cut file": (cut_file, "L301"), "lost state": (lost_state, "L401"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEALED)
def test_damage_is_named_and_mended(own_orders, kind):
    before = {table: rows(own_orders, table) for table in (SILVER, GOLD)}
    damage, code = HEALED[kind]
    damage(own_orders)
    found = call("doctor", "--json", project=own_orders)
    bad = [one for one in found.json["findings"] if one["level"] == "error"]
    assert found.code == 1
    assert code in {one["code"] for one in bad}
    assert all(one["fix"] for one in bad)
    assert f"[{code}]" in call("doctor", project=own_orders).out
    mended = call("doctor", "--repair", "--json", project=own_orders)
    assert mended.code == 0, mended.out
    assert any(one["level"] == "repaired" for one in mended.json["findings"])
    assert call("run", "--until-idle", project=own_orders).code == 0
    assert call("doctor", project=own_orders).code == 0
    assert call("reconcile", project=own_orders).code == 0
    assert {table: rows(own_orders, table) for table in (SILVER, GOLD)} == before


@pytest.mark.parametrize("damage", [damaged_checkpoint, dangling_hint, stale_garbage_hint])
def test_reads_fall_back_where_the_commits_have_it_all(own_orders, damage):
    before = rows(own_orders)
    damage(own_orders)
    assert rows(own_orders) == before


def test_a_table_whose_input_is_not_whole_is_left_alone(own_orders):
    """Bronze is expired, so silver's rows are nowhere else: what is left of them must not be thrown away."""
    bronze = DeltaTable.open(LocalDisk(), str(own_orders / "lake/bronze/orders"))
    bronze.commit(removes=bronze.files(), txn=("lodestream/bronze.orders/1/retention", 2995), clock_us=1,
                  operation="RETENTION")  # fmt: skip
    cut = next((own_orders / "lake/silver/orders").glob("*.parquet"))
    cut.write_bytes(cut.read_bytes()[:-100])
    version = len(list(log(own_orders).glob("*.json")))
    found = call("doctor", "--repair", "--json", project=own_orders)
    assert found.code == 1
    (bad,) = [one for one in found.json["findings"] if one["level"] == "error"]
    assert (bad["code"], "has let rows go" in bad["text"]) == ("L301", True)
    assert len(list(log(own_orders).glob("*.json"))) == version


def foreign(project, *actions):
    next_commit(project).write_text("".join(json.dumps(action) + "\n" for action in actions))


VECTOR = {"storageType": "u", "pathOrInlineDv": "x", "sizeInBytes": 1, "cardinality": 1}
FEATURES = {
    "protocol": {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"],
                              "writerFeatures": ["deletionVectors"]}},
    "vector": {"add": {"path": "x", "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True,
                       "deletionVector": VECTOR}},
}  # fmt: skip


@pytest.mark.parametrize("kind", FEATURES)
def test_features_of_a_foreign_writer_are_named(own_orders, kind):
    newest = int(max(log(own_orders).glob("*.json")).stem)
    foreign(own_orders, FEATURES[kind])
    for options in ([], ["--repair"]):
        found = call("doctor", "--json", *options, project=own_orders)
        (bad,) = [one for one in found.json["findings"] if one["check"] == SILVER and one["level"] == "error"]
        assert (found.code, bad["code"]) == (1, "L205")
        assert "DROP FEATURE" in bad["fix"]
    assert next_commit(own_orders).stem == f"{newest + 2:020d}", "the foreign commit is left where it is"


def test_a_path_out_of_the_table_is_named(own_orders):
    table = DeltaTable.open(LocalDisk(), str(own_orders / "lake/silver/orders"))
    foreign(own_orders, {"add": {**add_json(table.files()[0]), "path": "../../bronze/x.parquet"}})
    found = call("doctor", "--repair", "--json", project=own_orders)
    bad = [one for one in found.json["findings"] if one["level"] == "error" and one["check"] == SILVER]
    assert [one["code"] for one in bad][-1] == "L206"
    assert call("query", "select 1 from silver.orders", project=own_orders).code == 6


def test_a_hole_in_the_log_is_named(own_orders):
    (log(own_orders) / f"{1:020d}.json").unlink()
    found = call("doctor", "--repair", "--json", project=own_orders)
    assert found.code == 1
    assert "L204" in {one["code"] for one in found.json["findings"]}


def test_leftovers_are_counted(own_orders):
    path = own_orders / "lake/silver/orders/part-0-left-0.snappy.parquet"
    path.write_bytes(b"x")
    os.utime(path, (0, 0))
    found = call("doctor", "--json", project=own_orders)
    assert (found.code, [one["code"] for one in found.json["findings"] if one["code"]]) == (0, ["L302"])


def test_a_random_checkpoint_flip_never_gives_other_rows(own_orders):
    """What the reader makes of it is in tests/lake; here the whole way of a query."""
    before = rows(own_orders)
    path = checkpointed(own_orders)
    data = path.read_bytes()
    chosen = random.Random(3)
    for _ in range(5):
        flipped = bytearray(data)
        flipped[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        assert rows(own_orders) == before


def test_codes_of_lakes_are_documented():
    known = "L101 L102 L201 L202 L203 L204 L205 L206 L301 L302 L401 L402 L501 L502"
    assert {*known.split()} == {code for code in CODES if code.startswith("L")}
