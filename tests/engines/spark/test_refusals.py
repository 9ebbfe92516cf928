"""What keeps a project from running on Spark is told before anything starts."""

import importlib.machinery
import socket
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lodestream.app import open_project
from lodestream.cli.root import app
from lodestream.engines.spark import jars, session
from lodestream.errors import ConfigError, MissingDriverError, TransientError
from lodestream.planning.compile import compile_project
from lodestream.project.load import read_project
from lodestream.project.mistakes import ProjectError

BRONZE = "source: {generator: {stream: orders, rows: 10}}\n"
SILVER = "from: stream(bronze.orders)\n"
USERS = "source: {files: {path: users}}\nformat: json\ncolumns: {id: bigint, tier: string}\n"
LOOKUP = "enrich: {lookup: {table: bronze.users, on: {customer_id: id}, columns: [tier]}}\n"
WINDOW = "event_time: {column: ordered_at, delay: 1 second}\nwindow: {every: 1 minute}\nmeasures: {n: count(*)}\n"
ENRICHED = "enrich: {language: {column: country}}\n"
ASKING = "enrich: {http: {url: 'http://127.0.0.1:9/', send: [country], receive: {score: double}}}\n"
CHANGES = "changes: {keys: [order_id], sequence_by: ordered_at, type: 2}\n"
HISTORY = SILVER + "changes: {keys: [order_id, country], sequence_by: ordered_at, type: 2}\n"
THEN = "enrich: {lookup: {table: silver.history, on: order_id, as_of: ordered_at, columns: {amount: amount_then}}}\n"
WIDENED = "source: {files: {path: data}}\nformat: json\ndrift: widen\ncolumns: {ordered_at: timestamp}\n"
PYTHON = "python: clean:f\ncolumns: {order_id: string, country: string, ordered_at: timestamp}\n"
JOIN = (
    "event_time: {column: ordered_at, delay: 1 s}\njoin: {from: stream(bronze.orders), on: order_id,"
    " columns: {amount: x}, event_time: {column: ordered_at, delay: 1 s}, within: {after: 1 s}}\n"
)


@pytest.fixture
def project(tmp_path):
    def write(bronze=BRONZE, silver=SILVER):
        files = {
            "lodestream.yaml": "project: x\nlake: lake\n", "tables/bronze/orders.yaml": bronze,
            "tables/silver/orders.yaml": silver, "tables/bronze/users.yaml": USERS,
            **({"tables/silver/history.yaml": HISTORY} if "silver.history" in silver else {}),
        }  # fmt: skip
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    ("silver", "said"),
    [
        (
            SILVER + "engine: embedded\n",
            "tables/silver/orders.yaml:2:9 P210 this table runs on the embedded engine only",
        ),
        (SILVER + THEN + WINDOW, "P210 a lookup as of a moment by a part of the history's key, and a window"),
        (SILVER + LOOKUP + WINDOW + "late: update\n", "P210 late rows that correct closed windows, with a lookup"),
    ],
    ids=[
        "embedded",
        "history",
        "late",
    ],
)
def test_stages_that_spark_does_not_run(project, silver, said):
    folder = project(silver=silver)
    assert compile_project(read_project(folder), {}).flows
    with pytest.raises(ProjectError) as refused:
        on_spark(folder)
    assert said in str(refused.value)
    assert str(refused.value).count("P210") == 1


@pytest.mark.parametrize(
    "silver",
    [
        SILVER + LOOKUP + WINDOW,
        SILVER + LOOKUP + JOIN,
        SILVER + WINDOW.replace("every", "gap") + "emit: final\n",
        SILVER + WINDOW.replace("every", "gap") + "emit: updates\n",
        SILVER + WINDOW + "completeness: true\n",
        SILVER + ENRICHED + WINDOW,
        SILVER + ENRICHED + JOIN,
        SILVER + ASKING,
        SILVER + "sink: {kafka: {topic: t}}\n",
        SILVER + PYTHON + ENRICHED + CHANGES,
        SILVER + PYTHON + WINDOW,
    ],
    ids=[
        "lookup and window",
        "lookup and join",
        "sessions",
        "open sessions",
        "completeness",
        "enricher and window",
        "enricher and join",
        "asking",
        "sink",
        "enriched changes",
        "python and window",
    ],
)
def test_stages_that_spark_runs(project, silver):
    assert on_spark(project(silver=silver)).flows


@pytest.mark.parametrize(
    ("bronze", "said"),
    [
        (
            "source: {http: {stream: orders}}\nformat: json\ncolumns: {ordered_at: timestamp}\n",
            "P210 Spark does not read http",
        ),
        (
            f"{WIDENED}event_time: {{column: ordered_at, delay: 1 s}}\ndedup: {{keys: [ordered_at]}}\n",
            "tables/bronze/orders.yaml:3:8 P210 drift: widen and dedup in one table",
        ),
    ],
    ids=["http", "drift and dedup"],
)
def test_sources_that_spark_does_not_read(project, bronze, said):
    folder = project(bronze=bronze)
    with pytest.raises(ProjectError) as refused:
        on_spark(folder)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "bronze",
    [
        WIDENED,
        WIDENED.replace("widen", "add") + "event_time: {column: ordered_at, delay: 1 s}\ndedup: {keys: [ordered_at]}\n",
        BRONZE + "event_time: {column: ordered_at, delay: 1 s}\ndedup: {keys: [order_id]}\n",
    ],
    ids=["widen", "add and dedup", "event time"],
)
def test_sources_that_spark_reads(project, bronze):
    assert on_spark(project(bronze=bronze, silver="from: stream(bronze.orders)\n")).flows


