"""Load on the doors of the serving benchmark: wrk, pgbench, bulk readers, and, as a program, subscribers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pyarrow as pa

from bench.measure import own_cpu_s, tree
from bench.serve_stage import FailedError

KEYED = "select * from gold.daily_sales where id = {}"
AGGREGATE = """
select country, count(*) as sold, sum(quantity) as quantity, sum(amount) as amount
from gold.daily_sales where id between {} and {} group by country
"""
"""Over 1,000 rows."""
WHOLE = """
select product, count(*) as sold, sum(quantity) as quantity, sum(amount) as amount
from gold.daily_sales group by product order by product
"""
"""Over all rows, into 1,000."""
SPAN = 1000
_LUA = """
local rows, span = ROWS, SPAN
wrk.headers["Authorization"] = "Bearer KEY"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json"
request = function()
  local id = math.random(0, rows - span)
  REQUEST
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %f %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_GET = 'return wrk.format("GET", "/api/tables/gold.daily_sales?id=eq." .. id)'
_POST = """
  local body = string.format('{"sql": "SQL", "parameters": [%d, %d]}', id, id + SPAN - 1)
  return wrk.format("POST", "/api/sql", nil, body)"""


def http(url: str, key: str, rows: int, what: str, seconds: float, connections: int, work: Path) -> dict[str, Any]:
    """Requests over HTTP as fast as they are answered, `keyed` or `aggregate`, each with a key of its own.

    Raises:
        FailedError: there is no wrk.
    """
    if shutil.which("wrk") is None:
        raise FailedError("no wrk here; apt-get install wrk")
    sql = " ".join(AGGREGATE.format("$1", "$2").split())
    text = _LUA.replace("REQUEST", _GET if what == "keyed" else _POST.replace("SQL", sql))
    script = work / f"{what}.lua"
    script.write_text(text.replace("ROWS", str(rows)).replace("SPAN", str(SPAN)).replace("KEY", key))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script), url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told = re.search(r"RESULT (.*)", done.stdout)
    if told is None:
        raise FailedError(f"wrk says nothing: {done.stdout}{done.stderr}")
    requests, took_us, p50, p99, most, failed = map(float, told[1].split())
    if not requests:
        raise FailedError(f"no request was answered within {seconds:g} s")
    return {
        "requests": int(requests), "per_s": requests / (took_us / 1e6), "p50_ms": p50 / 1000, "p99_ms": p99 / 1000,
        "max_ms": most / 1000, "failed": int(failed),
    }  # fmt: skip


