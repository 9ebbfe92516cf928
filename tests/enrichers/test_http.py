"""Rows that wait for a service: each arrives once, with the answer or the reason, and no answer is asked for twice."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lodestream.app import open_project
from lodestream.enrichers import _connections
from lodestream.enrichers.http import HttpEnricher, HttpEnricherSettings
from lodestream.errors import ConfigError
from lodestream.model.table import TableName
from lodestream.project.mistakes import ProjectError
from lodestream.testing.pipeline import find_cases, run_case
from tests.enrichers.service import Reply, Reviews, Service, free_port, good, score, serving


def asked(text: str | None) -> str:
    return json.dumps({"text": text}, separators=(",", ":"))


def test_each_row_arrives_once_with_its_answer(tmp_path: Path) -> None:
    with serving(good, latency_s=0.005) as service:
        reviews = Reviews(tmp_path, service.url)
        texts: dict[int, str | None] = {i: f"text {i % 7}" for i in range(50)} | {50: None, 51: 'a "b"\n☃'}
        reviews.add(texts)
        reviews.run()
        assert [(row["id"], row["score"], row["label"], row["_enrich_error"]) for row in reviews.rows()] == [
            (i, score(text)["score"], score(text)["label"], None) for i, text in texts.items()
        ]
        assert len(service.asked) == 9
        assert set(service.asked.values()) == {1}
        reviews.reconciled(output=52, open=0)


# --- what a service may do -------------------------------------------------------------------------------------------


class Moody:
    """Answers by what the text says; counts the tries of each."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()

    def __call__(self, told: dict[str, Any]) -> Reply:
        text = told["text"]
        self.tries[text] += 1
        status = re.fullmatch(r"(\d{3})( once)?", text)
        if status and not (status[2] and self.tries[text] > 1):
            return int(status[1]), {}, b"sorry"
        bodies = {
            "garbage": b"{oops", "nothing": b"", "list": b"[1]", "twice": b'{"score":1,"score":2,"label":"x"}',
            "text": b'{"score":"high","label":"x"}', "missing": b'{"score":1.5}', "bytes": b"\xff\xfe",
            "null": b'{"score":null,"label":null}', "whole": b'{"score":3,"label":"x"}',
            "nan": b'{"score":NaN,"label":"x"}',
            "large": b'{"score":1,"label":"' + b"x" * 5000 + b'"}',
        }  # fmt: skip
        if text in bodies:
            return 200, {}, bodies[text]
        if text == "hang up once" and self.tries[text] == 1:
            return None
        return good(told)


REASONS = {
    "400": "http:400", "404": "http:404", "422": "http:422", "302": "http:302", "garbage": "answer:json",
    "nothing": "answer:json", "list": "answer:object", "twice": "answer:duplicate_key", "text": "answer:score:type",
    "missing": "answer:label:missing", "bytes": "answer:utf8", "nan": "answer:json", "large": "answer:size",
}  # fmt: skip
ANSWERS = {"null": None, "whole": 3.0, "500 once": 4.0, "503 once": 4.0, "408 once": 4.0, "hang up once": 6.0}


def test_what_is_final_is_a_reason_and_what_is_not_is_asked_again(tmp_path: Path) -> None:
    moody = Moody()
    with serving(moody) as service:
        reviews = Reviews(tmp_path, service.url, answer_bytes_max=1000)
        reviews.add(dict(enumerate([*REASONS, *ANSWERS])))
        reviews.run()
        found = {row["text"]: row for row in reviews.rows()}
        assert {text: found[text]["_enrich_error"] for text in REASONS} == REASONS
        assert all(found[text]["score"] is None and found[text]["label"] is None for text in REASONS)
        assert {text: found[text]["score"] for text in ANSWERS} == ANSWERS
        assert all(found[text]["_enrich_error"] is None for text in ANSWERS)
        assert {text: moody.tries[text] for text in REASONS} == dict.fromkeys(REASONS, 1)
        assert all(service.answered[asked(text)] == 1 for text in ANSWERS)
        reviews.reconciled(output=len(REASONS) + len(ANSWERS), open=0)
        # The same questions again: all is known, refusals too.
        reviews.add({100 + i: text for i, text in enumerate([*REASONS, *ANSWERS])})
        before = sum(service.asked.values())
        reviews.run()
        assert sum(service.asked.values()) == before
        again = {row["text"]: row for row in reviews.rows() if row["id"] >= 100}
        assert {text: again[text]["_enrich_error"] for text in REASONS} == REASONS
        assert {text: again[text]["score"] for text in ANSWERS} == ANSWERS


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_is_kept(tmp_path: Path, status: int) -> None:
    turned_away: list[float] = []

    def reply(told: dict[str, Any]) -> Reply:
        if not turned_away:
            turned_away.append(time.monotonic())
            return status, {"Retry-After": "1"}, b""
        return good(told)

    with serving(reply) as service:
        reviews = Reviews(tmp_path, service.url, parallel=1)
        reviews.add({i: f"t{i}" for i in range(5)})
        reviews.run()
        after = [at - turned_away[0] for at in service.times if at > turned_away[0]]
        assert min(after) >= 1.0
        assert [row["_enrich_error"] for row in reviews.rows()] == [None] * 5
        assert sum(service.answered.values()) == 5


