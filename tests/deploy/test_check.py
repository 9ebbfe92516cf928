"""Each check of a bundle sees the edit that it is there for, and tells file and line."""

# ruff: noqa: E501 - one edit, one line

import pytest

from lodestream.deploy.check import check_bundle

MAIN, DAILY, STREAM = "databricks.yml", "resources/daily.yml", "resources/stream.yml"
HOURLY, COMPUTE, SCHEMAS = "resources/hourly.yml", "resources/compute.yml", "resources/schemas.yml"

# file, text to replace, its replacement, code, what the message says, nearest
EDITS = [
    (MAIN, "include:", "includes:", "D103", "unknown key", "include"),
    (MAIN, "  name: flights", "  nam: flights", None, "", None),
    (MAIN, "autoscale:", "autoscal:", None, "", None),
    (MAIN, "max_workers: 50", "max_workers: 1", "D502", "less than min_workers", None),
    (MAIN, "max_workers: 50", "max_workers: '50'", "D203", "valid integer", None),
    (MAIN, "first_on_demand: 15", "first_on_demand: 0", "D203", "greater than or equal to 1", None),
    (MAIN, "SPOT_WITH_FALLBACK_AZURE", "SPOT_WITH_FALLBACK", "D203", "input should be", None),
    (MAIN, "runtime_engine: PHOTON", "runtime_engine: FAST", "D203", "input should be", None),
    (MAIN, "runtime_engine: PHOTON", "autotermination_minutes: 10\n      runtime_engine: PHOTON", "D504", "no auto-stop", None),
    (MAIN, "mode: production", "mode: prod", "D203", "input should be", None),
    (MAIN, "catalog: flights_dev", "catalgo: flights_dev", "D507", "no such variable", "catalog"),
    (MAIN, "${bundle.target}", "${bundle.taget}", "D507", "no such reference", "bundle.target"),
    (MAIN, "bundle:\n  name: flights\n", "", "D105", "missing key", None),
    (DAILY, "quartz_cron_expression: 0 30 2 * * ?", "quartz_cron_expression: 30 2 * * *", "D501", "has 5", None),
    (DAILY, "quartz_cron_expression: 0 30 2 * * ?", "quartz_cron_expression: 0 30 2 * * *", "D501", "exactly one", None),
    (DAILY, "timezone_id: UTC", "time_zone: UTC", None, "", None),
    (DAILY, "max_concurrent_runs: 1", "max_concurent_runs: 1", "D103", "unknown key", "max_concurrent_runs"),
    (DAILY, "enabled: true", "enabled: yes please", "D203", "valid boolean", None),
    (DAILY, "run_if: ALL_DONE", "run_if: ALWAYS", "D203", "input should be", None),
    (DAILY, "- task_key: register\n        run_if", "- task_key: registre\n        run_if", "D507", "no such task", "register"),
    (DAILY, "- task_key: optimize", "- task_key: register", "D113", "task appears twice", None),
    (DAILY, "python_file: ../maintenance.py", "python_file: ../maintenence.py", "D507", "no such file", "maintenance.py"),
    (DAILY, "new_cluster: ${var.cluster}", "new_cluster: ${var.clster}", "D507", "no such variable", "cluster"),
    (DAILY, "gold=${resources.schemas.gold.name}", "gold=${resources.schemas.golden.name}", "D507", "no such resource", "resources.schemas.gold"),
    (STREAM, "job_cluster_key: lodestream\n        libraries", "job_cluster_key: other\n        libraries", "D507", "no such cluster", None),
    (STREAM, "          entry_point: lodestream\n", "", "D105", "missing key", None),
    (STREAM, "package_name: lodestream", "package: lodestream", None, "", None),
    (STREAM, "package: obstore==0.12.1", "package: obstore", "D203", "match pattern", None),
    (STREAM, "- whl: ../wheels", "- pypi: {package: a==1}\n          whl: ../wheels", "D105", "one of whl and pypi", None),
    (STREAM, "${resources.volumes.checkpoints.name}", "${resources.volumes.kept.name}", "D507", "no such resource", "resources.volumes.checkpoints"),
    (SCHEMAS, "volume_type: MANAGED", "volume_type: managed", "D203", "input should be", None),
    (HOURLY, "max_retries: 2", "max_retries: -2", "D203", "greater than or equal to -1", None),
    (HOURLY, "tags:", "continuous: {pause_status: PAUSED}\n      tags:", "D207", "has no schedule", None),
    (COMPUTE, "auto_stop_mins: 10", "auto_stop_mins: 5", "D203", "greater than or equal to 10", None),
    (COMPUTE, "min_num_clusters: 1", "min_num_clusters: 0", "D203", "greater than or equal to 1", None),
    (DAILY, "- task_key: optimize", "- task_key: opti mize", "D203", "match pattern", None),
    (COMPUTE, "cluster_size: Small", "cluster_size: Tiny", "D203", "input should be", None),
    (SCHEMAS, "catalog_name: ${var.catalog}\n      name: bronze", "name: bronze", "D105", "missing key", None),
    (SCHEMAS, "resources:", "resources: ]", "D101", "not valid YAML", None),
    (SCHEMAS, "    bronze:", "    gold:", None, "", None),
]  # fmt: skip
# What those edits that give more than one mistake come to.
SEVERAL = {
    "  name: flights": {"D103", "D105"},
    "autoscale:": {"D103", "D105"},
    "timezone_id: UTC": {"D103", "D105"},
    "package_name: lodestream": {"D103", "D105"},
    "    bronze:": {"D102", "D507"},
}
SHARED = b"""\
resources:
  clusters:
    shared:
      cluster_name: x
      spark_version: 17.3.x-scala2.13
      node_type_id: Standard_E8ds_v5
      autoscale: {min_workers: 1, max_workers: 2}
      azure_attributes: {availability: ON_DEMAND_AZURE}
      runtime_engine: PHOTON
      data_security_mode: USER_ISOLATION
      autotermination_minutes: 10
"""


