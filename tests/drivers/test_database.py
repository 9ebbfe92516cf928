"""A database in a file that several processes and several connections of one process share."""

import os
import subprocess
import sys

import pytest

from lodestream.drivers.database import SqliteDatabase
from lodestream.errors import TransientError

TABLES = ["CREATE TABLE IF NOT EXISTS t (x INTEGER)"]
ANOTHER = """
import sys
from lodestream.drivers.database import SqliteDatabase
database = SqliteDatabase(sys.argv[1], [])
with database.write() as rows:
    rows.all("INSERT INTO t VALUES (2)")
database.close()
"""


def test_another_process_that_ends_takes_nothing_away(tmp_path):
    file = str(tmp_path / "catalog.db")
    first, second = (SqliteDatabase(file, TABLES) for _ in range(2))
    with first.write() as rows:
        rows.all("INSERT INTO t VALUES (1)")
    subprocess.run([sys.executable, "-c", ANOTHER, file], check=True)
    assert os.path.exists(f"{file}-wal")
    for database in (first, second):
        with database.read() as rows:
            assert rows.all("SELECT x FROM t ORDER BY x") == [(1,), (2,)]
        database.close()


def test_a_file_that_is_gone_is_not_written_on(tmp_path):
    file = tmp_path / "catalog.db"
    database = SqliteDatabase(str(file), TABLES)
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    for begin in (database.read, database.write):
        with pytest.raises(TransientError, match="gone"), begin():
            raise AssertionError("not reached")
    database.close()