def test_a_service_that_trickles_is_left_and_asked_again(tmp_path: Path) -> None:
    slow = threading.Event()

    class Trickling(Service):
        def handle(self, request: Any) -> None:
            if slow.is_set():
                super().handle(request)
                return
            slow.set()
            request.rfile.read(int(request.headers["Content-Length"]))
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(200):
                time.sleep(0.05)
                try:
                    request.wfile.write(b"x")
                except OSError:
                    break
            request.close_connection = True

    service = Trickling()
    service.open()
    try:
        reviews = Reviews(tmp_path, service.url, request_timeout="400 ms")
        reviews.add({1: "one"})
        started = time.monotonic()
        reviews.run()
        assert time.monotonic() - started < 8
        assert [row["score"] for row in reviews.rows()] == [1.5]
        assert service.answered == {asked("one"): 1}
    finally:
        service.close()


def test_rows_wait_while_nobody_is_there_and_arrive_when_somebody_is(tmp_path: Path) -> None:
    service = Service()
    service.port = free_port()
    reviews = Reviews(tmp_path, service.url)
    reviews.add({i: f"t{i}" for i in range(20)})
    with open_project(str(tmp_path)) as app:
        app.apply()
        pipeline = app.pipeline()
        running = threading.Thread(target=lambda: pipeline.run(until_idle=True))
        running.start()
        try:
            reviews.wait_for(lambda status: "refused" in (status["trouble"] or ""))
            standing = reviews.status()
            assert (standing["waiting"], standing["questions"]) == (20, 0)
            reviews.reconciled(output=0, open=20)
            assert running.is_alive(), "until idle waits for rows that wait"
            service.open()
            running.join(30)
            assert not running.is_alive()
        finally:
            pipeline.stop()
            running.join(30)
            service.close()
    assert [row["_enrich_error"] for row in reviews.rows()] == [None] * 20
    assert set(service.asked.values()) == {1}
    standing = reviews.status()
    assert standing["trouble"] is None
    assert (standing["waiting"], standing["questions"], standing["answers"]) == (0, 20, 20)
    assert standing["tries"] > 20, "what was tried in vain counts"
    reviews.reconciled(output=20, open=0)


def test_a_row_that_waited_too_long_goes_on_without_an_answer(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path, f"http://127.0.0.1:{free_port()}/score", timeout="600 ms")
    reviews.add({1: "one", 2: "two"})
    reviews.run()
    assert [(row["id"], row["score"], row["_enrich_error"]) for row in reviews.rows()] == [
        (1, None, "timeout"), (2, None, "timeout"),
    ]  # fmt: skip
    assert reviews.status()["timeouts"] == 2
    reviews.reconciled(output=2, open=0)


@pytest.mark.parametrize("status", [401, 403])
def test_not_being_let_in_is_no_reason_of_a_row(tmp_path: Path, status: int) -> None:
    locked = threading.Event()
    with serving(lambda told: good(told) if locked.is_set() else (status, {}, b"")) as service:
        reviews = Reviews(tmp_path, service.url)
        reviews.add({i: f"t{i}" for i in range(8)})
        threading.Timer(0.7, locked.set).start()
        reviews.run()
        assert [row["_enrich_error"] for row in reviews.rows()] == [None] * 8


