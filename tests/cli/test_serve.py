"""The server as a process, and the keys that let people in."""

import contextlib
import itertools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import call

COMMAND = [sys.executable, "-m", "lodestream.cli"]
TABLE = "source: {http: {stream: orders}}\ncolumns: {id: bigint, name: string}\n"


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "shop"
    (folder / "tables/bronze").mkdir(parents=True)
    (folder / "lodestream.yaml").write_text("project: shop\nlake: lake\n")
    (folder / "tables/bronze/orders.yaml").write_text(TABLE)
    return folder


@contextlib.contextmanager
def told_by(folder, *arguments):
    """A server that prints JSON: what it told, and the process, which is killed when the test has failed."""
    command = [*COMMAND, "-C", str(folder), "serve", "--port", "0", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline()), process
            process.send_signal(signal.SIGINT)
            process.said = process.communicate(timeout=60)[1]
            assert process.returncode == 0
        finally:
            process.kill()


class Serving:
    """`lodestream serve`, started; reads what it says up to the address."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [*COMMAND, "-C", str(folder), "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline() + self.process.stderr.readline()
        self.url = re.search(r"http://\S+", self.said)[0]
        self.token = self.said.split()[-1]

    def post(self, body: str, key: str | None = None) -> dict[str, object]:
        headers = {"Authorization": f"Bearer {key or self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/ingest/orders", body.encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        assert out == ""
        return self.process.returncode, err


def test_starts_alone_stops_cleanly_and_goes_on(shop):
    serving = Serving(shop, "--run")
    assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+\ntoken for development: dev_\S+\n", serving.said)
    assert serving.post('{"id":1}')["first"] == 0
    port = int(serving.url.rpartition(":")[2])
    taken = call("serve", "--port", str(port), project=shop)
    assert taken.code == 3
    code, said = serving.stop()
    assert (code, said.strip()) == (0, "stopping after the requests under way; once more stops at once")
    again = Serving(shop, "--run")
    assert again.post('{"id":2}')["first"] == 1
    assert again.stop(signal.SIGTERM)[0] == 0
    assert call("run", "--until-idle", project=shop).code == 0
    answer = call("query", "select count(*) as n from bronze.orders", "--json", project=shop)
    assert "2" in answer.out
    assert call("reconcile", "--json", project=shop).json["reconciled"]


def test_a_port_that_is_taken(shop):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = call("serve", "--port", str(port), project=shop)
    assert result.code == 3
    assert f"error: cannot listen host='127.0.0.1' port={port} reason='address already in use'" in result.err
    assert "--port" in result.err


def test_other_machines_need_a_key_and_tls(shop):
    refused = call("serve", "--host", "0.0.0.0", project=shop)
    assert refused.code == 3
    assert "lodestream keys create" in refused.err
    assert call("keys", "create", "ci", "--scope", "ingest:*", project=shop).code == 0
    refused = call("serve", "--host", "0.0.0.0", project=shop)
    assert refused.code == 3
    assert "server.tls" in refused.err


def test_keys(shop):
    more = ("--expires", "2 days", "--from", "10.0.0.0/8")
    made = call("keys", "create", "shop", "-s", "ingest:orders", *more, project=shop)
    assert made.code == 0
    text = made.out.strip()
    assert re.fullmatch(r"ls_default_[0-9a-f]{12}_[\w-]{43}", text)
    assert text not in made.err
    other = call("--json", "keys", "create", "etl", "-s", "ingest:*", "--expires", "never", project=shop)
    identity = other.json["id"]
    assert "digest" not in other.json
    rotated = call("--json", "keys", "rotate", identity, "--grace", "1 hour", project=shop)
    assert rotated.json["name"] == "etl"
    assert call("keys", "revoke", identity, project=shop).code == 0
    found = call("--json", "keys", "list", project=shop).json["keys"]
    assert [(key["name"], key["state"]) for key in found] == [
        ("shop", "active"), ("etl", "revoked"), ("etl", "active"),
    ]  # fmt: skip
    shown = call("keys", "list", project=shop)
    assert "ingest:orders" in shown.out
    assert text.rpartition("_")[2] not in shown.out
    files = [path.read_text() for path in (shop / "lake/_lodestream/access").glob("*.json")]
    assert not any(text.rpartition("_")[2] in content for content in files)


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x", "-s", "everything"), ("create", "x", "-s", "ingest:*", "--expires", "soon"),
        ("create", "x", "-s", "ingest:*", "--from", "10.0.0.0/99"), ("revoke", "nobody"), ("rotate", "nobody"),
        ("create", "eve"), ("create", "eve", "-s", "ingest:*", "-s", "query:*"), ("create", "eve", "-s", "admin:*"),
    ],
)  # fmt: skip
def test_keys_that_cannot_be(shop, arguments):
    assert call("keys", *arguments, project=shop).code == 3


def test_a_key_in_a_profile(shop, tmp_path, monkeypatch):
    (shop / "policies.yaml").write_text("users:\n  alice: {}\n")
    monkeypatch.chdir(tmp_path)
    made = call("keys", "create", "alice", "--profile", "a.share", project=shop)
    assert made.code == 0
    told = json.loads((tmp_path / "a.share").read_text())
    assert "ls_" not in made.out + made.err
    assert (tmp_path / "a.share").stat().st_mode & 0o077 == 0
    assert told["shareCredentialsVersion"] == 1
    assert told["endpoint"] == "http://127.0.0.1:8080/delta-sharing"
    assert told["bearerToken"].startswith("ls_default_")
    assert told["expirationTime"].endswith("Z")
    shown = call("--json", "keys", "create", "alice", "--profile", "b.share", "--url", "https://x", project=shop)
    assert (shown.json["profile"], "key" in shown.json) == ("b.share", False)
    assert json.loads((tmp_path / "b.share").read_text())["endpoint"] == "https://x/delta-sharing"
    before = call("keys", "list", project=shop).out
    for file, why in (("a.share", "there already"), ("nothing/a.share", "no such folder")):
        refused = call("keys", "create", "alice", "--profile", file, project=shop)
        assert refused.code == 3
        assert why in refused.err
    (shop / "lodestream.yaml").write_text("project: shop\nlake: lake\nserver: {host: 0.0.0.0}\n")
    refused = call("keys", "create", "alice", "--profile", "c.share", project=shop)
    assert refused.code == 3
    assert "--url" in refused.err
    assert call("keys", "list", project=shop).out == before  # a refused command makes no key


def test_a_key_of_an_account(shop):
    """Whoever may ask has to be known; what the key may do at most is `query:*` when nothing is said."""
    (shop / "policies.yaml").write_text("users:\n  alice: {groups: [analysts]}\n  loader: {kind: service}\n")
    made = call("--json", "keys", "create", "alice", project=shop)
    assert made.json["scopes"] == ["query:*"]
    assert not {"digest", "stored_key", "server_key"} & set(made.json)
    assert call("keys", "create", "loader", "-s", "query:*", "-s", "ingest:*", project=shop).code == 0
    refused = call("keys", "create", "eve", project=shop)
    assert "policies.yaml" in refused.err
    assert call("keys", "create", "eve", "-s", "ingest:*", "-s", "metrics:read", project=shop).code == 0
    with told_by(shop) as (told, _):
        headers = {"Authorization": f"Bearer {made.json['key']}"}
        request = urllib.request.Request(f"{told['url']}/api/session", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        assert (found["name"], found["kind"], found["groups"]) == ("alice", "user", ["analysts"])
    listed = call("--json", "keys", "list", project=shop).json["keys"]
    used = {key["name"]: key["used_us"] for key in listed}
    assert used["alice"] > made.json["created_us"]
    assert used["eve"] is None


def test_outside_of_development_nobody_comes_in_without_a_key(shop, monkeypatch):
    """No token, no anonymous mode, on any route; the start says how to make the first key."""
    (shop / "lodestream.yaml").write_text(
        "project: shop\nlake: lake\nenvironments: {prod: {lake: prod-lake}, dev: {}}\n"
    )
    for environment, option in (("prod", ()), (None, ("--env", "prod"))):
        if environment is not None:
            monkeypatch.setenv("LODESTREAM_ENV", environment)
        else:
            monkeypatch.delenv("LODESTREAM_ENV")
        with told_by(shop, *option) as (told, process):
            assert told["token"] is None
            paths = ("/api/session", "/openapi.json", "/metrics", "/ingest/orders", "/api/tables")
            for path, headers in itertools.product(paths, ({}, {"Authorization": "Bearer None"}, {"X-Api-Key": ""})):
                method = "POST" if path.startswith("/ingest") else "GET"
                request = urllib.request.Request(told["url"] + path, headers=headers, method=method)
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(request, timeout=30)
                assert refused.value.code == 401, path
                refused.value.close()
        assert "lodestream keys create NAME" in process.said
    serving = Serving(shop, "--env", "dev")
    assert serving.token.startswith("dev_")
    assert serving.stop()[0] == 0


def test_a_key_works_where_it_was_made(shop):
    key = call("keys", "create", "shop", "-s", "ingest:orders", project=shop).out.strip()
    command = [*COMMAND, "-C", str(shop), "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        told = json.loads(process.stdout.readline())
        assert told["token"] is None
        request = urllib.request.Request(
            told["url"] + "/ingest/orders", b'{"id":1}',
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["accepted"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_a_flow_that_fails_ends_the_server_and_says_why(shop):
    """The stream's log is another one than the table has read."""
    first = Serving(shop, "--run")
    assert first.post('{"id":1}')["first"] == 0
    assert first.stop()[0] == 0
    assert call("run", "--until-idle", project=shop).code == 0
    shutil.rmtree(shop / "lake/_lodestream/ingest")
    command = [*COMMAND, "-C", str(shop), "serve", "--port", "0", "--run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    said = done.stderr
    assert "error: the stream's log is another one than before" in said
    assert "Traceback" not in said


def test_a_damaged_table_says_so_and_the_others_are_served(shop):
    (shop / "tables/bronze/places.yaml").write_text("source: {http: {stream: places}}\ncolumns: {id: bigint}\n")
    assert call("run", "--until-idle", project=shop).code == 0
    log = shop / "lake/bronze/places/_delta_log"
    (log / f"{len(list(log.glob('*.json'))):020}.json").write_text("{")
    serving = Serving(shop)
    request = urllib.request.Request(f"{serving.url}/api/overview", None, {"Authorization": f"Bearer {serving.token}"})
    for _ in range(100):
        with urllib.request.urlopen(request, timeout=30) as answer:
            states = {one["table"]: one["state"] for one in json.load(answer)["tables"]}
        if states.get("bronze.places") == "damaged" and states.get("bronze.orders") == "idle":
            break
        time.sleep(0.1)
    assert states == {"bronze.orders": "idle", "bronze.places": "damaged"}
    assert serving.stop()[0] == 0


def test_policies_hold_within_seconds_of_the_change_of_their_file(shop):
    """A table is seen once the file says so, and no longer once it does not; a mistake changes nothing."""
    assert call("run", "--until-idle", project=shop).code == 0
    assert call("users", "add", "alice", project=shop).code == 0
    key = call("keys", "create", "alice", "--scope", "query:*", project=shop).out.split()[-1]
    policies = shop / "policies.yaml"

    def visible(url):
        asked = urllib.request.Request(f"{url}/api/tables", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.dumps(json.load(answer))

    def until(url, seen):
        end = time.monotonic() + 60
        while ("bronze.orders" in visible(url)) != seen:
            assert time.monotonic() < end
            time.sleep(0.1)

    with told_by(shop) as (told, process):
        assert "bronze.orders" not in visible(told["url"])
        policies.write_text("grants: [{to: alice, select: bronze}]\n")
        until(told["url"], seen=True)
        policies.write_text("grants: [{to: alice, select: bronz}]\n")
        assert "policies: grant select on bronze to alice: new" in process.stderr.readline()
        assert "policies are not taken over" in process.stderr.readline()
        assert "bronze.orders" in visible(told["url"])
        policies.unlink()
        until(told["url"], seen=False)
    shop.joinpath("policies.yaml").write_text("grants: [{to: alice, select: bronz}]\n")
    assert call("serve", "--port", "0", project=shop).code == 3
