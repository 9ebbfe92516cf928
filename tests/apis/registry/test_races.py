"""Many at once, and SIGKILL in the middle: ids never repeat, never change, and nothing acknowledged is lost."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from lodestream.apis.registry import records
from lodestream.apis.registry.database import open_database
from lodestream.apis.registry.subjects import Subjects
from lodestream.apis.registry.submissions import Submission
from lodestream.testing.registry import running_registry, start_registry


def schema(i):
    return json.dumps({"type": "enum", "name": f"E{i}", "symbols": ["A"]})


def test_clients_of_two_registries_over_one_store_agree(store):
    """Each schema is registered by many clients at once, in another order each, through two processes."""
    with running_registry(store=store) as one, running_registry(store=store) as two:

        def work(n):
            with SchemaRegistryClient({"url": (one, two)[n % 2].url, "timeout": 60}) as client:
                order = [(i * 7 + n) % 12 for i in range(12)]
                return {i: client.register_schema(f"s{i % 3}-{i}", Schema(schema(i), "AVRO")) for i in order}

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(work, range(8)))
        assert all(one_of == found[0] for one_of in found)
        assert sorted(found[0].values()) == list(range(1, 13))
        assert httpx.get(f"{two.url}/subjects/s0-0/versions").json() == [1]


def test_versions_of_one_subject_are_given_once(store):
    with running_registry(store=store) as one, running_registry(store=store) as two:
        httpx.put(f"{one.url}/config", json={"compatibility": "NONE"})

        def work(i):
            url = f"{(one, two)[i % 2].url}/subjects/s/versions"
            return httpx.post(url, json={"schema": schema(i)}, timeout=60).json()["version"]

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(work, range(24))) == list(range(1, 25))


def register_until_killed(server, known, start):
    """Register until the process is gone; every id that was acknowledged is put into `known`."""
    lock, gone = threading.Lock(), threading.Event()

    def work(n):
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for i in range(start + n, start + 4000, 4):
                if gone.is_set():
                    return
                try:
                    made = client.post(f"/subjects/s{i % 50}/versions", json={"schema": schema(i)}).json()["id"]
                except httpx.TransportError:
                    return
                with lock:
                    known[i] = made

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    before = len(known)
    for thread in threads:
        thread.start()
    while len(known) < before + 20:
        threads[0].join(0.01)
    server.kill()
    gone.set()
    for thread in threads:
        thread.join()
    server.process.stdout.close()
    server.process.stderr.close()


@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.long)])
def test_a_kill_loses_and_repeats_nothing(store, kills):
    known = {}
    database = open_database(store)
    with database.write() as rows:
        from lodestream.apis.registry import settings

        settings.put(rows, settings.GLOBAL, "level", "NONE")
    for turn in range(kills):
        register_until_killed(start_registry(store=store), known, turn * 10_000)
    with running_registry(store=store) as server, httpx.Client(base_url=server.url) as client:
        for i, made in known.items():
            assert json.loads(client.get(f"/schemas/ids/{made}").json()["schema"])["name"] == f"E{i}"
        some = sorted(known)[:20]
        again = [client.post(f"/subjects/s{i % 50}/versions", json={"schema": schema(i)}).json()["id"] for i in some]
        assert again == [known[i] for i in some]
    assert len(set(known.values())) == len(known) >= 20 * kills
    with database.read() as rows:
        held = rows.all("SELECT id FROM schemas")
        assert {one for (one,) in held} >= set(known.values())
        doubled = rows.all("SELECT subject, version FROM versions GROUP BY subject, version HAVING COUNT(*) > 1")
        assert doubled == []
    database.close()


def test_a_store_without_its_lock_is_seen_to_race(tmp_path, monkeypatch):
    """The tests above can fail: with the wrong isolation two writers give one id twice, or one of them is refused."""
    store = str(tmp_path / "r.db")
    databases = [open_database(store) for _ in range(2)]
    for one in databases:
        monkeypatch.setattr(one, "write", one.read)
    wrong, barrier = [], threading.Barrier(2)
    add = records.add_schema

    def slowly(*arguments):
        barrier.wait(20)
        return add(*arguments)

    monkeypatch.setattr(records, "add_schema", slowly)

    def work(n):
        try:
            Subjects(databases[n]).register("s", Submission("AVRO", schema(n)), normalize=False)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in databases:
        one.close()
    assert wrong
