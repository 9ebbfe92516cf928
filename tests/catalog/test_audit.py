"""The audit log in its database: nothing is done unrecorded, and no record is changed, lost or doubled unseen."""

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lodestream.catalog import audit_table
from lodestream.catalog.anchors import Anchors
from lodestream.catalog.audit_table import Wanted, facts
from lodestream.catalog.chain import START, body_of, digest_of
from lodestream.errors import TransientError
from lodestream.ports.authority import Event
from tests.catalog.conftest import BOTH, audit_log

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60


def read(who="alice", tables=("gold.orders",), decision="allowed", **detail):
    return Event(who, "key:1", "rest", "query", decision, tables, ("own_rows",), 3, detail)


def change(who="root", **detail):
    return Event(who, "cli", "cli", "grant", "allowed", ("gold.orders",), detail=detail)


class Logs:
    """Opens logs at one place and closes them at the end."""

    def __init__(self, where, folder) -> None:
        self.where, self.folder = where, folder
        self.found = []

    def __call__(self):
        time_us = itertools.count(1_000)
        self.found.append(audit_log(self.where, self.folder, lambda: next(time_us)))
        return self.found[-1]

    def close(self):
        for log in self.found:
            log.close()

    @contextlib.contextmanager
    def tampering(self):
        """SQL as somebody runs it who owns the database: the triggers that refuse changes are off."""
        self.close()
        if self.where.startswith("postgresql"):
            import psycopg

            with psycopg.connect(self.where, autocommit=True) as connection:
                connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
                yield lambda sql, *values: connection.execute(sql.replace("?", "%s"), values or None)
                connection.execute("ALTER TABLE audit_log ENABLE TRIGGER ALL")
        else:
            with contextlib.closing(sqlite3.connect(self.where)) as connection:
                for name in ("kept", "whole", "ordered"):
                    connection.execute(f"DROP TRIGGER audit_log_{name}")
                yield lambda sql, *values: connection.execute(sql, values)
                connection.commit()


@pytest.fixture
def logs(where, tmp_path):
    opens = Logs(where, tmp_path)
    yield opens
    opens.close()


def problem(log, copy=None):
    found = log.verify(copy)
    return (found.problems[0].seq, found.problems[0].kind) if found.problems else None


def eventually(condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.01)


# What is kept -------------------------------------------------------------------------------------------------------


@BOTH
def test_what_is_recorded_is_read_again(logs):
    log = logs()
    log.record(read(rows=3))
    log.record(change(to="group:analysts"))
    found = [facts(record) for record in log.records(Wanted(limit=2))]
    assert [(one["seq"], one["principal"], one["action"]) for one in found] == [
        (3, "root", "grant"), (2, "alice", "query"),
    ]  # fmt: skip
    assert found[1]["objects"] == ["gold.orders"]
    assert found[1]["policies"] == ["own_rows"]
    assert found[1]["catalog_version"] == 3
    assert found[1]["detail"] == {"rows": 3}
    assert found[0]["detail"] == {"to": "group:analysts"}
    assert log.verify().problems == ()
    assert log.verify().unanchored == 0, "a change is anchored at once"


@BOTH
def test_records_are_found_by_what_they_concern(logs):
    log = logs()
    log.record(read("alice", ("gold.orders",)))
    log.record(read("bob", ("gold.orders_by_day", "silver.flights@7"), "refused"))
    log.record(read("bob", ("silver.flights.tailnum",)))
    log.record(change("gold.orders"))
    log.flush()

    def seqs(**wanted):
        return [record.seq for record in log.records(Wanted(**wanted))]

    assert seqs() == [5, 4, 3, 2, 1]
    assert seqs(limit=2) == [5, 4]
    assert seqs(principal="bob") == [4, 3]
    assert seqs(action="grant") == [5]
    assert seqs(decision="refused") == [3]
    assert seqs(table="gold.orders") == [5, 2]
    assert seqs(table="silver.flights") == [4, 3]
    assert seqs(table="gold.orders%") == seqs(table="gold_orders") == []
    since = log.records(Wanted(limit=2))[-1].time_us
    assert seqs(since_us=since) == [5, 4]


