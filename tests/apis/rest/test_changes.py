"""Changes as events: nothing lost, nothing doubled, each row under the listener's policy, ended with the credential."""

import contextlib
import json
import os
import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from lodestream.apis.rest import changes as changes_module
from lodestream.app import now_us
from lodestream.lake.actions import RemoveFile
from lodestream.lake.log import commit_path
from lodestream.security.keys import KeyStore
from tests.apis.rest.conftest import POLICIES, append, make, orders, serving, write_lake
from tests.apis.test_events import parsed

PATH = "/api/tables/gold.orders/changes"
BOUND_S = 30


class Listener:
    """Takes the events of a stream in a thread."""

    def __init__(self, served, who="owner", path=PATH, after=None, query=""):
        self.events = queue.Queue()
        self.all = []
        self._client = served.client(who)
        headers = {} if after is None else {"last-event-id": after}
        self._stream = self._client.stream("GET", path + query, headers=headers)
        self.answer = self._stream.__enter__()
        assert self.answer.status_code == 200
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        with contextlib.suppress(Exception):
            for event in parsed(self.answer.iter_lines()):
                if "event" in event or "data" in event:
                    event["data"] = json.loads(event["data"])
                    self.all.append(event)
                self.events.put(event)
        self.events.put(None)

    def next(self, name=None):
        """The next event (of a name); None at the end."""
        while True:
            event = self.events.get(timeout=BOUND_S)
            if event is None or (name is None and "event" in event) or (name and event.get("event") == name):
                return event

    def close(self):
        with contextlib.suppress(OSError):  # wakes whoever waits for more
            self.answer.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join(BOUND_S)
        with contextlib.suppress(httpx.HTTPError):
            self.answer.close()
        self._client.close()


@contextlib.contextmanager
def listening(*args, **options):
    listener = Listener(*args, **options)
    try:
        yield listener
    finally:
        listener.close()


def status(served, path, who="owner"):
    """The status of an answer that may never end."""
    with served.client(who) as client, client.stream("GET", path) as answer:
        return answer.status_code


def ids(event, kind="inserted"):
    return [row["id"] for row in event["data"][kind]]


def swap(table, old, rows, name):
    """Replace files of a version by others, as a flow does with its open windows."""
    table.refresh()
    staged = table.stage(rows, name=name)
    return table.commit(adds=staged.adds, removes=[RemoveFile.of(add) for add in old], clock_us=now_us())


def test_rows_come_as_they_are_committed(fresh):
    with listening(fresh) as listener:
        started = listener.next()
        assert (started["event"], started["data"], started["id"]) == ("start", {"version": 3}, "3")
        append(fresh.orders, orders(300, 2), "a")
        event = listener.next()
        assert (event["event"], event["id"], ids(event)) == ("change", "4", [300, 301])
        assert event["data"]["inserted"][0] == {
            "id": 300, "country": "DE", "name": "customer-300", "amount": "75.00", "seen": "2024-01-01T05:00:00Z",
            "day": "2024-01-01", "paid": None, "limit": 6, "ratio": 300 / 7, "tags": ["t0"], "raw": "LA==",
        }  # fmt: skip
        append(fresh.orders, orders(302, 1), "b")
        assert ids(listener.next()) == [302]


def test_each_sees_what_the_policy_lets_them(fresh):
    with listening(fresh, "alice") as alice, listening(fresh) as owner:
        assert alice.next()["event"] == owner.next()["event"] == "start"
        append(fresh.orders, orders(301, 2), "none of hers")
        append(fresh.orders, orders(303, 3), "one of hers")
        event = alice.next()
        assert event["id"] == "5"
        assert [(row["id"], row["country"], row["name"]) for row in event["data"]["inserted"]] == [(303, "DE", "***")]
        assert [ids(owner.next()) for _ in range(2)] == [[301, 302], [303, 304, 305]]


def test_an_updated_row_leaves_and_comes(fresh):
    table = make(fresh.app.lake, "gold.sums", {"country": "string", "n": "bigint", "_batch": "bigint"})
    with listening(fresh, path="/api/tables/gold.sums/changes") as listener:
        listener.next()
        append(table, pa.table({"country": ["DE", "FR"], "n": [1, 1], "_batch": [1, 1]}), "1")
        assert listener.next()["data"]["inserted"] == [{"country": "DE", "n": 1}, {"country": "FR", "n": 1}]
        swap(table, table.files(), pa.table({"country": ["DE", "FR"], "n": [2, 1], "_batch": [2, 2]}), "2")
        told = listener.next()["data"]
        assert (told["inserted"], told["deleted"]) == ([{"country": "DE", "n": 2}], [{"country": "DE", "n": 1}])
        swap(table, table.files(), pa.table({"country": ["DE", "FR"], "n": [2, 1], "_batch": [3, 3]}), "3")
        swap(table, table.files(), pa.table({"country": ["DE"], "n": [2], "_batch": [4]}), "4")
        told = listener.next()["data"]
        assert (told["version"], told["inserted"], told["deleted"]) == (4, [], [{"country": "FR", "n": 1}])


