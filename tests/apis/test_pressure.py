"""A full disk, a table that lags, a slow disk, a server that stops: refused in time, and nothing accepted is lost."""

import threading

import httpx
import pytest

from lodestream.apis.ingest import open as opening
from lodestream.drivers.record_log.disk import LocalLogDisk
from lodestream.errors import TransientError
from lodestream.testing.log_faults import FaultyLogDisk, ThroughLogDisk
from tests.apis.conftest import serving


class HeldDisk(ThroughLogDisk):
    """Waits at each sync while it is held."""

    def __init__(self):
        super().__init__(LocalLogDisk())
        self.free = threading.Event()
        self.waiting = threading.Event()
        self.free.set()

    def before(self, kind, path):
        if kind == "fsync":
            if not self.free.is_set():
                self.waiting.set()
            assert self.free.wait(60)
        return True


@pytest.fixture
def on(monkeypatch):
    """Uses a disk for the logs of servers that start from now on."""
    return lambda disk: monkeypatch.setattr(opening, "LocalLogDisk", lambda: disk)


def in_background(served, body, **headers):
    """Post on another thread; gives the thread and where its answer will be."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(served.post(body, **headers)))
    thread.start()
    return thread, answers


@pytest.mark.parametrize("kind", ["append", "fsync"])
def test_a_full_disk_is_said_and_the_server_recovers_by_itself(project, on, kind):
    failing = []
    full = TransientError("disk is full; free space and it goes on", retry_after_s=5.0)
    on(FaultyLogDisk(LocalLogDisk(), lambda what, _path: full if failing and what == kind else None, half=True))
    with serving(project()) as served:
        assert served.post('{"id":1}').status_code == 200
        failing.append(True)
        for _ in range(3):
            answer = served.post('{"id":2}', idempotency_key="two")
            assert answer.status_code == 503
            assert "disk is full" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "5"
        assert served.client.get("/healthz").status_code == 503
        failing.clear()
        assert served.post('{"id":2}', idempotency_key="two").json() == {"accepted": 1, "first": 1, "last": 1}
        assert served.client.get("/healthz").status_code == 200
        assert [row["id"] for row in served.rows()] == [1, 2]


def test_a_table_that_lags_is_waited_for(project):
    with serving(project("ingest: {backlog_bytes_max: 2048}")) as served:
        accepted = 0
        while (answer := served.post('{"id":1}')).status_code == 200:
            accepted += 1
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert accepted > 5
        assert len(served.rows()) == accepted
        served.rows()  # the flow says what it has when it looks again
        assert served.post('{"id":2}').status_code == 200
        assert len(served.rows()) == accepted + 1


def test_the_backlog_is_known_after_a_restart(project):
    folder = project("ingest: {backlog_bytes_max: 2048}")
    with serving(folder) as served:
        while served.post('{"id":1}').status_code == 200:
            pass
    with serving(folder) as served:
        assert served.post('{"id":1}').status_code == 429
        served.rows()
        served.rows()
        assert served.post('{"id":1}').status_code == 200


def test_a_slow_disk_is_not_queued_for_without_end(project, on):
    disk = HeldDisk()
    on(disk)
    with serving(project("ingest: {queue_bytes_max: 3000}")) as served:
        disk.free.clear()
        body = '[{"id":1,"name":"%s"}]' % ("x" * 2000)
        background = [in_background(served, body)]
        assert disk.waiting.wait(30)
        for _ in range(50):
            background.append(in_background(served, body))
            background[-1][0].join(0.05)
            if background[-1][1]:
                break
        assert background[-1][1][0].status_code == 429
        disk.free.set()
        for thread, _answers in background:
            thread.join(30)
        accepted = [answers[0] for _, answers in background if answers[0].status_code == 200]
        assert len(accepted) >= 2
        assert len(served.rows()) == len(accepted)


def test_requests_at_once_under_one_key_are_one(project, on):
    disk = HeldDisk()
    on(disk)
    with serving(project()) as served:
        disk.free.clear()
        first = in_background(served, '{"id":1}', idempotency_key="k")
        assert disk.waiting.wait(30)
        others = [in_background(served, '{"id":1}', idempotency_key="k") for _ in range(5)]
        assert served.post('{"id":2}', idempotency_key="k").status_code == 409
        disk.free.set()
        for thread, answers in (first, *others):
            thread.join(30)
            assert answers[0].json() == {"accepted": 1, "first": 0, "last": 0}
        assert len(served.rows()) == 1


def test_requests_under_way_are_answered_when_the_server_stops(project, on):
    disk = HeldDisk()
    on(disk)
    folder = project()
    with serving(folder) as served:
        disk.free.clear()
        answers = []
        headers = dict(served.client.headers) | {"content-type": "application/json"}
        url = f"{served.url}/ingest/orders"
        post = lambda: answers.append(httpx.post(url, content='{"id":1}', headers=headers, timeout=30))  # noqa: E731
        thread = threading.Thread(target=post)
        thread.start()
        assert disk.waiting.wait(30)
        threading.Timer(0.3, disk.free.set).start()
    thread.join(30)
    assert answers[0].status_code == 200
    with serving(folder) as served:
        assert [row["id"] for row in served.rows()] == [1]


def test_what_the_table_has_is_cleared_from_the_log(project, monkeypatch):
    monkeypatch.setattr("lodestream.apis.ingest.routes._LOOK_EVERY_S", 0.05)
    tables = {"orders": "source: {http: {stream: orders, keep: 1 ms}}\ncolumns: {id: bigint}\n"}
    with serving(project("ingest: {segment_bytes: 4096, answers_kept: 1 ms}", tables)) as served:
        for i in range(120):
            assert served.post(f'{{"id":{i}}}').status_code == 200
        served.rows(columns=["id"])
        served.rows(columns=["id"])
        for _ in range(200):
            text = served.client.get("/metrics").text
            size = int(text.split('log_bytes{stream="orders"} ')[1].split("\n")[0])
            if size < 5000:
                break
            threading.Event().wait(0.05)
        assert size < 5000
        assert served.post('{"id":120}').status_code == 200
        assert len(served.rows(columns=["id"])) == 121
