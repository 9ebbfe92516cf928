"""The bundle of a project: the demo's by meaning, what settings change in it, and what is refused."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lodestream.app import open_project
from lodestream.demo.run import write_project
from lodestream.deploy.check import check_bundle
from lodestream.deploy.databricks import make_bundle
from lodestream.deploy.jobs import PACKAGES
from lodestream.project.mistakes import ProjectError
from tests.deploy.conftest import bundle_of, parsed

STREAMED = [
    "bronze.airlines", "bronze.airports", "bronze.flights", "bronze.flights_feed", "bronze.planes", "bronze.weather",
    "gold.departures_per_hour", "gold.feed_per_day", "silver.airlines", "silver.airports", "silver.flights",
    "silver.flights_feed", "silver.planes", "silver.weather",
]  # fmt: skip
QUERIES = ["gold.cancellations_by_weather", "gold.delay_by_carrier", "gold.delay_by_route"]


def after(parameters, option):
    return [parameters[i + 1] for i, one in enumerate(parameters) if one == option]


def job(bundle, name):
    return parsed(bundle.files)[f"resources/{name}.yml"]["resources"]["jobs"][name]


def tasks(bundle, name):
    return {task["task_key"]: task for task in job(bundle, name)["tasks"]}


def test_the_demo_needs_no_settings(demo):
    assert check_bundle(demo.files) == ()
    assert demo.jobs == ("stream", "hourly", "daily", "weekly")
    main = parsed(demo.files)["databricks.yml"]
    assert main["bundle"] == {"name": "flights"}
    assert main["variables"]["cluster"]["default"] == {
        "spark_version": "17.3.x-scala2.13",
        "node_type_id": "Standard_E8ds_v5",
        "driver_node_type_id": "Standard_E8ds_v5",
        "autoscale": {"min_workers": 2, "max_workers": 50},
        "azure_attributes": {"availability": "SPOT_WITH_FALLBACK_AZURE", "first_on_demand": 15},
        "runtime_engine": "PHOTON",
        "data_security_mode": "SINGLE_USER",
        "spark_conf": {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.ansi.enabled": "true",
            "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        },
        "spark_env_vars": {"LODESTREAM_HOME": "/tmp/lodestream"},
        "custom_tags": {"lodestream": "flights"},
    }
    assert main["targets"] == {
        "dev": {
            "mode": "development",
            "default": True,
            "variables": {"catalog": "flights_dev", "environment": "", "pause_status": "PAUSED"},
        },
        "prod": {
            "mode": "production",
            "workspace": {"root_path": "/Workspace/Shared/.bundle/${bundle.name}/${bundle.target}"},
            "variables": {"catalog": "flights", "environment": "", "pause_status": "UNPAUSED"},
        },
    }


def test_the_demos_stream(demo):
    made = job(demo, "stream")
    assert made["continuous"] == {"pause_status": "${var.pause_status}"}
    assert "schedule" not in made
    (task,) = made["tasks"]
    wheel, *packages = task["libraries"]
    assert wheel == {"whl": "../wheels/lodestream-0.1.0-py3-none-any.whl"}
    assert {"pypi": {"package": "obstore==0.12.1"}} in packages
    wheel = task["python_wheel_task"]
    assert (wheel["package_name"], wheel["entry_point"]) == ("lodestream", "lodestream")
    assert wheel["parameters"][:3] == ["run", "--engine", "spark"]
    assert "--until-idle" not in wheel["parameters"]
    assert after(wheel["parameters"], "--project") == ["${workspace.file_path}/project"]
    assert after(wheel["parameters"], "--lake") == ["${var.lake}"]
    assert sorted(after(wheel["parameters"], "--table")) == STREAMED
    (folder,) = after(wheel["parameters"], "--checkpoints")
    unity = parsed(demo.files)["resources/schemas.yml"]["resources"]
    assert folder.startswith("/Volumes/${var.catalog}/${resources.schemas.lodestream.name}/${resources.volumes.")
    assert unity["volumes"]["checkpoints"]["volume_type"] == "MANAGED"
    assert sorted(unity["schemas"]) == ["bronze", "gold", "lodestream", "silver"]


def test_the_demos_batch_jobs(demo):
    refresh = tasks(demo, "hourly")["refresh"]["python_wheel_task"]["parameters"]
    assert sorted(after(refresh, "--table")) == QUERIES
    assert "--until-idle" in refresh
    assert job(demo, "hourly")["schedule"] == {
        "quartz_cron_expression": "0 5 * * * ?", "timezone_id": "UTC", "pause_status": "${var.pause_status}",
    }  # fmt: skip
    daily = tasks(demo, "daily")
    assert list(daily) == ["register", "optimize"]
    assert daily["optimize"]["depends_on"] == [{"task_key": "register"}]
    registered = daily["register"]["spark_python_task"]["parameters"]
    assert sorted(one for one in registered if one.startswith(("bronze.", "silver.", "gold."))) == sorted(
        STREAMED + QUERIES
    )
    optimized = daily["optimize"]["spark_python_task"]["parameters"]
    assert "silver.flights:time_hour,carrier,flight" in optimized
    assert "gold.feed_per_day:window_start,origin" in optimized
    assert not [one for one in optimized if one.split(":")[0] == "gold.departures_per_hour"], "its windows change"
    assert "silver.flights__quarantine" in optimized
    assert "gold.delay_by_route__quarantine" not in optimized, "a query sets no row aside"
    (vacuum,) = tasks(demo, "weekly").values()
    parameters = vacuum["spark_python_task"]["parameters"]
    assert after(parameters, "--hours") == ["168"]
    assert {"gold.departures_per_hour", "silver.flights__quarantine"} <= set(parameters)
    assert after(parameters, "--schema") == [
        f"{layer}=${{resources.schemas.{layer}.name}}" for layer in ("bronze", "silver", "gold")
    ]


def test_what_stops_by_itself(demo, shop):
    compute = parsed(demo.files)["resources/compute.yml"]["resources"]
    assert compute["sql_warehouses"]["lodestream"]["auto_stop_mins"] == 10
    assert "clusters" not in compute
    mine = bundle_of(shop(shared_cluster=True, auto_stop="15 minutes"))
    compute = parsed(mine.files)["resources/compute.yml"]["resources"]
    assert compute["clusters"]["shared"]["autotermination_minutes"] == 15
    assert compute["sql_warehouses"]["lodestream"]["auto_stop_mins"] == 15
    assert b"autotermination" not in b"".join(
        data for path, data in mine.files.items() if path.endswith(".yml") and path != "resources/compute.yml"
    )
    assert check_bundle(mine.files) == ()


def test_the_declarations_go_along_and_data_does_not(shop):
    folder = shop({"functions/clean.py": "def f(t):\n    return t\n", "schemas/o.avsc": "{}", "data/x.json": "{}",
                   "tables/.hidden.yaml": "x", "functions/__pycache__/clean.pyc": "x"})  # fmt: skip
    copied = {path.removeprefix("project/") for path in bundle_of(folder).files if path.startswith("project/")}
    assert copied == {
        "lodestream.yaml", "tables/bronze/orders.yaml", "tables/silver/orders.yaml", "tables/gold/revenue.yaml",
        "functions/clean.py", "schemas/o.avsc",
    }  # fmt: skip


def test_the_same_project_gives_the_same_bytes(demo, tmp_path):
    (tmp_path / "a").mkdir()
    write_project(tmp_path / "a")
    again = bundle_of(tmp_path / "a")
    assert again.files == demo.files
    assert list(again.files) == sorted(demo.files)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copy)
    assert bundle_of(tmp_path / "b").files == demo.files


def test_every_file_that_we_make_says_that_nobody_deployed_it(demo):
    for path, data in demo.files.items():
        if path.endswith(".yml"):
            assert data.startswith(b"# Written by `lodestream deploy databricks` ")
            assert b"# Never deployed" in data


def test_schedules_of_tables(shop):
    def query(schedule):
        return f"sql: select count(*) as n from silver.orders\nschedule: {schedule}\n"

    folder = shop(
        {
            "tables/gold/h.yaml": query("'@hourly'"),
            "tables/gold/d.yaml": query("'@daily'"),
            "tables/gold/w.yaml": query("'@weekly'"),
            "tables/gold/m.yaml": query("'@monthly'"),
            "tables/gold/five.yaml": query("every 5 minutes"),
            "tables/gold/six.yaml": query("0 6 * * 1-5"),
            "tables/gold/seven.yaml": query("0 6 * * 1-5"),
        }
    )
    bundle = bundle_of(folder)
    assert check_bundle(bundle.files) == ()

    def refreshed(name, task="refresh"):
        return sorted(after(tasks(bundle, name)[task]["python_wheel_task"]["parameters"], "--table"))

    assert refreshed("hourly") == ["gold.h", "gold.revenue"]
    assert refreshed("daily") == ["gold.d"]
    assert list(tasks(bundle, "daily")) == ["refresh", "register", "optimize"]
    assert refreshed("weekly") == ["gold.w"]
    assert refreshed("stream", "stream") == ["bronze.orders", "gold.five", "silver.orders"]
    others = {job(bundle, name)["schedule"]["quartz_cron_expression"]: refreshed(name) for name in bundle.jobs[4:]}
    assert others == {"0 0 0 1 * ?": ["gold.m"], "0 0 6 ? * MON,TUE,WED,THU,FRI": ["gold.seven", "gold.six"]}


def test_queries_may_stay_in_the_stream(shop):
    bundle = bundle_of(shop(queries="stream"))
    assert bundle.jobs == ("stream", "daily", "weekly")
    assert "gold.revenue" in tasks(bundle, "stream")["stream"]["python_wheel_task"]["parameters"]


def test_settings_are_in_the_bundle(shop):
    lake = "abfss://lake@acme.dfs.core.windows.net/shop"
    bundle = bundle_of(
        shop(
            name="shop-lake",
            photon=False,
            node_type="Standard_D8ds_v5",
            driver_node_type="Standard_D4ds_v5",
            workers_min=1,
            workers_max=9,
            spot_ratio=0,
            warehouse_size="Large",
            schedules={"daily": "0 0 3 * * ?"},
            vacuum_after="10 days",
            zorder={"silver.orders": ["country"], "bronze.orders": []},
            targets={
                "dev": {"host": "https://adb-1.2.azuredatabricks.net", "lake": lake + "_dev"},
                "prod": {"host": "${env:DATABRICKS_HOST}", "catalog": "main", "lake": lake, "run_as": "11-22"},
            },
        )
    )
    assert check_bundle(bundle.files) == ()
    main = parsed(bundle.files)["databricks.yml"]
    cluster = main["variables"]["cluster"]["default"]
    assert cluster["runtime_engine"] == "STANDARD"
    assert cluster["azure_attributes"] == {"availability": "ON_DEMAND_AZURE"}
    assert (cluster["node_type_id"], cluster["driver_node_type_id"]) == ("Standard_D8ds_v5", "Standard_D4ds_v5")
    assert main["bundle"]["name"] == "shop-lake"
    assert main["targets"]["dev"]["workspace"] == {"host": "https://adb-1.2.azuredatabricks.net"}
    assert main["targets"]["dev"]["variables"]["lake"] == lake + "_dev"
    assert "host" not in main["targets"]["prod"]["workspace"], "the CLI reads it from the environment"
    assert main["targets"]["prod"]["run_as"] == {"service_principal_name": "11-22"}
    assert main["targets"]["prod"]["variables"] == {
        "catalog": "main", "environment": "", "pause_status": "UNPAUSED", "lake": lake,
    }  # fmt: skip
    assert job(bundle, "daily")["schedule"]["quartz_cron_expression"] == "0 0 3 * * ?"
    optimized = tasks(bundle, "daily")["optimize"]["spark_python_task"]["parameters"]
    assert {"silver.orders:country", "bronze.orders"} <= set(optimized)
    assert after(tasks(bundle, "weekly")["vacuum"]["spark_python_task"]["parameters"], "--hours") == ["240"]
    assert [note.message for note in bundle.notes if "lake" in note.message] == [
        "no credentials for the lake of dev", "no credentials for the lake of prod",
    ]  # fmt: skip


def test_the_lake_of_an_environment_is_that_of_its_target(shop):
    lake = "abfss://lake@acme.dfs.core.windows.net/prod"
    bundle = bundle_of(
        shop({"lodestream.yaml": f"project: shop\nlake: lake\nenvironments: {{prod: {{lake: '{lake}'}}}}\n"})
    )
    targets = parsed(bundle.files)["databricks.yml"]["targets"]
    assert targets["prod"]["variables"]["lake"] == lake
    assert "lake" not in targets["dev"]["variables"]
    assert targets["prod"]["variables"]["environment"] == "prod"
    assert [(one.code, one.message) for one in bundle.notes] == [
        ("N106", "no URL of a lake for dev"),
        ("N106", "no credentials for the lake of dev"),
        ("N106", "no credentials for the lake of prod"),
    ]


def test_the_jobs_have_the_credentials_of_their_lake(shop, monkeypatch):
    declared = """
