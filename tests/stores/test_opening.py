"""Where a project's lake is, what stands beside it, and what is refused."""

import builtins
import os
import pickle

import obstore
import pytest

from lodestream.app import open_project
from lodestream.errors import ConfigError, MissingDriverError, TransientError
from lodestream.lake.disk import LocalDisk
from lodestream.lake.object_disk import ObjectDisk
from tests.cli.conftest import call
from tests.stores.conftest import on_azurite
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


def test_what_has_no_store_says_so(tmp_path):
    root = project(tmp_path / "p", {"url": URL, "patience": "100 ms", "endpoint": "http://127.0.0.1:9"})
    assert call("doctor", project=root).code != 0
    with open_project(root, lake="here") as app, pytest.raises(ConfigError, match="leave --checkpoints out"):
        app.on_spark(checkpoints="there")


@pytest.mark.parametrize("engine", ["embedded", "spark"])
def test_a_key_that_the_store_does_not_take(azurite_url, tmp_path, engine):
    place = on_azurite(azurite_url, tmp_path)
    root = project(tmp_path / "p", {**place.declared, "account_key": "d3Jvbmc="})
    told = call("run", "--engine", engine, project=root)
    assert told.code == 3
    assert "store refuses us" in told.err
    assert "check the credentials" in told.err
    assert "d3Jvbmc=" not in told.err + told.out


KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize(
    ("store", "variables", "who"),
    [
        ({}, KEYS, ("id", "secret", None)),
        ({}, KEYS | {"AWS_SESSION_TOKEN": "token"}, ("id", "secret", "token")),
        ({"access_key_id": "a", "secret_access_key": "b"}, KEYS, ("a", "b", None)),
    ],
)
def test_variables_say_who_we_are_to_other_processes_too(tmp_path, monkeypatch, store, variables, who):
    for name in (*KEYS, "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LODESTREAM_HOME", str(tmp_path / "homes"))
    disk = open_project(project(tmp_path / "p", {"url": URL, **store})).disk
    sent = pickle.dumps(disk)
    assert "secret" not in repr(disk)
    for name in variables:
        monkeypatch.delenv(name)
    there = pickle.loads(sent)
    assert (there.settings.access_key_id, there.settings.secret_access_key, there.settings.session_token) == who
    assert there.beside(URL) == disk.beside(URL)
    assert disk.beside(URL).startswith(f"{tmp_path}/homes/")


def test_an_azure_key_may_be_a_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    lake = "abfss://c@account.dfs.core.windows.net/x"
    assert open_project(project(tmp_path / "p", lake)).disk.settings.account_key == "a2V5"
    assert open_project(project(tmp_path / "q", {"url": lake, "sas_token": "x=y"})).disk.settings.account_key is None


@pytest.mark.parametrize(
    ("lake", "fix"),
    [
        (URL, "set access_key_id and secret_access_key under lake:, or the variables AWS_ACCESS_KEY_ID and"),
        ("abfss://c@account.dfs.core.windows.net/x", "set account_key, sas_token, or tenant_id, client_id"),
    ],
)
@pytest.mark.parametrize(("status", "kind"), [("403 Forbidden", ConfigError), ("", TransientError)])
def test_without_credentials_the_message_names_them(tmp_path, monkeypatch, lake, fix, status, kind):
    """What obstore says when it asks the machine, which is none of a cloud."""
    monkeypatch.setattr(
        os, "environ", {key: value for key, value in os.environ.items() if key[:3] not in ("AWS", "AZU")}
    )
    disk = open_project(project(tmp_path / "p", {"url": lake, "patience": "100 ms"})).disk
    answered = f"Server returned non-2xx status code: {status}: denied" if status else "operation timed out"
    said = f"Error performing PUT http://169.254.169.254/latest/api/token in 5ms - {answered}"

    def refuse(*_given, **_named):
        raise obstore.exceptions.GenericError(said)

    monkeypatch.setattr(obstore, "get", refuse)
    with pytest.raises(kind, match="no credentials for the store") as refused:
        disk.read(f"{lake}/x")
    assert refused.value.facts["fix"].startswith(fix)
