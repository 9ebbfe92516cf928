"""Publishing a table: what is told, in which order, and where it goes on, whatever the sink remembers."""

from __future__ import annotations

import dataclasses
import itertools
import os

import pyarrow as pa
import pytest

from lodestream.app import now_us
from lodestream.engines.embedded import publish as publishing
from lodestream.engines.embedded.publish import SinkFlow
from lodestream.engines.embedded.rebuild import begin_epoch
from lodestream.engines.embedded.sink_memory import SinkMemory
from lodestream.errors import ConfigError, DataLossRefused, TransientError
from lodestream.lake.actions import RemoveFile
from lodestream.model.batch import BatchLimit
from lodestream.model.table import TableName
from lodestream.operations.erase.carry import Carrier
from lodestream.runtime.maintain import Maintenance, Upkeep
from tests.engines.lakes import Lab

ORDERS, REVENUE, BEST = TableName("bronze", "orders"), TableName("gold", "revenue"), TableName("gold", "best")
DAY_US = 24 * 3600 * 1_000_000


class Service:
    """What a sink writes to: messages and position change together, or not at all."""

    def __init__(self):
        self.messages: list[tuple[int, int, bool, dict]] = []
        self.position = None
        self.place = "topic-id"
        self.pieces: list[int] = []
        self.fails: set[int] = set()  # numbers of publications after which the answer gets lost
        self.dies: set[int] = set()  # and of those that do not take place
        self.count = itertools.count(1)
        self.opened = 0


class Recorder:
    def __init__(self, service, identity):
        self.service, self.identity, self.place = service, identity, service.place

    def open(self):
        self.service.opened += 1
        return self.service.position

    def publish(self, changes, position):
        number, service = next(self.service.count), self.service
        if number in service.dies:
            raise TransientError("did not take place")
        for one in changes:
            gone = [False] * len(one.rows) if one.gone is None else one.gone.tolist()
            for i, (row, left) in enumerate(zip(one.rows.to_pylist(), gone, strict=True)):
                service.messages.append((one.version, one.first + i, left, row))
        service.position = position
        service.pieces.append(sum(len(one.rows) for one in changes))
        if number in service.fails:
            raise TransientError("the answer got lost")
        return service.pieces[-1]

    def close(self):
        pass


class Shop(Lab):
    """Orders that join, windows and a query whose rows change; sinks of all three."""

    def __init__(self, root, start="all", emit="updates"):
        super().__init__(root)
        self.table(
            "bronze.orders",
            f"""
source: {{files: {{path: events, settle: 0}}}}
format: json
columns: {{id: bigint, who: string, amount: bigint, at: timestamp}}
sink: {{kafka: {{topic: orders, key: who, start: {start}}}}}
""",
        )
        self.table(
            "gold.revenue",
            f"""
from: stream(bronze.orders)
event_time: {{column: at, delay: 30 seconds}}
window: {{every: 1 minute}}
group_by: [who]
measures: {{orders: count(*), revenue: sum(amount)}}
emit: {emit}
sink: {{kafka: {{topic: revenue, columns: [window_start, who, orders]}}}}
""",
        )
        self.table(
            "gold.best",
            f"""
sql: select who, max(amount) as best from bronze.orders where amount > 0 group by who
sink: {{kafka: {{topic: best, key: [who], start: {start}}}}}
""",
        )
        self.sold = 0

    def sell(self, count, *, who=("ann", "bob"), amount=None, second=1):
        rows = []
        for i in range(self.sold, self.sold + count):
            at = i * second
            stamp = f"2024-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z"
            rows.append({"id": i, "who": who[i % len(who)], "amount": i if amount is None else amount, "at": stamp})
        self.sold += count
        self.events(rows)

    def fill(self):
        app = self.app()
        app.apply()
        pipeline = app.pipeline()
        for name in (ORDERS, REVENUE, BEST):
            flow = pipeline.flow(name)
            flow.open()
            while flow.step():
                pass
            flow.close()

    def windows(self):
        """What the table of windows holds, as it is told."""
        return sorted(self.read("gold.revenue").select(["window_start", "who", "orders"]).to_pylist(), key=repr)

    def sink(self, table, service, *, rows_max=None, clock=None, identity=None):
        app = self.app()
        app.apply()
        around = app.pipeline().around
        if rows_max is not None:
            around = dataclasses.replace(around, limit=BatchLimit(rows_max=rows_max))
        if clock is not None:
            around = dataclasses.replace(around, clock=clock)
        (publish,) = app.flows[table].sinks
        return SinkFlow(publish, around, lambda _p, given, _at: Recorder(service, identity or given))

    def publish(self, table, service, **more):
        """Step a sink until it has nothing to do, opening it again after each failure; the number of failures."""
        flow, failures = self.sink(table, service, **more), 0
        flow.open()
        try:
            while True:
                try:
                    if flow.step() is None:
                        assert flow.caught_up
                        return failures
                except TransientError:
                    failures += 1
                    flow.open()
        finally:
            flow.close()


