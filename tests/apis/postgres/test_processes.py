"""`lodestream postgres` as people start it: one process and several on one port, its end, and what it refuses."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from lodestream.app import open_project
from tests.apis.postgres.conftest import key
from tests.apis.postgres.lake import ROWS, write_project

SLOW = "select count(*) from range(1000000) a, range(1000000) b, range(1000) c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("processes") / "shop")


@contextlib.contextmanager
def started(folder, *options):
    """The process, and what it said when it was ready."""
    command = [sys.executable, "-m", "lodestream.cli", "postgres", "-C", str(folder), "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.kill()


def connect(told, **more):
    given = {"host": told["host"], "port": told["port"], "user": "dev", "password": told["token"], "dbname": "shop"}
    return psycopg.connect(**given | more, autocommit=True)


def end(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    return process.stderr.read()


@pytest.mark.parametrize("processes", ["1", "3"])
def test_start_ask_and_end(folder, processes):
    with started(folder, "--port", "0", "--processes", processes) as (process, told):
        assert (told["host"], told["user"], told["tls"]) == ("127.0.0.1", "dev", False)
        with contextlib.ExitStack() as stack:
            several = [stack.enter_context(connect(told)) for _ in range(12)]
            for one in several:
                assert one.execute("select count(*) from gold.orders").fetchone() == (ROWS,)
            spread = {one.info.backend_pid >> 20 for one in several}
            assert spread <= set(range(int(processes)))
            assert (len(spread) > 1) == (processes != "1")
        idle = connect(told)
        assert "stopping" in end(process)
        with pytest.raises(psycopg.OperationalError, match=r"stopping|terminating|closed"):
            idle.execute("select 1")
        with pytest.raises(psycopg.OperationalError):
            connect(told)


def test_a_cancel_request_reaches_the_process_that_it_means(folder):
    with started(folder, "--port", "0", "--processes", "3") as (process, told):
        for _ in range(6):
            with connect(told) as connection:
                failed = []

                def ask(connection=connection, failed=failed):
                    try:
                        connection.execute(SLOW)
                    except psycopg.Error as error:
                        failed.append(error.sqlstate)

                thread = threading.Thread(target=ask)
                thread.start()
                time.sleep(0.5)
                connection.cancel_safe()
                thread.join(60)
                assert failed == ["57014"]
        end(process)


def test_a_process_that_dies_takes_the_others_along(folder):
    with started(folder, "--port", "0", "--processes", "2") as (process, told):
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(listed.stdout.split()[0]), signal.SIGKILL)
        assert process.wait(30) == 4
        assert "a process of the server has ended" in process.stderr.read()
        with pytest.raises(psycopg.OperationalError):
            connect(told)


def test_parts_end_with_whoever_started_them(folder):
    with started(folder, "--port", "0", "--processes", "2") as (process, told):
        process.kill()
        process.wait()
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            try:
                socket.create_connection((told["host"], told["port"]), 1).close()
            except OSError:
                return
            time.sleep(0.1)
        pytest.fail("the port still answers")


def refused(folder, *options):
    command = [sys.executable, "-m", "lodestream.cli", "postgres", "-C", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_that_is_taken(folder, processes):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, told = refused(folder, "--port", str(taken.getsockname()[1]), "--processes", processes)
    assert code == 3
    assert "cannot listen" in told
    assert "--port" in told


def test_other_machines_need_a_key_and_tls(tmp_path):
    folder = write_project(tmp_path / "shop")
    code, told = refused(folder, "--host", "0.0.0.0", "--port", "0")
    assert code == 3
    assert "without a key only this machine may connect; make one: lodestream keys create" in told
    key(open_project(str(folder)), "frank")
    code, told = refused(folder, "--host", "0.0.0.0", "--port", "0")
    assert code == 3
    assert "connections from other machines need TLS; add server.tls" in told


def test_keys_take_the_place_of_the_token(tmp_path):
    folder = write_project(tmp_path / "shop")
    app = open_project(str(folder))
    text = key(app, "frank")
    with started(folder, "--port", "0") as (process, told):
        assert told["token"] is None
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(told, password=text)
        end(process)