project: shop
lake: {url: "abfss://lake@acme.dfs.core.windows.net/shop", account_key: "${env:KEY}"}
environments:
  dev: {lake: here}
  prod: {lake: {url: "abfss://p@acme.dfs.core.windows.net/p", sas_token: "${env:SAS}"}}
  other: {lake: {url: "s3://b/p", access_key_id: "${env:A}", secret_access_key: "${env:B}"}}
"""
    monkeypatch.setenv("KEY", "a2V5")
    with open_project(str(shop({"lodestream.yaml": declared})), lake="here") as app:
        bundle = make_bundle(app.project, app.compiled_for("spark"))
    main = parsed(bundle.files)["databricks.yml"]
    assert bundle.secrets == ("KEY", "SAS")
    assert set(main["variables"]["cluster"]["default"]["spark_env_vars"]) == {"LODESTREAM_HOME", "KEY", "SAS"}
    told = {key: target["variables"] for key, target in main["targets"].items()}
    assert (told["dev"]["environment"], told["prod"]["environment"]) == ("", "prod")
    assert told["dev"]["lake"] == "abfss://lake@acme.dfs.core.windows.net/shop"
    assert bundle.notes == ()


def test_packages_beside_the_wheel_are_those_that_the_package_asks_for():
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for extra, packages in PACKAGES.items():
        asked = {one.name: one.specifier for one in map(Requirement, extras[extra])}
        for package in map(Requirement, packages):
            (pinned,) = package.specifier
            assert asked[package.name].contains(pinned.version), package
        assert {Requirement(one).name for one in packages} == set(asked)


def test_references_become_secrets_and_what_else_is_to_be_done_is_said(shop):
    folder = shop(
        {
            "tables/bronze/clicks.yaml": "source: {kafka: {topic: c, servers: '${env:BROKERS}', start: earliest}}\n"
            "columns: {id: string}\nsink: {kafka: {topic: out, servers: '${env:BROKERS}'}}\n",
            "tables/bronze/local.yaml": "source: {files: {path: incoming}}\ncolumns: {id: string}\n",
            "policies.yaml": "grants:\n  - {to: group:a, select: [gold]}\n",
            "lodestream.yaml": "project: shop\nlake: lake\nserver: {tls: {certificate: '${env:CERT}', key: k}}\n"
            "connections: {kafka: {user: u, password: '${file:/run/secrets/p}'}}\n",
        }
    )
    bundle = bundle_of(folder)
    cluster = parsed(bundle.files)["databricks.yml"]["variables"]["cluster"]["default"]
    assert cluster["spark_env_vars"] == {"LODESTREAM_HOME": "/tmp/lodestream", "BROKERS": "{{secrets/shop/BROKERS}}"}
    assert bundle.secrets == ("BROKERS",), "and not the server's"
    (task,) = job(bundle, "stream")["tasks"]
    assert "--no-sinks" in task["python_wheel_task"]["parameters"]
    said = {(one.file, one.line, one.message.split(":")[0]) for one in bundle.notes}
    assert {
        ("tables/bronze/clicks.yaml", 3, "sink kafka is not published from there"),
        ("tables/bronze/local.yaml", 1, "source reads a local folder"),
        ("policies.yaml", 1, "policies do not hold in Unity Catalog"),
        ("lodestream.yaml", 4, "reads a file that clusters do not have"),
    } <= said
    assert check_bundle(bundle.files) == ()


REFUSED = [
    ("tables/bronze/x.yaml", "source: {generator: {rows: 10}}\n", 1, "D506", "source generator"),
    ("tables/bronze/x.yaml", "source: {http: {stream: x}}\ncolumns: {id: string}\n", 1, "D506", "source http"),
    (
        "tables/silver/x.yaml",
        "from: stream(bronze.orders)\nderive:\n  ok: upper(country)\n  d: jaccard(country, 'x')\nengine: embedded\n",
        4,
        "D506",
        "derive.d uses what only the embedded engine has",
    ),
    (
        "tables/silver/x.yaml",
        "from: stream(bronze.orders)\nenrich:\n  language: {column: country}\n",
        3,
        "D506",
        "an enricher: language",
    ),
    ("tables/silver/x.yaml", "from: stream(bronze.orders)\nengine: embedded\n", 2, "D506", "marked engine"),
    (
        "tables/silver/x.yaml",
        "from: stream(bronze.orders)\nenrich: {http: {url: 'http://a/', send: [country], receive: {score: double}}}\n",
        2,
        "D506",
        "an enricher: http needs packages",
    ),
    ("tables/gold/x.yaml", "sql: select 1 as a from silver.orders\nschedule: 0 0 1 * 1\n", 2, "D505", "not both"),
]


@pytest.mark.parametrize(("file", "text", "line", "code", "says"), REFUSED)
def test_tables_that_cannot_run_there(shop, file, text, line, code, says):
    with pytest.raises(ProjectError) as error:
        bundle_of(shop({file: text}))
    (found,) = error.value.diagnostics
    assert (found.file, found.code) == (file, code)
    assert line is None or found.line == line
    assert says is None or says in found.message
    assert found.fix


def test_each_table_that_cannot_run_there_is_named(shop):
    with pytest.raises(ProjectError) as error:
        bundle_of(shop({file: text for file, text, *_ in REFUSED[2:]} | {"tables/bronze/x.yaml": REFUSED[0][1]}))
    assert {one.file for one in error.value.diagnostics} == {file for file, *_ in REFUSED}


def test_a_table_of_spark_alone_is_taken(shop):
    bundle = bundle_of(shop({"tables/silver/x.yaml": "from: stream(bronze.orders)\nengine: spark\n"}))
    assert "silver.x" in tasks(bundle, "stream")["stream"]["python_wheel_task"]["parameters"]


SETTINGS = [
    ({"workers_min": 9, "workers_max": 3}, "D502", "workers_max"),
    ({"workers_min": 0}, "D203", "greater than or equal to 1"),
    ({"spot_ratio": 1.5}, "D203", "less than or equal to 1"),
    ({"spot_ratio": -0.1}, "D203", "greater than or equal to 0"),
    ({"spot_ratio": "most"}, "D203", "number"),
    ({"schedules": {"hourly": "5 * * * *"}}, "D501", "six or seven"),
    ({"schedules": {"daily": "0 0 25 * * ?"}}, "D501", "hour"),
    ({"schedules": {"weekly": "0 0 2 1 * MON"}}, "D501", "exactly one"),
    ({"targets": {"prod": {"host": "http://acme"}}}, "D503", "workspace"),
    ({"targets": {"prod": {"host": "${env:OTHER}"}}}, "D203", "references"),
    ({"targets": {"dev": {"lake": "s3://bucket/x"}}}, "D203", "pattern"),
    ({"targets": {"dev": {"lake": "${env:LAKE}"}}}, "D203", "references"),
    ({"targets": {"dev": {"catalog": "a.b"}}}, "D203", "pattern"),
    ({"auto_stop": "90 seconds"}, "D203", "minutes"),
    ({"auto_stop": "5 minutes"}, "D203", "from 10"),
    ({"vacuum_after": "1 hour"}, "D203", "7 days"),
    ({"warehouse_size": "Huge"}, "D203", "input should be"),
    ({"queries": "never"}, "D203", "input should be"),
    ({"runtime": "latest"}, "D203", "pattern"),
    ({"worker_max": 3}, "D103", "unknown key"),
    ({"targets": {"dev": {"catalgo": "x"}}}, "D103", "unknown key"),
    ({"zorder": {"silver.order": ["a"]}}, "D201", "no such table"),
    ({"zorder": {"silver.orders": ["contry"]}}, "D203", "no such column"),
    ({"zorder": {"silver.orders": ["ordered_at_date"]}}, "D203", "orders nothing"),
]


@pytest.mark.parametrize(("settings", "code", "says"), SETTINGS, ids=[json.dumps(one[0]) for one in SETTINGS])
def test_mistakes_in_settings(shop, settings, code, says):
    with pytest.raises(ProjectError) as error:
        bundle_of(shop(**settings))
    (found,) = error.value.diagnostics
    assert (found.file, found.line, found.code) == ("lodestream.yaml", 3, code)
    assert says in found.message
    assert found.fix


def test_the_nearest_key_is_one_of_its_block(shop):
    with pytest.raises(ProjectError) as error:
        bundle_of(shop(targets={"dev": {"catalgo": "x"}}, worker_max=3))
    assert {one.nearest for one in error.value.diagnostics} == {"catalog", "workers_max"}
