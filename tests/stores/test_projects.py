"""A project whose lake is in an object store: killed, started again, and equal to the same one in a folder."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import deltalake
import pytest
from ruamel.yaml import YAML

from lodestream.app import open_project
from tests.cli.conftest import call
from tests.cli.test_serve import told_by
from tests.stores.conftest import on_azurite
from tests.stores.faults import FAULTS, proxied
from tests.stores.test_faults import behind

BRONZE = """
source: {files: {path: events, settle: 0}}
format: json
columns: {id: bigint, country: string, amount: 'decimal(10,2)', at: timestamp}
partition_by: [date(at)]
"""
SILVER = """
from: stream(bronze.orders)
expect: {has_country: {that: country is not null, else: quarantine}}
event_time: {column: at, delay: 30 seconds}
dedup: {keys: [id], within: 1 hour}
"""
GOLD = """
from: stream(silver.orders)
event_time: {column: at, delay: 30 seconds}
window: {every: 1 minute}
group_by: [country]
measures: {orders: count(*), revenue: sum(amount)}
"""
TABLES = {"bronze.orders": BRONZE, "silver.orders": SILVER, "gold.revenue": GOLD}
SORTS = {"bronze.orders": "_position", "silver.orders": "id", "gold.revenue": "window_start"}


def project(root: Path, lake: object, batches: int = 4) -> str:
    """A project in a folder of its own; the same events for everyone."""
    (root / "events").mkdir(parents=True)
    with open(root / "lodestream.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe").dump({"project": "shop", "lake": lake, "batch": {"rows_max": 50}}, file)
    for name, text in TABLES.items():
        layer, _, short = name.partition(".")
        (root / "tables" / layer).mkdir(parents=True)
        (root / "tables" / layer / f"{short}.yaml").write_text(text)
    draw = random.Random(7)
    for number in range(batches):
        lines = []
        for place in range(50):
            one = number * 40 + place
            at = f"2024-01-0{1 + one // 100}T00:{one % 60:02}:00Z"
            country = None if draw.random() < 0.1 else draw.choice(["de", "fr"])
            lines.append(json.dumps({"id": one, "country": country, "amount": f"{one}.25", "at": at}))
        (root / "events" / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    return str(root)


def run(root: str, step: int = 0) -> int:
    command = [sys.executable, "-m", "tests.stores.crashing", root, str(step)]
    folder = Path(__file__).parents[2]
    return subprocess.run(command, cwd=folder, timeout=120, check=False).returncode


def contents(lake: str, options: dict[str, str]):
    """Every table as delta-rs reads it, without what differs from run to run."""
    found = {}
    for name, order in SORTS.items():
        layer, _, short = name.partition(".")
        table = deltalake.DeltaTable(f"{lake}/{layer}/{short}", storage_options=options or None)
        rows = table.to_pyarrow_table()
        kept = [column for column in rows.column_names if column not in ("_batch", "_ingest_time", "_attempt")]
        by = [(one, "ascending") for one in dict.fromkeys([order, *kept[:2]])]
        found[name] = rows.select(kept).sort_by(by).to_pylist()
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    root = tmp_path_factory.mktemp("local")
    with open_project(project(root / "p", "lake")) as app:
        app.run()
    found = contents(str(root / "p" / "lake"), {})
    assert len(found["bronze.orders"]) == 200
    return found


def check(remote, root, expected):
    assert contents(remote.lake, remote.options) == expected
    silver = len(expected["silver.orders"])
    assert call("query", "select count(*) n from silver.orders", "--json", project=root).json == {"n": silver}
    status = {one["table"]: one for one in call("status", "--json", project=root).json["tables"]}
    assert {name: status[name]["rows"] for name in TABLES} == {name: len(rows) for name, rows in expected.items()}


def test_killed_again_and_again_it_ends_as_in_a_folder(remote, tmp_path, expected):
    root = project(tmp_path / "p", remote.declared)
    for step in (7, 31, 44):
        assert run(root, step) == -signal.SIGKILL
    assert run(root) == 0
    check(remote, root, expected)
    findings = call("doctor", "--json", project=root).json["findings"]
    assert [one for one in findings if one["level"] == "error"] == []
    assert "no writer can overwrite" in next(one["text"] for one in findings if one["check"] == "lake")
    assert sorted(path.name for path in Path(root).iterdir()) == [".lodestream", "events", "lodestream.yaml", "tables"]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_steps(remote, tmp_path, expected, seed):
    root, draw = project(tmp_path / "p", remote.declared), random.Random(seed)
    for _ in range(12):
        if run(root, draw.randrange(1, 60)) == 0:
            break
    assert run(root) == 0
    check(remote, root, expected)


def test_on_a_store_that_misbehaves_it_ends_the_same(remote, tmp_path, expected):
    """Every ninth request goes wrong, in turn in each way."""
    with proxied(remote.store["endpoint"]) as proxy:
        root = project(tmp_path / "p", behind(proxy, remote).declared)
        asked, faults = iter(range(10**9)), iter(FAULTS * 10**4)
        proxy.fault = lambda method, path: next(faults) if next(asked) % 9 == 8 else None
        with open_project(root) as app:
            app.run()
        assert set(proxy.done) == set(FAULTS)
    assert contents(remote.lake, remote.options) == expected


def test_it_is_served_over_http_and_takes_rows_in(azurite_url, tmp_path, expected):
    remote = on_azurite(azurite_url, tmp_path)
    root = project(tmp_path / "p", remote.declared)
    posted = "source: {http: {stream: posted}}\nformat: json\ncolumns: {id: bigint}\n"
    Path(root, "tables/bronze/posted.yaml").write_text(posted)
    assert run(root) == 0
    with told_by(root) as (told, _):

        def ask(path, body):
            headers = {"Authorization": f"Bearer {told['token']}", "Content-Type": "application/json"}
            with urlopen(Request(told["url"] + path, json.dumps(body).encode(), headers), timeout=60) as answer:
                return json.load(answer)

        answered = ask("/api/sql", {"sql": "select count(*) n from gold.revenue"})
        ask("/ingest/posted", [{"id": 1}, {"id": 2}])
    assert run(root) == 0
    assert call("query", "select sum(id) n from bronze.posted", "--json", project=root).json == {"n": 3}
    assert answered["rows"] == [[len(expected["gold.revenue"])]]
