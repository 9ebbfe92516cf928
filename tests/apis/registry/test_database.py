"""The stores: what each refuses, and how it comes back."""

import sqlite3
import threading

import pytest

from lodestream.apis.registry.database import open_database
from lodestream.errors import ConfigError, CorruptionError, TransientError


def test_a_block_that_raises_changes_nothing(store):
    database = open_database(store)

    def work():
        with database.write() as rows:
            rows.all("INSERT INTO settings VALUES (?, ?, ?)", "a", "level", "NONE")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    with database.read() as rows:
        assert rows.all("SELECT * FROM settings") == []
    database.close()
    database.close()


def test_two_openers_find_one_state(store):
    one, two = open_database(store), open_database(store)
    with one.write() as rows:
        rows.all("INSERT INTO settings VALUES (?, ?, ?)", "ü%s'?", "level", "NONE")
    with two.read() as rows:
        assert [tuple(row) for row in rows.all("SELECT * FROM settings")] == [("ü%s'?", "level", "NONE")]
    one.close()
    two.close()


def test_writers_wait_for_each_other(store):
    one, two = open_database(store), open_database(store)
    order = []

    def second():
        with two.write():
            order.append("second")

    with one.write():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    one.close()
    two.close()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("not a database" * 1000)
    with pytest.raises((ConfigError, CorruptionError), match=r"x\.db"):
        open_database(str(tmp_path / "x.db"))
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be opened.*folder\.db"):
        open_database(str(tmp_path / "folder.db"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_database(str(tmp_path / "file" / "r.db"))


def test_a_damaged_page_stops_the_store(tmp_path):
    file = tmp_path / "r.db"
    database = open_database(str(file))
    with database.write() as rows:
        for i in range(300):
            rows.all("INSERT INTO settings VALUES (?, ?, ?)", f"s{i}", "level", "NONE" * 100)
    database.close()
    data = bytearray(file.read_bytes())
    data[8192 : len(data) - 100] = b"\x5a" * (len(data) - 8292)
    file.write_bytes(data)

    def work():
        damaged = open_database(str(file))
        try:
            with damaged.read() as rows:
                rows.all("SELECT SUM(LENGTH(value)) FROM settings")
        finally:
            damaged.close()

    with pytest.raises((ConfigError, CorruptionError)):
        work()


def test_a_database_that_stays_locked_is_a_passing_trouble(tmp_path, monkeypatch):
    import lodestream.drivers.database as module

    monkeypatch.setattr(module, "_BUSY_S", 0.1)
    file = str(tmp_path / "r.db")
    database = open_database(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match="does not answer"), database.write():
        pass
    other.execute("ROLLBACK")
    other.close()
    with database.write():
        pass
    database.close()


def test_postgres_comes_back(postgres):
    database = open_database(postgres.url)
    postgres.stop()
    with pytest.raises(TransientError, match="does not answer"), database.read():
        pass
    postgres.start()
    with database.read() as rows:
        assert rows.all("SELECT 1 FROM counters")
    database.close()


@pytest.mark.parametrize("url", ["postgresql://[", "postgresql://x?nosuch=1"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="not a PostgreSQL URL"):
        open_database(url)
