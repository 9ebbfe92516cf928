"""`lodestream up` as a process with processes of its own."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import call
from tests.engines.lakes import wait_for

COMMAND = [sys.executable, "-m", "lodestream.cli"]
BRONZE = "source: {http: {stream: orders}}\ncolumns: {id: bigint, amount: int}\n"
SILVER = "from: stream(bronze.orders)\nexpect: {positive: {that: amount > 0, else: quarantine}}\n"


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "shop"
    for layer, text in (("bronze", BRONZE), ("silver", SILVER)):
        (folder / "tables" / layer).mkdir(parents=True)
        (folder / "tables" / layer / "orders.yaml").write_text(text)
    (folder / "lodestream.yaml").write_text("project: shop\nlake: lake\n")
    (folder / "policies.yaml").write_text("users: {ana: {}}\n")
    return folder


class Up:
    """`lodestream up --json`, started; `told` is its line."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        ports = [] if any("port" in a for a in arguments) else ["--port", "0", "--postgres-port", "0"]
        without = [] if "--registry-port" in arguments else ["--without", "registry"]
        command = [*COMMAND, "-C", str(folder), "--json", "up", *ports, *without, *arguments]
        self.log = folder / "up.log"
        with self.log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
        line = self.process.stdout.readline()
        self.told = json.loads(line) if line else None

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str:
        return self.told["url"].partition("/#")[0]

    def ask(self, path, body=None, **headers):
        given = {"Authorization": f"Bearer {self.told['token']}", "Content-Type": "application/json"} | headers
        request = urllib.request.Request(self.url + path, None if body is None else body.encode(), given)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def silver(self):
        found = self.ask("/api/overview")["tables"]
        return next((one["rows"] for one in found if one["table"] == "silver.orders"), None)

    def stop(self, number=signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        self.process.communicate(timeout=120)
        for pid in (self.told or {}).get("parts", {}).values():
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        return self.process.returncode


@contextlib.contextmanager
def up(folder, *arguments):
    made = Up(folder, *arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        made.process.stdout.close()
        for pid in (made.told or {}).get("parts", {}).values():
            wait_for(lambda pid=pid: not alive(pid), 60)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text() if Path(f"/proc/{pid}").exists() else False


def test_all_parts_work_together_and_end_together(shop):
    with up(shop) as running:
        assert set(running.told["parts"]) == {"pipeline", "http", "postgres"}
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#token=dev_\S+", running.told["url"])
        assert running.ask("/ingest/orders", '[{"id":1,"amount":5},{"id":2,"amount":-1}]')["accepted"] == 2
        wait_for(lambda: running.silver() == 1, 60)
        place = running.told["postgres"]
        assert (place["user"], place["database"]) == ("dev", "shop")
        with socket.create_connection((place["host"], place["port"]), timeout=30):
            pass
        assert running.stop() == 0
        assert "pipeline | " in running.said
        assert running.said.count("stopping after") == 1
        assert "Traceback" not in running.said
        assert running.told["token"] not in running.said
    with up(shop) as again:
        assert again.ask("/ingest/orders", '{"id":3,"amount":1}')["first"] == 2
        wait_for(lambda: again.silver() == 2, 60)
        assert again.stop(signal.SIGTERM) == 0
    assert call("reconcile", "--json", project=shop).code == 0


def test_what_is_said_to_people(shop):
    command = [*COMMAND, "-C", str(shop), "up", "--port", "0", "--postgres-port", "0", "--without", "registry,pipeline"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url, psql = process.stdout.readline(), process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=120)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#token=dev_\S+\n", url)
    assert re.fullmatch(r"PGPASSWORD=dev_\S+ psql -h 127\.0\.0\.1 -p \d+ -U dev shop\n", psql)
    assert (rest, process.returncode) == ("", 0)
    assert "Ctrl-C ends all parts." in said


@pytest.mark.parametrize(
    "part", ["http", pytest.param("pipeline", marks=pytest.mark.long), pytest.param("postgres", marks=pytest.mark.long)]
)
def test_a_part_that_dies_ends_all(shop, part):
    with up(shop) as running:
        os.kill(running.told["parts"][part], signal.SIGKILL)
        assert running.end() == 128 + signal.SIGKILL
        assert f"{part} was killed by signal 9, so the others end too. Its last words:" in running.said


def test_a_part_that_ends_by_itself_says_why(shop):
    """The stream's log is another one than the table has read, so the pipeline cannot go on."""
    import shutil

    (shop / "tables/silver/orders.yaml").unlink()
    with up(shop) as running:
        running.ask("/ingest/orders", '{"id":1,"amount":5}')
        wait_for(lambda: (running.ask("/api/overview")["tables"][0]["rows"] or 0) == 1, 60)
        assert running.stop() == 0
    shutil.rmtree(shop / "lake/_lodestream/ingest")
    with up(shop) as running:
        assert running.end() == 5
        assert "pipeline ended with 5, so the others end too. Its last words:" in running.said
        assert running.said.count("the stream's log is another one than before") >= 2


def test_a_second_signal_ends_at_once(shop):
    with up(shop) as running:
        os.kill(running.told["parts"]["http"], signal.SIGSTOP)  # so that a clean end takes for ever
        running.process.send_signal(signal.SIGINT)
        wait_for(lambda: "stopping after" in running.said, 30)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 130
        assert all(not alive(pid) for pid in running.told["parts"].values()) or wait_for(
            lambda: not any(alive(pid) for pid in running.told["parts"].values()), 30
        ) is None  # fmt: skip


def test_parts_end_when_up_is_killed(shop):
    with up(shop) as running:
        running.process.kill()
        running.process.wait()
        wait_for(lambda: not any(alive(pid) for pid in running.told["parts"].values()), 60)


def test_two_on_one_lake(shop):
    with up(shop) as running:
        second = call("up", "--without", "registry", project=shop)
        assert second.code == 7
        assert "runs on this lake already" in second.err
        assert running.url in second.err
        assert running.told["token"] not in second.err
        assert running.stop() == 0
    with up(shop) as again:
        assert again.stop() == 0


def test_ports(shop):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with up(shop, "--port", str(taken), "--postgres-port", "0") as running:
            assert running.told is None
            assert running.end() == 3
            assert "http ended with 3" in running.said
            assert "address already in use" in running.said


@pytest.mark.long
def test_a_usual_port_that_is_taken_is_left_alone(shop):
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 5433)):
        with up(shop, "--port", "0") as running:
            assert running.told["postgres"]["port"] != 5433
            assert "port 5433 is taken, so postgres takes a free one" in running.said
            assert running.stop() == 0
        return
    pytest.skip("somebody else has the port")


