"""Whoever dies and whenever: each row arrives once, and what has an answer on disk is never asked again."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lodestream.app import App, open_project
from lodestream.engines.embedded import ledger as ledger_module
from lodestream.engines.embedded.flow import Flow
from lodestream.engines.embedded.ledger import Entry, Ledger, ledger_path, question_key, totals
from lodestream.engines.embedded.waiting import WaitingRows
from lodestream.errors import CorruptionError
from lodestream.lake import crash
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.operations.trace import trace
from tests.engines.workloads import unsynced
from tests.enrichers.service import SCORED, Reviews, Service, free_port, good, score, serving
from tests.sinks.crashing import Children

POINTS = (
    "plan.before", "plan.after", "state.before", "state.after", "stage.written", "main.staged", "commit.linked",
    "commit.synced", "main.after", "answers.before", "answers.after",
)  # fmt: skip


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_hook_left() -> Iterator[None]:
    yield
    crash.install(None)


def in_ledger(reviews: Reviews) -> set[str]:
    """The questions that have come to an end, by what the disk says."""
    table = DeltaTable.open(LocalDisk(), ledger_path(reviews.lake, SCORED))
    return set() if table is None else set(table.read(table.files(), ["question"]).column(0).to_pylist())


class Watched:
    """A project whose processes are killed, and what its service must not be asked any more."""

    def __init__(self, root: Path, service: Service) -> None:
        self.service = service
        self.reviews = Reviews(root, service.url, parallel=4)
        self.texts: dict[int, str | None] = {}
        self.settled: dict[str, int] = {}
        self.kills = 0

    def kill(self, children: Children, **how: object) -> None:
        start = len(self.texts)
        fresh: dict[int, str | None] = {i: f"text {i % 1009}" for i in range(start, start + 30)}
        self.texts |= fresh
        self.reviews.add(fresh)
        self.kills += children.run(self.reviews.root, **how) == signal.SIGKILL
        self.remember()

    def remember(self) -> None:
        """What has an answer on disk is not asked again, and what is on disk already was not asked since last time."""
        known = in_ledger(self.reviews)
        with self.service.lock:
            counts = {question_key("http", "1", body): count for body, count in self.service.asked.items()}
        assert known <= set(counts)
        assert {key: counts[key] for key in self.settled} == self.settled
        self.settled = {key: counts[key] for key in known}

    def check(self) -> None:
        self.remember()
        assert [(row["id"], row["text"], row["score"], row["_enrich_error"]) for row in self.reviews.rows()] == [
            (i, text, score(text)["score"], None) for i, text in self.texts.items()
        ]
        again = sum(count - 1 for count in self.service.answered.values())
        assert again <= 12 * self.kills, "only what was under way, or had come within the last moment"
        assert all(len(keys) == 1 for keys in self.service.keys.values()), "whoever is asked again can tell"
        self.reviews.reconciled(output=len(self.texts), open=0)


def test_kills_at_every_step_lose_and_double_nothing(tmp_path: Path, children: Children) -> None:
    with serving(good, latency_s=0.01) as service:
        watched = Watched(tmp_path, service)
        for i, point in enumerate(POINTS[1::2]):
            watched.kill(children, point=point, nth=1 + i % 3)
        assert watched.kills == len(POINTS[1::2])
        assert children.run(tmp_path) == 0
        watched.check()


@pytest.mark.long
def test_many_kills_lose_and_double_nothing(tmp_path: Path, children: Children) -> None:
    rng = random.Random(3)
    with serving(good, latency_s=0.01) as service:
        watched = Watched(tmp_path, service)
        for nth in range(1, 5):
            for point in POINTS:
                watched.kill(children, point=point, nth=nth)
        for _ in range(20):
            watched.kill(children, seconds=rng.uniform(0.1, 0.8))
        assert watched.kills > 40
        assert children.run(tmp_path) == 0
        watched.check()


def opened(app: App) -> Flow:
    flow = app.pipeline().flow(SCORED)
    flow.open()
    return flow


def bronze(app: App) -> None:
    app.pipeline().run(tables=[TableName("bronze", "reviews")], until_idle=True)


def tell(reviews: Reviews, *texts: str) -> None:
    """Answers come into the ledger."""
    ledger = Ledger(LocalDisk(), reviews.lake, SCORED, 1, lambda: 0)
    body = '{"score":7,"label":"x"}'
    ledger.record([Entry(question_key("http", "1", f'{{"text":"{text}"}}'), body, None, 1) for text in texts])


class Died(BaseException):
    """A process that is gone."""


@pytest.mark.parametrize("point", ["plan.after", "state.after", "main.staged"])
def test_a_batch_that_runs_again_is_the_same_whatever_was_answered_meanwhile(tmp_path: Path, point: str) -> None:
    reviews = Reviews(tmp_path, f"http://127.0.0.1:{free_port()}/")
    reviews.add({i: f"t{i}" for i in range(4)})
    with open_project(str(tmp_path)) as app:
        app.apply()
        bronze(app)
        flow = opened(app)
        assert flow.step() is not None
        tell(reviews, "t1")

        def die(name: str) -> None:
            if name == point:
                raise Died

        crash.install(die)
        with pytest.raises(Died):
            flow.step()
        crash.install(None)
        flow.close()
        tell(reviews, "t0", "t2")
        flow = opened(app)
        assert flow.step() is not None
        assert [row["id"] for row in reviews.rows()] == [1], "the plan counts one group of answers"
        assert flow.step() is not None
        assert [row["id"] for row in reviews.rows()] == [0, 1, 2]
        assert flow.step() is None
        flow.close()
    reviews.reconciled(output=3, open=1)


def test_answers_that_are_gone_are_never_taken_as_not_asked(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path, f"http://127.0.0.1:{free_port()}/")
    reviews.add({1: "t1"})
    with open_project(str(tmp_path)) as app:
        app.apply()
        bronze(app)
        flow = opened(app)
        assert flow.step() is not None
        tell(reviews, "t1")

        def die(name: str) -> None:
            if name == "plan.after":
                raise Died

        crash.install(die)
        with pytest.raises(Died):
            flow.step()
        crash.install(None)
        flow.close()
        shutil.rmtree(ledger_path(reviews.lake, SCORED))
        flow = opened(app)
        with pytest.raises(CorruptionError, match="answers are missing"):
            flow.step()
        flow.close()


def test_two_processes_ask_once(tmp_path: Path) -> None:
    """Flows of two pipelines stand for two processes: the ledger's lock is per open file."""
    with serving(good, latency_s=0.02) as service:
        reviews = Reviews(tmp_path, service.url, parallel=4)
        reviews.add({i: f"t{i}" for i in range(60)})
        with open_project(str(tmp_path)) as app, open_project(str(tmp_path)) as other:
            app.apply()
            pipelines = [one.pipeline() for one in (app, other)]
            for pipeline in pipelines:
                pipeline._standby_s = 0.05
            threads = [threading.Thread(target=lambda p=p: p.run(until_idle=True)) for p in pipelines]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()
        assert set(service.asked.values()) == {1}
        assert [row["_enrich_error"] for row in reviews.rows()] == [None] * 60
        reviews.reconciled(output=60, open=0)


