"""Catalogs of a test's own, on each kind of store, and words to fill them with."""

import itertools

import pytest

from lodestream.catalog import audit_table, store, usage
from lodestream.catalog.anchors import Anchors
from lodestream.catalog.audit import AuditLog
from lodestream.catalog.catalog import Catalog
from lodestream.catalog.entries import entry
from lodestream.model.access import Principal
from lodestream.ports.authority import Event
from tests.apis.registry.postgres import Cluster, programs


@pytest.fixture(scope="session")
def postgres():
    """A running PostgreSQL."""
    if programs() is None:
        pytest.skip("needs the PostgreSQL server: apt-get install postgresql")
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def where(request, tmp_path):
    """A place for a catalog: a file, or a database when the test asks for `postgres`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return str(tmp_path / "catalog.db")
    return request.getfixturevalue("postgres").database()


class Opened:
    """Opens catalogs and closes them at the end."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.found: list[Catalog] = []

    def __call__(self, where: str, **more: float) -> Catalog:
        time = itertools.count(1_000)
        log = audit_log(where, self.folder, lambda: next(time))
        made = Catalog(store.open_store(where), lambda: next(time), log, **more)
        self.found.append(made)
        return made


def audit_log(where, folder, clock):
    """The audit log at a place, its key and anchors in a folder."""
    tables = (*audit_table.tables(where), *usage.TABLES)
    return AuditLog(store.open_store(where, tables), Anchors(str(folder)), clock)


@pytest.fixture
def opened(tmp_path):
    """Opens a catalog at a place, as each process would."""
    opens = Opened(tmp_path)
    yield opens
    for one in opens.found:
        one.close()


@pytest.fixture
def catalog(where, opened):
    """A catalog that nothing is in."""
    return opened(where, refresh_s=0.0)


EVENT = Event("root", "cli", "cli", "test", "allowed")


def say(catalog, *policies, origin=""):
    """Put users, grants and policies into a catalog."""
    with catalog.changing(EVENT) as (rows, at):
        for one in policies:
            store.put(rows, entry(one, origin=origin, who="root", at_us=at))


def reader(name="alice", *groups, **attributes):
    """A principal as a door would make one."""
    return Principal(name, groups=frozenset(groups), attributes=attributes, via="test")


BOTH = pytest.mark.parametrize("where", ["sqlite", "postgres"], indirect=True)