def test_the_registry(shop):
    with up(shop, "--registry-port", "0", "--without", "pipeline,postgres,http") as running:
        with urllib.request.urlopen(running.told["registry"] + "/subjects", timeout=30) as answer:
            assert json.load(answer) == []
        assert (running.told["url"], running.told["postgres"]) == (None, None)
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--without", "pipelines"), 3, "no such part"),
        (("--without", "pipeline,http", "--without", "postgres,registry"), 3, "nothing is left"),
        (("--host", "0.0.0.0", "--without", "http"), 3, "lodestream keys create"),
        (("--host", "0.0.0.0", "--without", "postgres"), 3, "lodestream keys create"),
    ],
)
def test_what_cannot_be(shop, arguments, code, says):
    result = subprocess.run(
        [*COMMAND, "-C", str(shop), "up", "--port", "0", "--postgres-port", "0", "--registry-port", "0", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == code
    assert says in result.stderr


def test_mistakes_are_told_once(shop):
    (shop / "tables/silver/orders.yaml").write_text("from: stream(bronze.nothing)\n")
    result = call("up", project=shop)
    assert result.code == 3
    assert result.err.count("bronze.nothing") == 1


@pytest.mark.long
def test_the_token_holds_beside_keys_and_is_gone_afterwards(shop):
    assert call("keys", "create", "ana", project=shop).code == 0
    with up(shop) as running:
        assert running.ask("/api/overview")["project"] == "shop"
        token = running.told["token"]
        assert running.stop() == 0
    with up(shop) as running:
        with pytest.raises(urllib.error.HTTPError) as refused:
            running.ask("/api/overview", Authorization=f"Bearer {token}")
        assert refused.value.code == 401
        refused.value.close()
        assert running.stop() == 0


def test_only_development_has_a_token(shop):
    (shop / "lodestream.yaml").write_text("project: shop\nlake: lake\nenvironments: {prod: {lake: lake-prod}}\n")
    assert call("--env", "prod", "keys", "create", "ana", project=shop).code == 0
    command = [*COMMAND, "-C", str(shop), "--json", "--env", "prod", "up", "--port", "0", "--postgres-port", "0",
               "--without", "registry"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert told["token"] is None
    assert "#" not in told["url"]
