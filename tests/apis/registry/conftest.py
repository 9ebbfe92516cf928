"""One registry for the tests that only talk to it, and names that no other test uses."""

import itertools

import httpx
import pytest

from lodestream.testing.registry import running_registry

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


@pytest.fixture
def subject():
    """A subject of the test's own."""
    return f"subject-{next(_COUNT)}"
