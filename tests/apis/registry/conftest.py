"""Registries for the tests that only talk to them, and names that no other test uses."""

import itertools

import httpx
import pytest

from lodestream.testing.registry import running_registry
from tests.apis.registry.postgres import Cluster, programs

_COUNT = itertools.count(1)


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """A registry over SQLite."""
    with running_registry(store=str(tmp_path_factory.mktemp("registry") / "registry.db")) as found:
        yield found


@pytest.fixture(scope="session")
def http(registry):
    """Requests to that registry."""
    with httpx.Client(base_url=registry.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def postgres():
    """A running PostgreSQL."""
    if programs() is None:
        pytest.skip("needs the PostgreSQL server: apt-get install postgresql")
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    """A place for a registry of the test's own, of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "registry.db")
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def subject():
    """A subject of the test's own."""
    return f"subject-{next(_COUNT)}"
