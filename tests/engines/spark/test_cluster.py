"""A master and a worker of Spark's own cluster manager on this machine run the flows."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from lodestream.app import open_project
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from tests.engines.lakes import wait_for
from tests.engines.spark.sites import Site
from tests.enrichers.service import free_port
from tools.function_rows import ROOT, spark_python

DECLARATIONS = {
    "lodestream.yaml": "project: x\nlake: lake\n",
    "tables/bronze/orders.yaml": "source: {generator: {stream: orders, rows: 2000}}\n",
    "tables/silver/orders.yaml": """
from: stream(bronze.orders)
event_time: {column: ordered_at, delay: 1 second}
dedup: {keys: [order_id]}
""",
}

pytestmark = [pytest.mark.long, pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")]


@pytest.fixture
def cluster(tmp_path):
    """Starts a master, with a worker or without; gives its address."""
    running = []

    def launch(name, *arguments, path=str(ROOT / "src")):
        python = spark_python()
        home = next(python.parent.parent.glob("lib/python*/site-packages/pyspark"))
        env = {**os.environ, "SPARK_HOME": str(home), "PYTHONPATH": path, "SPARK_DAEMON_MEMORY": "256m"}
        with (tmp_path / name).open("wb") as said:
            command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{name.lower()}.{name}"]
            command += ["--host", "127.0.0.1", "--webui-port", "0", *arguments]
            running.append(
                subprocess.Popen(command, cwd=tmp_path, env=env, stdout=said, stderr=said, start_new_session=True)
            )

    def start(*, workers=1, path=str(ROOT / "src")):
        port = free_port()
        launch("Master", "--port", str(port))
        wait_for(lambda: reached(port), 120)
        for _ in range(workers):
            launch("Worker", "-c", "2", "-m", "1200m", "-d", str(tmp_path), f"spark://127.0.0.1:{port}", path=path)
        return f"spark://127.0.0.1:{port}"

    yield start
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def reached(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def project(tmp_path):
    site = Site(tmp_path / "project", None)
    site.write(DECLARATIONS)
    return site.root


def lodestream(project, *arguments, seconds=600):
    command = [str(spark_python()), "-m", "lodestream.cli", "-C", str(project), *arguments]
    wanted = ("spark.sql.shuffle.partitions=2", "spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1")
    wanted += ("spark.databricks.delta.snapshotPartitions=1",)
    settings = " ".join([f"--conf {setting}" for setting in wanted] + ["pyspark-shell"])
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYSPARK_SUBMIT_ARGS": settings}
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=seconds)
    return done.returncode, done.stdout + done.stderr


def test_workers_of_a_cluster_fill_the_tables(cluster, project):
    code, said = lodestream(project, "run", "--engine", "spark", "--until-idle", "--master", cluster())
    assert code == 0, said[-4000:]
    code, said = lodestream(project, "reconcile")
    assert code == 0, said
    app = open_project(str(project))
    bronze = DeltaTable.open(app.disk, table_path(app.lake, TableName("bronze", "orders")))
    assert bronze.read(bronze.files()).num_rows == 2000
    assert list(Path(project.parent).glob("app-*/*/stderr")), "no worker was used"


def test_a_cluster_without_workers_is_told(cluster, project):
    code, said = lodestream(project, "run", "--engine", "spark", "--until-idle", "--master", cluster(workers=0))
    assert code == 4, said[-4000:]
    assert "the cluster gives no worker" in said


def test_workers_without_lodestream_are_told(cluster, project, tmp_path):
    master = cluster(path=str(tmp_path))
    code, said = lodestream(project, "run", "--engine", "spark", "--until-idle", "--master", master)
    assert code == 3, said[-4000:]
    assert "a worker of Spark has no Lodestream" in said
