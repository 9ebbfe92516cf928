"""Lakes on each kind of store: a folder, Azurite, moto's server."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lodestream.lake.disk import Disk
from lodestream.lake.opening import open_lake
from tests.npm import NoNpmError
from tests.stores.emulators import ACCOUNT, AZURITE_KEY, azurite, make_bucket, make_container, moto

CONTAINER = "lakes"
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where a lake is.

    Attributes:
        lake: folder or URL.
        store: its settings in lodestream.yaml.
        options: how delta-rs reaches the same.
        root: of the project.
    """

    lake: str
    root: str
    store: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def declared(self) -> Any:
        """The value of `lake:`."""
        return {"url": self.lake, **self.store} if self.store else self.lake

    def disk(self) -> Disk:
        """A disk of its own, as another process has it."""
        return open_lake(self.lake, self.root, self.store)[1]

    def through(self, endpoint: str) -> "Place":
        """The same lake, asked for over another endpoint."""
        return Place(self.lake, self.root, {**self.store, "endpoint": endpoint}, self.options)


@pytest.fixture(scope="session")
def azurite_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with azurite(tmp_path_factory.mktemp("azurite")) as url:
            make_container(url, CONTAINER)
            yield url
    except NoNpmError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto() as url:
        make_bucket(url, CONTAINER)
        yield url


def on_azurite(url: str, root: Path) -> Place:
    """A new lake in Azurite."""
    endpoint = f"{url}/{ACCOUNT}"
    store = {"endpoint": endpoint, "account_key": AZURITE_KEY}
    options = {
        "azure_storage_account_name": ACCOUNT, "azure_storage_account_key": AZURITE_KEY,
        "azure_storage_endpoint": endpoint, "azure_allow_http": "true",
    }  # fmt: skip
    lake = f"abfss://{CONTAINER}@{ACCOUNT}.dfs.core.windows.net/lake-{next(_NUMBERS)}"
    return Place(lake, str(root), store, options)


def on_moto(url: str, root: Path) -> Place:
    """A new lake in moto's server."""
    store = {"endpoint": url, "access_key_id": "test", "secret_access_key": "test"}
    options = {
        "aws_endpoint_url": url, "aws_access_key_id": "test", "aws_secret_access_key": "test",
        "aws_region": "us-east-1", "aws_allow_http": "true",
    }  # fmt: skip
    return Place(f"s3://{CONTAINER}/lake-{next(_NUMBERS)}", str(root), store, options)


@pytest.fixture(params=["local", "azurite", "moto"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place(str(tmp_path / "lake"), str(tmp_path))
    return remote_place(request, tmp_path, request.param)


@pytest.fixture(params=["azurite", "moto"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return remote_place(request, tmp_path, request.param)


def remote_place(request: pytest.FixtureRequest, root: Path, kind: str) -> Place:
    """A new lake in one of the emulators."""
    url = request.getfixturevalue(f"{kind}_url")
    return on_azurite(url, root) if kind == "azurite" else on_moto(url, root)
