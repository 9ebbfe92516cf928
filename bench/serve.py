"""The doors of a 10-million-row gold table, next to PostgreSQL 15 with the same table: `python -m bench.serve`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psycopg

from bench import serve_load as load
from bench.serve_stage import COLUMNS, FailedError, Lake, Postgres, Server, found_postgres, workplace

AIMS = {"keyed_p99_ms": 50.0, "keyed_per_s": 2000.0, "change_p99_ms": 300.0}
_READY_S = 60.0
_PARTS = ("rest", "wire", "bulk", "whole", "policy", "changes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 0, or 1 when a side failed or the two tables do not give the same."""
    args = parse(arguments)
    with workplace(Path(".cache/bench"), keep=args.keep) as work:
        try:
            bench = Bench(args, work)
            with bench:
                bench.run()
        except FailedError as error:
            print(error, file=sys.stderr)
            return 1
    print(json.dumps(bench.found))
    return 1 if bench.wrong else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of requests")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; the figures are medians")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--bulk-rows", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2, help="of the PostgreSQL door")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--no-postgres", dest="postgres", action="store_false", help="without the peer")
    parser.add_argument("--quick", action="store_true", help="200,000 rows, two seconds each: does it run?")
    parser.add_argument("--keep", action="store_true", help="leave the tables and logs there")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(rows=200_000, seconds=2.0, repeats=1, bulk_rows=100_000, subscribers=20)
    args = parser.parse_args(arguments)
    args.bulk_rows = min(args.bulk_rows, args.rows)
    return args