def told(service):
    """The content that a reader by key ends with."""
    last = {}
    for _, _, gone, row in service.messages:
        key = (row.get("window_start"), row["who"])
        last.pop(key, None)
        if not gone:
            last[key] = row
    return sorted(last.values(), key=repr)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def test_each_row_that_joins_is_a_message_in_the_order_of_versions(shop):
    service = Service()
    for _ in range(3):
        shop.sell(20)
        shop.fill()
        shop.publish(ORDERS, service)
    assert [row["id"] for *_, row in service.messages] == list(range(60))
    assert service.messages[0][3].keys() == {"id", "who", "amount", "at"}
    versions = [(version, index) for version, index, *_ in service.messages]
    assert versions == sorted(versions)
    assert len(set(versions)) == 60


def test_ranges_keep_to_the_limit_and_pieces_to_theirs(shop, monkeypatch):
    service = Service()
    for _ in range(5):
        shop.sell(10)
        shop.fill()
        if not service.opened:
            shop.publish(ORDERS, service)
    shop.publish(ORDERS, service, rows_max=20)
    assert service.pieces == [10, 20, 20]
    monkeypatch.setattr(publishing, "_MESSAGES_MAX", 7)
    other = Service()
    shop.publish(ORDERS, other, identity="other")
    assert sum(other.pieces) == 50
    assert max(other.pieces) == 7
    assert [row["id"] for *_, row in other.messages] == list(range(50))


@pytest.mark.parametrize("what", ["fails", "dies"])
@pytest.mark.parametrize("table", [ORDERS, REVENUE, BEST])
def test_a_failure_at_any_publication_loses_and_doubles_nothing(shop, monkeypatch, what, table):
    monkeypatch.setattr(publishing, "_MESSAGES_MAX", 4)
    service = Service()
    getattr(service, what).update(range(1, 100, 1 if what == "fails" else 2))
    for _ in range(3):
        shop.sell(30)
        shop.fill()
        assert shop.publish(table, service)
    changing = table != ORDERS
    names = {ORDERS: ("id", "who", "amount", "at"), REVENUE: ("window_start", "who", "orders"), BEST: ("who", "best")}
    live = sorted(shop.read(str(table)).select(names[table]).to_pylist(), key=repr)
    if changing:
        assert told(service) == live
    rows = [(version, index) for version, index, *_ in service.messages]
    assert len(rows) == len(set(rows))
    if not changing:
        assert sorted((row for *_, row in service.messages), key=repr) == live


def test_windows_are_told_when_they_change_and_only_then(shop):
    service = Service()
    shop.sell(90)
    shop.fill()
    shop.publish(REVENUE, service)
    assert len(service.messages) == 4
    shop.sell(1)
    shop.fill()
    shop.publish(REVENUE, service)
    assert len(service.messages) == 5  # one window changed; others moved between files, which is nobody's business
    shop.sell(200)
    shop.fill()
    shop.publish(REVENUE, service)
    assert told(service) == shop.windows()