@BOTH
def test_reads_become_durable_by_themselves_and_are_committed_together(logs):
    log, other = logs(), logs()
    log.record(read())
    for n in range(2_000):
        log.record(read(n=n))
    eventually(lambda: len(other.records(Wanted(limit=5_000))) == 2_002)
    told = [json.loads(record.told)["detail"].get("n") for record in reversed(other.records(Wanted(limit=2_000)))]
    assert told == list(range(2_000)), "in the order in which they were recorded"
    log.close()
    assert other.verify().problems == ()
    assert other.verify().anchors < 20, "many records share one anchor"


def test_no_value_of_a_query_or_an_error_is_kept(logs, where, tmp_path):
    log = logs()
    sql = "select * from gold.orders where card = 'CANARY-1' and pin = 4929111 -- CANARY-2"
    log.record(read(sql=sql, reason="cannot read 'CANARY-3' as int. value='CANARY-4'"))
    log.record(change(reason="no such user. user=\"it's CANARY-5"))
    log.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"where card = ? and pin = ?" in kept
    assert b"CANARY" not in kept
    assert b"4929111" not in kept


@BOTH
def test_any_text_can_be_recorded(logs):
    log = logs()
    log.record(Event("né\0\ud800" + "x" * 5_000, "\ud800", "rest", "odd\naction", "refused", ("a\0b",), (),
                     0, {"t": "\0\ud83d" * 3, "f": float("nan"), "n": None, "i": 1 << 70}))  # fmt: skip
    found = facts(log.records(Wanted(limit=1))[0])
    assert found["principal"].startswith("né\ufffd?x")
    assert found["detail"]["f"] == "nan"
    assert log.verify().problems == ()


# In the transaction of a change -------------------------------------------------------------------------------------