def edited(files, file, old, new):
    text = files[file].decode()
    assert old in text, f"{old!r} is not in {file}"
    return files | {file: text.replace(old, new, 1).encode()}, text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    ("file", "old", "new", "code", "says", "near"),
    [one for one in EDITS if one[3]],
    ids=[f"{one[3]}-{one[1]}" for one in EDITS if one[3]],
)
def test_one_edit_gives_one_mistake(demo_files, file, old, new, code, says, near):
    files, line = edited(demo_files, file, old, new)
    (found,) = check_bundle(files)
    assert (found.file, found.code, found.nearest) == (file, code, near)
    assert abs(found.line - line) <= 2 or code in ("D105", "D502", "D207", "D101")
    assert says in found.message
    assert found.fix


@pytest.mark.parametrize(("file", "old", "new"), [one[:3] for one in EDITS if one[1] in SEVERAL])
def test_edits_with_several_consequences(demo_files, file, old, new):
    files, _ = edited(demo_files, file, old, new)
    assert {one.code for one in check_bundle(files)} == SEVERAL[old]


def test_the_line_is_that_of_the_key(demo_files):
    files, line = edited(demo_files, DAILY, "max_concurrent_runs: 1", "max_concurent_runs: 1")
    (found,) = check_bundle(files)
    assert found.line == line
    assert files[DAILY].decode().splitlines()[found.line - 1].strip() == "max_concurent_runs: 1"


def test_a_reference_may_stand_for_a_value_but_hides_no_unknown_key(demo_files):
    files, _ = edited(demo_files, MAIN, "max_workers: 50", "max_workers: ${var.most}")
    assert [one.code for one in check_bundle(files)] == ["D507"]
    files, _ = edited(files, MAIN, "variables:\n", "variables:\n  most: {default: '50'}\n")
    assert check_bundle(files) == ()
    files, _ = edited(files, HOURLY, "tags:", "tag: ${var.most}\n      tags:")
    assert [one.code for one in check_bundle(files)] == ["D103"]


def test_a_cluster_that_stands_in_the_job_is_held_to_the_same(demo_files):
    files, line = edited(
        demo_files, DAILY, "new_cluster: ${var.cluster}", "new_cluster: {spark_version: 17.3.x, autotermination_minutes: 10}"
    )  # fmt: skip
    found = check_bundle(files)
    assert {one.code for one in found} == {"D504", "D105"}
    assert {one.line for one in found} == {line}


@pytest.mark.parametrize(("minutes", "codes"), [("10", []), ("5", ["D203"]), ("20000", ["D203"]), ("", ["D203"])])
def test_a_shared_cluster_stops_by_itself(demo_files, minutes, codes):
    text = SHARED.replace(b"minutes: 10", f"minutes: {minutes}".encode())
    assert [one.code for one in check_bundle(demo_files | {"resources/more.yml": text})] == codes


def test_a_shared_cluster_that_never_stops_is_refused(demo_files):
    text = SHARED.replace(b"      autotermination_minutes: 10\n", b"")
    (found,) = check_bundle(demo_files | {"resources/more.yml": text})
    assert (found.code, dict(found.facts)["key"]) == ("D105", "resources.clusters.shared.autotermination_minutes")


def test_a_resource_of_two_files_is_told_at_the_second(demo_files):
    (found,) = check_bundle(demo_files | {"resources/twice.yml": demo_files[COMPUTE]})
    assert (found.file, found.code) == ("resources/twice.yml", "D102")
    assert dict(found.facts)["first"] == COMPUTE


def test_a_job_has_tasks_and_a_task_does_something(demo_files):
    job = b"resources: {jobs: {x: {name: x, tasks: []}}}\n"
    (found,) = check_bundle(demo_files | {"resources/x.yml": job})
    assert found.code == "D203"
    task = b"resources: {jobs: {x: {name: x, tasks: [{task_key: a, job_cluster_key: c%s}], job_clusters: [%s]}}}\n"
    cluster = b"{job_cluster_key: c, new_cluster: '${var.cluster}'}"
    (found,) = check_bundle(demo_files | {"resources/x.yml": task % (b"", cluster)})
    assert (found.code, found.message) == ("D105", "a task is one of python_wheel_task and spark_python_task")
    both = (
        b", python_wheel_task: {package_name: a, entry_point: b}, spark_python_task: {python_file: ../maintenance.py}"
    )
    (found,) = check_bundle(demo_files | {"resources/x.yml": task % (both, cluster)})
    assert found.code == "D105"


def test_files_that_are_not_included_are_not_looked_at(demo_files):
    assert check_bundle(demo_files | {"other.yml": b"x: [", "project/tables/x.yaml": b"["}) == ()


def test_a_folder_without_a_bundle():
    (found,) = check_bundle({"README.md": b""})
    assert (found.file, found.code) == ("databricks.yml", "D105")


@pytest.mark.parametrize("text", [b"", b"[]", b"x", b"bundle: 5", b"variables: 3\nresources: []", b"\xff"])
def test_anything_is_told_and_nothing_raises(demo_files, text):
    assert check_bundle(demo_files | {MAIN: text})
    assert check_bundle(demo_files | {DAILY: text})