def test_windows_that_are_computed_again_are_told_again(tmp_path):
    shop, service = Shop(tmp_path, emit="final"), Service()
    shop.sell(200)
    shop.fill()
    shop.publish(REVENUE, service)
    closed = len(service.messages)
    assert closed == 4
    shop.events([{"id": 900, "who": "ann", "amount": 1, "at": "2024-01-01T00:00:30Z"}])  # late
    shop.fill()
    shop.publish(REVENUE, service)
    assert len(service.messages) == closed
    flow = shop.app().pipeline().flow(REVENUE)
    flow.open()
    (late,) = shop.quarantine("gold.revenue", "_source", "_position")
    flow.submit_replay([(late["_source"], late["_position"])], accept_late=True)
    flow.close()
    shop.publish(REVENUE, service)
    (again,) = service.messages[closed:]
    assert (again[2], again[3]["who"], again[3]["orders"]) == (False, "ann", 31)
    assert told(service) == shop.windows()


def test_a_query_that_loses_rows_sends_tombstones(shop):
    service = Service()
    shop.sell(6, who=("ann", "bob", "cy"))
    shop.fill()
    shop.publish(BEST, service)
    assert [row["who"] for *_, row in told_rows(service)] == ["ann", "bob", "cy"]
    shop.table("gold.best", (shop.root / "tables/gold/best.yaml").read_text().replace("amount > 0", "who <> 'bob'"))
    shop.fill()
    before = len(service.messages)
    shop.publish(BEST, service)
    assert [(gone, row["who"]) for _, _, gone, row in service.messages[before:]] == [(True, "bob")]


def told_rows(service):
    return sorted(service.messages, key=lambda one: one[3]["who"])


def test_a_key_that_stands_for_two_rows_is_refused(shop):
    text = (shop.root / "tables/gold/best.yaml").read_text()
    shop.table("gold.best", text.replace("max(amount) as best", "amount as best").replace("group by who", ""))
    shop.sell(6)
    shop.fill()
    service = Service()
    with pytest.raises(ConfigError, match="key is not unique"):
        shop.publish(BEST, service)
    assert not service.messages


@pytest.mark.parametrize("table", [ORDERS, BEST])
def test_a_sink_may_begin_with_what_changes_from_now_on(tmp_path, table):
    shop, service = Shop(tmp_path, start="new"), Service()
    shop.sell(10)
    shop.fill()
    service.dies.add(1)
    shop.publish(table, service)
    assert service.messages == []
    assert service.position is not None
    shop.sell(4)
    shop.fill()
    shop.publish(table, service)
    assert sorted(row.get("id", row["who"]) for *_, row in service.messages) == {
        ORDERS: [10, 11, 12, 13], BEST: ["ann", "bob"],
    }[table]  # fmt: skip


def test_a_rebuild_is_news_by_key_and_refused_where_rows_are_messages(shop):
    orders, revenue = Service(), Service()
    shop.sell(90)
    shop.fill()
    shop.publish(ORDERS, orders)
    shop.publish(REVENUE, revenue)
    begin_epoch(shop.delta("bronze.orders"), 2, clock_us=now_us())
    begin_epoch(shop.delta("gold.revenue"), 2, clock_us=now_us())
    shop.publish(REVENUE, revenue)
    assert told(revenue) == []  # tombstones for all
    with pytest.raises(DataLossRefused, match="rows were taken away") as refused:
        shop.publish(ORDERS, orders)
    assert "transactional_id" in str(refused.value)
    shop.fill()
    shop.publish(REVENUE, revenue)
    assert len(told(revenue)) == 4
    assert revenue.position.epoch == 2
    again = Service()
    shop.publish(ORDERS, again, identity="anew")
    assert len(again.messages) == 90


