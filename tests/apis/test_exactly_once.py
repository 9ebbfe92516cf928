"""Clients that retry through a network that cuts and a server that is killed: each record once, none lost."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import httpx
import polars as pl
import pytest

from lodestream.app import open_project
from lodestream.operations.reconcile import reconcile
from lodestream.operations.trace import trace
from tests.apis.conftest import ORDERS, serving, write_project
from tests.apis.proxy import CuttingProxy

KEY_SCOPE = "ingest:*"
JSON = {"content-type": "application/json"}


class Server:
    """`lodestream serve` as a process that is killed and started again on one port.

    Args:
        project: folder of the project.
        options: more options of the verb.
    """

    def __init__(self, project: Path, *options: str) -> None:
        self._command = [sys.executable, "-m", "lodestream.cli", "-C", str(project), "serve", "--json", *options]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self) -> int:
        self._process = subprocess.Popen(
            [*self._command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.stderr.read() if self._process.stderr else ""
        self.port = int(json.loads(line)["url"].rpartition(":")[2])
        return self.port

    def stop(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        _out, said = self._process.communicate(timeout=60)
        assert "Traceback" not in said, said
        return self._process.returncode


def make_key(project):
    command = [sys.executable, "-m", "lodestream.cli", "-C", str(project), "keys", "create", "test", "-s", KEY_SCOPE]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def produce(port, key, name, requests, sent, failed):
    """Post batches, each again and again under its key until it is answered."""
    draw = random.Random(name)
    client = httpx.Client(timeout=10, limits=httpx.Limits(max_keepalive_connections=0))
    url = f"http://127.0.0.1:{port}/ingest/orders?on_error=quarantine"
    try:
        for number in range(requests):
            rows = [
                {"id": name * 1_000_000 + number * 10 + i, "name": "x" * draw.randint(0, 300)}
                for i in range(draw.randint(1, 4))
            ]
            bad = draw.random() < 0.1
            body = json.dumps([*rows, {"id": f"bad {name} {number}"}] if bad else rows)
            headers = {
                "authorization": f"Bearer {key}", "idempotency-key": str(uuid.uuid4()),
                "content-type": "application/json",
            }  # fmt: skip
            for _try in range(6000):
                try:
                    answer = client.post(url, content=body, headers=headers)
                except (httpx.TransportError, OSError):
                    time.sleep(0.01)
                    continue
                if answer.status_code == 200:
                    assert answer.json()["accepted"] == len(rows) + bad
                    break
                assert answer.status_code in (429, 503), answer.text
            else:
                raise AssertionError("never answered")
            sent.append((answer.json()["first"], [row["id"] for row in rows], bad))
    except BaseException as error:
        failed.append(error)
    finally:
        client.close()


def run_it(folder, *, requests, kills, run):
    project = write_project(folder / "shop", tables={"orders": ORDERS})
    key = make_key(project)
    server, proxy = Server(project, *(["--run"] if run else [])), CuttingProxy(1, 0.08)
    sent, failed = [], []
    proxy.target = server.start()
    threads = [threading.Thread(target=produce, args=(proxy.port, key, n, requests, sent, failed)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for kill in range(1, kills + 1):
        goal = 4 * requests * kill // (kills + 1)
        while len(sent) < goal and not failed and any(thread.is_alive() for thread in threads):
            threads[0].join(0.01)
        server.stop(signal.SIGKILL)
        proxy.target = server.start()
    for thread in threads:
        thread.join(300)
    assert failed == []
    assert server.stop(signal.SIGTERM) == 0
    proxy.close()
    assert proxy.cuts > 0
    prove(project, sent)


def prove(project, sent):
    """Produced = bronze + quarantine, by position and by value, read by Polars; and `reconcile` agrees."""
    app = open_project(str(project))
    app.run()
    bronze = pl.read_delta(str(project / "lake/bronze/orders")).select("id", "_position")
    aside = pl.read_delta(str(project / "lake/bronze/orders__quarantine")).select("_position", "raw")
    produced = [one for _, ids, _ in sent for one in ids]
    assert sorted(bronze["id"].to_list()) == sorted(produced)
    assert len(set(produced)) == len(produced)
    assert len(aside) == sum(bad for _, _, bad in sent)
    by_position = dict(zip(bronze["_position"].to_list(), bronze["id"].to_list(), strict=True))
    for first, ids, _bad in sent:
        assert [by_position[first + i] for i in range(len(ids))] == ids
    everything = sorted(bronze["_position"].to_list() + aside["_position"].to_list())
    assert everything == list(range(len(everything)))
    report = reconcile(app.project.root, app.lake, next(iter(app.flows.values())))
    assert report.ok, report.problems
    assert (report.input, report.counts["quarantine"]) == (len(everything), len(aside))


def test_produced_is_bronze_and_quarantine(tmp_path):
    run_it(tmp_path, requests=25, kills=1, run=True)


@pytest.mark.long
@pytest.mark.parametrize("run", [False, True], ids=["serve", "serve --run"])
def test_produced_is_bronze_and_quarantine_over_many_kills(tmp_path, run):
    run_it(tmp_path, requests=1000, kills=30, run=run)


def test_reconcile_sees_what_is_missing_and_trace_finds_the_record(tmp_path):
    """Planted: a record of the log that the table lacks, and damage in the log."""
    project = write_project(tmp_path / "shop", tables={"orders": ORDERS})
    with serving(project) as served:
        for body in ('[{"id":1},{"id":2,"name":"two"}]', '{"id":"x"}'):
            assert (
                served.client.post("/ingest/orders?on_error=quarantine", content=body, headers=JSON).status_code == 200
            )
    app = open_project(str(project))
    app.run()
    told = trace(app, "bronze.orders", "http/orders:1")
    assert told.record is not None
    assert (told.record.text, told.record.agrees) == ('{"id":2,"name":"two"}', True)
    aside = trace(app, "bronze.orders", "http/orders:2")
    assert aside.record is not None
    assert aside.record.rejects == ("parse:id:type",)
    plan = next(iter(app.flows.values()))
    assert reconcile(app.project.root, app.lake, plan).ok
    path = next((project / "lake/_lodestream/ingest/orders").glob("*.log"))
    whole = path.read_bytes()
    cut = whole.rindex(b"LSR1")
    path.write_bytes(whole[:cut])
    report = reconcile(app.project.root, app.lake, plan)
    assert any("never in the input" in problem for problem in report.problems)
    path.write_bytes(whole)
