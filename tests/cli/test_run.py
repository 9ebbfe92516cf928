"""Runs in processes of their own: signals, the second start, metrics, a terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import ROWS, call, make_orders

COMMAND = [sys.executable, "-m", "lodestream.cli"]


@pytest.fixture
def endless(tmp_path):
    """A project whose source never ends, in small batches."""
    folder = make_orders(tmp_path / "shop")
    bronze = folder / "tables/bronze/orders.yaml"
    bronze.write_text(re.sub(r"rows: \d+", "rate: 4000", bronze.read_text()))
    config = folder / "lodestream.yaml"
    config.write_text(config.read_text() + "batch: {rows_max: 2000}\n")
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "-C", str(folder), "run", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_batches(process: subprocess.Popen[str], table: str, count: int) -> None:
    """Read NDJSON until `table` has committed `count` batches."""
    assert process.stdout
    seen = 0
    for line in process.stdout:
        seen += json.loads(line).get("table") == table
        if seen >= count:
            return
    raise AssertionError(f"ended early: {process.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_the_first_signal_ends_after_the_batches_under_way(endless, number):
    process = start(endless, "--json")
    wait_for_batches(process, "silver.orders", 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = json.loads(out.splitlines()[-1])
    assert last["done"] is False
    assert last["tables"]["silver.orders"]["batches"] >= 2
    assert "stopping" in err
    assert "nanobind" not in err
    assert "Traceback" not in err

    bronze = endless / "tables/bronze/orders.yaml"  # a second start goes on from there
    bronze.write_text(bronze.read_text().replace("rate: 4000", "rows: 4000"))
    told = call("run", "--until-idle", "--json", project=endless).lines[-1]
    assert told["done"] is True
    assert told["tables"]["bronze.orders"]["batch"] >= last["tables"]["bronze.orders"]["batch"]
    proof = call("reconcile", "--json", project=endless)
    assert proof.json["reconciled"], proof.out


def test_the_second_signal_ends_at_once(tmp_path):
    """The first signal is not obeyed because a batch never ends; the second one is."""
    code = (
        "import os, signal, sys, threading, time\n"
        "from lodestream.cli.call import Call\n"
        "from lodestream.cli.interrupt import Interrupt\n"
        "with Interrupt(Call(), lambda: None) as seen:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


@pytest.mark.long
def test_a_kill_loses_nothing(endless):
    process = start(endless, "--json")
    wait_for_batches(process, "silver.orders", 1)
    process.kill()
    process.communicate()
    bronze = endless / "tables/bronze/orders.yaml"
    bronze.write_text(bronze.read_text().replace("rate: 4000", "rows: 2000"))
    assert call("run", "--until-idle", project=endless).code == 0
    assert call("reconcile", "--json", project=endless).json["reconciled"]


def test_metrics_are_served_while_it_runs(endless):
    process = start(endless, "--json", "--metrics-port", "0")
    try:
        assert process.stderr
        first = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert address, first + process.communicate(timeout=30)[1]
        wait_for_batches(process, "silver.orders", 1)
        text = urllib.request.urlopen(f"{address[0]}/metrics", timeout=10).read().decode()
        assert re.search(r'^lodestream_rows_total\{table="bronze.orders",fate="input"\} [1-9]', text, re.MULTILINE)
        assert urllib.request.urlopen(f"{address[0]}/healthz", timeout=10).read() == b"ok\n"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{address[0]}/nope", timeout=10)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_port_that_is_taken(orders):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = call("run", "--until-idle", "--metrics-port", port, project=orders)
    assert result.code == 3
    assert "another port" in result.err


def test_a_terminal_shows_a_live_table(tmp_path):
    folder = make_orders(tmp_path / "shop", 2000)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "-C", str(folder), "run", "--until-idle"], stdout=theirs, stderr=theirs, stdin=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                break
        elif process.poll() is not None:
            break
    os.close(ours)
    assert process.wait(timeout=10) == 0
    text = shown.decode()
    assert "rows/s" in text
    assert "\x1b[" in text
    assert "batches in" in text


def test_a_failing_flow_ends_the_run_with_its_code(tmp_path):
    folder = make_orders(tmp_path / "shop", 500)
    silver = folder / "tables/silver/orders.yaml"
    silver.write_text(
        silver.read_text().replace("has_id: order_id is not null", "never: {that: quantity > 99, else: fail}")
    )
    result = call("run", "--until-idle", project=folder)
    assert result.code == 3
    assert "never" in result.err


def ended(process):
    """What a process still had to say once it was asked to end; it does not outlive the test."""
    try:
        return process.communicate(timeout=30)
    finally:
        process.kill()


def test_tail_follows(own_orders):
    tail = subprocess.Popen(
        [*COMMAND, "-C", str(own_orders), "tail", "silver.orders", "-f", "-n", "1", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert tail.stdout
        last = json.loads(tail.stdout.readline())["_position"]
        bronze = own_orders / "tables/bronze/orders.yaml"
        bronze.write_text(re.sub(r"rows: \d+", f"rows: {ROWS + 200}", bronze.read_text()))
        assert call("run", "--until-idle", project=own_orders).code == 0
        positions = [json.loads(tail.stdout.readline())["_position"] for _ in range(150)]
    finally:
        tail.send_signal(signal.SIGINT)
        _, err = ended(tail)
    assert tail.returncode == 130, err
    assert last < ROWS
    assert positions == sorted(set(positions))
    assert positions[0] >= ROWS
    assert "Traceback" not in err


def test_a_query_ends_at_ctrl_c(orders):
    sql = "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range % 7 = 3"
    code = f"from lodestream.cli import main; print('up', flush=True); main(['-C', {str(orders)!r}, 'query', {sql!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = ended(process)
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