def test_a_row_that_moves_out_of_sight_leaves(tmp_path):
    """To who sees one country only, a row whose country changes is gone; its new content is not shown."""
    folder = tmp_path / "shop"
    write_lake(folder)
    table = make(str(folder / "lake"), "gold.moves", {"id": "bigint", "country": "string"})
    append(table, pa.table({"id": [1], "country": ["DE"]}), "1")
    text = POLICIES.replace("select: [gold.orders,", "select: [gold.moves, gold.orders,")
    (folder / "policies.yaml").write_text(text.replace("on: gold.orders,", "on: [gold.orders, gold.moves],"))
    with serving(folder) as served, listening(served, "alice", path="/api/tables/gold.moves/changes") as listener:
        listener.next()
        swap(table, table.files(), pa.table({"id": [1], "country": ["FR"]}), "2")
        told = listener.next()["data"]
        assert (told["inserted"], told["deleted"]) == ([], [{"id": 1, "country": "DE"}])


def test_columns_are_chosen(fresh):
    with listening(fresh, query="?select=country,id") as listener:
        listener.next()
        append(fresh.orders, orders(300, 1), "a")
        assert listener.next()["data"]["inserted"] == [{"country": "DE", "id": 300}]
    assert status(fresh, f"{PATH}?select=nothing") == 400


def test_nothing_is_lost_and_nothing_doubled_however_often_a_stream_breaks(fresh):
    """A writer commits all the time; the listener leaves again and again, and goes on from the last event."""
    total, stop, failed = 60, threading.Event(), []

    def write():
        try:
            for number in range(total):
                append(fresh.orders, orders(1000 + 1200 * number, 1200 if number % 9 == 0 else 3), f"w{number}")
                time.sleep(0.01)
        except Exception as error:
            failed.append(error)
        stop.set()

    expected = [1000 + 1200 * n + i for n in range(total) for i in range(1200 if n % 9 == 0 else 3)]
    thread = threading.Thread(target=write)
    found, after, breaks = [], "3", 0
    thread.start()
    deadline = time.monotonic() + BOUND_S
    while len(found) < len(expected) and time.monotonic() < deadline:
        with listening(fresh, after=after) as listener:
            assert listener.next("start")["id"] == after
            for _ in range(1 + breaks % 4):
                event = listener.next("change")
                assert event is not None
                found += ids(event)
                after = event["id"]
                if len(found) >= len(expected):
                    break
        breaks += 1
    thread.join()
    assert not failed
    assert found == expected
    assert breaks > 5


def test_a_version_too_large_for_one_event_is_cut_and_can_be_gone_on_with(fresh):
    with listening(fresh) as listener:
        listener.next()
        append(fresh.orders, orders(300, 1201), "large")
        parts = [listener.next() for _ in range(3)]
        assert [part["id"] for part in parts] == ["4.1", "4.2", "4"]
        assert [part["data"]["last"] for part in parts] == [False, False, True]
    with listening(fresh, after="4.1") as listener:
        assert listener.next("start")["id"] == "4.1"
        assert ids(listener.next("change")) + ids(listener.next("change")) == [*range(800, 1501)]


def test_positions_that_are_not_there_any_more(fresh):
    for number in range(3):
        append(fresh.orders, orders(300 + number, 1), f"x{number}")
    assert status(fresh, f"{PATH}?after=99") == 410
    assert status(fresh, f"{PATH}?after=1") == 200
    fresh.orders.checkpoint()
    os.unlink(commit_path(fresh.orders.path, 2))
    assert status(fresh, f"{PATH}?after=1") == 410
    for wrong in ("x", "-1", "1.x", "1.2.3", "9" * 30, "١"):
        assert status(fresh, f"{PATH}?after={wrong}") == 400, wrong


def test_a_table_that_must_be_read_anew_says_so(fresh):
    with listening(fresh) as listener:
        listener.next()
        files = fresh.orders.files()
        staged = fresh.orders.stage(orders(0, 1), name="anew")
        fresh.orders.commit(
            adds=staged.adds, removes=[RemoveFile.of(add) for add in files], operation="REBUILD", clock_us=now_us()
        )
        event = listener.next()
        assert (event["event"], event["data"], event["id"]) == ("reset", {"version": 4}, "4")
        append(fresh.orders, orders(300, 1), "after")
        assert ids(listener.next()) == [300]