def test_stopping_records_what_was_under_way(tmp_path: Path) -> None:
    with serving(good, latency_s=0.4) as service:
        reviews = Reviews(tmp_path, service.url, parallel=4)
        reviews.add({i: f"t{i}" for i in range(4)})
        with open_project(str(tmp_path)) as app:
            app.apply()
            pipeline = app.pipeline()
            running = threading.Thread(target=pipeline.run)
            running.start()
            while len(service.asked) < 4:
                time.sleep(0.01)
            pipeline.stop()
            running.join(30)
        assert len(in_ledger(reviews)) == 4
        reviews.run()
        assert set(service.asked.values()) == {1}
        assert [row["_enrich_error"] for row in reviews.rows()] == [None] * 4


def test_the_ledger_is_kept_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_FILES_MAX", 16)
    monkeypatch.setattr(ledger_module, "_CHECKPOINT_EVERY", 10)
    now = [10**15]
    disk, lake = unsynced(), str(tmp_path / "lake")

    def made() -> Ledger:
        return Ledger(disk, lake, SCORED, 1, lambda: now[0])

    ledger, other = made(), made()
    for i in range(60):
        now[0] += 10_000_000
        ledger.record([Entry(f"{i:032d}", f"{i}", None, 1)])
        ledger.tidy()
    table = DeltaTable.open(disk, ledger_path(lake, SCORED))
    assert table is not None
    assert len(table.files()) <= 16
    assert len(list(Path(ledger_path(lake, SCORED)).glob("*.parquet"))) < 40, "what was compacted is deleted later"
    for one in (ledger, other, made()):
        assert one.refresh() == 60
        assert [found and found.answer for found in (one.known(f"{i:032d}", 60) for i in range(60))] == [
            str(i) for i in range(60)
        ]
        assert one.known(f"{9:032d}", 9) is None
        assert one.known(f"{9:032d}", 10) is not None
        assert one.between(5, 8) == {f"{i:032d}" for i in (5, 6, 7)}
    assert totals(disk, lake, SCORED) == {"questions": 60, "answers": 60, "refusals": 0, "tries": 60}


