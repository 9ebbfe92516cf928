"""The client that others wrote, in an environment of its own."""

import pytest

from tests.apis.sharing.peer import Client
from tests.venvs import NoPackagesError


@pytest.fixture(scope="session")
def client():
    try:
        made = Client()
    except NoPackagesError as error:
        pytest.skip(str(error))
    yield made
    made.close()
