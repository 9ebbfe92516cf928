"""Where a project's lake is, what stands beside it, and what is refused."""

import builtins
import os

import pytest

from lodestream.app import open_project
from lodestream.errors import ConfigError, MissingDriverError
from lodestream.lake.disk import LocalDisk
from lodestream.lake.object_disk import ObjectDisk
from tests.cli.conftest import call
from tests.stores.test_projects import project

URL = "s3://lakes/shop"


def test_a_folder_is_found_from_the_project_and_a_url_stays_one(tmp_path, monkeypatch):
    root = project(tmp_path / "p", {"url": URL + "/", "access_key_id": "${env:ID}", "secret_access_key": "x"})
    with pytest.raises(ConfigError, match=r"environment variable is not set.*variable='ID'"):
        open_project(root)
    monkeypatch.setenv("ID", "x")
    app = open_project(root)
    assert (app.lake, type(app.disk)) == (URL, ObjectDisk)
    assert app.home.startswith(f"{root}/.lodestream/")
    assert app.disk.beside(f"{URL}/silver/t/f") == f"{app.home}/silver/t/f"
    assert app.keys_path == f"{app.home}/_lodestream/access/keys.json"
    assert open_project(root, lake="s3://lakes/other").home != app.home
    local = open_project(root, lake="here")
    assert (local.lake, local.home, type(local.disk)) == (f"{root}/here", f"{root}/here", LocalDisk)
    monkeypatch.setenv("LODESTREAM_LAKE", "s3://lakes/third")
    assert open_project(root).lake == "s3://lakes/third"
    assert not os.path.exists(f"{root}/.lodestream")


@pytest.mark.parametrize(
    ("lake", "store", "said"),
    [
        ("gs://bucket/x", {}, r"no such kind of store.*fix="),
        ("abfss://c@a.dfs.core.windows.net/x", {"account_key": "not base 64"}, "settings of the lake's store"),
        ("${env:PLACE}", {"timeout": "${env:SOON}"}, r"a setting under lake: is not possible key='timeout'"),
    ],
)
def test_what_cannot_be_a_lake_is_refused(tmp_path, monkeypatch, lake, store, said):
    monkeypatch.setenv("PLACE", URL)
    monkeypatch.setenv("SOON", "sometime, word")
    root = project(tmp_path / "p", {"url": URL if lake.startswith("gs:") else lake, **store})
    with pytest.raises(ConfigError, match=said) as refused:
        open_project(root, lake=lake)
    assert "not base 64" not in str(refused.value)


def test_without_its_package_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("obstore"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDriverError, match=r"pip install 'lodestream\[stores\]'"):
        open_project(project(tmp_path / "p", {"url": URL}))


def test_what_needs_a_folder_says_so(tmp_path):
    root = project(tmp_path / "p", {"url": URL, "patience": "100 ms", "endpoint": "http://127.0.0.1:9"})
    app = open_project(root)
    app.deployed = {}
    with pytest.raises(ConfigError, match="Spark engine cannot use a lake in an object store"):
        app.on_spark()
    assert call("doctor", project=root).code != 0
