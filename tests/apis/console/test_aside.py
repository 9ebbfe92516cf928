"""Rows that were set aside, over HTTP: groups, pages, raw records, and taking them again exactly once."""

import base64
import json
import threading

from tests.apis.console.conftest import People, grants, order, serve
from tests.engines.lakes import wait_for

PATH = "/api/quarantine/silver.orders"


def mend(served, bound="amount > -2"):
    """Change the rule, as somebody would who has looked at what was set aside."""
    file = served.lab.root / "tables/silver/orders.yaml"
    file.write_text(file.read_text().replace("amount > 0", bound))
    served.lab.run()


def test_groups_and_rows(served):
    told = served.get(PATH).json()
    (group,) = told["groups"]
    assert (group["reason"], group["rows"], group["kind"]) == ("expect:positive", 2, "quarantine")
    assert group["sample"]["amount"] in (-1, -2)
    assert [row["columns"]["amount"] for row in told["rows"]] == [-1, -2]
    assert told["rows"][0]["reasons"] == ["expect:positive"]
    assert told["rows"][0]["rule"] == "positive"
    assert told["rows"][0]["time"].endswith("Z")
    assert told["cursor"] is None


def test_pages(served):
    served.lab.events([order(100 + i, amount=-10 - i) for i in range(7)])
    served.lab.run()
    seen, cursor = [], None
    for _ in range(10):
        told = served.get(PATH, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [row["columns"]["amount"] for row in told["rows"]]
        cursor = told["cursor"]
        if cursor is None:
            break
    assert seen == [-1, -2, *(-10 - i for i in range(7))]
    assert served.get(PATH, params={"reason": "expect:nothing"}).json()["rows"] == []
    assert len(served.get(PATH, params={"reason": "expect:positive"}).json()["rows"]) == 9
    for wrong in ({"limit": 0}, {"limit": "x"}, {"limit": 5000}, {"cursor": "x"}, {"cursor": base64.b64encode(b"[1]")}):
        assert served.get(PATH, params=wrong).status_code == 400, wrong


def test_records_that_did_not_decode_are_shown_as_they_came(served):
    served.lab.events(["{not json", "plain"])
    path = served.lab.root / "events/zz.jsonl"
    path.write_bytes(b'\xff\xfe{"id": 1}\n')
    served.lab.run()
    told = served.get("/api/quarantine/bronze.orders").json()
    found = {(row["raw_encoding"], row["raw"]) for row in told["rows"]}
    assert ("text", "{not json") in found
    assert ("base64", base64.b64encode(b'\xff\xfe{"id": 1}').decode()) in found


def test_replay_by_position_once(served):
    mend(served)
    rows = served.get(PATH).json()["rows"]
    body = {"rows": [row["id"] for row in rows]}
    told = served.post(f"{PATH}/replay", body).json()
    assert (told["replayed"], told["passed"]) == (2, 1)
    assert told["counts"]["output"] == 1
    assert min(row["amount"] for row in served.lab.rows("silver.orders", "amount")) == -1
    again = served.post(f"{PATH}/replay", {"rows": [rows[0]["id"]]})
    assert again.status_code == 400, "it is not open any more"
    assert len(served.lab.rows("silver.orders")) == 11
    served.lab.reconcile()
    replays = [(e.decision, e.objects) for e in served.people.events if e.action == "replay"]
    assert replays == [("allowed", ("silver.orders",))] * 2


def test_replay_by_reason(served):
    mend(served, "amount > -100")
    told = served.post(f"{PATH}/replay", {"reason": "expect:positive"}).json()
    assert (told["replayed"], told["passed"]) == (2, 2)
    assert served.get(PATH).json()["rows"] == []
    wait_for(lambda: served.get("/api/overview").json()["totals"]["quarantine_open"] == 0)


def test_replay_beside_a_running_pipeline_takes_each_row_once(lab):
    lab.events([order(i, amount=-1, at=59) for i in range(200)])
    lab.run()
    with serve(lab, People()) as served:
        mend(served)
        pipeline = lab.app().pipeline()
        running = threading.Thread(target=pipeline.run)
        running.start()
        try:
            rows = [row["id"] for row in served.get(PATH, params={"limit": 200}).json()["rows"]]
            codes = []

            def send(part):
                codes.append(served.post(f"{PATH}/replay", {"rows": part}).status_code)

            senders = [threading.Thread(target=send, args=(rows[i : i + 120],)) for i in (0, 80)]
            lab.events([order(1000 + i, at=59) for i in range(20)])
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join(120)
            assert 200 in codes
            wait_for(lambda: len(lab.rows("silver.orders", "id")) >= 220, 60)
        finally:
            pipeline.stop()
            running.join(60)
        found = [row["id"] for row in lab.rows("silver.orders", "id")]
        assert len(found) == len(set(found)) == 220
        lab.reconcile()


def test_who_may_not(served):
    people = served.people
    people.grants = {
        "ana": grants("silver.orders"),
        "eva": grants("silver.orders", privileges=("select", "quarantine")),
        "max": grants("silver.orders", privileges=("select", "quarantine", "replay")),
        "reader": grants("silver.orders", privileges=("select", "quarantine", "replay")),
        "ben": grants("silver.orders", privileges=("select", "quarantine", "replay")),
    }
    people.filters["ben", "silver.orders"] = "tenant = 'a'"
    assert served.get(PATH, "ana").status_code == 403
    assert served.get(PATH, "ben").status_code == 403
    row = served.get(PATH, "eva").json()["rows"][0]["id"]
    for name in ("ana", "eva", "ben", "reader"):
        before = served.lab.delta("silver.orders").snapshot.version
        assert served.post(f"{PATH}/replay", {"rows": [row]}, name).status_code == 403, name
        assert served.lab.delta("silver.orders").snapshot.version == before
    assert {e.principal for e in people.events if e.action == "replay" and e.decision == "refused"} == {
        "ana", "eva", "ben",
    }  # fmt: skip
    assert served.post(f"{PATH}/replay", {"rows": [row]}, "max").status_code == 200


def test_nothing_is_done_that_cannot_be_recorded(served):
    mend(served)
    served.people.full = True
    before = served.lab.delta("silver.orders").snapshot.version
    assert served.post(f"{PATH}/replay", {"reason": "expect:positive"}).status_code == 403
    assert served.lab.delta("silver.orders").snapshot.version == before


def test_changed_declarations_have_to_be_applied_first(served):
    file = served.lab.root / "tables/silver/orders.yaml"
    file.write_text(file.read_text().replace("amount > 0", "amount > -9"))
    answer = served.post(f"{PATH}/replay", {"reason": "expect:positive"})
    assert answer.status_code == 400
    assert "declarations have changed" in answer.json()["detail"]


def test_requests_that_cannot_be_read(served):
    row = {"source": "x", "position": 1}
    for wrong in (
        [], {}, {"rows": []}, {"rows": [1]}, {"rows": [{"source": "x"}]}, {"rows": [row], "reason": "x"},
        {"rows": [row | {"set": {"amount": 1}}]}, {"rows": [{"source": "x", "position": "y"}]}, {"reason": 1},
        {"reason": "x", "accept_late": "yes"}, {"reason": "x", "more": 1}, {"rows": [row]}, {"reason": "no such"},
    ):  # fmt: skip
        answer = served.post(f"{PATH}/replay", wrong)
        assert answer.status_code == 400, wrong
        assert answer.headers["content-type"] == "application/problem+json"
    with served.client() as client:
        assert client.post(f"{PATH}/replay", content=b"{").status_code == 400


def test_a_row_is_mended_and_taken_again(served):
    rows = served.get(PATH).json()["rows"]
    told = served.post(f"{PATH}/replay", {"rows": [rows[0]["id"] | {"set": {"amount": 7}}]}).json()
    assert (told["replayed"], told["passed"]) == (1, 1)
    assert max(row["amount"] for row in served.lab.rows("silver.orders", "amount")) >= 7
    closed = [row for row in served.lab.quarantine("silver.orders", "kind", "detail") if row["kind"] == "resolved"]
    assert json.loads(closed[0]["detail"])["values"] == {"amount": 7}
    assert json.loads(closed[0]["detail"])["by"]
    (event,) = [event for event in served.people.events if event.action == "replay"]
    assert event.detail["mended"] == 1
    served.lab.reconcile()
    second = rows[1]["id"]
    for wrong in (
        {"set": {"amount": "much"}},
        {"set": {"nothing": 1}},
        {"set": []},
        {"set": [1]},
        {"raw": 1},
        {"raw": "{}"},
    ):
        assert served.post(f"{PATH}/replay", {"rows": [second | wrong]}).status_code == 400, wrong
    assert [row["id"] for row in served.get(PATH).json()["rows"]] == [second]