def test_reading_stops_at_the_bound_and_nothing_is_dropped(tmp_path: Path) -> None:
    """Commits of the table above have ten rows each and are taken whole."""
    service = Service()
    service.port = free_port()
    reviews = Reviews(tmp_path, service.url, waiting_max=25)
    with open_project(str(tmp_path)) as app:
        app.apply()
        for i in range(8):
            reviews.add({10 * i + j: f"t{10 * i + j}" for j in range(10)})
            app.pipeline().run(tables=[TableName("bronze", "reviews")], until_idle=True)
        pipeline = app.pipeline()
        running = threading.Thread(target=lambda: pipeline.run(until_idle=True))
        running.start()
        try:
            reviews.wait_for(lambda status: status["trouble"] is not None)
            assert reviews.status()["waiting"] == 20
            service.open()
            running.join(30)
            assert not running.is_alive()
        finally:
            pipeline.stop()
            running.join(30)
            service.close()
    assert [row["id"] for row in reviews.rows()] == list(range(80))
    assert max(reviews.waiting_by_batch()) <= 25
    reviews.reconciled(output=80, open=0)


def test_no_more_is_under_way_than_is_allowed(tmp_path: Path) -> None:
    with serving(good, latency_s=0.02) as service:
        reviews = Reviews(tmp_path, service.url, parallel=3)
        reviews.add({i: f"t{i}" for i in range(30)})
        reviews.run()
        assert service.most == 3


def test_no_more_is_begun_per_second_than_is_allowed(tmp_path: Path) -> None:
    with serving() as service:
        reviews = Reviews(tmp_path, service.url, rate="20 per second")
        reviews.add({i: f"t{i}" for i in range(20)})
        reviews.run()
        assert service.times[-1] - service.times[0] >= 0.6, (
            "19 steps of a twentieth, less what is made up for and how they arrive"
        )


def test_a_dead_service_is_left_alone(tmp_path: Path) -> None:
    """After a few failures one question at a time finds out whether somebody is there again."""
    with serving(lambda told: (500, {}, b"")) as service:
        reviews = Reviews(tmp_path, service.url, timeout="2500 ms", parallel=8)
        reviews.add({i: f"t{i}" for i in range(200)})
        reviews.run()
        assert {row["_enrich_error"] for row in reviews.rows()} == {"timeout"}
        assert sum(service.asked.values()) < 20


def test_all_other_stages_come_before_the_question(tmp_path: Path) -> None:
    """Derived, looked up, checked, deduplicated; what is left out is not asked."""
    with serving() as service:
        reviews = Reviews(tmp_path, service.url)
        (tmp_path / "tables/bronze/people.yaml").write_text(
            "source: {files: {path: people, settle: 0 seconds}}\nformat: json\ncolumns: {id: bigint, team: string}\n"
        )
        (tmp_path / "people").mkdir()
        (tmp_path / "people/a.json").write_text('{"id": 1, "team": "red"}\n{"id": 2, "team": "blue"}\n')
        http = {"url": service.url, "send": {"text": "loud", "team": "team"}, "receive": {"score": "double"}}
        (tmp_path / "tables/silver/scored.yaml").write_text(
            "from: stream(bronze.reviews)\n"
            "derive: {loud: upper(text), at: cast('2024-05-01 12:00:00' as timestamp)}\n"
            "expect: {has_text: text is not null}\n"
            "event_time: {column: at, delay: 10 seconds}\ndedup: {keys: [id]}\n"
            "enrich:\n"
            f"  - http: {json.dumps(http)}\n"
            "  - lookup: {table: bronze.people, on: id, columns: [team]}\n"
            "  - language: {column: text}\n"
            "select: [id]\n"
        )
        reviews.add({1: "a text in English", 2: None, 3: "and another text"})
        reviews.add({1: "a text in English"})
        reviews.run()
        assert sorted(map(json.loads, service.asked), key=str) == [
            {"text": "A TEXT IN ENGLISH", "team": "red"}, {"text": "AND ANOTHER TEXT", "team": None},
        ]  # fmt: skip
        rows = reviews.rows()
        assert [(row["id"], row["team"], row["language"], row["score"]) for row in rows] == [
            (1, "red", "en", 8.5), (3, None, "en", 8.0),
        ]  # fmt: skip
        assert list(rows[0])[:5] == ["id", "team", "language", "score", "_enrich_error"]
        reviews.reconciled(output=2, quarantine=1, duplicate=1, open=0)


# --- what is declared ------------------------------------------------------------------------------------------------