def test_a_rewrite_of_the_same_rows_tells_nothing(shop):
    orders, revenue = Service(), Service()
    shop.sell(90)
    shop.fill()
    shop.publish(ORDERS, orders)
    shop.publish(REVENUE, revenue)
    for name in ("bronze.orders", "gold.revenue"):
        table = shop.delta(name)
        old = [add for add in table.files() if not add.hot]
        staged = table.stage(table.read(old), name="compacted")
        adds = [dataclasses.replace(add, data_change=False) for add in staged.adds]
        removes = [RemoveFile.of(add, data_change=False) for add in old]
        table.commit(adds=adds, removes=removes, clock_us=now_us(), operation="OPTIMIZE")
    shop.publish(ORDERS, orders)
    shop.publish(REVENUE, revenue)
    assert (len(orders.messages), len(revenue.messages)) == (90, 4)
    shop.sell(90)
    shop.fill()
    shop.publish(ORDERS, orders)
    shop.publish(REVENUE, revenue)
    assert len(orders.messages) == 180
    assert told(revenue) == shop.windows()


def test_a_service_that_forgot_the_position_is_told_the_rest(shop):
    service = Service()
    shop.sell(10)
    shop.fill()
    shop.publish(ORDERS, service)
    service.position = None
    shop.sell(10)
    shop.fill()
    shop.publish(ORDERS, service)
    assert [row["id"] for *_, row in service.messages] == list(range(20))


def test_a_doubt_that_nobody_can_settle_is_left_to_a_person(shop):
    service = Service()
    shop.sell(10)
    shop.fill()
    shop.publish(ORDERS, service)
    shop.sell(10)
    shop.fill()
    flow = shop.sink(ORDERS, service)
    service.fails.update(range(100))
    flow.open()
    with pytest.raises(TransientError):
        flow.step()
    flow.close()
    service.fails.clear()
    service.position = None  # after days: did the last ten messages get through?
    with pytest.raises(DataLossRefused, match="forgotten"):
        shop.publish(ORDERS, service, clock=lambda: now_us() + 2 * DAY_US)


def test_a_lake_that_forgot_goes_by_the_service(shop):
    service = Service()
    shop.sell(10)
    shop.fill()
    shop.publish(ORDERS, service)
    for file in (shop.root / "lake/_lodestream/flows/bronze.orders/sinks").glob("*.json"):
        file.unlink()
    shop.sell(10)
    shop.fill()
    shop.publish(ORDERS, service)
    assert [row["id"] for *_, row in service.messages] == list(range(20))


def test_a_target_that_was_made_again_is_not_gone_on_with(shop):
    service = Service()
    shop.sell(10)
    shop.fill()
    shop.publish(ORDERS, service)
    service.place, service.position = "another-id", None
    with pytest.raises(DataLossRefused, match="deleted and made again"):
        shop.publish(ORDERS, service)
    anew = Service()
    shop.publish(ORDERS, anew, identity="anew")
    assert len(anew.messages) == 10


def test_a_table_that_was_put_back_from_a_copy_is_not_gone_on_with(shop):
    service = Service()
    shop.sell(10)
    shop.fill()
    shop.publish(ORDERS, service)
    service.position = dataclasses.replace(service.position, version=99, upto=99)
    with pytest.raises(DataLossRefused, match="older than what was published"):
        shop.publish(ORDERS, service)
    service.position = dataclasses.replace(service.position, table_id="another")
    with pytest.raises(DataLossRefused, match="another table"):
        shop.publish(ORDERS, service)


def test_versions_that_left_the_log_are_not_passed_over(shop):
    service = Service()
    shop.sell(10)
    shop.fill()
    shop.publish(ORDERS, service)
    for _ in range(4):
        shop.sell(5)
        shop.fill()
        table = shop.delta("bronze.orders")
        table.checkpoint()
    table.clean_log(keep_versions=1, needed_from=table.snapshot.version)
    with pytest.raises(DataLossRefused, match="no longer in the log"):
        shop.publish(ORDERS, service)


