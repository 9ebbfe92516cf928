"""The stage of the serving benchmark: one gold table in a lake and in PostgreSQL, and the servers over both."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa

from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.table import TableName
from lodestream.model.types import Column, Schema, parse_type

COLUMNS = {
    "id": "bigint", "receipt": "string", "sold_on": "date", "sold_at": "timestamp", "product": "string",
    "quantity": "int", "price": "double", "amount": "decimal(12,2)", "paid": "boolean", "note": "string",
    "country": "string",
}  # fmt: skip
TICKS = {"number": "bigint", "committed_us": "bigint"}
SALES = """
select i as id, md5(i::varchar)::uuid::varchar as receipt, date '2024-01-01' + (i // 30000)::int as sold_on,
  timestamp '2024-01-01' + to_microseconds(i * 2880000) as sold_at, 'product-' || (i * 7919 % 1000) as product,
  (1 + hash(i, 1) % 9)::int as quantity, (hash(i, 2) % 1000000) / 997.0 as price,
  ((hash(i, 3) % 10000000) / 100.0)::decimal(12,2) as amount, hash(i, 4) % 20 > 0 as paid,
  case when hash(i, 5) % 10 = 0 then 'note number ' || i end as note,
  substr('DEUSFRJPGBITESNLPLSEBRINCAAUMXATCHDKNOFI', (1 + 2 * (hash(i, 6) % 20))::int, 2) as country
from range({start}, {stop}) as made(i)
"""
"""Rows in the order in which they came: the key rises with the time."""
POLICIES = """
users: {analyst: {groups: [analysts, whole]}, limited: {groups: [analysts]}}
grants: [{to: group:analysts, select: [gold]}]
row_filters: {own: {on: gold.daily_sales, where: "country <> 'CH'", except: [group:whole]}}
masks: {hide: {on: [gold.daily_sales.receipt], with: "'***'", except: [group:whole]}}
"""
_FILES = 8
_START_S = 120.0
_CLOCK_US = 1_700_000_000_000_000


class FailedError(Exception):
    """The benchmark cannot go on."""


def schema_of(columns: dict[str, str]) -> Schema:
    """Of names and Spark types."""
    return Schema(tuple(Column(name, parse_type(kind)) for name, kind in columns.items()))


class Lake:
    """A project whose gold tables this process writes with the engine's committer.

    Args:
        folder: of the project; made.
        rows: of `gold.daily_sales`.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        (folder / "tables/bronze").mkdir(parents=True)
        (folder / "lodestream.yaml").write_text("project: bench\n")
        (folder / "tables/bronze/nothing.yaml").write_text("source: {http: {stream: nothing}}\ncolumns: {a: string}\n")
        (folder / "policies.yaml").write_text(POLICIES)
        self.sales = self._table("gold.daily_sales", COLUMNS)
        self.ticks = self._table("gold.ticks", TICKS)

    def _table(self, name: str, columns: dict[str, str]) -> DeltaTable:
        return DeltaTable.create(
            LocalDisk(), table_path(str(self.folder / "lake"), TableName.parse(name)), schema_of(columns),
            table_id=f"bench-{name}", clock_us=_CLOCK_US,
        )  # fmt: skip

    def fill(self) -> Iterator[pa.Table]:
        """Write `gold.daily_sales`, file by file; each file's rows are given out too."""
        kinds = to_arrow(self.sales.snapshot.metadata.schema)
        with duckdb.connect() as connection:
            connection.execute("set TimeZone = 'UTC'")
            for number in range(_FILES):
                start, stop = self.rows * number // _FILES, self.rows * (number + 1) // _FILES
                made = connection.sql(SALES.format(start=start, stop=stop)).to_arrow_table().cast(kinds)
                self.sales.commit(adds=self.sales.stage(made, name=f"f{number}").adds, clock_us=_CLOCK_US)
                yield made

    def tick(self, number: int) -> float:
        """Commit one row to `gold.ticks`; returns the monotonic time right before the commit."""
        rows = pa.table({"number": [number], "committed_us": [time.monotonic_ns() // 1000]})
        staged = self.ticks.stage(rows, name=f"t{number}")
        before = time.monotonic()
        self.ticks.commit(adds=staged.adds, clock_us=_CLOCK_US + number)
        return before

    def cli(self, *words: str) -> list[str]:
        """A command of the product on this project."""
        return [sys.executable, "-m", "lodestream.cli", "-C", str(self.folder), *words]

    def key(self, name: str) -> str:
        """A new API key of somebody."""
        done = subprocess.run(self.cli("keys", "create", name, "--json"), check=True, capture_output=True, text=True)
        return str(json.loads(done.stdout.splitlines()[-1])["key"])


class Server:
    """A server of the product as a child process.

    Args:
        command: that prints a JSON object in its first line once it answers.
        log: file for what it says.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.startswith("{"):
            self.stop()
            raise FailedError(f"a server did not start: {log.read_text()[-2000:]}")
        self.told: dict[str, Any] = json.loads(line)
        self.pid = self._process.pid

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()


class Postgres:
    """PostgreSQL on loopback with a database of its own: SCRAM, no TLS, durable as it comes.

    Settings other than its own: `shared_buffers` a quarter of the memory, at most 2 GB, `effective_cache_size` half,
    `max_wal_size` 4 GB.
    """

    PASSWORD = "bench"

    def __init__(self, folder: Path) -> None:
        self._bin = found_postgres()
        self._folder = folder
        self._user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        folder.mkdir(mode=0o755)
        (folder / "password").write_text(self.PASSWORD)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(self._user)
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        made = ["-D", folder / "data", "-U", "bench", "-A", "scram-sha-256", "--pwfile", folder / "password",
                "-E", "UTF8", "--locale=C.UTF-8"]  # fmt: skip
        self._run("initdb", *made)
        self.port = free_port()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "timezone": "UTC",
            "shared_buffers": f"{min(2048, memory // 4)}MB", "effective_cache_size": f"{memory // 2}MB",
            "max_wal_size": "4GB",
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", folder / "data", *options], stdout=log, stderr=log, cwd="/",
                user=self._user if os.geteuid() == 0 else None,
            )  # fmt: skip
        self.pid = self._process.pid
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise FailedError(f"PostgreSQL did not start: {error}") from error
                time.sleep(0.1)

    def _run(self, name: str, *words: object) -> None:
        user = self._user if os.geteuid() == 0 else None
        done = subprocess.run([self._bin / name, *map(str, words)], capture_output=True, text=True, cwd="/", user=user)
        if done.returncode:
            raise FailedError(f"{name} failed: {done.stderr}")

    @property
    def conninfo(self) -> str:
        """What libpq needs."""
        return f"host=127.0.0.1 port={self.port} user=bench password={self.PASSWORD} dbname=postgres"

    def connect(self) -> psycopg.Connection[Any]:
        """A connection."""
        return psycopg.connect(self.conninfo)

    def create(self) -> None:
        """Make the empty table."""
        names = {"string": "text", "double": "double precision", "timestamp": "timestamptz"}
        listed = ", ".join(f"{name} {names.get(kind, kind)}" for name, kind in COLUMNS.items())
        with self.connect() as connection:
            connection.execute("create schema gold")
            connection.execute(f"create table gold.daily_sales ({listed})")

    def copy(self, rows: pa.Table, work: Path) -> None:
        """Add rows."""
        path = work / "rows.csv"
        with duckdb.connect() as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.register("given", rows)
            connection.execute(f"copy given to '{path}' (format csv, header false)")
        text = "copy gold.daily_sales from stdin (format csv)"
        with self.connect() as connection, connection.cursor().copy(text) as copy, path.open("rb") as file:
            while piece := file.read(1 << 20):
                copy.write(piece)
        path.unlink()

    def index(self) -> None:
        """Index the key, and let it look at the table."""
        with self.connect() as connection:
            connection.autocommit = True
            connection.execute("set maintenance_work_mem = '512MB'")
            connection.execute("alter table gold.daily_sales add primary key (id)")
            connection.execute("vacuum (analyze, freeze) gold.daily_sales")
            connection.execute("checkpoint")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def found_postgres() -> Path:
    """The folder of PostgreSQL 15's programs. Raises FailedError when it is not installed."""
    for place in (
        Path("/usr/lib/postgresql/15/bin"),
        *([Path(found).parent] if (found := shutil.which("initdb")) else []),
    ):
        if (place / "initdb").exists():
            return place
    raise FailedError("no PostgreSQL here; apt-get install postgresql-15, or --no-postgres")


def free_port() -> int:
    """A port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def workplace(cache: Path, *, keep: bool) -> Iterator[Path]:
    """A folder on a real disk that goes with the benchmark; other users may look into it."""
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="serve-", dir=cache.absolute()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
