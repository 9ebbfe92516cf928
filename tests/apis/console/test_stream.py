"""One stream a tab: a snapshot, then what changes; for each only what is theirs; it ends with the credential."""

import threading
import time

from tests.apis.console.conftest import events, grants, order
from tests.engines.lakes import wait_for


class Picture:
    """What a client knows after each event."""

    def __init__(self):
        self.tables, self.history, self.ids = {}, [], []

    def take(self, name, identity, told):
        self.ids.append(identity)
        if name == "overview":
            self.tables, self.history = {}, []
        for entry in told.get("tables", ()):
            self.tables[entry["table"]] = entry
        for gone in told.get("removed", ()):
            del self.tables[gone]
        self.history += told.get("history", {}).get("t_us", [])


def rows(event):
    return {entry["table"]: entry["rows"] for entry in event[2]["tables"]}


def test_a_snapshot_and_then_what_changes(served):
    picture, kinds = Picture(), []
    with events(served) as stream:
        for name, identity, told in stream:
            kinds.append(name)
            picture.take(name, identity, told)
            if len(kinds) == 2:
                served.lab.events([order(50), order(51, amount=-1)])
                threading.Thread(target=served.lab.run).start()
            if picture.tables["gold.total"]["version"] and picture.tables["silver.orders"]["rows"] == 11:
                break
            assert len(kinds) < 60
    assert kinds[0] == "overview"
    assert set(kinds[1:]) == {"delta"}
    assert picture.tables["silver.orders"]["quarantine_open"] == 3
    assert picture.history == sorted(set(picture.history)), "no step twice, none out of order"
    assert all(b - a == 1_000_000 for a, b in zip(picture.history, picture.history[1:], strict=False))
    assert len(set(picture.ids)) == len(picture.ids)


def test_at_most_two_a_second(served):
    with events(served) as stream:
        next(stream)
        started = time.monotonic()
        for _ in range(4):
            next(stream)
        assert time.monotonic() - started >= 1.0  # and a busy machine only makes it longer


def test_who_was_cut_off_goes_on(served):
    with events(served) as stream:
        _, first, _ = next(stream)
        _, last, _ = next(stream)
    with events(served, last=last) as stream:
        assert next(stream)[0] == "delta"
    for stranger in ("other-1", "boot-1", "nonsense", first.replace("boot", "toob")):
        with events(served, last=stranger) as stream:
            assert next(stream)[0] == "overview"


def test_all_who_see_the_same_share_the_work(served):
    people = served.people
    people.grants = {f"user{i}": grants("silver.orders") for i in range(8)}
    frames = []

    def watch(name):
        with events(served, name) as stream:
            frames.append([next(stream)[1] for _ in range(3)])

    threads = [threading.Thread(target=watch, args=(name,)) for name in people.grants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(frames) == 8


def test_a_change_of_policy_is_seen_at_once(served):
    people = served.people
    people.grants = {"ana": grants("silver.orders", "gold.total")}
    with events(served, "ana") as stream:
        assert rows(next(stream)) == {"silver.orders": 10, "gold.total": 2}
        people.filters["ana", "silver.orders"] = "tenant = 'a'"
        people.changes += 1
        whole = next(one for one in stream if one[0] == "overview")
        assert rows(whole) == {"silver.orders": None, "gold.total": None}
        people.grants["ana"] = grants("gold.total")
        people.filters.clear()
        people.changes += 1
        assert list(rows(next(one for one in stream if one[0] == "overview"))) == ["gold.total"]


def test_it_ends_with_the_credential(served):
    served.people.grants = {"ana": grants("silver.orders")}
    with events(served, "ana") as stream:
        next(stream)
        served.people.gone.add("ana")
        started = time.monotonic()
        assert [name for name, _, _ in stream][-1] == "end"
        assert time.monotonic() - started < 30.0
    assert served.get("/api/live", "ana").status_code == 401


def test_it_ends_with_the_server_and_leaves_nothing_behind(served):
    with events(served) as stream:
        next(stream)
        assert served.streams.count == 1
    wait_for(lambda: served.streams.count == 0, 60)
