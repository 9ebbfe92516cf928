"""`lodestream deploy databricks`, as somebody types it."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import call


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "shop"
    assert call("init", str(folder), "--template", "basic").code == 0
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_first_time_second_time_and_check(project):
    before = snapshot(project)
    first = call("deploy", "databricks", "--out", "out", project=project)
    assert first.code == 0, first.err
    assert f"new: {project}/out/databricks.yml" in first.out
    assert re.search(r"^ +50 +51 +36 +71%$", first.out, re.MULTILINE)
    assert re.search(r"^ +2 +3 +0 +0%$", first.out, re.MULTILINE)
    assert "never deployed" in first.out
    assert "source reads a local folder: data/events" in first.out
    written = snapshot(project)
    assert {path: data for path, data in written.items() if not path.startswith("out/")} == before, "no lake, nothing"
    second = call("deploy", "databricks", "--out", "out", project=project)
    assert second.code == 0
    assert "new:" not in second.out
    assert "as before:" in second.out
    assert snapshot(project) == written
    checked = call("deploy", "databricks", "--out", "out", "--check", project=project)
    assert checked.code == 0
    assert "no mistake found" in checked.out
    assert "missing: wheels/" in checked.out


def test_json(project):
    told = call("deploy", "databricks", "--json", project=project).json
    assert told["deployed"] is False
    assert told["spot"][0] == {"workers": 2, "machines": 3, "spot": 0, "share": 0.0}
    assert told["spot"][-1] == {"workers": 50, "machines": 51, "spot": 36, "share": 0.7059}
    assert "databricks.yml" in told["written"]["new"]
    assert told["jobs"][0] == "stream"
    assert {one["code"] for one in told["notes"]} == {"N106"}
    again = call("deploy", "databricks", "--json", project=project).json
    assert again["written"]["new"] == []
    assert sorted(again["written"]["same"]) == sorted(told["written"]["new"])
    checked = call("deploy", "databricks", "--check", "--json", project=project).json
    assert checked["ok"] is True
    assert (checked["edited"], checked["wheel"], checked["deployed"]) == ([], False, False)


def test_an_edited_bundle(project):
    assert call("deploy", "databricks", project=project).code == 0
    file = project / "bundle/resources/weekly.yml"
    file.write_text(file.read_text().replace("timeout_seconds", "timeout_secs"))
    line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if "timeout_secs" in text)
    checked = call("deploy", "databricks", "--check", project=project)
    assert checked.code == 3
    assert "1 mistake in the bundle" in checked.err
    assert f"resources/weekly.yml:{line}:" in checked.err
    assert "nearest='timeout_seconds'" in checked.err
    refused = call("deploy", "databricks", project=project)
    assert refused.code == 3
    assert "resources/weekly.yml" in refused.err
    assert "timeout_secs" in file.read_text()
    assert call("deploy", "databricks", "--force", project=project).code == 0
    assert call("deploy", "databricks", "--check", project=project).code == 0


def test_a_table_of_the_embedded_engine_is_refused_and_nothing_is_written(tmp_path):
    folder = tmp_path / "shop"
    assert call("init", str(folder)).code == 0
    refused = call("deploy", "databricks", project=folder)
    assert refused.code == 3
    assert "tables/bronze/orders.yaml" in refused.err
    assert "D506 source generator is of the embedded engine only" in refused.err
    assert not (folder / "bundle").exists()


def test_wrong_settings(project):
    config = project / "lodestream.yaml"
    config.write_text(config.read_text() + "\ndeploy:\n  databricks:\n    workers_min: 5\n    workers_max: 3\n")
    refused = call("deploy", "databricks", project=project)
    assert refused.code == 3
    assert "D502" in refused.err
    assert call("plan", project=project).code == 3, "plan tells it too"


def test_no_project_and_no_bundle(tmp_path):
    assert "D115" in call("deploy", "databricks", project=tmp_path).err
    missing = call("deploy", "databricks", "--check", "--out", "nothing", project=tmp_path)
    assert missing.code == 3
    assert "no such folder" in missing.err