class Bench:
    """The measurements, one after another.

    Attributes:
        found: figures by door and question.
        wrong: where the two sides differ.
    """

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work = args, work
        self.found: dict[str, Any] = {"rows": args.rows, "columns": len(COLUMNS), "cores": len(os.sched_getaffinity(0))}
        self.wrong: list[str] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Bench:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        """Make both tables and start the servers."""
        args, work = self.args, self.work
        self.peer: Postgres | None = None
        if args.postgres:
            self.peer = Postgres(work / "postgres")
            self._stack.callback(self.peer.stop)
            self.peer.create()
        self.lake = Lake(work / "project", args.rows)
        started = time.perf_counter()
        for rows in self.lake.fill():
            if self.peer:
                self.peer.copy(rows, work)
        if self.peer:
            self.peer.index()
        self.lake.tick(0)
        self._tell("made", {"s": round(time.perf_counter() - started, 1)})
        self.keys = {name: self.lake.key(name) for name in ("analyst", "limited")}
        log = work / "servers.log"
        self.http = Server(self.lake.cli("serve", "--json", "--port", "0"), log)
        self._stack.callback(self.http.stop)
        self.url = str(self.http.told["url"])
        self.wire = Server(
            self.lake.cli("postgres", "--json", "--port", "0", "--processes", str(args.processes)), log
        )  # fmt: skip
        self._stack.callback(self.wire.stop)
        self.port = int(self.wire.told["port"])

    def run(self) -> None:
        """All that is asked for."""
        only = self.args.only
        self._same_rows()
        self._part("rest" in only, "rest", self.rest)
        self._part("wire" in only, "wire", self.over_wire)
        self._part("whole" in only, "whole", self.whole)
        self._part("bulk" in only, "bulk", self.bulk)
        self._part("policy" in only, "policy", self.policy)
        self._part("changes" in only, "changes", self.changes)
        self._conclude()

    def _part(self, wanted: bool, name: str, work: Callable[[], None]) -> None:
        """One part; a door that is not there is told and costs the others nothing."""
        if not wanted:
            return
        try:
            work()
        except (FailedError, httpx.HTTPError, psycopg.Error, AssertionError) as error:
            self.wrong.append(name)
            self._tell(name, {"failed": f"{type(error).__name__}: {error}"[:500]})

    # --- measurements --------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Keyed reads and aggregates of 1,000 rows over HTTP."""
        self._tell("rest_first_asks", {"until_fast_s": self._warm(self.keys["analyst"])})
        self._tell("rest_keyed", self._http("keyed", "analyst"))
        self._tell("rest_aggregate", self._http("aggregate", "analyst"))

    def over_wire(self) -> None:
        """The same over the PostgreSQL protocol, from our server and from the peer."""
        for key in range(200):  # every process of the door learns that the table is asked by key
            with psycopg.connect(self._conninfo("analyst")) as connection:
                connection.execute(load.KEYED.format("%s"), (key % 10,)).fetchall()
        self._wire("wire", self.wire.pid, self.port, "analyst", self.keys["analyst"], "bench")
        self._tell("wire_one_connection", load.one_connection(self._conninfo("analyst"), self.args.rows, 1000))
        if self.peer:
            peer = self.peer
            self._wire("postgresql", peer.pid, peer.port, "bench", peer.PASSWORD, "postgres")
            self._tell("postgresql_one_connection", load.one_connection(peer.conninfo, self.args.rows, 1000))

    def whole(self) -> None:
        """The whole table into 1,000 rows."""
        repeats = self.args.repeats
        self._tell("rest_whole", _median_s(repeats, lambda: load.whole_http(self.url, self.keys["analyst"])))
        self._tell("wire_whole", _median_s(repeats, lambda: load.whole_wire(self._conninfo("analyst"))))
        if self.peer:
            conninfo = self.peer.conninfo
            self._tell("postgresql_whole", _median_s(repeats, lambda: load.whole_wire(conninfo)))

    def bulk(self) -> None:
        """Many rows with all columns, in Arrow's form."""
        rows, repeats = self.args.bulk_rows, self.args.repeats
        self._rows("rest_arrow", rows, [load.bulk_http(self.url, self.keys["analyst"], rows) for _ in range(repeats)])
        ours = f"postgresql://analyst:{self.keys['analyst']}@127.0.0.1:{self.port}/bench"
        self._rows("wire_adbc", rows, [load.bulk_wire(ours, rows) for _ in range(repeats)])
        if self.peer:
            theirs = f"postgresql://bench:{self.peer.PASSWORD}@127.0.0.1:{self.peer.port}/postgres"
            self._rows("postgresql_adbc", rows, [load.bulk_wire(theirs, rows) for _ in range(repeats)])

    def policy(self) -> None:
        """What a row filter and a mask cost: the same questions of somebody whom both bind."""
        self._warm(self.keys["analyst"])
        self._tell("rest_keyed_limited", self._http("keyed", "limited"))
        self._tell("rest_aggregate_limited", self._http("aggregate", "limited"))
        repeats = self.args.repeats
        self._tell("rest_whole_limited", _median_s(repeats, lambda: load.whole_http(self.url, self.keys["limited"])))
        for question, figure in (("keyed", "per_s"), ("aggregate", "per_s"), ("whole", "s")):
            free, bound = self.found.get(f"rest_{question}"), self.found.get(f"rest_{question}_limited")
            if free and bound:
                quotient = free[figure] / bound[figure] if figure == "per_s" else bound[figure] / free[figure]
                self._tell(f"policy_cost_{question}", {"times": round(quotient, 2)})

    def changes(self) -> None:
        """From a commit to each of many subscribers."""
        count, ticks = self.args.subscribers, max(20, round(self.args.seconds * 20))
        subscribers = load.Subscribers(self.url, self.keys["analyst"], count)
        time.sleep(1.0)
        first = self.lake.ticks.snapshot.version + 1
        sent = {}
        for number in range(ticks):
            before = self.lake.tick(number + 1)
            sent[self.lake.ticks.snapshot.version] = before
            time.sleep(0.1)
        time.sleep(1.0)
        received = subscribers.received()
        took = sorted(
            (when - sent[version]) * 1000 for one in received for version, when in one if version in sent
        )  # fmt: skip
        missing = sum(len(set(sent) - {version for version, _ in one}) for one in received)
        if not took:
            raise FailedError("no change came to any subscriber")
        self._tell("changes", {
            "subscribers": count, "commits": ticks, "first_version": first, "missing": missing,
            "p50_ms": round(took[len(took) // 2], 1), "p99_ms": round(took[int(len(took) * 0.99)], 1),
            "max_ms": round(took[-1], 1),
        })  # fmt: skip
        if missing:
            self.wrong.append("changes are missing")

    # --- how -----------------------------------------------------------------------------------------------------

    def _http(self, what: str, who: str) -> dict[str, Any]:
        args = self.args
        ask = lambda: load.http(  # noqa: E731 - called by `measured`, once a run
            self.url, self.keys[who], args.rows, what, args.seconds, args.connections, self.work
        )
        return load.measured(self.http.pid, args.repeats, ask)

    def _wire(self, side: str, pid: int, port: int, user: str, password: str, database: str) -> None:
        args = self.args
        for what in ("keyed", "aggregate"):
            ask = lambda what=what: load.wire(  # noqa: E731 - called by `measured`, once a run
                found_postgres(), port, user, password, database, args.rows, what, args.seconds, args.connections,
                self.work,
            )  # fmt: skip
            self._tell(f"{side}_{what}", load.measured(pid, args.repeats, ask))

    def _warm(self, key: str) -> float:
        """Ask by key until it is fast; returns the seconds that took."""
        started, quick = time.perf_counter(), 0
        with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            while quick < 20 and time.perf_counter() - started < (_READY_S if self.args.rows > 1_000_000 else 20):
                before = time.perf_counter()
                answer = client.get(f"{self.url}/api/tables/gold.daily_sales", params={"id": f"eq.{quick * 4711}"})
                answer.raise_for_status()
                quick = quick + 1 if time.perf_counter() - before < 0.005 else 0
        return round(time.perf_counter() - started, 1)

    def _same_rows(self) -> None:
        """Some rows and sums are the same in both databases."""
        if not self.peer:
            return
        keys = [number * 7_368_787 % self.args.rows for number in range(20)]
        listed = ", ".join(name for name in COLUMNS if name != "price")
        asks = [f"select {listed} from gold.daily_sales where id in ({', '.join(map(str, keys))}) order by id",
                "select count(*), sum(amount), sum(quantity), min(sold_at) from gold.daily_sales"]  # fmt: skip
        for ask in asks:
            sides = []
            for conninfo in (self._conninfo("analyst"), self.peer.conninfo):
                with psycopg.connect(conninfo) as connection:
                    connection.execute("set timezone = 'UTC'")
                    sides.append([[_plain(value) for value in row] for row in connection.execute(ask).fetchall()])
            if sides[0] != sides[1]:
                self.wrong.append("rows differ")
                print(f"ROWS DIFFER: {sides[0][:2]} {sides[1][:2]}")

    def _conninfo(self, who: str) -> str:
        return f"host=127.0.0.1 port={self.port} user={who} password={self.keys[who]} dbname=bench"

    def _rows(self, name: str, rows: int, rates: list[float]) -> None:
        self._tell(name, {"rows": rows, "rows_per_s": round(median(rates))})

    def _tell(self, name: str, told: dict[str, Any]) -> None:
        self.found[name] = told
        shown = [
            f"{key} {value:,}" if isinstance(value, int | float) else f"{key} {value}" for key, value in told.items()
        ]
        print(f"{name:26}" + "  ".join(shown), flush=True)

    def _conclude(self) -> None:
        """Ratios to the peer, and the aims."""
        ratios = {}
        for name, figure in (("keyed", "per_s"), ("aggregate", "per_s"), ("whole", "s"), ("adbc", "rows_per_s")):
            theirs = self.found.get(f"postgresql_{name}", {}).get(figure)
            for side in ("rest", "wire"):
                ours = self.found.get(f"{side}_{'arrow' if (side, name) == ('rest', 'adbc') else name}", {}).get(figure)
                if ours and theirs:
                    ratios[f"{side}_{name}"] = round(theirs / ours if figure == "s" else ours / theirs, 3)
        self.found["times_postgresql"] = ratios
        keyed, changes = self.found.get("rest_keyed", {}), self.found.get("changes", {})
        values = {"keyed_p99_ms": keyed.get("p99_ms"), "keyed_per_s": keyed.get("per_s"),
                  "change_p99_ms": changes.get("p99_ms")}  # fmt: skip
        self.found["aims"] = {
            name: {"aim": aim, "found": found, "met": found is not None and (
                found >= aim if name.endswith("per_s") else found < aim
            )} for name, aim in AIMS.items() for found in [values[name]]
        }  # fmt: skip
        failed = [name for name, told in self.found.items() if isinstance(told, dict) and told.get("failed")]
        self.found["failed"] = sorted({*failed, *self.wrong})


def _median_s(repeats: int, ask: Callable[[], float]) -> dict[str, Any]:
    return {"s": round(median(ask() for _ in range(repeats)), 3)}


def _plain(value: object) -> object:
    utc = getattr(value, "astimezone", None)
    return value if utc is None else value.replace(tzinfo=None).isoformat()  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