def wire(
    bin_folder: Path, port: int, user: str, password: str, database: str, rows: int, what: str, seconds: float,
    connections: int, work: Path,
) -> dict[str, Any]:  # fmt: skip
    """The same questions over the PostgreSQL protocol, by pgbench with prepared statements."""
    script, prefix = work / f"{what}.sql", work / f"{what}-{port}"
    text = KEYED.format(":id") if what == "keyed" else AGGREGATE.format(":id", ":last")
    script.write_text(
        f"\\set id random(0, {rows - SPAN})\n\\set last :id + {SPAN - 1}\n" + " ".join(text.split()) + ";\n"
    )
    for old in work.glob(f"{prefix.name}.*"):
        old.unlink()
    command = [
        bin_folder / "pgbench", "-n", "-f", script, "-c", connections, "-j", 1, "-T", max(1, round(seconds)),
        "-M", "prepared", "-h", "127.0.0.1", "-p", port, "-U", user, "-l", f"--log-prefix={prefix}", database,
    ]  # fmt: skip
    env = {**os.environ, "PGPASSWORD": password}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=env)
    logs = list(work.glob(f"{prefix.name}.*"))
    took = [int(line.split()[2]) for log in logs for line in log.read_text().splitlines()]
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode or rate is None or not took:
        raise FailedError(f"pgbench failed: {done.stderr[-1000:]}{done.stdout[-500:]}")
    took.sort()
    return {
        "requests": len(took), "per_s": float(rate[1]), "p50_ms": took[len(took) // 2] / 1000,
        "p99_ms": took[int(len(took) * 0.99)] / 1000, "max_ms": took[-1] / 1000, "failed": 0,
    }  # fmt: skip


class Meter:
    """CPU time of a process and its descendants while it runs, those that end meanwhile included.

    A worker may be replaced, and its time is then nobody's: what it had at the last look (every 0.1 s) counts.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Meter:
        self._first = {pid: own_cpu_s(pid) for pid in tree(self._pid)}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._note()

    @property
    def seconds(self) -> float:
        """What was used."""
        return sum(max(0.0, spent - self._first.get(pid, 0.0)) for pid, spent in self._last.items())

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self._note()

    def _note(self) -> None:
        for pid in tree(self._pid):
            self._last[pid] = max(own_cpu_s(pid), self._last.get(pid, 0.0))


def measured(pid: int, repeats: int, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Medians over some runs, and CPU time of the server's processes for each request."""
    runs = []
    for _ in range(repeats):
        with Meter(pid) as meter:
            found = ask()
        found["cpu_us"] = meter.seconds / max(1, found["requests"]) * 1e6
        runs.append(found)
    middle = {
        name: round(median(run[name] for run in runs), 2) for name in runs[0] if name not in ("requests", "failed")
    }
    return middle | {"requests": sum(run["requests"] for run in runs), "failed": sum(run["failed"] for run in runs)}


def one_connection(conninfo: str, rows: int, count: int) -> dict[str, Any]:
    """Keyed reads one after another over one connection by psycopg, prepared by the server."""
    took = []
    with psycopg.connect(conninfo, prepare_threshold=0) as connection:
        connection.autocommit = True
        for number in range(count + 20):
            key = number * 7_368_787 % rows
            started = time.perf_counter()
            found = connection.execute(KEYED.format("%s"), (key,)).fetchall()
            took.append((time.perf_counter() - started) * 1000)
            assert found[0][0] == key
    took = sorted(took[20:])
    return {"p50_ms": round(took[len(took) // 2], 3), "p99_ms": round(took[int(len(took) * 0.99)], 3)}


def whole_http(url: str, key: str) -> float:
    """Seconds of the aggregate of the whole table through REST."""
    started = time.perf_counter()
    answer = httpx.post(f"{url}/api/sql", json={"sql": WHOLE}, headers={"authorization": f"Bearer {key}"}, timeout=120)
    answer.raise_for_status()
    assert len(answer.json()["rows"]) == SPAN
    return time.perf_counter() - started


def whole_wire(conninfo: str) -> float:
    """Seconds of the aggregate of the whole table over the PostgreSQL protocol."""
    with psycopg.connect(conninfo) as connection:
        started = time.perf_counter()
        found = connection.execute(WHOLE).fetchall()
        assert len(found) == SPAN
        return time.perf_counter() - started


def bulk_http(url: str, key: str, rows: int) -> float:
    """Rows per second of all columns as an Arrow stream through REST."""
    body = {"sql": f"select * from gold.daily_sales where id < {rows}", "time_s": 120}
    headers = {"authorization": f"Bearer {key}", "accept": "application/vnd.apache.arrow.stream"}
    started = time.perf_counter()
    with httpx.stream("POST", f"{url}/api/sql", json=body, headers=headers, timeout=120) as answer:
        answer.raise_for_status()
        data = b"".join(answer.iter_raw(1 << 20))
    found = pa.ipc.open_stream(data).read_all()
    assert found.num_rows == rows
    return rows / (time.perf_counter() - started)


def bulk_wire(uri: str, rows: int) -> float:
    """Rows per second of all columns by ADBC, which reads them by binary COPY."""
    import adbc_driver_postgresql.dbapi as adbc

    started = time.perf_counter()
    with adbc.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute(f"select * from gold.daily_sales where id < {rows}")
        found = cursor.fetch_arrow_table()
    assert found.num_rows == rows
    return rows / (time.perf_counter() - started)


class Subscribers:
    """Readers of the changes of `gold.ticks`, in a process of their own."""

    def __init__(self, url: str, key: str, count: int) -> None:
        command = [sys.executable, "-m", "bench.serve_load", url, str(count)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{key}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        if said != "ready":
            self._process.kill()
            self._process.wait()
            raise FailedError(f"changes cannot be followed: {said}")

    def received(self) -> list[list[tuple[int, float]]]:
        """Of each subscriber the versions that came, and when on the monotonic clock."""
        out, _ = self._process.communicate("end\n", timeout=30)
        found: list[list[tuple[int, float]]] = json.loads(out)
        return found


async def _follow(url: str, key: str, count: int) -> None:
    parts = urlsplit(url)
    request = (
        f"GET /api/tables/gold.ticks/changes HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    ).encode()
    received: list[list[tuple[int, float]]] = [[] for _ in range(count)]

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise FailedError(head.split(b"\r\n")[0].decode())
        return reader, writer

    async def listen(reader: asyncio.StreamReader, into: list[tuple[int, float]]) -> None:
        while line := await reader.readline():
            if line.startswith(b"id:"):
                into.append((int(line[3:]), time.monotonic()))

    try:
        opened = [await connect() for _ in range(count)]
    except FailedError as error:
        print(error, flush=True)
        return
    tasks = [asyncio.create_task(listen(reader, into)) for (reader, _), into in zip(opened, received, strict=True)]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    print(json.dumps(received), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_follow(sys.argv[1], sys.stdin.readline().strip(), int(sys.argv[2])))
