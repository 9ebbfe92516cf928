"""A lab that has run, for each test its own. Nothing here loses power, so nothing waits for a disk."""

from pathlib import Path

import pytest

from tests.engines.lakes import Lab
from tests.operations.backup.copies import shop, twin


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lodestream.lake.disk._sync", lambda _descriptor: None)


@pytest.fixture(scope="session")
def _shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop(tmp_path_factory.mktemp("shop") / "lab").root


@pytest.fixture
def lab(_shop: Path, tmp_path: Path) -> Lab:
    """A lab of its own that has run."""
    return twin(_shop, tmp_path / "lab")