def test_a_question_has_the_keys_and_the_header_that_are_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORE_TOKEN", "s3cret-token")
    with serving(lambda told: (200, {}, b'{"score": 1, "label": "x"}')) as service:
        headers = {"Authorization": "Bearer ${env:SCORE_TOKEN}", "X-Team": "shop"}
        reviews = Reviews(tmp_path, service.url, send={"number": "id", "text": "text"}, headers=headers)
        reviews.add({7: "seven"})
        reviews.run()
        assert list(service.asked) == ['{"number":7,"text":"seven"}']
        assert service.headers[0]["Authorization"] == "Bearer s3cret-token"
        assert service.headers[0]["X-Team"] == "shop"
        assert all(re.fullmatch("[0-9a-f]{32}", key) for keys in service.keys.values() for key in keys)
    stored = [path for path in (tmp_path / "lake").rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert stored == []


def test_answers_outlive_a_rebuild_and_another_version_asks_anew(tmp_path: Path) -> None:
    refuse = {"t1"}
    with serving(lambda told: (400, {}, b"") if told["text"] in refuse else good(told)) as service:
        reviews = Reviews(tmp_path, service.url)
        reviews.add({i: f"t{i}" for i in range(4)})
        reviews.run()
        assert [row["_enrich_error"] for row in reviews.rows()] == [None, "http:400", None, None]
        refuse.clear()
        reviews.declare(service.url, receive={"score": "double"})
        reviews.run(accept=reviews.pending())
        assert [(row["score"], row["_enrich_error"]) for row in reviews.rows()] == [(1.0, None)] * 4
        assert service.asked == {asked("t0"): 1, asked("t1"): 2, asked("t2"): 1, asked("t3"): 1}
        reviews.declare(service.url, receive={"score": "double", "more": "array<int>", "why": "string"})
        reviews.run(accept=reviews.pending())
        assert {row["_enrich_error"] for row in reviews.rows()} == {"answer:why:missing"}, "of an answer that is kept"
        reviews.declare(service.url, receive={"more": "array<int>"})
        reviews.run(accept=reviews.pending())
        assert [row["more"] for row in reviews.rows()] == [[1]] * 4, "an answer is kept whole"
        assert sum(service.asked.values()) == 5
        reviews.declare(service.url, receive={"score": "double"}, version="2")
        reviews.run(accept=reviews.pending())
        assert service.asked == {asked("t0"): 2, asked("t1"): 3, asked("t2"): 2, asked("t3"): 2}
        reviews.declare(service.url + "?moved", receive={"score": "double"}, version="2", parallel=2, timeout="1 hour")
        assert reviews.pending() is None, "how it is asked decides no row"


MISTAKES = [
    ({"url": "ftp://x/"}, "D203", "url"),
    ({"url": "http://me:pw@x/"}, "D203", "url"),
    ({"send": []}, "D203", "send"),
    ({"send": ["txt"]}, "P110", "txt"),
    ({"send": {"a": "txt"}}, "P110", "txt"),
    ({"receive": {}}, "D203", "receive"),
    ({"receive": {"score": "dubble"}}, "D203", "receive"),
    ({"receive": {"_score": "double"}}, "D203", "receive"),
    ({"receive": {"Text": "double"}}, "D307", "Text"),
    ({"timeout": "soon"}, "D203", "timeout"),
    ({"timeout": "${env:T}"}, "D203", "timeout"),
    ({"rate": "50/s"}, "D203", "rate"),
    ({"parallel": 0}, "D203", "parallel"),
    ({"retries": 3}, "D103", "retries"),
    ({"headers": {"Authorization": "Bearer abc"}}, "D213", "Authorization"),
    ({"headers": {"x-api-key": "abc"}}, "D213", "x-api-key"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "code", "word"), MISTAKES)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, settings: dict[str, Any], code: str, word: str) -> None:
    reviews = Reviews(tmp_path, "http://127.0.0.1:1/", **settings)
    with pytest.raises(ProjectError) as told, open_project(str(tmp_path)) as app:
        _ = app.plans
    found = [(one.code, one.file, one.line) for one in told.value.diagnostics]
    assert found == [(code, "tables/silver/scored.yaml", 3)], told.value
    assert word in str(told.value)
    assert reviews


def test_a_unit_test_asks_nobody(tmp_path: Path) -> None:
    Reviews(tmp_path, "http://127.0.0.1:1/")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/scored.yaml").write_text(
        "name: scored\ntable: silver.scored\ngiven: {bronze.reviews: [{id: 1, text: x}]}\nexpect: {rows: [{id: 1}]}\n"
    )
    with open_project(str(tmp_path)) as app:
        verdict = run_case(app.project, app.flows, find_cases(str(tmp_path))[0])
    assert "asks nobody" in verdict.differences[0]


