"""Stored columns follow declared ones: added, widened, renamed and dropped in commits of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable as DeltaRs

from lodestream.errors import ConfigError
from lodestream.planning.diff import accept_hash
from tests.engines.lakes import Lab, killed_at, points_of

BRONZE = """
source: {{files: {{path: events, settle: 0}}}}
format: json
columns: {columns}
"""
SILVER = """
from: stream(bronze.orders)
expect:
  small: {that: number < 1000, else: quarantine}
event_time: {column: at, delay: 1 minute}
dedup: {keys: [key]}
"""
PER_MINUTE = """
from: stream(silver.orders)
event_time: {column: at, delay: 1 minute}
window: {every: 1 minute}
measures: {orders: count(*)}
"""
BEFORE = "{key: string, number: int, share: float, price: 'decimal(8,2)', note: string, at: timestamp}"
AFTER = """
  key: string
  number: bigint
  share: double
  price: decimal(12,2)
  remark: {type: string, renamed_from: note}
  at: timestamp
  more: string
"""


def row(key: str, minute: int, number: int = 1, **other: Any) -> dict[str, Any]:
    stamp = f"2026-01-01T00:{minute:02}:00Z"
    named = {} if "remark" in other else {"note": f"n-{key}"}
    return {"key": key, "number": number, "share": 0.5, "price": "1.25", "at": stamp, **named, **other}


def shop(root: Path) -> Lab:
    lab = Lab(root)
    lab.table("bronze.orders", BRONZE.format(columns=BEFORE))
    lab.table("silver.orders", SILVER)
    lab.table("gold.per_minute", PER_MINUTE)
    lab.events([row("a", 0), row("b", 1, 2000), row("a", 1)])
    lab.run()
    lab.events([row("c", 2), row("d", 3, 3000)])
    lab.run()
    return lab


def changed(lab: Lab, columns: str = AFTER) -> None:
    lab.table("bronze.orders", BRONZE.format(columns=columns))


def kinds(lab: Lab) -> dict[str, str]:
    return {str(one.table): one.kind for one in lab.app().changes()}


def notes(lab: Lab, table: str, column: str = "remark") -> dict[str, Any]:
    return {one["key"]: one[column] for one in lab.rows(table, "key", column)}


def test_rows_follow_and_flows_go_on(tmp_path: Path) -> None:
    lab = shop(tmp_path)
    before = lab.delta("silver.orders").snapshot.version
    changed(lab)
    assert kinds(lab) == {"bronze.orders": "rewrite", "silver.orders": "rewrite"}
    told = [line for one in lab.app().changes() for line in one.lines]
    assert "column remark: renamed from note" in told
    assert "column number: int → bigint, stored rows are cast" in told
    lab.events([row("e", 4, 7_000_000_000, remark="n-e"), row("f", 5, remark="n-f"), row("c", 3, remark="again")])
    lab.run()
    assert notes(lab, "silver.orders") == {"a": "n-a", "c": "n-c", "f": "n-f"}
    for name in ("bronze.orders", "silver.orders"):
        metadata = lab.delta(name).snapshot.metadata
        assert metadata.configuration["lodestream.epoch"] == "1"
        assert "note" not in metadata.schema
        types = [str(metadata.schema[column].type) for column in ("number", "share", "price", "more")]
        assert types == ["bigint", "double", "decimal(12,2)", "string"]
    lab.reconcile()
    assert kinds(lab) == {}
    _read_alike(lab)
    with lab.app() as app:
        old = app.query.table if False else None
    assert old is None
    stored = lab.delta("silver.orders")
    then = stored.snapshot_at(before)
    assert "note" in then.metadata.schema
    read = stored.read(sorted(then.files.values(), key=lambda add: add.path), ["key", "note"], then.metadata.schema)
    assert read.to_pylist() == [{"key": "a", "note": "n-a"}, {"key": "c", "note": "n-c"}]


def _read_alike(lab: Lab) -> None:
    """delta-rs, Polars and DuckDB read what we read."""
    path = str(lab.root / "lake" / "bronze" / "orders")
    ours = sorted(lab.rows("bronze.orders", "key", "number", "remark"), key=repr)
    assert sorted(DeltaRs(path).to_pyarrow_table(columns=["key", "number", "remark"]).to_pylist(), key=repr) == ours
    assert sorted(pl.read_delta(path).select("key", "number", "remark").to_dicts(), key=repr) == ours
    files = DeltaRs(path).file_uris()
    found = duckdb.sql(f"SELECT key, number, remark FROM read_parquet({files!r})").to_arrow_table().to_pylist()
    assert sorted(found, key=repr) == ours


def test_rows_that_were_set_aside_are_taken_again_under_the_new_names(tmp_path: Path) -> None:
    lab = shop(tmp_path)
    changed(lab)
    lab.run()
    lab.table("silver.orders", SILVER.replace("1000", "10000"))
    with lab.app() as app:
        app.apply()
        from lodestream.model.table import TableName
        from lodestream.runtime.replaying import chosen, keys_of, standing, take_again

        name = TableName("silver", "orders")
        keys = keys_of(chosen(standing(app.disk, app.lake, name), None), None, accept_late=True)
        assert take_again(app.pipeline(), name, keys, accept_late=True).passed == 2
    assert notes(lab, "silver.orders") == {"a": "n-a", "b": "n-b", "c": "n-c", "d": "n-d"}
    lab.run()
    lab.reconcile()


def test_a_flow_that_is_behind_reads_older_commits_under_the_new_names(tmp_path: Path) -> None:
    lab = shop(tmp_path)
    lab.events([row("x", 6), row("y", 7)])
    lab.run(tables=["bronze.orders"])
    changed(lab)
    lab.run()
    assert notes(lab, "silver.orders") == {"a": "n-a", "c": "n-c", "x": "n-x", "y": "n-y"}
    lab.table("silver.copy", "from: stream(bronze.orders)\n")
    lab.run()
    assert notes(lab, "silver.copy")["a"] == "n-a"
    lab.reconcile()


def test_a_column_goes_only_when_that_is_accepted(tmp_path: Path) -> None:
    lab = shop(tmp_path)
    changed(lab, BEFORE.replace("note: string", "remark: string"))
    (bronze, silver) = lab.app().changes()
    assert bronze.must_be_accepted
    assert bronze.lines == ("column note: gone with what it holds, was string", "column remark: new, string")
    with pytest.raises(ConfigError, match="lose columns"):
        lab.run()
    assert "note" in lab.delta("bronze.orders").snapshot.metadata.schema
    lab.run(accept=accept_hash([bronze, silver]))
    assert set(notes(lab, "bronze.orders").values()) == {None}
    assert kinds(lab) == {}
    lab.reconcile()


@pytest.mark.parametrize(
    ("columns", "table"),
    [
        (BEFORE.replace("share: float", "share: string"), "bronze.orders"),
        (BEFORE.replace("number: int", "number: smallint"), "bronze.orders"),
        (BEFORE.replace("note: string", "must: {type: string, nullable: false}, note: string"), "bronze.orders"),
    ],
    ids=["other type", "narrower", "not null"],
)
def test_what_rows_cannot_follow_is_a_rebuild(tmp_path: Path, columns: str, table: str) -> None:
    lab = shop(tmp_path)
    changed(lab, columns)
    assert kinds(lab)[table] == "rebuild"


def test_killed_anywhere_the_next_run_goes_on(tmp_path: Path) -> None:
    lab = shop(tmp_path / "shop")
    lab.events([row("x", 6), row("y", 7)])
    lab.run(tables=["bronze.orders"])
    changed(lab)
    copy = tmp_path / "count"
    shutil.copytree(lab.root, copy)
    names = points_of(lambda: Lab.at(copy).app().apply())
    assert {"alter.file", "alter.done", "commit.linked", "commit.synced"} <= set(names)
    for step in range(0, len(names), 3):
        copy = tmp_path / f"killed-{step}"
        shutil.copytree(lab.root, copy)
        killed_at(step, lambda copy=copy: Lab.at(copy).app().apply())
        Lab.at(copy).run()
        assert notes(Lab.at(copy), "silver.orders") == {"a": "n-a", "c": "n-c", "x": "n-x", "y": "n-y"}, names[step]
        assert kinds(Lab.at(copy)) == {}
        Lab.at(copy).reconcile()
        shutil.rmtree(copy)