def test_upkeep_leaves_what_a_sink_still_needs(shop):
    orders, revenue = Service(), Service()
    shop.sell(90)
    shop.fill()
    shop.publish(ORDERS, orders)
    shop.publish(REVENUE, revenue)
    app = shop.app()
    upkeep = Upkeep(checkpoint_every=1, versions_kept=1, log_kept_us=0, hot_kept_ms=-1)
    maintenance = Maintenance([ORDERS, REVENUE], app.flows, app.pipeline().around, upkeep)
    for _ in range(6):
        shop.sell(20)
        shop.fill()
        maintenance.look()
    hot = list((shop.root / "lake/gold/revenue").glob("*hot*"))
    assert len(hot) == 2  # the live one and the one that the sink compares with
    shop.publish(ORDERS, orders)
    shop.publish(REVENUE, revenue)
    assert len(orders.messages) == 210
    assert told(revenue) == shop.windows()
    assert maintenance.errors == 0


def test_a_file_that_is_needed_and_gone_is_named(shop):
    service = Service()
    shop.sell(90)
    shop.fill()
    shop.publish(REVENUE, service)
    (hot,) = (shop.root / "lake/gold/revenue").glob("*hot*")
    shop.sell(20)
    shop.fill()
    hot.unlink()
    with pytest.raises(DataLossRefused, match="can no longer be compared"):
        shop.publish(REVENUE, service)


def test_who_has_no_lock_looks_on_and_takes_over(shop):
    service = Service()
    shop.sell(10)
    shop.fill()
    first, second = shop.sink(ORDERS, service), shop.sink(ORDERS, service)
    first.open()
    second.open()
    assert first.step() is not None
    assert second.step() is None
    assert service.opened == 1
    assert not second.caught_up  # not noted yet
    assert first.step() is None
    assert second.step() is None
    assert second.caught_up
    first.close()
    shop.sell(10)
    shop.fill()
    assert second.step() is not None
    second.close()
    assert [row["id"] for *_, row in service.messages] == list(range(20))


def test_columns_that_join_later_are_told(shop):
    text = (shop.root / "tables/bronze/orders.yaml").read_text()
    shop.table("bronze.orders", text + "drift: add\n")
    service = Service()
    shop.sell(2)
    shop.fill()
    shop.publish(ORDERS, service)
    shop.events([{"id": 2, "who": "cy", "amount": 1, "at": "2024-01-01T00:00:00Z", "more": "x"}])
    shop.fill()
    shop.publish(ORDERS, service)
    assert service.messages[-1][3]["more"] == "x"


def test_memory_that_cannot_be_read_says_what_to_do(shop):
    service = Service()
    shop.sell(2)
    shop.fill()
    shop.publish(ORDERS, service)
    (file,) = (shop.root / "lake/_lodestream/flows/bronze.orders/sinks").glob("*.json")
    file.write_text("{torn")
    with pytest.raises(Exception, match="delete it"):
        SinkMemory(shop.app().disk, str(shop.root / "lake"), shop.sink(ORDERS, service).name).read()


def test_the_rows_that_are_told_have_the_types_of_the_table(shop):
    shop.sell(1)
    shop.fill()
    flow = shop.sink(ORDERS, Service())
    flow.open()
    flow.step()
    flow.close()
    assert shop.read("bronze.orders").schema.field("at").type == pa.timestamp("us", tz="UTC")


def test_a_sink_that_is_behind_an_erasure_goes_on_without_the_rows(shop):
    shop.sell(4)
    shop.fill()
    orders, best = Service(), Service()
    shop.publish(ORDERS, orders)
    shop.publish(BEST, best)
    shop.sell(4)
    shop.fill()
    with shop.app() as app:
        report = Carrier(app, ["who=ann"], now_us()).erase()
    assert report["kept_for_sinks"] == ["gold.best -> kafka:best"]
    assert not report["proven"]
    assert shop.publish(ORDERS, orders) == 0
    assert [row["id"] for _, _, _, row in orders.messages] == [0, 1, 2, 3, 5, 7]
    assert shop.publish(BEST, best) == 0
    assert [row["who"] for row in told(best)] == ["bob"]
    with shop.app() as app:
        assert Carrier(app, ["who=ann"], now_us()).erase()["proven"]
