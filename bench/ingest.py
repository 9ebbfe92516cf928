"""HTTP ingest at a steady rate, next to a bare fsync loop and plain Starlette: `python -m bench.ingest`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.measure import cpu_s

BODY = b'{"order_id":"a1b2c3d4e5f60718","ordered_at":"2024-05-01T12:00:00Z","customer_id":4711,"country":"DE",' \
       b'"product":"kettle","quantity":2,"amount":"39.90","status":"paid"}'  # fmt: skip
TABLE = """\
source: {http: {stream: orders}}
columns:
  order_id: string
  ordered_at: timestamp
  customer_id: bigint
  country: string
  product: string
  quantity: int
  amount: decimal(12,2)
  status: string
"""
PLAIN = """
import sys
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from lodestream.apis.serving import HttpServer
from lodestream.project.serving import ServingSettings

async def post(request):
    await request.json()
    return Response(b'{"accepted": 1}', media_type="application/json")

server = HttpServer(ServingSettings(port=0), ".")
app = Starlette(routes=[Route("/ingest/orders", post, methods=["POST"])])
server.run(app, lambda: print('{"url": "%s", "token": "x"}' % server.url, flush=True))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 0, or 1 when records are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000, help="requests per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--connections", type=int, default=32)
    args = parser.parse_args(arguments)
    cache = Path(".cache/bench")  # a real disk: the folder for temporary files may be memory
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.absolute()) as work:
        result: dict[str, Any] = {"rate": args.rate, "seconds": args.seconds, "cores": os.cpu_count()}
        result["fsync_ms"] = fsync_loop(Path(work), 500)
        result["plain_starlette"] = plain(args)
        result["ingest"], missing = ingest(args, Path(work), run=False)
        result["ingest_and_run"], more = ingest(args, Path(work), run=True)
        result["missing"] = missing + more
        result["to_bronze_ms"] = {
            "one process": to_bronze(Path(work) / "one", apart=False),
            "two processes": to_bronze(Path(work) / "two", apart=True),
        }
    print(json.dumps(result))
    return 1 if result["missing"] else 0


def fsync_loop(folder: Path, count: int) -> dict[str, float]:
    """Milliseconds of appending one body and syncing it, one after the other."""
    took = []
    with open(folder / "loop", "ab", buffering=0) as file:
        for _ in range(count):
            started = time.perf_counter()
            file.write(BODY)
            os.fsync(file.fileno())
            took.append((time.perf_counter() - started) * 1000)
    return quantiles(took)


def plain(args: argparse.Namespace) -> dict[str, Any]:
    """The same requests answered by Starlette on the same server, with nothing kept."""
    return measured(args, [sys.executable, "-c", PLAIN], None)[0]


def ingest(args: argparse.Namespace, work: Path, *, run: bool) -> tuple[dict[str, Any], int]:
    """HTTP ingest alone, or with `run` also into bronze in the same process; and how many records are missing."""
    project = work / ("run" if run else "alone")
    lodestream = write_project(project)
    command = [*lodestream, "serve", "--json", "--port", "0", *(["--run"] if run else [])]
    found, accepted = measured(args, command, project)
    subprocess.run([*lodestream, "run", "--until-idle"], check=True, capture_output=True)
    asked = [*lodestream, "query", "--json", "select count(*) as rows from bronze.orders"]
    answer = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()[0])
    rows = answer["rows"] if isinstance(answer.get("rows"), int) else answer["rows"][0]["rows"]
    return found, accepted - rows


def write_project(folder: Path) -> list[str]:
    """A project of one table; returns the command line that works on it."""
    (folder / "tables/bronze").mkdir(parents=True)
    (folder / "lodestream.yaml").write_text("project: bench\n")
    (folder / "tables/bronze/orders.yaml").write_text(TABLE)
    return [sys.executable, "-m", "lodestream.cli", "-C", str(folder)]


def to_bronze(folder: Path, *, apart: bool, count: int = 100) -> dict[str, float]:
    """Milliseconds from a record's answer to the commit that has it, one record at a time, with random pauses."""
    lodestream = write_project(folder)
    command = [*lodestream, "serve", "--json", "--port", "0", *([] if apart else ["--run"])]
    quiet: dict[str, Any] = {"stderr": subprocess.DEVNULL, "text": True}
    servers = [subprocess.Popen(command, stdout=subprocess.PIPE, **quiet)]
    if apart:
        servers.append(subprocess.Popen([*lodestream, "run"], stdout=subprocess.DEVNULL, **quiet))
    try:
        told = json.loads(servers[0].stdout.readline())  # type: ignore[union-attr]
        log = folder / "lake/bronze/orders/_delta_log"
        while not log.exists():
            time.sleep(0.01)
        draw, took = random.Random(1), []
        headers = {"authorization": f"Bearer {told['token']}", "content-type": "application/json"}
        with httpx.Client(headers=headers) as client:
            for number in range(count + 5):
                before = len(list(log.glob("*.json")))
                client.post(f"{told['url']}/ingest/orders", content=BODY).raise_for_status()
                answered = time.perf_counter()
                while len(list(log.glob("*.json"))) == before:
                    time.sleep(0.001)
                if number >= 5:
                    took.append((time.perf_counter() - answered) * 1000)
                time.sleep(draw.random() / 5)
        return quantiles(took)
    finally:
        for server in servers:
            server.terminate()
            server.communicate(timeout=30)


def measured(args: argparse.Namespace, command: list[str], folder: Path | None) -> tuple[dict[str, Any], int]:
    """Figures of one server under the load, and how many records it accepted."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        told = json.loads(server.stdout.readline())
        port = int(told["url"].rpartition(":")[2])
        asyncio.run(load(port, told["token"], args.rate, 2.0, args.connections))  # warm
        before, started = cpu_s(server.pid), time.perf_counter()
        took, accepted, failed = asyncio.run(load(port, told["token"], args.rate, args.seconds, args.connections))
        wall = time.perf_counter() - started
        found = {
            "latency_ms": quantiles(took), "requests_per_s": round(len(took) / wall, 1), "failed": failed,
            "cpu_share": round((cpu_s(server.pid) - before) / wall, 3),
        }  # fmt: skip
        return found, accepted + int(args.rate * 2.0)
    finally:
        server.terminate()
        server.communicate(timeout=30)


async def load(port: int, token: str, rate: int, seconds: float, connections: int) -> tuple[list[float], int, int]:
    """Send requests at fixed times over some connections; milliseconds from when each was due to its answer."""
    total = int(rate * seconds)
    request = (
        f"POST /ingest/orders HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    took: list[float] = []
    failed = 0
    numbers = iter(range(total))
    started = time.perf_counter() + 0.1

    async def send() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            due = started + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
            took.append((time.perf_counter() - due) * 1000)
            failed += not head.startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(send() for _ in range(connections)))
    return took, len(took) - failed, failed


def quantiles(values: list[float]) -> dict[str, float]:
    """Mean, median, 99th percentile and maximum."""
    ordered = sorted(values)
    return {
        "mean": round(statistics.fmean(ordered), 3), "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[int(len(ordered) * 0.99)], 3), "max": round(ordered[-1], 3),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