TABLES = [
    (
        "from: stream(bronze.reviews)\nderive: {{at: cast(text as timestamp)}}\n"
        "event_time: {{column: at, delay: 1 second}}\n"
        "join: {{from: stream(bronze.times), on: id, columns: [at2], within: {{before: 1 minute}},\n"
        "       event_time: {{column: at2, delay: 1 second}}}}\n"
        "enrich: {{http: {http}}}\n", 6,
    ),
    ("from: stream(bronze.reviews)\nenrich:\n  - http: {http}\n  - http: {http}\n", 4),
    (
        "from: stream(bronze.reviews)\nderive: {{at: cast(text as timestamp)}}\n"
        "event_time: {{column: at, delay: 1 second}}\n"
        "window: {{every: 1 minute}}\nmeasures: {{n: count(*)}}\nenrich: {{http: {http}}}\n", 6,
    ),
    ("source: {{files: {{path: in}}}}\nformat: json\ncolumns: {{text: string}}\nenrich: {{http: {http}}}\n", 4),
    ("from: stream(bronze.reviews)\nchanges: {{keys: [text], sequence_by: text}}\nenrich: {{http: {http}}}\n", 3),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), TABLES)
def test_what_cannot_wait_is_refused(tmp_path: Path, text: str, line: int) -> None:
    Reviews(tmp_path, "http://127.0.0.1:1/")
    (tmp_path / "tables/bronze/times.yaml").write_text(
        "source: {files: {path: times}}\nformat: json\ncolumns: {id: bigint, at2: timestamp}\n"
    )
    http = json.dumps({"url": "http://127.0.0.1:1/", "send": ["text"], "receive": {"score": "double"}})
    (tmp_path / "tables/silver/scored.yaml").write_text(text.format(http=http))
    with pytest.raises(ProjectError) as told, open_project(str(tmp_path)) as app:
        _ = app.plans
    assert [(one.code, one.line) for one in told.value.diagnostics] == [("D214", line)], told.value


def test_the_plan_tells_what_is_asked_and_where_columns_come_from(tmp_path: Path) -> None:
    from lodestream.planning.explain import explain

    Reviews(tmp_path, "http://127.0.0.1:1/", rate="90 per minute")
    with open_project(str(tmp_path)) as app:
        told = explain(next(plan for name, plan in app.flows.items() if name.layer == "silver"))
        assert any("N101" in str(note) or note.code == "N101" for note in app.plans.notes)
    assert "ask http about text: score, label, _enrich_error" in told.steps
    assert any("1.5 per second" in step for step in told.steps)
    assert {column for _, column in told.columns["score"]} == {"text"}


def test_a_reference_to_nothing_stops_the_table_alone(tmp_path: Path) -> None:
    with serving() as service:
        reviews = Reviews(tmp_path, service.url, headers={"Authorization": "Bearer ${env:NO_SUCH_TOKEN_HERE}"})
        reviews.add({1: "one"})
        with pytest.raises(ConfigError, match="environment variable is not set"):
            reviews.run()
        assert service.asked == {}


def test_connections_are_kept_and_a_closed_one_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    new = _connections.Connections._new
    monkeypatch.setattr(_connections.Connections, "_new", lambda self: made.append(1) or new(self))
    with serving() as service:
        settings = HttpEnricherSettings(url=service.url, send=("text",), receive={"score": "double"})
        enricher = HttpEnricher(settings)
        for i in range(5):
            assert enricher.ask(asked(f"t{i}"), "0" * 32).text is not None
        assert len(made) == 1
        service.reply = lambda told: None if service.asked[asked(told["text"])] == 1 else good(told)
        assert enricher.ask(asked("again"), "0" * 32).text is not None
        assert len(made) == 2
        enricher.close()
        assert enricher.ask(asked("late"), "0" * 32).later == "http:connection"
        enricher.close()


def test_a_rebuild_asks_what_came_too_late_and_nothing_else(tmp_path: Path) -> None:
    late = {"t1"}
    with serving(lambda told: (500, {}, b"") if told["text"] in late else good(told)) as service:
        reviews = Reviews(tmp_path, service.url, timeout="600 ms")
        reviews.add({i: f"t{i}" for i in range(3)})
        reviews.run()
        assert [row["_enrich_error"] for row in reviews.rows()] == [None, "timeout", None]
        late.clear()
        reviews.declare(service.url, timeout="600 ms", receive={"score": "double"})
        before = dict(service.asked)
        reviews.run(accept=reviews.pending())
        assert [row["_enrich_error"] for row in reviews.rows()] == [None] * 3
        assert {body: count - before[body] for body, count in service.asked.items() if count != before[body]} == {
            asked("t1"): 1
        }