def lost(found: tuple[pa.Table, list[str], pa.Table, pa.Table]) -> tuple[pa.Table, list[str], pa.Table, pa.Table]:
    gone, questions, stayed, left = found
    return gone, questions, stayed.slice(1), left


def kept(found: tuple[pa.Table, list[str], pa.Table, pa.Table]) -> tuple[pa.Table, list[str], pa.Table, pa.Table]:
    gone, questions, stayed, left = found
    return gone, questions, stayed, left.slice(0, 0)


@pytest.mark.parametrize(
    ("bug", "problem"),
    [
        (lost, "input position is neither in output nor in quarantine: 1 positions"),
        (kept, "position waits and is settled: 1 positions"),
    ],
    ids=["a row is not stored", "a row is not taken out"],
)
def test_reconcile_sees_a_state_that_is_not_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: Callable[..., Any], problem: str
) -> None:
    release = WaitingRows.release
    monkeypatch.setattr(WaitingRows, "release", lambda *given: bug(release(*given)))
    reviews = Reviews(tmp_path, f"http://127.0.0.1:{free_port()}/")
    reviews.add({i: f"t{i}" for i in range(4)})
    with open_project(str(tmp_path)) as app:
        app.apply()
        bronze(app)
        flow = opened(app)
        assert flow.step() is not None
        tell(reviews, "t2")
        reviews.add({4: "t4"})
        bronze(app)
        assert flow.step() is not None
        flow.close()
        report = reconcile(str(tmp_path), reviews.lake, app.flows[SCORED])
        assert [one.split(", such")[0] for one in report.problems] == [problem]


def test_whoever_looks_for_a_row_that_waits_is_told(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path, f"http://127.0.0.1:{free_port()}/")
    reviews.add({i: f"t{i}" for i in range(3)})
    with open_project(str(tmp_path)) as app:
        app.apply()
        bronze(app)
        flow = opened(app)
        assert flow.step() is not None
        tell(reviews, "t0")
        assert flow.step() is not None
        flow.close()
    with open_project(str(tmp_path)) as app:
        position = reviews.rows("bronze/reviews")[1]["_position"]
        found = trace(app, SCORED, f"00001.json:{position}")
        assert found.absence is not None
        assert (found.absence.reason, found.absence.table) == ("waits_for_answer", "silver.scored")
        assert trace(app, SCORED, "00001.json:0").found
        app.live.step(5.0)
        standing = app.live.tables()[SCORED]
        assert standing.accounted
        assert (standing.counts["input"], standing.counts["output"], standing.counts["open"]) == (3, 1, 2)
