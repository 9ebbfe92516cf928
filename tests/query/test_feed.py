"""The change data feed tells exactly what each version changed, and delta-rs's own feed says the same of the rows."""

import datetime as dt
import json
from pathlib import Path

import pytest

from lodestream.errors import ConfigError, DataLossRefused
from lodestream.lake.compaction import everything, rewrite
from lodestream.model.table import TableName
from lodestream.query.changes import Changes
from lodestream.query.feed import feed
from lodestream.query.service import OWNER
from tests.cli.conftest import call
from tests.engines.lakes import Lab

BRONZE = (
    "source: {files: {path: events, settle: 0 seconds}}\nformat: json\n"
    "columns: {k: int, v: string, n: int, op: string}\n"
)
SILVER = "from: stream(bronze.e)\nchanges: {keys: [k], sequence_by: n, delete_when: op = 'd'}\n"
NAME = TableName("silver", "e")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", BRONZE)
    lab.table("silver.e", SILVER)
    batches = [
        [{"k": 1, "v": "a", "n": 1}, {"k": 2, "v": "b", "n": 1}],
        [{"k": 1, "v": "A", "n": 2}, {"k": 3, "v": "c", "n": 2}],
        [{"k": 2, "op": "d", "n": 3}],
        [{"k": 3, "v": "old", "n": 0}],
    ]
    for rows in batches:
        lab.events(rows)
        lab.run()
    return lab


def told(lab: Lab, first: int = 1, last: int | None = None, keys: tuple[str, ...] = ("k",), name: TableName = NAME):
    app = lab.app()
    changes = Changes(app.disk, app.lake, name)
    _, access = app.query.access(name, OWNER)
    found = []
    for rows in feed(changes, first, changes.newest() if last is None else last, access, ["k", "v"], keys):
        found += [(r["_commit_version"], r["_change_type"], r["k"], r["v"]) for r in rows.to_pylist()]
    return found


WANTED = [
    (1, "insert", 1, "a"), (1, "insert", 2, "b"),
    (2, "insert", 3, "c"), (2, "update_preimage", 1, "a"), (2, "update_postimage", 1, "A"),
    (3, "delete", 2, "b"),
]  # fmt: skip


def test_inserts_updates_and_deletes(lab):
    assert told(lab) == WANTED


def test_without_keys_an_update_is_a_delete_and_an_insert(lab):
    found = told(lab, keys=())
    assert [one for one in found if one[0] == 2] == [
        (2, "delete", 1, "a"), (2, "insert", 1, "A"), (2, "insert", 3, "c"),
    ]  # fmt: skip


def test_the_feed_replayed_gives_every_version(lab):
    """Applying the changes of versions 1..n to nothing gives the rows of version n."""
    table = lab.delta("silver.e")
    rows: list[tuple[int, str]] = []
    for version in range(1, table.snapshot.version + 1):
        for _, kind, k, v in told(lab, version, version):
            if kind in ("insert", "update_postimage"):
                rows.append((k, v))
            else:
                rows.remove((k, v))
        read = table.read(table.read_version(version), columns=["k", "v"]).to_pylist()
        assert sorted(rows) == sorted((row["k"], row["v"]) for row in read)


def test_compaction_is_no_change(lab):
    table = lab.delta("bronze.e")
    before = told(lab, name=TableName("bronze", "e"), keys=())
    (group,) = everything(table.snapshot.files.values(), target_bytes=1 << 20)
    assert rewrite(table, group, target_bytes=1 << 20, clock_us=lab.app().pipeline().around.clock())
    assert told(lab, name=TableName("bronze", "e"), keys=()) == before


def test_a_version_that_begins_anew_says_so(lab):
    assert call("table", "restore", "silver.e", "--version", "0", "--rewind", "--yes", project=lab.root).code == 0
    lab.run()
    with pytest.raises(ConfigError, match="as a whole"):
        told(lab)
    newest = lab.delta("silver.e").snapshot.version
    assert {one[1] for one in told(lab, newest)} <= {"insert"}


def test_a_gap_in_the_log_is_told(lab):
    lab.delta("silver.e").checkpoint()
    for version in (1, 2):
        (lab.root / f"lake/silver/e/_delta_log/{version:020d}.json").unlink()
    with pytest.raises(DataLossRefused):
        told(lab, 2, 2)


def test_the_verb(lab):
    found = call("table", "changes", "silver.e", "--from", "2", "--to", "2", "--json", project=lab.root).lines
    assert [(one["_change_type"], one["k"]) for one in found] == [
        ("insert", 3), ("update_preimage", 1), ("update_postimage", 1),
    ]  # fmt: skip
    assert "update_postimage" in call("table", "changes", "silver.e", project=lab.root).out
    assert call("table", "changes", "silver.e", "--to", "99", project=lab.root).code == 3


def test_time_travel_by_version_and_time(lab):
    """Every version is there at its own time and until the next one; before the first there is nothing."""
    log = sorted((lab.root / "lake/silver/e/_delta_log").glob("*.json"))
    times = [json.loads(file.read_text().splitlines()[0])["commitInfo"]["timestamp"] for file in log]
    newest = {time: version for version, time in enumerate(times)}
    for time, version in newest.items():
        stamp = dt.datetime.fromtimestamp(time / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        by_time = call("query", f"select * from silver.e at (timestamp => '{stamp}')", "--json", project=lab.root)
        by_version = call("query", f"select * from silver.e at (version => {version})", "--json", project=lab.root)
        as_of = call("query", "select * from silver.e", "--as-of", f"silver.e={stamp}", "--json", project=lab.root)
        assert by_time.lines == by_version.lines == as_of.lines, stamp
    for moment in ("'1999-01-01'", "timestamptz '1999-01-01 00:00:00+02'"):
        refused = call("query", f"select * from silver.e at (timestamp => {moment})", project=lab.root)
        assert (refused.code, "no version of the table at that time" in refused.err) == (3, True)
    for wrong in ("at (timestamp => 'soon')", "at (timestamp => now())", "at (version => 1 + 1)"):
        assert call("query", f"select * from silver.e {wrong}", project=lab.root).code == 3
