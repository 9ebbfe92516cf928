"""A server of Spark Connect runs the flows; this process starts and watches them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.engines.spark.sites import Site
from tests.enrichers.service import free_port
from tools.function_rows import ROOT, spark_python

JARS = Path.home() / ".cache" / "lodestream" / "spark"
EXTENSION = "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension"
SETTINGS = (
    "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.connect.grpc.binding.address=127.0.0.1", "spark.driver.host=127.0.0.1",
    "spark.driver.bindAddress=127.0.0.1", "spark.ui.enabled=false", "spark.sql.shuffle.partitions=1",
    "spark.databricks.delta.snapshotPartitions=1",
    "spark.driver.extraJavaOptions=-Duser.timezone=UTC -XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
)  # fmt: skip

pytestmark = [pytest.mark.long, pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")]


@pytest.fixture
def server(tmp_path):
    """Starts servers; gives their addresses."""
    running = []

    def start(*, delta=True):
        port, python = free_port(), spark_python()
        home = next(python.parent.parent.glob("lib/python*/site-packages/pyspark"))
        settings = [*SETTINGS, f"spark.connect.grpc.binding.port={port}", *([EXTENSION] if delta else [])]
        command = [str(home / "bin" / "spark-submit"), "--master", "local[2]", "--driver-memory", "1g"]
        command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
        command += ["--jars", ",".join(map(str, JARS.glob("*.jar")))]
        command += [part for setting in settings for part in ("--conf", setting)]
        more = {"SPARK_HOME": str(home), "PYSPARK_PYTHON": str(python), "PYTHONPATH": str(ROOT / "src")}
        with (tmp_path / f"server-{port}").open("wb") as said:
            process = subprocess.Popen(
                [*command, "spark-internal"], cwd=tmp_path, env={**os.environ, **more}, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        running.append(process)
        deadline = time.monotonic() + 120
        while True:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    return f"sc://127.0.0.1:{port}"
            assert process.poll() is None, Path(said.name).read_text()[-4000:]
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.2)

    yield start
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def client(*arguments, seconds=1200):
    done = subprocess.run(
        [str(spark_python()), "-m", *map(str, arguments)], cwd=ROOT, check=False, capture_output=True, text=True,
        timeout=seconds, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_server_makes_the_rows_of_the_embedded_engine(server, kafka, tmp_path):
    code, out, err = client("tests.engines.spark.remote", "all", tmp_path / "site", server(), kafka.plain)
    assert code == 0, err[-4000:]
    answer = json.loads(out.splitlines()[-1])
    for compared, differences, problems in answer["rounds"]:
        assert differences == problems == []
        assert compared > 80
    compared, differences = answer["topics"]
    assert [one for one in differences if one.startswith("bronze")] == []
    assert compared > 50
    said = answer["said"]
    assert said["unseen"].startswith("ConfigError: the server does not see the lake's folder"), said
    assert said["embedded"].startswith("ConfigError: a table that the embedded engine has filled"), said
    assert said["fail"].startswith("ConfigError: an expectation with `else: fail` is not met"), said


def test_a_server_without_delta_is_told(server, tmp_path):
    files = {
        "lodestream.yaml": "project: x\nlake: lake\n",
        "tables/bronze/orders.yaml": "source: {generator: {stream: orders, rows: 10}}\n",
    }
    Site(tmp_path / "site", None).write(files)
    command = ("lodestream.cli", "-C", tmp_path / "site", "run", "--engine", "spark", "--until-idle", "--remote")
    code, _, err = client(*command, server(delta=False))
    assert code == 3, err
    assert "the server was started without Delta" in err
