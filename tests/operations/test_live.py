"""Following a lake: from its commits alone, whoever runs the pipeline."""

import asyncio
import os
import shutil
import time

import pytest

from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import failure_note, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import INT, Column, Schema
from lodestream.operations.live import Live
from lodestream.operations.rates import Rates
from lodestream.operations.status import read_status
from tests.engines.lakes import Lab, wait_for

BRONZE = (
    "source: {files: {path: events, settle: 0 s}}\nformat: json\ncolumns: {id: bigint, at: timestamp, amount: int}\n"
)
SILVER = (
    "from: stream(bronze.orders)\nexpect: {positive: {that: amount > 0, else: quarantine}}\n"
    "event_time: {column: at, delay: 10 s}\ndedup: {keys: [id]}\n"
)
GOLD = "sql: select count(*) as n from silver.orders\n"
NAMES = [TableName.parse(text) for text in ("bronze.orders", "silver.orders", "gold.total")]
B, S, G = NAMES
SECOND_US = 1_000_000


class Clock:
    def __init__(self, us: int) -> None:
        self.us = us

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path / "lab")
    for name, text in zip(NAMES, (BRONZE, SILVER, GOLD), strict=True):
        lab.table(str(name), text)
    return lab


def order(number, amount=1, at=None):
    return {"id": number, "at": at or f"2024-01-01T00:00:{number % 60:02}Z", "amount": amount}


