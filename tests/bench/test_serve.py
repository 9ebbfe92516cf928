"""The serving benchmark runs on a small table, and prints its figures as JSON last."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from bench import serve
from bench import serve_load as load
from bench.serve_stage import COLUMNS, Lake
from lodestream.model.arrow import to_arrow

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk (apt-get install wrk)")


def test_a_small_run(capsys, monkeypatch, tmp_path):
    """Both doors start and answer; how much they answer in a second is for a machine of one's own."""
    monkeypatch.chdir(tmp_path)
    given = ["--rows", "2000", "--bulk-rows", "2000", "--repeats", "1", "--no-postgres", "--only", "whole", "bulk"]
    assert serve.main(given) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["failed"] == []
    assert told["rows"] == 2000
    assert told["rest_whole"]["s"] > 0
    assert told["wire_whole"]["s"] > 0
    assert told["rest_arrow"]["rows_per_s"] > 0
    assert told["wire_adbc"]["rows_per_s"] > 0
    assert not list((tmp_path / ".cache/bench").iterdir())


class Answering(http.server.BaseHTTPRequestHandler):
    """Notes what is asked, and answers at once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Authorization"], b""))
        self._answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        self._answer()

    def _answer(self):
        self.send_response(200 if len(self.server.asked) % 10 else 500)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@needs_wrk
@pytest.mark.parametrize("what", ["keyed", "aggregate"])
def test_wrk_asks_and_counts(what, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        told = load.measured(os.getpid(), 1, lambda: load.http(url, "k_e_y", 5000, what, 1.0, 2, tmp_path))
    finally:
        server.shutdown()
        server.server_close()
    assert told["requests"] > 20
    assert told["requests"] // 10 - 3 <= told["failed"] <= told["requests"] // 10 + 3
    assert 0 <= told["p50_ms"] <= told["p99_ms"] <= told["max_ms"]
    paths, keys, bodies = zip(*server.asked, strict=True)
    assert set(keys) == {"Bearer k_e_y"}
    if what == "keyed":
        numbers = {int(path.removeprefix("/api/tables/gold.daily_sales?id=eq.")) for path in paths}
        assert len(numbers) > 10
        assert max(numbers) <= 4000
    else:
        assert set(paths) == {"/api/sql"}
        asked = json.loads(bodies[0])
        assert asked["sql"].startswith("select country, count(*)")
        assert asked["parameters"][1] - asked["parameters"][0] == 999


def test_the_table_is_the_same_every_time(tmp_path):
    made = [list(Lake(tmp_path / name, 100).fill()) for name in "ab"]
    assert made[0] == made[1]
    rows = made[0][0].schema
    assert rows.names == list(COLUMNS)
    assert sum(part.num_rows for part in made[0]) == 100
    assert made[0][0]["id"].to_pylist() == list(range(12))
    assert {len(country) for part in made[0] for country in part["country"].to_pylist()} == {2}


def test_ticks_are_versions(tmp_path):
    lake = Lake(tmp_path / "a", 10)
    before = lake.tick(1)
    assert lake.tick(2) > before
    assert lake.ticks.snapshot.version == 2
    assert to_arrow(lake.ticks.snapshot.metadata.schema).names == ["number", "committed_us"]


@pytest.mark.parametrize(
    ("found", "met"),
    [({"rest_keyed": {"p99_ms": 49.9, "per_s": 2000}, "changes": {"p99_ms": 10}}, [True, True, True]),
     ({"rest_keyed": {"p99_ms": 50, "per_s": 1999}}, [False, False, False])],
)  # fmt: skip
def test_the_aims(found, met, tmp_path):
    bench = serve.Bench(serve.parse(["--quick"]), tmp_path)
    bench.found |= found | {"postgresql_keyed": {"per_s": 4000}, "broken": {"failed": "why"}}
    bench._conclude()
    assert [aim["met"] for aim in bench.found["aims"].values()] == met
    assert bench.found["times_postgresql"]["rest_keyed"] == pytest.approx(0.5, abs=0.01)
    assert bench.found["failed"] == ["broken"]


def test_quick_is_a_default_that_can_be_overruled():
    assert serve.parse(["--quick"]).rows == 200_000
    assert serve.parse(["--quick", "--rows", "5"]).bulk_rows == 5
    assert serve.parse([]).rows == 10_000_000


def test_the_options_of_the_guide():
    some = serve.parse(["--only", "rest", "changes", "--no-postgres"])
    assert (some.only, some.postgres) == (["rest", "changes"], False)
    larger = serve.parse(["--rows", "1000000", "--connections", "32", "--keep"])
    assert (larger.rows, larger.connections, larger.keep) == (1_000_000, 32, True)


def test_the_meter_counts_processes_that_end():
    burn = "import time\nwhile time.process_time() < 0.6: pass\ntime.sleep(0.3)"
    with load.Meter(os.getpid()) as meter:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert meter.seconds >= 0.5
    with load.Meter(os.getpid()) as meter:
        pass
    assert meter.seconds < 0.5
