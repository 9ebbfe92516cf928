"""Processes that share a flow: whoever holds which partition, and whoever dies when, every record is taken once."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lodestream.engines.embedded import shared as shared_module
from lodestream.engines.embedded.members import Membership
from lodestream.engines.embedded.shared import SharedFlow
from lodestream.errors import ConflictError
from lodestream.formats._records import rejects_table, rows_table
from lodestream.lake import crash
from lodestream.lake.layout import quarantine_name
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.table import TableName
from lodestream.ports.source import Decoded, Reading, SourceTraits
from tests.engines.lakes import Lab

EVENTS = TableName("bronze", "events")
TABLE = """
source: {kafka: {topic: events, share: true}}
format: json
columns: {id: bigint}
expect: {even: {that: id % 7 <> 3, else: quarantine}}
"""


class Killed(BaseException):
    """A process that is gone."""


class Broker:
    """Partitions of numbers; a group that hands them out however a test likes."""

    def __init__(self, partitions: int) -> None:
        self.records: list[list[int]] = [[] for _ in range(partitions)]
        self.owned: dict[str, set[int]] = {}
        self.sent = 0

    def send(self, count: int, rng: random.Random) -> None:
        for _ in range(count):
            rng.choice(self.records).append(self.sent)
            self.sent += 1


class BrokerSource:
    """What a group member reads; units and positions as the Kafka source has them."""

    traits = SourceTraits(replayable=True, ordered=True, bounded=False)

    def __init__(self, broker: Broker, reading: Reading) -> None:
        self.broker, self.reading = broker, reading

    def plan(self, consumed: Mapping[str, SourceRange], limit: BatchLimit, now_us: int) -> Sequence[SourceRange]:
        ranges = []
        for number in sorted(self.broker.owned.get(self.reading.member, ())):
            unit = f"events/{number}"
            start = consumed[unit].end if unit in consumed else 0
            end = min(len(self.broker.records[number]), start + limit.rows_max)
            if end > start:
                ranges.append(SourceRange(unit, start, end))
        return ranges

    def read(self, planned: SourceRange) -> Iterator[Decoded]:
        values = self.broker.records[int(planned.unit[7:])][planned.start : planned.end]
        at = np.arange(planned.start, planned.end)
        rows = rows_table(self.reading, [pa.array(values, pa.int64())], planned.unit, at, None)
        yield Decoded(rows, rejects_table(planned.unit, []))

    def finished(self, consumed: Mapping[str, SourceRange], now_us: int) -> bool:
        return True

    def close(self) -> None: ...


class Group:
    """Several processes on one table, each a flow of its own."""

    def __init__(self, root: Path, partitions: int = 4) -> None:
        self.lab, self.broker = Lab(root), Broker(partitions)
        self.lab.table("bronze.events", TABLE)
        self.app = self.lab.app()
        self.app.apply()
        self.flows: list[SharedFlow] = []

    def join(self) -> SharedFlow:
        pipeline = self.lab.app().pipeline()
        plan = pipeline.flows[EVENTS]

        def source(schema, group, member):
            return BrokerSource(self.broker, Reading(schema, False, "quarantine", "/", group=group, member=member))

        flow = SharedFlow(plan, pipeline.around, source)
        flow.around = pipeline.around
        flow.open()
        self.flows.append(flow)
        return flow

    def give(self, *owned: set[int]) -> None:
        self.broker.owned = {flow.member: partitions for flow, partitions in zip(self.flows, owned, strict=True)}

    def die(self, flow: SharedFlow) -> None:
        """What is left of a process that was killed: nothing but its files; the kernel lets its lock go."""
        flow._membership.leave()
        self.flows.remove(flow)
        self.broker.owned.pop(flow.member, None)

    def settle(self) -> None:
        """One process that has everything runs until nothing is left."""
        for flow in list(self.flows):
            self.die(flow)
        last = self.join()
        self.give(set(range(len(self.broker.records))))
        while last.step() is not None:
            pass
        last.close()
        self.flows.remove(last)

    def check(self) -> None:
        rows = self.lab.rows("bronze.events", "_source", "_position", "id")
        aside = self.lab.rows(str(quarantine_name(EVENTS)), "_source", "_position")
        got = [(row["_source"], row["_position"]) for row in rows + aside]
        want = [(f"events/{n}", at) for n, records in enumerate(self.broker.records) for at in range(len(records))]
        assert sorted(got) == sorted(want)
        assert sorted(row["id"] for row in rows) == [i for i in range(self.broker.sent) if i % 7 != 3]


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


@pytest.fixture(autouse=True)
def _no_hook_left() -> Iterator[None]:
    yield
    crash.install(None)


def turn(flow: SharedFlow) -> None:
    """One step as a worker takes it."""
    try:
        flow.step()
    except ConflictError:
        flow.open()


def test_two_processes_commit_in_the_order_of_their_plans(group):
    a, b = group.join(), group.join()
    assert a.member != b.member
    group.give({0, 1}, {2, 3})
    group.broker.send(40, random.Random(1))
    assert a._plan_ours([]) is not None  # plan 1 is a's, computed and not committed
    a.close()
    group.flows.remove(a)
    mine = b.step()  # a is gone, and its plan falls to b
    assert mine is not None
    assert mine.batch == 1
    assert b.step().batch == 2
    group.settle()
    group.check()


def test_a_plan_of_a_living_process_is_waited_for_until_it_is_overdue(group, monkeypatch):
    a, b = group.join(), group.join()
    group.give({0, 1}, {2, 3})
    group.broker.send(40, random.Random(2))
    a._mine = a._plan_ours([])
    assert b.step() is None
    assert b.step() is None
    assert a.step().batch == 1
    assert b.step().batch == 2
    group.broker.send(40, random.Random(3))
    a._follow()
    a._mine = a._plan_ours([])
    assert b.step() is None
    monkeypatch.setattr(shared_module, "_OVERDUE_S", 0.0)
    assert b.step().batch == 3  # a is too slow, wherever it is
    with pytest.raises(ConflictError):
        a._run(a._mine.plan, a._mine)  # and loses, when it comes after all
    group.settle()
    group.check()


def test_a_partition_that_two_believe_to_own_is_taken_once(group):
    a, b = group.join(), group.join()
    group.give({0, 1, 2, 3}, {0, 1, 2, 3})
    rng = random.Random(4)
    for _ in range(12):
        group.broker.send(15, rng)
        turn(rng.choice([a, b]))
    group.settle()
    group.check()


def test_a_process_far_behind_begins_from_the_last_base(group):
    a, b = group.join(), group.join()
    group.give({0, 1, 2, 3}, set())
    rng = random.Random(5)
    for _ in range(4):
        group.broker.send(10, rng)
        assert a.step() is not None
    a.state.last = None  # the next link is a base, and what came before is deleted
    group.broker.send(10, rng)
    assert a.step() is not None
    b.step()
    assert b.state.batch == 5
    assert b.state.consumed == a.state.consumed
    group.settle()
    group.check()


@pytest.mark.parametrize("seed", range(12))
def test_rebalances_and_deaths_at_any_point_lose_and_double_nothing(group, seed):
    rng = random.Random(seed)
    deaths = 0
    for _ in range(60):
        while len(group.flows) < 3:
            group.join()
        if rng.random() < 0.4:  # a rebalance, now and then with a partition that two hold or none does
            group.give(*({n for n in range(4) if rng.random() < 0.45} for _ in group.flows))
        group.broker.send(rng.randrange(12), rng)
        flow = rng.choice(group.flows)
        countdown = rng.randrange(1, 40)

        def maybe(_name: str) -> None:
            nonlocal countdown
            countdown -= 1
            if countdown == 0:
                raise Killed

        crash.install(maybe)
        try:
            turn(flow)
        except Killed:
            deaths += 1
            group.die(flow)
        finally:
            crash.install(None)
    group.settle()
    group.check()
    assert deaths >= 5
    group.lab.root.joinpath("lake").exists()


def test_a_name_is_free_as_soon_as_its_process_is_gone(tmp_path):
    folder = str(tmp_path / "members")
    first, second = Membership(folder), Membership(folder)
    names = [first.join(), second.join()]
    assert names[0] != names[1]
    third = Membership(folder)
    assert not third.is_dead(names[0])
    join = f"from {Membership.__module__} import Membership; print(Membership({folder!r}).join())"
    third_name = subprocess.run([sys.executable, "-c", join], check=True, capture_output=True, text=True).stdout.strip()
    assert third_name.endswith("-2")
    first.leave()
    assert third.is_dead(names[0])
    assert third.join() == names[0]
    assert not third.is_dead("another-host-0")
