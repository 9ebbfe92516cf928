"""The client that others wrote, in an environment of its own."""

import pytest

from tests.apis.sharing.peer import a_client


@pytest.fixture(scope="session")
def client():
    with a_client() as made:
        yield made
