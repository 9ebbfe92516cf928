"""The demo as two people see it, through every door of one `lodestream up`: a short slice of the flights."""

import json
import urllib.error
import urllib.request

import pytest

from lodestream.app import open_project
from lodestream.demo.run import write_project
from tests.cli.conftest import call
from tests.cli.test_up import up
from tests.docs.demo import make_small_demo
from tests.engines.lakes import wait_for

SQL = "select carrier, flights from gold.delay_by_carrier order by carrier"
TAILS = "select distinct tailnum from silver.flights order by tailnum"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Four flights of United and three of American."""
    folder = tmp_path_factory.mktemp("two") / "demo-lake"
    make_small_demo(folder)
    day = folder / "data/flights/2013-01-01.jsonl"
    flights = [json.loads(line) for line in day.read_text().splitlines()]
    others = [
        flight | {"carrier": "AA", "tailnum": "N619AA", "flight": 900 + i} for i, flight in enumerate(flights[:3])
    ]
    (day.parent / "2013-01-02.jsonl").write_text("".join(json.dumps(flight) + "\n" for flight in others))
    assert write_project(folder) == []
    open_project(str(folder)).run()
    return folder


@pytest.fixture(scope="module")
def running(demo):
    keys = {name: call("keys", "create", name, "-s", "query:*", project=demo).out.strip() for name in ("ana", "ben")}
    with up(demo, "--without", "registry") as made:
        made.keys = keys | {"dev": made.told["token"]}
        wait_for(lambda: made.ask("/api/overview")["sentence"].startswith("All"), 60)
        yield made
        assert made.stop() == 0


def ask(running, who, path, body=None):
    headers = {"Authorization": f"Bearer {running.keys[who]}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(running.url + path, data, headers), timeout=60) as answer:
        return json.load(answer)


def refused(running, who, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(running, who, path)
    error.value.close()
    return error.value.code


def over_postgres(running, who, sql):
    import psycopg

    place = running.told["postgres"]
    with psycopg.connect(
        host=place["host"], port=place["port"], dbname="flights", user=who, password=running.keys[who], autocommit=True,
    ) as connection:  # fmt: skip
        return connection.execute(sql).fetchall()


BOTH, UNITED = [["AA", 3], ["UA", 4]], [["UA", 4]]
SEEN = {"dev": (BOTH, ["N14228", "N619AA"]), "ana": (BOTH, ["N14228", "N619AA"]), "ben": (UNITED, ["N1…"])}


@pytest.mark.parametrize("who", SEEN)
def test_sql_over_rest(running, who):
    rows, tails = SEEN[who]
    assert ask(running, who, "/api/sql", {"sql": SQL})["rows"] == rows
    assert ask(running, who, "/api/sql", {"sql": TAILS})["rows"] == [[tail] for tail in tails]


@pytest.mark.parametrize("who", SEEN)
def test_tables_over_rest(running, who):
    rows, tails = SEEN[who]
    told = ask(running, who, "/api/tables/gold.delay_by_carrier?select=carrier,flights&order=carrier.asc")
    assert [list(row.values()) if isinstance(row, dict) else row for row in told["rows"]] == rows
    told = ask(running, who, "/api/tables/silver.flights?select=tailnum&limit=100")
    assert {next(iter(row.values())) if isinstance(row, dict) else row[0] for row in told["rows"]} == set(tails)


@pytest.mark.parametrize("who", SEEN)
def test_saved_queries(running, who):
    told = ask(running, who, "/api/queries/late_airlines")
    assert [list(row)[1] if isinstance(row, list) else row["flights"] for row in told["rows"]] == [
        flights for carrier, flights in reversed(SEEN[who][0]) if carrier == "UA"
    ]  # American is not among the airlines of the small demo
    if who == "ben":
        assert refused(running, who, "/api/queries/latest_at_airport?airport=EWR") == 404
    else:
        assert ask(running, who, "/api/queries/latest_at_airport?airport=EWR&hours=1")["rows"]


@pytest.mark.parametrize("who", SEEN)
def test_postgres(running, who):
    rows, tails = SEEN[who]
    assert [list(row) for row in over_postgres(running, who, SQL)] == rows
    assert [tail for (tail,) in over_postgres(running, who, TAILS)] == tails


@pytest.mark.parametrize("who", SEEN)
def test_the_command_line(demo, running, who):
    rows, _ = SEEN[who]
    as_whom = () if who == "dev" else ("--as", who)
    lines = call("--json", "query", SQL, *as_whom, project=demo).lines
    assert [[line["carrier"], line["flights"]] for line in lines if "carrier" in line] == rows


def test_the_console(running):
    """Figures and panels: the airline gets none that are made from others' rows."""
    found = {who: ask(running, who, "/api/dashboards/flights/data")["panels"] for who in SEEN}
    assert [found[who][0]["rows"] for who in SEEN] == [[[7]], [[7]], [[4]]]
    assert len(found["ben"]) < len(found["ana"])
    tables = {
        who: {one["table"]: one["rows"] for one in ask(running, who, "/api/overview")["tables"]} for who in SEEN
    }  # fmt: skip
    assert len(tables["dev"]) == 17
    assert len(tables["ana"]) == 11
    assert tables["ana"]["silver.flights"] == 7
    assert tables["ben"] == {"gold.delay_by_carrier": None, "silver.flights": None}
    nodes = {node["id"] for node in ask(running, "ben", "/api/flow")["nodes"]}
    assert nodes == {"gold.delay_by_carrier", "silver.flights"}


def test_what_is_not_bens(running):
    assert refused(running, "ben", "/api/tables/gold.delay_by_route") == 404
    assert refused(running, "ben", "/api/quality/silver.weather") == 404
    assert refused(running, "ben", "/api/quarantine/silver.flights") == 403
    assert refused(running, "ben", "/api/audit") == 403
    assert ask(running, "ana", "/api/quarantine/silver.flights_feed")["groups"][0]["reason"] == "expect:known_origin"


def test_the_gold_moves_while_they_look(demo, running):
    day = demo / "data/flights/2013-01-03.jsonl"
    flight = json.loads((demo / "data/flights/2013-01-01.jsonl").read_text().splitlines()[0])
    day.write_text("".join(json.dumps(flight | {"flight": 5000 + i, "carrier": "AA"}) + "\n" for i in range(5)))
    wait_for(lambda: ask(running, "ana", "/api/sql", {"sql": SQL})["rows"] == [["AA", 8], ["UA", 4]], 90)
    assert ask(running, "ben", "/api/sql", {"sql": SQL})["rows"] == UNITED


def test_both_are_in_the_audit_log(running):
    import psycopg

    with pytest.raises(psycopg.Error):
        over_postgres(running, "ben", "select * from gold.delay_by_route")

    def seen(who):
        told = ask(running, "dev", f"/api/audit?principal={who}&limit=500")["records"]
        return {(one["door"], one["decision"]) for one in told}

    assert ("rest", "allowed") in seen("ana")
    wait_for(lambda: {("rest", "allowed"), ("postgres", "allowed"), ("postgres", "refused")} <= seen("ben"), 30)