def follow(lab, clock=None) -> Live:
    app = lab.app()
    return Live(LocalDisk(), app.lake, app.flows, clock or (lambda: time.time_ns() // 1000))


class Steps:
    """Drives a follower by hand: each step is a look at everything, some seconds later."""

    def __init__(self, live: Live) -> None:
        self.live, self.now = live, 0.0

    def __call__(self, seconds: float = 5.0):
        self.now += seconds
        self.live.step(self.now)
        return self.live.tables()


def test_a_lake_that_is_not_there_yet(tmp_path):
    steps = Steps(Live(LocalDisk(), str(tmp_path / "lake"), {}, Clock(10**15)))
    assert steps() == {}
    assert steps.live.history([]).per_s == [0.0] * 600


def test_tables_appear_move_and_rest(lab):
    clock = Clock(time.time_ns() // 1000)
    steps = Steps(follow(lab, clock))
    assert {name: one.state for name, one in steps().items()} == dict.fromkeys(sorted(NAMES), "missing")
    told = []
    leave = steps.live.listen(lambda name, version: told.append((name, version)))
    lab.events([order(1), order(2, amount=-1), order(2), order(2)])
    lab.run()
    clock.us = time.time_ns() // 1000
    found = steps()
    assert {name: one.state for name, one in found.items()} == dict.fromkeys(sorted(NAMES), "running")
    assert {name for name, _ in told} == set(NAMES)
    assert found[S].counts == {
        "input": 4, "output": 2, "quarantine": 1, "duplicate": 1, "rule:positive": 1,
    }  # fmt: skip
    assert found[S].accounted
    assert found[S].quarantine_open == 1
    assert found[S].backlog == 0
    assert found[G].accounted is found[G].quarantine_open is None
    assert found[B].rate_per_s == found[S].rate_per_s == 0.4
    before = steps.live.sequence()
    clock.us += 3 * SECOND_US
    assert steps()[S].state == "idle"
    assert steps.live.sequence() == before, "nothing has changed but the time"
    leave()
    lab.events([order(3)])
    lab.run()
    assert steps()[S].counts["input"] == 5
    assert max(version for name, version in told if name == B) < steps.live.tables()[B].version


def test_a_listener_whose_loop_has_ended_stops_nobody(lab):
    loop = asyncio.new_event_loop()
    loop.close()
    told = []
    steps = Steps(follow(lab))
    steps.live.listen(lambda name, version: loop.call_soon_threadsafe(told.append, name))
    steps.live.listen(lambda name, version: told.append(name))
    lab.events([order(1)])
    lab.run()
    steps()
    assert set(told) == set(NAMES)


def test_it_says_what_status_says(lab):
    for number in range(4):
        lab.events([order(10 * number + i, amount=i - 1) for i in range(5)])
        lab.run()
    app = lab.app()
    now = time.time_ns() // 1000
    found = Steps(follow(lab, Clock(now)))()
    for status in read_status(app.disk, app.lake, NAMES, now_us=now):
        one = found[TableName.parse(status.table)]
        for field in ("version", "rows", "files", "size_bytes", "epoch", "batch", "watermark_us", "max_event_us",
                      "last_commit_us", "counted_from"):  # fmt: skip
            assert getattr(one, field) == getattr(status, field), field
        assert one.counts == status.counts


def test_one_who_saw_it_happen_and_one_who_came_later_know_the_same(lab):
    seen = Steps(follow(lab, Clock(time.time_ns() // 1000)))
    for number in range(3):
        lab.events([order(10 * number + i, amount=i - 1) for i in range(5)])
        lab.run()
        seen()
    late = Steps(follow(lab, Clock(time.time_ns() // 1000)))()
    facts = ("version", "rows", "files", "size_bytes", "batch", "counts", "counted_from", "backlog", "quarantine_open")
    for name, one in seen(10.0).items():
        assert [getattr(one, fact) for fact in facts] == [getattr(late[name], fact) for fact in facts]


def test_rows_that_wait(lab):
    lab.events([order(1)])
    lab.run()
    clock = Clock(time.time_ns() // 1000 + 60 * SECOND_US)
    steps = Steps(follow(lab, clock))
    assert {one.state for one in steps().values()} == {"idle"}
    lab.events([order(2), order(3)])
    lab.run(tables=["bronze.orders"])
    assert steps()[S].backlog == 2
    clock.us += 10 * SECOND_US
    found = steps()
    assert (found[S].state, found[B].state, found[G].state) == ("stalled", "idle", "idle")
    lab.run(tables=["silver.orders"])
    for _ in range(3):
        clock.us += 10 * SECOND_US
        found = steps()
    assert (found[S].state, found[S].backlog) == ("idle", 0)
    assert found[G].state == "stalled", "its input has moved on and nobody refreshes it"


def test_a_rebuild_begins_anew(lab):
    lab.events([order(1, amount=-1), order(2)])
    lab.run()
    steps = Steps(follow(lab, Clock(time.time_ns() // 1000)))
    assert steps()[S].quarantine_open == 1
    lab.table("silver.orders", "derive: {big: amount > 5}\n" + SILVER.replace("amount > 0", "amount > -5"))
    lab.run(accept=_hash(lab))
    found = steps()
    assert (found[S].epoch, found[S].rows, found[S].quarantine_open, found[S].backlog) == (2, 2, 0, 0)
    assert found[S].counts == {"input": 2, "output": 2}


def _hash(lab):
    from lodestream.planning.diff import accept_hash

    return accept_hash(lab.app().changes())


def test_replayed_rows_are_open_no_more(lab):
    lab.events([order(1, amount=-1), order(2, amount=-2), order(3)])
    lab.run()
    steps = Steps(follow(lab, Clock(time.time_ns() // 1000)))
    assert steps()[S].quarantine_open == 2
    lab.table("silver.orders", SILVER.replace("amount > 0", "amount > -2"))
    app = lab.app()
    app.apply()
    flow = app.pipeline().flow(S)
    flow.open()
    rows = lab.quarantine("silver.orders", "_source", "_position")
    flow.submit_replay([(row["_source"], row["_position"]) for row in rows], accept_late=False)
    flow.close()
    assert steps()[S].quarantine_open == 1
    assert steps()[S].accounted
    assert Steps(follow(lab))()[S].quarantine_open == 1


def test_a_damaged_table_says_so_and_hides_nothing(lab):
    lab.events([order(1)])
    lab.run()
    steps = Steps(follow(lab, Clock(time.time_ns() // 1000)))
    steps()
    flows = lab.app().flows
    version = steps.live.tables()[S].version
    torn = os.path.join(table_path(lab.app().lake, S), "_delta_log", f"{version + 1:020}.json")
    with open(torn, "w") as file:
        file.write('{"add":')
    found = steps()
    assert (found[S].state, found[B].state) == ("damaged", "running")
    assert "cannot be read" in found[S].error or "damaged" in found[S].error or "torn" in found[S].error
    assert found[S].rows == 1, "what was known stays"
    late = Live(LocalDisk(), lab.app().lake, flows, Clock(time.time_ns() // 1000))
    assert Steps(late)()[S].state == "damaged"
    os.unlink(torn)
    assert steps()[S].error is None


def test_a_lake_that_is_deleted_and_made_again(lab):
    lab.events([order(1), order(2)])
    lab.run()
    steps = Steps(follow(lab, Clock(time.time_ns() // 1000)))
    assert steps()[S].rows == 2
    shutil.rmtree(lab.app().lake)
    assert {one.state for one in steps(10).values()} == {"missing"}
    lab.run()
    assert steps(10)[S].rows == 2


def test_a_flow_that_failed_is_known_elsewhere(lab):
    lab.table("silver.orders", SILVER.replace("quarantine", "fail"))
    lab.events([order(1, amount=-1)])
    with pytest.raises(Exception, match="else: fail"):
        lab.run()
    steps = Steps(follow(lab))
    found = steps()
    assert found[S].state == "failed"
    assert "expectation" in found[S].error
    assert os.path.exists(failure_note(lab.app().lake, S))
    lab.table("silver.orders", SILVER)
    lab.run(accept=_hash(lab))
    assert steps()[S].error is None


def test_it_follows_by_itself(lab):
    lab.events([order(1)])
    live = follow(lab)
    live.start()
    live.start()
    try:
        lab.run()
        wait_for(lambda: S in live.tables() and live.tables()[S].rows == 1)
        wait_for(lambda: G in live.tables() and live.tables()[G].rows == 1)
    finally:
        live.close()
    live.close()


def test_a_thousand_tables_cost_a_bounded_number_of_looks(tmp_path):
    disk, lake = LocalDisk(), str(tmp_path / "lake")
    disk.sync_directory = disk.fsync = lambda _path: None
    names = [TableName("bronze", f"t{number}") for number in range(1000)]
    first = DeltaTable.create(disk, table_path(lake, names[0]), Schema((Column("n", INT),)), table_id="x", clock_us=0)
    for name in names[1:]:
        shutil.copytree(first.path, table_path(lake, name))
    live = Live(disk, lake, {}, Clock(10**15))
    now = 0.0
    while now < 3.0:
        now += live.step(now)
    assert len(live.tables()) == 1000
    before = live.looks
    while now < 8.0:
        now += live.step(now)
    assert live.looks - before < 5 * 2_100
    first.commit(clock_us=1)
    while now < 9.0:
        now += live.step(now)
    assert live.tables()[names[0]].version == 1


def test_rates():
    rates = Rates(seconds=60, window_s=10)
    rows = [rates.row() for _ in range(40)]
    now = 10**15
    rates.add(rows[3], now, 100, now)
    rates.add(rows[3], now - 30 * SECOND_US, 50, now)
    rates.add(rows[39], now + 5 * SECOND_US, 10, now)
    rates.add(rows[39], now - 3600 * SECOND_US, 7, now)
    assert rates.now(now)[3] == 10.0
    assert rates.now(now)[39] == 1.0
    history = rates.history([rows[3]], 60, now + SECOND_US)
    assert (len(history.t_us), history.t_us[-1]) == (60, now)
    assert history.per_s[-1] == 10.0
    assert history.per_s[29:39] == [5.0] * 10
    assert sum(history.per_s) == 60.0
    assert rates.now(now + 11 * SECOND_US)[3] == 0.0
    assert set(rates.history([rows[3]], 60, now + 300 * SECOND_US).per_s) == {0.0}
    assert rates.history([], 60, now).per_s == [0.0] * 60
