from pathlib import Path

import pytest

from lodestream.demo.flights import prepare


@pytest.fixture(scope="session")
def flights_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's source files, written once per test session; tests that change them copy first."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    prepare(folder)
    return folder
