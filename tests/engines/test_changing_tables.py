"""Tables of changes by hand: what is late, what sinks and lookups see, which files are written again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lodestream.engines.embedded.outputs import MergeOutput
from lodestream.lake.layout import table_path
from lodestream.model.table import TableName
from lodestream.query.keyed import KeyedReads
from lodestream.runtime.maintain import Maintenance, Upkeep
from tests.engines.lakes import Lab
from tests.engines.test_publish import Recorder, Service

CUSTOMERS, HISTORY = TableName("silver", "customers"), TableName("silver", "history")
ORDERS = TableName("silver", "orders")
DECLARED = """
from: stream(bronze.changes)
select: [id, tier, at]
changes: {{keys: [id], sequence_by: at, delete_when: op = 'd', type: {type}}}
{more}
"""


class Shop(Lab):
    """Changes of customers, kept as last values and as history."""

    def __init__(self, root: Path, more: str = "") -> None:
        super().__init__(root)
        self.sinks = "sink" in more
        self.table(
            "bronze.changes",
            "source: {files: {path: events, settle: 0}}\nformat: json\n"
            "columns: {op: string, id: bigint, tier: string, at: timestamp}\n",
        )
        self.table("silver.customers", DECLARED.format(type=1, more=more))
        self.table("silver.history", DECLARED.format(type=2, more=more))

    def changes(self, *rows: tuple[int, str | None, int]) -> None:
        """(id, tier or None for a deletion, minute)."""
        self.events([{"op": "u" if tier else "d", "id": key, "tier": tier, "at": minute(at)} for key, tier, at in rows])
        if self.sinks:
            self.fill()
        else:
            self.run()

    def fill(self) -> None:
        """Run the tables and no sink."""
        app = self.app()
        app.apply()
        for name in (TableName("bronze", "changes"), CUSTOMERS, HISTORY):
            flow = app.pipeline().flow(name)
            flow.open()
            while flow.step():
                pass
            flow.close()

    def last(self) -> list[tuple[int, str]]:
        return [(row["id"], row["tier"]) for row in self.rows("silver.customers", "id", "tier")]

    def spans(self) -> list[tuple[int, str, int, int | None]]:
        rows = self.rows("silver.history", "id", "tier", "valid_from", "valid_to")
        told = [(r["id"], r["tier"], r["valid_from"].minute, r["valid_to"] and r["valid_to"].minute) for r in rows]
        return sorted(told, key=lambda row: (row[0], row[2]))


def minute(at: int) -> str:
    return f"2024-01-01T00:{at:02}:00Z"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_out_of_order_changes_and_deletions(shop: Shop) -> None:
    shop.changes((1, "basic", 0), (1, "gold", 5), (2, None, 9))
    shop.changes((1, "silver", 3), (2, "basic", 8), (3, "basic", 1), (3, None, 2))
    assert shop.last() == [(1, "gold")]
    assert shop.spans() == [
        (1, "basic", 0, 3), (1, "silver", 3, 5), (1, "gold", 5, None), (2, "basic", 8, 9), (3, "basic", 1, 2),
    ]  # fmt: skip
    shop.changes((2, "back", 20))
    assert shop.last() == [(1, "gold"), (2, "back")]
    report = {str(r.table): r for r in shop.reconcile()}["silver.customers"]
    assert (report.input, report.counts["output"], report.counts["superseded"], report.counts["deleted"]) == (
        8,
        2,
        5,
        1,
    )


def test_what_is_no_change_is_quarantined(shop: Shop) -> None:
    shop.events([{"op": "u", "tier": "x"}, {"op": "u", "id": 1, "tier": "x"}, {"id": 1, "at": minute(1)}])
    shop.run()
    for name in ("silver.customers", "silver.history"):
        assert sorted(row["reasons"] for row in shop.quarantine(name)) == [["null_key:id", "null_sequence:at"],
                                                                          ["null_sequence:at"]]  # fmt: skip
    assert shop.last() == [(1, None)], "a condition that is NULL does not delete"
    shop.reconcile()


def test_a_change_behind_the_watermark_is_late_and_may_be_accepted(tmp_path: Path) -> None:
    shop = Shop(tmp_path, more="event_time: {column: at, delay: 5 minutes}")
    shop.changes((1, "basic", 0), (2, "basic", 0), (2, None, 1), (3, "now", 30))
    shop.changes((4, "now", 31))
    shop.changes((1, "late", 2), (2, "late", 0), (5, "late", 3), (2, "too", 2))
    assert shop.last() == [(1, "basic"), (3, "now"), (4, "now")]
    app = shop.app()
    state = app.pipeline().flow(CUSTOMERS)
    state.open()
    assert len(state.state.deletions.table) == 0, "the watermark has passed the deletion"
    state.close()
    late = [(row["_source"], row["_position"]) for row in shop.quarantine("silver.customers") if row["kind"] == "late"]
    assert len(late) == 4
    for name in (CUSTOMERS, HISTORY):
        app.replay(name, late, None, accept_late=True, mends={})
    assert shop.last() == [(1, "late"), (2, "too"), (3, "now"), (4, "now"), (5, "late")]
    assert shop.spans() == [
        (1, "basic", 0, 2), (1, "late", 2, None), (2, "late", 0, 1), (2, "too", 2, None), (3, "now", 30, None),
        (4, "now", 31, None), (5, "late", 3, None),
    ]  # fmt: skip
    shop.reconcile()


def test_accepting_a_late_change_forgets_no_deletion(tmp_path: Path) -> None:
    shop = Shop(tmp_path, more="event_time: {column: at, delay: 5 minutes}")
    shop.changes((1, "now", 30), (2, None, 29))
    shop.changes((1, "now", 31), (2, "late", 3))
    shop.changes((2, "late", 4))
    (late,) = [
        (row["_source"], row["_position"]) for row in shop.quarantine("silver.customers") if row["kind"] == "late"
    ]
    for name in (CUSTOMERS, HISTORY):
        shop.app().replay(name, [late], None, accept_late=True, mends={})
    assert shop.last() == [(1, "now")]
    shop.changes((2, "older", 28))
    assert shop.last() == [(1, "now")]
    assert [row for row in shop.spans() if row[0] == 2] == [(2, "late", 3, 4), (2, "late", 4, 28), (2, "older", 28, 29)]
    shop.reconcile()


def test_a_sink_is_told_the_net_changes_by_key(tmp_path: Path) -> None:
    shop = Shop(tmp_path, more="sink: {kafka: {topic: customers}}")
    service = Service()

    def publish(name: TableName) -> list[tuple[bool, int, str]]:
        app = shop.app()
        app.apply()
        (declared,) = app.flows[name].sinks
        flow = publishing(declared, app.pipeline().around)
        flow.open()
        while flow.step() is not None:
            pass
        flow.close()
        told, service.messages = service.messages, []
        return sorted((left, row["id"], row["tier"]) for _, _, left, row in told)

    def publishing(declared: object, around: object) -> object:
        from lodestream.engines.embedded.publish import SinkFlow

        return SinkFlow(declared, around, lambda _p, identity, _at: Recorder(service, identity))

    shop.changes((1, "basic", 0), (2, "basic", 0), (3, "basic", 0))
    assert publish(CUSTOMERS) == [(False, 1, "basic"), (False, 2, "basic"), (False, 3, "basic")]
    shop.changes((1, "gold", 1), (1, "silver", 2), (2, None, 3), (3, "older", 0))
    shop.changes((4, "basic", 3), (4, None, 4))
    assert publish(CUSTOMERS) == [(False, 1, "silver"), (False, 3, "older"), (True, 2, "basic")]
    service.position = None
    assert [told for told in publish(HISTORY) if told[1] == 1] == [
        (False, 1, "basic"), (False, 1, "gold"), (False, 1, "silver"),
    ]  # fmt: skip


def test_rows_are_found_by_key_in_every_version(shop: Shop, tmp_path: Path) -> None:
    reads = KeyedReads(str(tmp_path / "cache"))
    shop.changes(*((key, "basic", 0) for key in range(50)))
    table = shop.delta("silver.customers")

    def tier(key: int) -> list[str]:
        table.refresh()
        for _ in range(3):
            found = reads.find(table, table.snapshot, {"id": key}, ["tier"])
            if found is not None:
                return [row["tier"] for row in found.to_pylist()]
            assert reads.settle(60)
        raise AssertionError("the key is not read")

    try:
        assert [tier(key) for key in (3, 4, 99)] == [["basic"], ["basic"], []]
        shop.changes((3, "gold", 1), (4, None, 1), (99, "new", 1))
        assert [tier(key) for key in (3, 4, 99, 5)] == [["gold"], [], ["new"], ["basic"]]
    finally:
        reads.close()


def with_orders(shop: Shop, as_of: str = "as_of: at, ") -> None:
    table = "silver.history" if as_of else "silver.customers"
    shop.table(
        "bronze.orders",
        "source: {files: {path: orders, settle: 0}}\nformat: json\n"
        "columns: {order: bigint, who: bigint, at: timestamp}\n",
    )
    shop.table(
        "silver.orders",
        "from: stream(bronze.orders)\n"
        f"enrich: {{lookup: {{table: {table}, on: {{who: id}}, {as_of}columns: [tier]}}}}\n",
    )
    (shop.root / "orders").mkdir()


def order(shop: Shop, name: str, *rows: tuple[int, int | None, int | None]) -> None:
    lines = [
        f'{{"order": {number}, "who": {"null" if who is None else who}, '
        f'"at": {"null" if at is None else chr(34) + minute(at) + chr(34)}}}\n'
        for number, who, at in rows
    ]
    (shop.root / "orders" / f"{name}.jsonl").write_text("".join(lines))


def test_a_history_is_looked_up_as_of_a_moment(shop: Shop) -> None:
    with_orders(shop)
    shop.changes((1, "basic", 2), (1, "gold", 5), (1, None, 8), (1, "back", 9), (2, "other", 0))
    order(
        shop,
        "a",
        (1, 1, 1),
        (2, 1, 2),
        (3, 1, 4),
        (4, 1, 5),
        (5, 1, 8),
        (6, 1, 59),
        (7, 9, 5),
        (8, None, 5),
        (9, 1, None),
    )
    shop.run()
    tiers = {row["order"]: row["tier"] for row in shop.rows("silver.orders")}
    assert tiers == {1: None, 2: "basic", 3: "basic", 4: "gold", 5: None, 6: "back", 7: None, 8: None, 9: None}
    shop.reconcile()


def test_a_part_of_the_key_may_meet_two_rows_of_a_history(shop: Shop) -> None:
    """The spans of one key do not overlap; of two keys that agree in what is looked up they may."""
    with_orders(shop)
    shop.table("silver.history", DECLARED.format(type=2, more="").replace("keys: [id]", "keys: [id, tier]"))
    shop.changes((1, "basic", 2), (1, "gold", 5), (2, "other", 0))
    order(shop, "a", (1, 1, 1), (2, 1, 4), (3, 1, 5), (4, 2, 9))
    shop.run()
    assert {row["order"]: row["tier"] for row in shop.rows("silver.orders")} == {1: None, 2: "basic", 4: "other"}
    assert [row["reasons"] for row in shop.quarantine("silver.orders")] == [
        ["lookup_ambiguous", "lookup:silver.history"]
    ]
    shop.reconcile()


def test_a_plan_may_outlive_the_files_that_it_pins(shop: Shop) -> None:
    """A process dies after it planned; when another one goes on, the lookup's files of that version are deleted."""
    with_orders(shop, as_of="")
    shop.changes((1, "basic", 0), (2, "basic", 0))
    order(shop, "a", (1, 1, 1))
    shop.run(tables=["bronze.orders"])
    app = shop.app()
    flow = app.pipeline().flow(ORDERS)
    flow.open()
    flow.store.put_plan(flow._plan_next(idle=True))
    flow.close()
    shop.events([{"op": "u", "id": 1, "tier": "gold", "at": minute(3)}])
    shop.run(tables=["bronze.changes", "silver.customers"])
    table = shop.delta("silver.customers")
    around = app.pipeline().around
    Maintenance([CUSTOMERS], app.flows, around, Upkeep(hot_kept_ms=-1)).look()
    assert not any(os.path.exists(os.path.join(table.path, path)) for path in table.snapshot.tombstones)
    shop.run()
    assert [row["tier"] for row in shop.rows("silver.orders")] == ["gold"]
    shop.reconcile()