def on_spark(folder):
    opened = open_project(folder)
    opened.engine = "spark"
    return opened.plans


def run(folder, *options):
    return CliRunner().invoke(app, ["-C", folder, "run", "--until-idle", *options], prog_name="lodestream")


def test_options_that_do_not_go_together(project):
    folder = project()
    assert "add --engine spark" in run(folder, "--master", "local[1]").output
    assert "add --engine spark" in run(folder, "--remote", "sc://head").output
    at_a_server = ("--engine", "spark", "--remote")
    assert "give --master or --remote" in run(folder, *at_a_server, "sc://head", "--master", "local[1]").output
    assert "write sc://host:port" in run(folder, *at_a_server, "head:15002").output
    assert "add --engine spark" in run(folder, "--checkpoints", "there").output
    assert "leave --checkpoints out" in run(folder, "--engine", "spark", "--checkpoints", "there").output
    assert "--until-idle" in run(folder, "--engine", "spark", "--once").output


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ("spark.executor.memory", "write --conf spark.KEY=VALUE"), ("memory=2g", "write --conf spark.KEY=VALUE"),
        ("spark.sql.ansi.enabled=false", "rows would be others"),
    ],
)  # fmt: skip
def test_settings_that_spark_is_not_given(project, conf, told):
    done = run(project(), "--engine", "spark", "--conf", conf)
    assert done.exit_code == 3
    assert told in done.output
    assert "add --engine spark" in run(project(), "--conf", "spark.executor.memory=2g").output


def test_without_pyspark_the_extra_is_named(project):
    folder = project()
    for options, extra in (((), "spark"), (("--remote", "sc://head"), "spark-connect")):
        done = run(folder, "--engine", "spark", *options)
        assert done.exit_code == 3
        assert f"pip install 'lodestream[{extra}]'" in done.output


@pytest.fixture
def pyspark(monkeypatch):
    """As far as it is looked at before there is a session."""
    pretended = {"pyspark": types.ModuleType("pyspark"), "pyspark.sql": types.ModuleType("pyspark.sql")}
    pretended["pyspark.errors"] = types.ModuleType("pyspark.errors")
    pretended["pyspark.errors"].PySparkException = type("PySparkException", (Exception,), {})
    pretended["pyspark"].__spec__ = importlib.machinery.ModuleSpec("pyspark", None)
    pretended["pyspark.sql"].SparkSession = types.SimpleNamespace(getActiveSession=lambda: None)
    for name, module in pretended.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(session.importlib.metadata, "version", lambda name: session.SPARK)


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


class Session:
    """As far as a folder is tried; what Spark finds in a file is `found`, by default what is there."""

    def __init__(self, found=None, **conf):
        self.conf, self.found = conf, found

    @property
    def read(self):
        return self

    def text(self, path):
        rows = [(Path(path).read_text(),)] if self.found is None else self.found
        return types.SimpleNamespace(collect=lambda: rows)


DATABRICKS = {"spark.databricks.clusterUsageTags.clusterId": "1"}


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        (Session([]), "Spark sees another folder of that name"),
        (Session(**DATABRICKS), "checkpoints need a volume.*--checkpoints /Volumes/"),
    ],
)
def test_a_folder_that_cannot_hold_checkpoints(pyspark, tmp_path, opened, said):
    with pytest.raises(ConfigError, match=said):
        session.check_folder(opened, str(tmp_path / "kept"))
    assert list(tmp_path.rglob("check-*")) == []


def test_a_folder_that_spark_sees_too(pyspark, tmp_path):
    session.check_folder(Session(), str(tmp_path / "kept"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_a_folder_that_is_a_file(pyspark, tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(ConfigError, match="Spark cannot keep checkpoints there"):
        session.check_folder(Session(), str(tmp_path / "kept"))


def test_a_cluster_that_does_not_answer(pyspark, nobody, tmp_path):
    with pytest.raises(TransientError, match="Spark does not answer there"):
        session.open_session(f"spark://{nobody}", cache=tmp_path)


def test_an_address_that_is_none(pyspark, tmp_path):
    with pytest.raises(ConfigError, match="write spark://host:port"):
        session.open_session("spark://", cache=tmp_path)


def test_another_pyspark(pyspark, monkeypatch, tmp_path):
    monkeypatch.setattr(session.importlib.metadata, "version", lambda name: "4.3.0")
    with pytest.raises(ConfigError, match=r"found='4\.3\.0' needs='pyspark==4\.2\.0'"):
        session.open_session("local[1]", cache=tmp_path)


def test_no_java(monkeypatch):
    monkeypatch.setattr(jars.shutil, "which", lambda name: None)
    with pytest.raises(MissingDriverError, match="needs Java"):
        jars.java()


def test_an_archive_with_other_bytes(tmp_path):
    for coordinate in jars.JARS:
        _, name, version = coordinate.split(":")
        Path(tmp_path, f"{name}-{version}.jar").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="not the one that belongs here"):
        jars.jar_files(tmp_path, tmp_path)


def test_archives_that_cannot_be_fetched(tmp_path):
    with pytest.raises(ConfigError, match="no Ivy"):
        jars.jar_files(tmp_path, tmp_path)