def test_rewriting_and_old_rows_that_go_are_not_changes(fresh):
    with listening(fresh) as listener:
        listener.next()
        old = fresh.orders.files()[:2]
        staged = fresh.orders.stage(fresh.orders.read(old), name="compacted")
        adds = [type(add)(**{name: getattr(add, name) for name in add.__slots__} | {"data_change": False})
                for add in staged.adds]  # fmt: skip
        removes = [RemoveFile.of(add, data_change=False) for add in old]
        fresh.orders.commit(adds=adds, removes=removes, operation="COMPACT", clock_us=now_us())
        gone = RemoveFile.of(fresh.orders.files()[0])
        fresh.orders.commit(removes=[gone], operation="RETENTION", clock_us=now_us())
        append(fresh.orders, orders(300, 1), "after")
        event = listener.next()
        assert (event["id"], ids(event)) == ("6", [300])


def test_a_revoked_key_ends_its_stream_within_five_seconds(fresh):
    text, made = fresh.key("alice")
    fresh.keys["other"] = text
    with listening(fresh, "other") as listener, listening(fresh) as owner:
        assert listener.next()["event"] == owner.next()["event"] == "start"
        KeyStore(fresh.app.keys_path).change(made.id, revoked_us=now_us())
        started = time.monotonic()
        event = listener.next()
        assert event["event"] == "end"
        assert time.monotonic() - started < 5
        append(fresh.orders, orders(300, 1), "after")
        assert ids(owner.next()) == [300]
        assert listener.next() is None


def declare(fresh, before, after):
    """Write other policies into the project's file."""
    file = Path(fresh.app.project.root, "policies.yaml")
    file.write_text(file.read_text().replace(before, after))


def test_a_grant_that_is_taken_away_ends_the_stream(fresh):
    with listening(fresh, "alice") as listener:
        listener.next()
        declare(fresh, "select: [gold.orders, silver.notes], quarantine: [gold.orders]", "select: [silver.notes]")
        event = listener.next()
        assert event["event"] == "end"
        append(fresh.orders, orders(300, 3), "after")
        assert listener.next() is None


def test_a_policy_that_changes_holds_for_open_streams(fresh):
    with listening(fresh, "alice") as listener:
        listener.next()
        declare(fresh, "attributes: {country: DE}", "attributes: {country: FR}")
        deadline = time.monotonic() + BOUND_S
        while fresh.get("/api/tables/gold.orders?limit=1", "alice").json()["rows"][0][1] != "FR":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        append(fresh.orders, orders(300, 3), "after")
        assert [row["country"] for row in listener.next()["data"]["inserted"]] == ["FR"]


def test_a_listener_that_falls_behind_is_sent_away_with_a_word(fresh, monkeypatch):
    monkeypatch.setattr(changes_module, "_BEHIND_MAX", 5)
    rows = orders(0, 1)
    wide = pa.table({name: rows[name] if name != "name" else pa.array(["x" * 3_000_000]) for name in rows.column_names})
    with fresh.client() as client, client.stream("GET", PATH) as answer:
        lines = answer.iter_lines()
        first = next(parsed(lines))
        assert first == {"retry": "1000"}
        append(fresh.orders, orders(300, 1), "a")  # it catches up with this one
        time.sleep(0.5)
        for number in range(16):  # and takes none of these, which are more than what the machine holds in between
            append(fresh.orders, wide, f"w{number}")
        time.sleep(1)
        last = None
        for event in parsed(lines):
            last = event
        assert last["event"] == "dropped"
        assert json.loads(last["data"])["behind"] > 5


def test_one_evaluation_serves_all_who_see_the_same(fresh, monkeypatch):
    made = []
    real = changes_module.Changes.seen

    def counted(self, version, access, columns):
        made.append(version)
        return real(self, version, access, columns)

    opened = []
    make_tail = changes_module.Tail.__init__

    def opening(self, *args):
        opened.append(self)
        make_tail(self, *args)

    monkeypatch.setattr(changes_module.Changes, "seen", counted)
    monkeypatch.setattr(changes_module.Tail, "__init__", opening)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(12) as together:
        listeners = list(together.map(lambda who: Listener(fresh, who), ("owner",) * 8 + ("alice",) * 4))
        for listener in listeners:
            stack.callback(listener.close)
        for listener in listeners:
            listener.next("start")
        append(fresh.orders, orders(300, 3), "a")
        for listener in listeners:
            assert listener.next("change")["id"] == "4"
    assert made == [4, 4]
    assert len(opened) == 1


@pytest.mark.parametrize("who", ["bob", "oscar", "quinn"])
def test_who_may_not_read_does_not_listen(served, who):
    assert status(served, "/api/tables/gold.nothing/changes", who) == 404
    assert status(served, "/api/tables/gold.orders/changes", who) == 404