@BOTH
def test_a_change_and_its_record_stand_together_or_not_at_all(logs):
    log, database = logs(), logs()._database
    log.record(read())

    def undone():
        with database.write() as rows:
            log.append(rows, [change(n=1)], 5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        undone()
    with database.write() as rows:
        log.append(rows, [change(n=2), change(n=3)], 6)
    log.settle()
    log.flush()
    told = [facts(record)["detail"].get("n") for record in log.records(Wanted(action="grant"))]
    assert told == [3, 2]
    assert log.verify().problems == ()
    assert log.verify().unanchored == 0


@BOTH
def test_the_first_record_may_be_that_of_a_transaction(logs):
    log, database = logs(), logs()._database
    with database.write() as rows:
        log.append(rows, [change(), change()], 5)
    log.settle()
    log.close()
    other = logs()
    assert other.verify().problems == ()
    assert other.verify().records == 2


# Tampering ----------------------------------------------------------------------------------------------------------


@BOTH
def test_the_database_refuses_to_change_the_log(logs):
    log = logs()
    for _ in range(3):
        log.record(change())
    log.close()
    row = "4, 0, 'm', 'm', 'm', 'm', 'm', 'm'"
    statements = ["UPDATE audit_log SET principal = 'nobody'", "DELETE FROM audit_log WHERE seq = 2"]
    if logs.where.startswith("postgresql"):
        import psycopg

        wrong = psycopg.Error
        connection = psycopg.connect(logs.where, autocommit=True)
        statements += ["TRUNCATE audit_log"]
    else:
        wrong = sqlite3.Error
        connection = sqlite3.connect(logs.where, isolation_level=None)
        statements += [f"INSERT OR REPLACE INTO audit_log VALUES ({row})",
                       f"INSERT INTO audit_log VALUES ({row.replace('4', '9', 1)})"]  # fmt: skip
    with contextlib.closing(connection):
        for statement in statements:
            with pytest.raises(wrong, match="append-only"):
                connection.execute(statement)
    assert logs().verify().problems == ()


def rewrite(sql, seq, principal):
    """Change a record and make the digests from there on anew, as somebody does who knows the code."""
    columns = "seq, time_us, principal, action, decision, told, previous, digest"
    rows = sql(f"SELECT {columns} FROM audit_log ORDER BY seq").fetchall()
    previous = START
    for record in map(audit_table._record, rows):
        digest = record.digest
        if record.seq >= seq:
            who = principal if record.seq == seq else record.principal
            digest = digest_of(record.seq, previous, body_of(replace(record, principal=who)))
            sql("UPDATE audit_log SET principal = ?, previous = ?, digest = ? WHERE seq = ?",
                who, previous, digest, record.seq)  # fmt: skip
        previous = digest


def swap(sql, one, other):
    for old, new in ((one, -1), (other, one), (-1, other)):
        sql("UPDATE audit_log SET seq = ? WHERE seq = ?", new, old)


TAMPERINGS = {
    "one byte": (lambda sql: sql("UPDATE audit_log SET told = replace(told, '\"n\":7', '\"n\":8') WHERE seq = 7"),
                 (7, "changed")),
    "who": (lambda sql: sql("UPDATE audit_log SET principal = 'bob' WHERE seq = 7"), (7, "changed")),
    "when": (lambda sql: sql("UPDATE audit_log SET time_us = time_us + 1 WHERE seq = 7"), (7, "changed")),
    "allowed or refused": (lambda sql: sql("UPDATE audit_log SET decision = 'refused' WHERE seq = 7"), (7, "changed")),
    "a row": (lambda sql: sql("DELETE FROM audit_log WHERE seq = 7"), (7, "missing")),
    "the first row": (lambda sql: sql("DELETE FROM audit_log WHERE seq = 1"), (1, "missing")),
    "the order": (lambda sql: swap(sql, 7, 12), (7, "moved")),
    "the tail": (lambda sql: sql("DELETE FROM audit_log WHERE seq > 15"), (16, "cut")),
    "the last row": (lambda sql: sql("DELETE FROM audit_log WHERE seq = 20"), (20, "cut")),
    "all rows": (lambda sql: sql("DELETE FROM audit_log"), (1, "cut")),
    "a rewrite": (lambda sql: rewrite(sql, 7, "nobody"), (7, "rewritten")),
    "a rewrite from the start": (lambda sql: rewrite(sql, 1, "nobody"), (1, "rewritten")),
    "a rewrite of the last": (lambda sql: rewrite(sql, 20, "nobody"), (20, "rewritten")),
}  # fmt: skip


@BOTH
def test_tampering_is_seen_and_named(logs):
    log = logs()
    for n in range(2, 21):
        log.record(change(n=n))
    assert log.verify().problems == ()
    assert log.verify().records == log.verify().anchors == 20
    log.close()
    for name, (tamper, expected) in TAMPERINGS.items():
        with logs.tampering() as sql:
            sql("CREATE TABLE kept AS SELECT * FROM audit_log")
            tamper(sql)
        assert problem(logs()) == expected, name
        with logs.tampering() as sql:
            sql("DELETE FROM audit_log")
            sql("INSERT INTO audit_log SELECT * FROM kept")
            sql("DROP TABLE kept")
        assert problem(logs()) is None, name


def test_between_anchors_a_rewrite_is_named_by_its_span(logs, monkeypatch):
    log = logs()
    for n in range(30):
        log.record(read(n=n))
    log.record(change())
    log.close()
    with logs.tampering() as sql:
        rewrite(sql, 20, "nobody")
    (found, *_) = logs().verify().problems
    assert found.kind == "rewritten"
    assert found.seq <= 20
    assert "to 32 was rewritten" in found.message


def test_taking_the_anchors_away_is_seen_even_after_a_restart(logs, tmp_path):
    log = logs()
    for n in range(5):
        log.record(change(n=n))
    log.close()
    copy = tmp_path / "copy.anchors"
    copy.write_bytes((tmp_path / "audit.anchors").read_bytes())
    (tmp_path / "audit.anchors").unlink()
    assert problem(logs()) == (1, "anchor")
    with logs.tampering() as sql:
        rewrite(sql, 3, "nobody")
    log = logs()
    log.record(change())
    assert problem(log) == (1, "anchor"), "a new anchor over a rewritten log does not make it right"
    assert problem(log, str(copy)) == (3, "rewritten"), "a copy kept elsewhere says what was done"


def test_a_lost_key_does_not_pass_for_a_new_log(logs, tmp_path):
    log = logs()
    log.record(change())
    log.close()
    (tmp_path / "audit.key").unlink()
    log = logs()
    log.record(change())
    assert problem(log) == (1, "anchor")
    assert "anchor 1 was changed" in log.verify().problems[0].message


# Several processes, killed ones -------------------------------------------------------------------------------------


def writer(where, folder, who, count, acknowledged):
    """Write changes and reads, note each change that is acknowledged, durably."""
    log = audit_log(where, folder, lambda: time.time_ns() // 1_000)
    with open(acknowledged, "a") as file:
        for n in range(int(count)):
            log.record(read(who, n=n))
            log.record(change(who, n=n))
            file.write(f"{who} {n}\n")
            file.flush()
    log.close()


def start(where, folder, who, count):
    program = "import sys; from tests.catalog.test_audit import writer; writer(*sys.argv[1:])"
    acknowledged = Path(folder, f"{who}.acknowledged")
    acknowledged.touch()
    command = [sys.executable, "-c", program, where, str(folder), who, str(count), str(acknowledged)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


@BOTH
def test_several_processes_share_one_chain(logs, where, tmp_path):
    running = [start(where, tmp_path, f"p{n}", 40) for n in range(3)]
    for one in running:
        _, said = one.communicate(timeout=DEADLINE_S)
        assert one.returncode == 0, said.decode()
    log = logs()
    found = log.verify()
    assert found.problems == ()
    assert (found.records, found.unanchored) == (1 + 3 * 80, 0)
    for n in range(3):
        told = [facts(record)["detail"]["n"] for record in log.records(Wanted(principal=f"p{n}", action="query"))]
        assert told == list(reversed(range(40)))


@BOTH
def test_a_killed_process_leaves_a_whole_chain_with_all_that_was_acknowledged(logs, where, tmp_path):
    survivor = start(where, tmp_path, "survivor", 60)
    rounds = 4
    for n in range(rounds):
        one = start(where, tmp_path, f"killed{n}", 100_000)
        noted = tmp_path / f"killed{n}.acknowledged"
        eventually(lambda noted=noted, one=one, n=n: noted.stat().st_size > 20 * (n + 1) or one.poll() is not None)
        assert one.poll() is None, one.stderr.read().decode()
        one.send_signal(signal.SIGKILL)
        one.communicate(timeout=DEADLINE_S)
    _, said = survivor.communicate(timeout=DEADLINE_S)
    assert survivor.returncode == 0, said.decode()
    log = logs()
    found = log.verify()
    assert found.problems == ()
    kept = {
        (record.principal, facts(record)["detail"]["n"]) for record in log.records(Wanted(action="grant", limit=10**6))
    }
    for path in tmp_path.glob("*.acknowledged"):
        whole = path.read_text().split("\n")[:-1]
        assert {(who, int(n)) for who, n in map(str.split, whole)} <= kept, path.name
    log.record(change())
    assert log.verify().problems == ()


# What cannot be written is not done ---------------------------------------------------------------------------------


class Faulty:
    """A database whose writing transactions fail when told, before or after their commit."""

    def __init__(self, database) -> None:
        self.database, self.fails = database, None
        self.read, self.close = database.read, database.close

    @contextlib.contextmanager
    def write(self):
        if self.fails == "before":
            raise TransientError("disk is full")
        with self.database.write() as rows:
            yield rows
        if self.fails == "after":
            raise TransientError("connection lost")


def until_refused(log, reason):
    """Record reads until one is refused for a reason; their numbers."""
    refused = ""
    for n in range(1, 100_000):
        try:
            log.record(read(n=n))
        except TransientError as error:
            refused = str(error)
            break
        yield n
    assert "audit log cannot be written" in refused
    assert reason in refused


@pytest.fixture
def faulty(logs):
    made = logs()
    made._database = Faulty(made._database)
    return made


@BOTH
def test_what_cannot_be_recorded_is_refused_and_reads_that_went_on_are_kept(faulty):
    log = faulty
    log.record(read(n=0))
    log._database.fails = "before"
    accepted = list(until_refused(log, "disk is full"))
    assert log.failing() == {"audit": "disk is full"}
    for event in (read(n=-1), change(n=-1), read(n=-1, decision="refused")):
        with pytest.raises(TransientError, match="disk is full"):
            log.record(event)
    log._database.fails = None
    log.record(read(n=-2))
    log.flush()
    assert log.failing() == {}
    told = [facts(record)["detail"].get("n") for record in reversed(log.records(Wanted(limit=10**6)))]
    assert told == [None, 0, *accepted, -2], "accepted reads are there once, refused ones are not"
    assert log.verify().problems == ()


@BOTH
def test_a_commit_that_went_through_unseen_is_not_doubled(faulty):
    log = faulty
    log.record(read(n=0))
    log._database.fails = "after"
    list(until_refused(log, "connection lost"))
    log._database.fails = None
    log.flush()
    told = [facts(record)["detail"].get("n") for record in reversed(log.records(Wanted(limit=10**6)))]
    assert told == [None, *range(len(told) - 1)]
    assert log.verify().problems == ()


@BOTH
def test_what_came_behind_a_commit_in_doubt_is_not_lost(faulty):
    log = faulty
    log.record(read(n=0))
    one, two, three = (log._entry(read(n=n), 5) for n in (1, 2, 3))
    for fails, batch in (("after", [one]), ("before", [two])):
        log._database.fails = fails
        with pytest.raises(TransientError):
            log._store(batch)
    log._database.fails = None
    log._store([three])
    told = [facts(record)["detail"].get("n") for record in reversed(log.records(Wanted()))]
    assert told == [None, 0, 1, 2, 3]
    assert log.verify().problems == ()


def test_a_bug_in_the_writer_leaves_nobody_waiting(faulty, monkeypatch):
    log = faulty
    log.record(read(n=0))

    def broken():
        raise ZeroDivisionError

    crashed = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _told: crashed.set())
    monkeypatch.setattr(log._database, "write", broken)
    with pytest.raises(TransientError, match="has stopped"):
        log.record(change())
    assert crashed.wait(DEADLINE_S)
    with pytest.raises(TransientError, match="has stopped"):
        log.record(read())
    monkeypatch.undo()
    monkeypatch.setattr(log._database, "fails", None)
    log.record(change())
    assert log.verify().problems == ()


def test_anchors_that_cannot_be_written_refuse_changes_too(logs, tmp_path, monkeypatch):
    log = logs()
    log.record(change(n=1))

    def full(*_given):
        raise TransientError("audit log cannot be anchored")

    with monkeypatch.context() as patch:
        patch.setattr(Anchors, "add", full)
        for event in (change(n=2), change(n=3)):
            with pytest.raises(TransientError, match="cannot be anchored"):
                log.record(event)
        database = logs()._database
        with pytest.raises(TransientError, match="cannot be anchored"), database.write() as rows:
            log.append(rows, [change(n=4)], 5)
    log.record(change(n=5))
    assert log.verify().problems == ()
    assert log.verify().unanchored == 0


def test_a_closed_log_refuses(logs):
    log = logs()
    log.record(read())
    log.close()
    log.close()
    for event in (read(), change()):
        with pytest.raises(TransientError, match="closed"):
            log.record(event)


FULL = """
import resource, sys
from tests.catalog.test_audit import audit_log, change, read
from lodestream.errors import TransientError
log = audit_log(sys.argv[1], sys.argv[2], lambda: 5)
log.record(change(n=0))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
done = 0
try:
    for n in range(1, 100_000):
        log.record(change(n=n))
        done = n
except TransientError as error:
    print(done, error)
for event in (read(n=-1), change(n=-1)):
    try:
        log.record(event)
        print("was let")
    except TransientError as error:
        print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.record(change(n=done + 1))
assert log.verify().problems == (), log.verify()
print("goes on")
"""


def test_a_full_disk_refuses_and_loses_nothing(logs, where, tmp_path):
    run = subprocess.run([sys.executable, "-c", FULL, where, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                         timeout=DEADLINE_S, check=False)  # fmt: skip
    first, *others = run.stdout.splitlines()
    done = int(first.split()[0])
    assert done > 5
    assert "audit log cannot be written, so nothing is done" in first
    assert others == ["refused", "refused", "goes on"], run.stderr
    told = {facts(record)["detail"].get("n") for record in logs().records(Wanted(limit=10**6))}
    assert set(range(done + 2)) <= told


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_a_locked_database_refuses(logs, where):
    log = logs()
    log.record(change())
    log._database._connection.execute("PRAGMA busy_timeout = 50")
    with contextlib.closing(sqlite3.connect(where, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="locked"):
            log.record(change())
        other.execute("ROLLBACK")
    log.record(change())
    assert log.verify().problems == ()


@pytest.mark.parametrize("where", ["postgres"], indirect=True)
def test_postgresql_that_is_gone_refuses_and_comes_back(logs, postgres):
    log = logs()
    log.record(change(n=0))
    log.record(read(n=1))
    log.flush()
    postgres.stop("immediate")
    try:
        with pytest.raises(TransientError):
            log.record(change(n=2))
    finally:
        postgres.start()
    log.record(change(n=3))
    assert log.verify().problems == ()
    assert [facts(record)["detail"].get("n") for record in log.records(Wanted())][:1] == [3]


@pytest.mark.parametrize("where", ["postgres"], indirect=True)
def test_postgresql_that_only_reads_refuses(logs, where):
    import psycopg

    log = logs()
    log.record(change())
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute("ALTER ROLE registry SET default_transaction_read_only = on")
    log._database._connection.close()
    try:
        with pytest.raises(TransientError):
            log.record(change())
    finally:
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER ROLE registry RESET default_transaction_read_only")
    log.record(change())
    assert log.verify().problems == ()


def test_what_is_left_is_written_when_a_process_ends(logs, where, tmp_path):
    """Nobody closes the log; the interpreter ends at once behind the last read."""
    program = """
import sys
from tests.catalog.test_audit import audit_log, read
log = audit_log(sys.argv[1], sys.argv[2], lambda: 5)
for n in range(500):
    log.record(read(n=n))
"""
    subprocess.run([sys.executable, "-c", program, where, str(tmp_path)], cwd=ROOT, check=True, timeout=DEADLINE_S)
    found = logs().verify()
    assert (found.records, found.unanchored, found.problems) == (501, 0, ())


def test_the_key_is_made_once_by_many_processes_at_once(tmp_path):
    def make(number):
        anchors = Anchors(str(tmp_path))
        with anchors.held():
            anchors.add(number, f"{number:064x}", number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(DEADLINE_S)
    found = Anchors(str(tmp_path)).read()
    assert [one.number for one in found.anchors] == list(range(1, 9))
    assert found.problem is None
    assert os.stat(tmp_path / "audit.key").st_mode & 0o777 == 0o600
