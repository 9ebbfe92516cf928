"""`lodestream registry`: it starts anywhere, says where it is, and ends when told to."""

import json
import re
import socket
import subprocess
import sys

import httpx
import pytest

from lodestream.testing.registry import running_registry, start_registry
from tests.cli.conftest import call


def start(folder, *arguments):
    command = [sys.executable, "-m", "lodestream.cli", "registry", "--port", "0", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_starts_in_any_folder_and_ends_cleanly(tmp_path):
    process = start(tmp_path)
    url = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    made = httpx.post(f"{url}/subjects/s/versions", json={"schema": '"int"'}).json()
    assert made["id"] == 1
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert "stopped" in err
    assert "Traceback" not in err
    assert [one.name for one in tmp_path.iterdir()] == ["registry.db"]


def test_in_a_project_schemas_are_kept_in_the_lake(tmp_path):
    assert call("init", str(tmp_path / "shop")).code == 0
    process = start(tmp_path / "shop", "--json")
    told = json.loads(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=20)
    assert told["store"].endswith("/lake/_lodestream/registry.db")
    assert httpx.URL(told["url"]).port


def test_a_restart_knows_what_was_there(tmp_path):
    store = str(tmp_path / "r.db")
    with running_registry(store=store) as server:
        httpx.post(f"{server.url}/subjects/s/versions", json={"schema": '"int"'})
        assert server.stop() == 0
    with running_registry(store=store) as server:
        assert httpx.get(f"{server.url}/subjects").json() == ["s"]


def test_mistakes_are_told_before_it_starts(tmp_path):
    store = str(tmp_path / "r.db")
    with running_registry(store=store) as server, pytest.raises(RuntimeError, match="port is taken"):
        start_registry(store=store, port=int(server.url.rpartition(":")[2]))
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at" * 100)
    for arguments, says in (
        (["--store", str(tmp_path / "text.db")], "text.db"),
        (["--store", str(tmp_path)], "store cannot be opened"),
        (["--users", "nosuch"], "users file cannot be read"),
        (["--certificate", "a.pem"], "--certificate and --key"),
        (["--client-ca", "a.pem"], "--certificate and --key"),
        (["--store", store, "--certificate", "a.pem", "--key", "b.pem"], "TLS files cannot be used"),
        (["--store", "postgresql://["], "not a PostgreSQL URL"),
        (["--store", store, "--host", "192.0.2.1"], "cannot be listened on"),
        (["--add-user", "ann"], "--users FILE"),
    ):
        result = call("registry", "--port", "0", *arguments)
        assert result.code in (3, 6), arguments
        assert says in result.err
        assert "next: " in result.err


def test_passwords_of_stores_are_not_shown(tmp_path):
    result = call("registry", "--port", "0", "--store", "postgresql://ann:s3cret@127.0.0.1:1/x")
    assert result.code == 4
    assert "s3cret" not in result.out + result.err


def test_users_are_added_from_stdin(tmp_path):
    users = str(tmp_path / "users")
    assert "ann: added" in call("registry", "--users", users, "--add-user", "ann", stdin="secret\n").out
    again = call("registry", "--users", users, "--add-user", "ann", "--json", stdin="other\n")
    assert again.json == {"file": users, "user": "ann", "replaced": True}
    assert call("registry", "--users", users, "--add-user", "bob", stdin="\n").code == 3


def test_it_ends_though_somebody_holds_a_request_half_sent(tmp_path):
    server = start_registry(store=str(tmp_path / "r.db"))
    with httpx.Client(base_url=server.url) as idle, socket.create_connection(
        ("127.0.0.1", int(server.url.rpartition(":")[2]))
    ) as half:  # fmt: skip
        assert idle.get("/").status_code == 200
        half.sendall(b"POST /subjects/s/versions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert idle.get("/subjects").json() == []
        assert server.stop() == 0
    server.process.stdout.close()
    server.process.stderr.close()
