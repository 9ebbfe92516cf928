"""Dashboards: the same answer is asked for once, however many look; nobody gets an answer made for another."""

import threading

import pytest

from lodestream.project.dashboards import Dashboards, read_dashboard, read_dashboards
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import from_yaml
from tests.apis.console.conftest import BOARD, grants, order
from tests.engines.lakes import wait_for


def panels(served, name="owner"):
    answer = served.get("/api/dashboards/orders/data", name)
    assert answer.status_code == 200, answer.text
    return answer.json()["panels"]


def asked(served):
    return [e for e in served.people.events if e.action == "query" and "sql" in e.detail]


def test_what_it_shows(served):
    told = served.get("/api/dashboards/orders").json()
    assert (told["title"], told["refresh_s"]) == ("Orders", 1.0)
    assert [panel["kind"] for panel in told["panels"]] == ["number", "bar", "number", "text"]
    found = panels(served)
    assert found[0]["rows"] == [[10]]
    assert found[1]["columns"] == [{"name": "tenant", "type": "string"}, {"name": "amount", "type": "int64"}]
    assert found[1]["rows"] == [["a", 5], ["b", 5]]
    assert found[1]["versions"] == {"gold.total": served.lab.delta("gold.total").snapshot.version}
    assert found[3]["rows"] == []
    assert served.get("/api/dashboards").json()["dashboards"][0]["name"] == "orders"
    assert served.get("/api/dashboards/nothing").status_code == 404
    assert served.get("/api/dashboards/nothing/data").status_code == 404


def test_many_look_and_one_asks(served):
    people = served.people
    people.grants = {f"user{i}": grants("silver.orders", "gold.total") for i in range(12)}
    threads = [threading.Thread(target=panels, args=(served, name)) for name in people.grants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(asked(served)) == 2, "one for each panel that they may see"
    shared = [e for e in people.events if e.detail.get("shared")]
    assert len(shared) == 2 * 11
    assert {e.principal for e in people.events} == set(people.grants), "each is in the audit log"
    served.lab.events([order(60)])
    served.lab.run()
    served.settle()
    assert panels(served, "user3")[0]["rows"] == [[11]]
    assert len(asked(served)) == 4


def test_each_sees_their_own(served):
    people = served.people
    people.grants = {name: grants("silver.orders", "gold.total") for name in ("ana", "ben", "bob", "cid")}
    people.filters = {("ben", "gold.total"): "tenant = 'b'", ("bob", "gold.total"): "tenant = 'b'"}
    people.masks = {("cid", "gold.total"): {"amount": "0"}}
    found = {name: panels(served, name)[1]["rows"] for name in (*people.grants, *people.grants)}
    assert found == {
        "ana": [["a", 5], ["b", 5]], "ben": [["b", 5]], "bob": [["b", 5]], "cid": [["a", 0], ["b", 0]],
    }  # fmt: skip
    assert len(asked(served)) == 1 + 3
    people.filters.clear()
    people.changes += 1
    assert panels(served, "ben")[1]["rows"] == [["a", 5], ["b", 5]]


def test_who_may_not_read_a_panel_does_not_know_of_it(served):
    people = served.people
    people.grants = {"ana": grants("gold.total"), "eva": {}}
    told = served.get("/api/dashboards/orders", "ana")
    assert [panel["title"] for panel in told.json()["panels"]] == ["By tenant", "Words"]
    assert "silver.orders" not in told.text
    assert len(panels(served, "ana")) == 2
    assert served.get("/api/dashboards", "eva").json() == {"dashboards": []}
    assert served.get("/api/dashboards/orders", "eva").status_code == 404
    assert served.get("/api/dashboards/orders/data", "eva").status_code == 404


def test_a_panel_that_cannot_be_asked_says_why(served):
    board = served.lab.root / "dashboards/orders.yaml"
    text = BOARD.replace("select count(*) as n from silver.orders", "select nothing from silver.orders")
    board.write_text(text.replace("select n from gold.secret", "drop table gold.secret"))
    found = panels(served)
    assert "nothing" in found[0]["error"]
    assert found[1]["rows"]
    assert found[2]["error"]


def test_what_depends_on_the_person_or_the_time_is_not_shared(served):
    board = served.lab.root / "dashboards/orders.yaml"
    board.write_text(
        "title: Now\nrefresh: 500 ms\npanels:\n- {title: T, kind: number, sql: select now() as t from gold.total}\n"
    )
    first = panels(served)[0]
    assert first["error"] is None
    wait_for(lambda: panels(served)[0]["rows"] != first["rows"])


@pytest.mark.parametrize(
    ("text", "line", "code", "says"),
    [
        ("title: x\n", 1, "D105", "panels"),
        ("title: x\npanels: []\n", 2, "D104", "panels"),
        ("title: x\npanels:\n- {title: a, kind: pie, sql: select 1}\n", 3, "D106", "pie"),
        ("title: x\npanels:\n- {title: a, kind: number}\n", 3, "D105", "sql"),
        ("title: x\npanels:\n- {title: a, kind: text, text: hi, sql: select 1}\n", 3, "D207", "sql"),
        ("title: x\npanels:\n- {title: a, kind: line, sql: select 1, x: a}\n", 3, "D105", "y"),
        ("title: x\npanels:\n- {title: a, kind: number, sql: select 1, width: 13}\n", 3, "D106", "width"),
        ("title: x\nrefresh: 10 ms\npanels:\n- {title: a, kind: number, sql: select 1}\n", 2, "D106", "500 ms"),
        ("title: x\npanel: []\n", 2, "D103", "panel"),
        ("title: [\n", 2, "D101", "YAML"),
    ],
)
def test_mistakes_have_a_file_and_a_line(tmp_path, text, line, code, says):
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards/bad.yaml").write_text(text)
    (tmp_path / "dashboards/good.yaml").write_text(BOARD)
    found, mistakes = read_dashboards(str(tmp_path))
    assert list(found) == ["good"]
    assert (mistakes[0].file, mistakes[0].line, mistakes[0].code) == ("dashboards/bad.yaml", line, code)
    assert says in str(mistakes[0])


def test_names_of_files(tmp_path):
    (tmp_path / "dashboards").mkdir()
    for name in ("a.yml", "Big.yaml", ".hidden.yaml", "notes.txt"):
        (tmp_path / "dashboards" / name).write_text(BOARD)
    found, mistakes = read_dashboards(str(tmp_path))
    assert found == {}
    assert [(m.file, m.code) for m in mistakes] == [("dashboards/Big.yaml", "D110"), ("dashboards/a.yml", "D112")]
    assert Dashboards(str(tmp_path / "elsewhere")).current() == {}


def test_one_y_may_be_written_alone():
    node = from_yaml(BOARD.encode(), "x.yaml", mistakes := Mistakes())
    board = read_dashboard("x", node, mistakes)
    assert board.panels[1].y == ("amount",)
    assert mistakes.found == []
