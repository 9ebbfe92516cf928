"""Copies between a folder, Azurite and moto's server: backed up, restored, replicated, refused."""

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lodestream.app import open_project
from tests.cli.conftest import call
from tests.stores.conftest import on_azurite, on_moto
from tests.stores.test_projects import SORTS, contents, project


def stores(root: str, **places: object) -> None:
    """Name places under `stores:`."""
    file = Path(root, "lodestream.yaml")
    declared = YAML(typ="safe").load(file.read_text())
    with open(file, "w", encoding="utf-8") as out:
        YAML(typ="safe").dump({**declared, "stores": places}, out)


def told(result):
    assert result.code == 0, result.err
    return result.lines[-1]


def goes_on(root: str, lake: object, options, name: str) -> None:
    """A further file comes in, on the lake of a project of its own; nothing is lost or twice."""
    at = Path(root)
    other = project(at.parent / name, lake)
    shutil.copytree(at / "events", Path(other) / "events", dirs_exist_ok=True)
    rows = [{"id": 9000 + i, "country": "it", "amount": "1.00", "at": "2024-01-04T00:00:00Z"} for i in range(10)]
    (Path(other) / "events" / "9.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_project(other) as app:
        app.run()
        where = app.lake
    found = contents(where, options)
    assert len(found["bronze.orders"]) == 210
    assert len({(row["_source"], row["_position"]) for row in found["bronze.orders"]}) == 210


def test_a_lake_in_azure_is_backed_up_to_s3_and_restored_to_a_folder(azurite_url, moto_url, tmp_path):
    lake, backups = on_azurite(azurite_url, tmp_path / "a"), on_moto(moto_url, tmp_path / "b")
    root = project(tmp_path / "p", lake.declared)
    stores(root, nightly=backups.declared)
    with open_project(root) as app:
        app.run()
    first = told(call("backup", "nightly", "--verify", "--json", project=root))
    assert first["verified"]["damaged"] == []
    again = told(call("backup", "nightly", "--keep", "1", "--json", project=root))
    assert again["files"] < first["files"] / 4
    assert again["pruned"]["points"] == [first["point"]]
    target = tmp_path / "restored" / "lake"
    report = told(call("restore", "nightly", "--lake", str(target), "--json", project=root))
    assert report["point"] == again["point"]
    assert contents(str(target), {}) == contents(lake.lake, lake.options)
    goes_on(root, str(target), {}, "folder")


def test_a_folder_is_restored_to_azure(azurite_url, tmp_path):
    target = on_azurite(azurite_url, tmp_path / "a")
    root = project(tmp_path / "p", "lake")
    stores(root, dr=target.declared)
    with open_project(root) as app:
        app.run()
    told(call("backup", str(tmp_path / "set"), "--json", project=root))
    home = tmp_path / "home"
    report = told(call("restore", str(tmp_path / "set"), "--lake", "dr", "--home", str(home), "--json", project=root))
    assert report["home"] == str(home)
    assert (home / "_lodestream/access/catalog.db").exists()
    assert contents(target.lake, target.options) == contents(str(Path(root, "lake")), {})
    goes_on(root, {**target.declared, "home": str(home)}, target.options, "azure")


def test_a_replica_in_s3_takes_over(moto_url, tmp_path):
    replica = on_moto(moto_url, tmp_path / "a")
    root = project(tmp_path / "p", "lake", batches=3)
    stores(root, dr=replica.declared)
    with open_project(root) as app:
        app.run()
    first = told(call("replicate", "dr", "--json", project=root))
    project(tmp_path / "more", "lake")
    shutil.copy2(tmp_path / "more" / "events" / "3.jsonl", Path(root, "events"))
    with open_project(root) as app:
        app.run()
    second = told(call("replicate", "dr", "--verify", "--json", project=root))
    assert second["verified"]["damaged"] == []
    assert contents(replica.lake, replica.options) == contents(str(Path(root, "lake")), {})
    assert first["point"]
    report = told(call("replicate", "dr", "--activate", "--json", project=root))
    assert report["fenced"]
    assert call("run", "--until-idle", project=root).code == 3
    goes_on(root, replica.declared, replica.options, "s3")
    assert set(SORTS) <= {one["flow"] for one in report["tables"] if "flow" in one}


def test_wrong_credentials_and_stores_that_are_not_there(azurite_url, moto_url, tmp_path):
    azure, s3 = on_azurite(azurite_url, tmp_path / "a"), on_moto(moto_url, tmp_path / "b")
    root = project(tmp_path / "p", "lake", batches=1)
    key = "AAAA" + azure.store["account_key"][4:]
    stores(
        root,
        wrong={**azure.declared, "account_key": key},
        none={**s3.declared, "url": "s3://no-such-bucket/x"},
    )
    with open_project(root) as app:
        app.run()
    refused = call("backup", "wrong", "--json", project=root)
    assert (refused.code, refused.lines[-1]["error"]["message"]) == (3, "store refuses us")
    assert key not in refused.out + refused.err
    missing = call("backup", "none", "--json", project=root)
    assert (missing.code, missing.lines[-1]["error"]["message"]) == (3, "no such container or bucket")


@pytest.mark.parametrize("verb", ["backup", "replicate"])
def test_a_store_without_put_if_absent_is_refused(verb, tmp_path, monkeypatch):
    root = project(tmp_path / "p", "lake", batches=1)
    with open_project(root) as app:
        app.run()
    monkeypatch.setattr("lodestream.lake.opening.put_if_absent", lambda *_given: True)
    refused = call(verb, str(tmp_path / "copy"), "--json", project=root)
    assert refused.code == 3
    assert "overwrites what it should refuse" in refused.lines[-1]["error"]["message"]
