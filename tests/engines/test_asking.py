"""Asking beside a flow: what breaks on our side, what nobody waits for any more, and what comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lodestream.engines.embedded.asking import Asker, trouble, trouble_path
from lodestream.engines.embedded.ledger import Ledger, ledger_path
from lodestream.errors import LodestreamError, TransientError
from lodestream.lake.disk import Disk
from lodestream.model.steps import Ask
from lodestream.model.table import Component, TableName
from lodestream.model.types import Schema
from lodestream.ports.enricher import Answer
from lodestream.testing.faults import FaultyDisk
from tests.engines.workloads import unsynced

NAME = TableName("silver", "scored")
STEP = Ask(Component("made_up"), (), Schema(), "1", 60_000_000, 1000, 4, None)


class Enricher:
    """Answers as it is told to, and counts."""

    def __init__(self, reply: Callable[[str], Answer]) -> None:
        self.reply, self.asked, self.closed = reply, [], 0  # type: ignore[var-annotated]

    def ask(self, question: str, key: str) -> Answer:
        self.asked.append(key)
        return self.reply(question)

    def close(self) -> None:
        self.closed += 1


class Office:
    """An asker with its ledger."""

    def __init__(self, folder: Path, reply: Callable[[str], Answer], disk: Disk | None = None) -> None:
        self.disk = disk or unsynced()
        self.lake = str(folder / "lake")
        self.told = threading.Event()
        self.enricher = Enricher(reply)
        self.ledger = Ledger(self.disk, self.lake, NAME, 1, lambda: 0)
        self.folder = ledger_path(self.lake, NAME)
        self.asker = Asker(STEP, self.enricher, self.ledger, self.folder, self.disk, self.told.set)  # type: ignore[arg-type]

    def until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < end, "never so"
            time.sleep(0.005)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Callable[..., Office]]:
    made: list[Office] = []

    def make(reply: Callable[[str], Answer], disk: Disk | None = None) -> Office:
        made.append(Office(tmp_path, reply, disk))
        return made[-1]

    yield make
    for one in made:
        one.asker.close()


def right(question: str) -> Answer:
    return Answer(text=f'"{question}"')


def test_an_enricher_that_breaks_is_an_error_of_the_flow(office: Callable[..., Office]) -> None:
    def broken(question: str) -> Answer:
        raise KeyError(question)

    one = office(broken)
    one.asker.want({"k": "q"})
    assert one.told.wait(20)
    with pytest.raises(LodestreamError, match="enricher broke"):
        one.asker.check()
    assert one.enricher.closed


def test_answers_that_cannot_be_written_now_are_written_later(office: Callable[..., Office]) -> None:
    full = threading.Event()
    full.set()

    def fault(kind: str, path: str) -> Exception | None:
        stops = full.is_set() and "part-" in path and kind == "write"
        return TransientError("disk is full", retry_after_s=0.05) if stops else None

    one = office(right, FaultyDisk(unsynced(), fault))
    one.asker.want({f"k{i}": f"q{i}" for i in range(5)})
    one.until(lambda: len(one.enricher.asked) == 5)
    time.sleep(0.2)
    assert one.ledger.refresh() == 0
    full.clear()
    one.until(lambda: one.ledger.refresh() > 0 and all(one.ledger.has(f"k{i}") for i in range(5)))
    one.asker.check()
    assert sorted(one.enricher.asked) == [f"k{i}" for i in range(5)]


def test_what_nobody_waits_for_is_not_asked_and_what_is_under_way_is_kept(office: Callable[..., Office]) -> None:
    go = threading.Event()

    def slow(question: str) -> Answer:
        go.wait(20)
        return right(question)

    one = office(slow)
    one.asker.want({f"k{i}": f"q{i}" for i in range(10)})
    one.until(lambda: len(one.enricher.asked) == 4)
    one.asker.forget([f"k{i}" for i in range(9)])
    one.asker.want({"k0": "q0"})
    go.set()
    one.until(lambda: one.ledger.refresh() and one.ledger.has("k9") and one.ledger.has("k3"))
    assert sorted(one.enricher.asked) == ["k0", "k1", "k2", "k3", "k9"]
    one.asker.want({"k2": "q2", "k5": "q5"}, only=True)
    one.until(lambda: one.ledger.has("k5"))
    assert sorted(one.enricher.asked) == ["k0", "k1", "k2", "k3", "k5", "k9"]


def test_an_outage_is_noted_and_ends(office: Callable[..., Office]) -> None:
    there = threading.Event()
    one = office(lambda question: right(question) if there.is_set() else Answer(later="gone", outage=True))
    one.asker.want({f"k{i}": f"q{i}" for i in range(30)})
    one.until(lambda: trouble(one.disk, one.folder) == "gone")
    assert len(one.enricher.asked) <= 5 + STEP.parallel, "nothing is asked for a while"
    there.set()
    one.until(lambda: one.ledger.refresh() and all(one.ledger.has(f"k{i}") for i in range(30)))
    assert trouble(one.disk, one.folder) is None


def test_a_note_of_who_died_during_an_outage_is_taken_away(office: Callable[..., Office]) -> None:
    one = office(right)
    one.disk.write(trouble_path(one.folder), b'{"trouble": "gone"}')
    assert trouble(one.disk, one.folder) == "gone"
    one.asker.want({"k": "q"})
    one.until(lambda: one.ledger.refresh() and one.ledger.has("k"))
    assert trouble(one.disk, one.folder) is None
    one.disk.write(trouble_path(one.folder), b"{torn")
    assert trouble(one.disk, one.folder) is None


def test_closing_writes_down_what_has_come(office: Callable[..., Office]) -> None:
    one = office(lambda question: time.sleep(0.2) or right(question))  # type: ignore[func-returns-value]
    one.asker.want({f"k{i}": f"q{i}" for i in range(10)})
    one.until(lambda: len(one.enricher.asked) == 4)
    one.asker.close()
    one.asker.close()
    assert one.enricher.closed
    one.ledger.refresh()
    assert [i for i in range(10) if one.ledger.has(f"k{i}")] == [0, 1, 2, 3]
    again = office(right)
    again.asker.want({f"k{i}": f"q{i}" for i in range(10)})
    again.until(lambda: again.ledger.refresh() and all(again.ledger.has(f"k{i}") for i in range(10)))
    assert sorted(again.enricher.asked) == [f"k{i}" for i in range(4, 10)]