def test_only_files_whose_rows_change_are_written_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MergeOutput, "file_rows", 10)
    monkeypatch.setattr(MergeOutput, "small_files_max", 1_000)
    shop.changes(*((key, "basic", 0) for key in range(100)))
    before = {file.path for file in shop.delta("silver.customers").files()}
    assert len(before) == 10
    shop.changes((3, "gold", 1), (5, None, 1), (77, "old", -0))
    after = {file.path: file.num_records for file in shop.delta("silver.customers").files()}
    assert len(before - set(after)) == 2
    assert sum(after.values()) == 99
    log = Path(table_path(str(shop.root / "lake"), CUSTOMERS)) / "_delta_log"
    versions = len(list(log.glob("*.json")))
    shop.changes((3, "older", 0))
    assert len(shop.delta("silver.customers").files()) == len(after), "a change that loses writes nothing"
    assert len(list(log.glob("*.json"))) == versions + 1, "its position is committed"
    shop.reconcile()


def test_small_files_become_one_when_there_are_many(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MergeOutput, "small_files_max", 4)
    for key in range(12):
        shop.changes((key, "basic", key))
    assert len(shop.delta("silver.customers").files()) <= 5
    assert sorted(shop.last()) == [(key, "basic") for key in range(12)]
    shop.reconcile()
