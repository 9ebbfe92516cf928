"""The task that registers, optimizes and vacuums: its statements, and that one failure keeps no other back."""

import subprocess
import sys

import pytest

from lodestream.deploy.maintenance import parsed, run, statements
from tests.deploy.conftest import parsed as yaml_of

LAKE = "abfss://lake@acme.dfs.core.windows.net/shop"
COMMON = ["--catalog", "main", "--lake", LAKE + "/", "--schema", "silver=dev_ana_silver"]


def made(action, *arguments):
    return statements(parsed([action, *COMMON, *arguments]))


def test_register():
    assert made("register", "silver.orders:a,b", "gold.x", "silver.orders__quarantine") == [
        f"CREATE TABLE IF NOT EXISTS `main`.`dev_ana_silver`.`orders` USING DELTA LOCATION '{LAKE}/silver/orders'",
        f"CREATE TABLE IF NOT EXISTS `main`.`gold`.`x` USING DELTA LOCATION '{LAKE}/gold/x'",
    ]


def test_optimize():
    assert made("optimize", "silver.orders:ordered_at,order_id", "gold.x", "silver.orders__quarantine") == [
        "OPTIMIZE `main`.`dev_ana_silver`.`orders` ZORDER BY (`ordered_at`, `order_id`)",
        "OPTIMIZE `main`.`gold`.`x`",
        f"OPTIMIZE delta.`{LAKE}/silver/orders__quarantine`",
    ]


def test_vacuum():
    assert made("vacuum", "--hours", "240", "gold.x", "gold.x__quarantine") == [
        "VACUUM `main`.`gold`.`x` RETAIN 240 HOURS",
        f"VACUUM delta.`{LAKE}/gold/x__quarantine` RETAIN 240 HOURS",
    ]


def test_no_name_gets_out_of_its_quotes():
    assert made("optimize", "gold.x` --:a`b") == ["OPTIMIZE `main`.`gold`.`x`` --` ZORDER BY (`a``b`)"]


def test_one_failure_keeps_no_other_back():
    seen = []

    def sql(text):
        seen.append(text)
        if "bad" in text:
            raise LookupError("no such table")

    assert run(sql, ["a", "bad b", "c"], LookupError) == ["bad b: no such table"]
    assert seen == ["a", "bad b", "c"]
    with pytest.raises(LookupError):
        run(sql, ["bad"], KeyError)


def test_the_copy_in_the_bundle_understands_its_tasks(demo, tmp_path):
    """Every task's parameters, with its references filled in, are run by the copy itself on a Spark of one method."""
    (tmp_path / "maintenance.py").write_bytes(demo.files["maintenance.py"])
    package = tmp_path / "pyspark"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "errors.py").write_text("class PySparkException(Exception): pass\n")
    (package / "sql.py").write_text(
        "from types import SimpleNamespace as N\n"
        "from pyspark.errors import PySparkException\n"
        "def sql(text):\n    if 'planes' in text: raise PySparkException('gone')\n"
        "SparkSession = N(builder=N(getOrCreate=lambda: N(sql=sql)))\n"
    )
    counts = {}
    for file, content in yaml_of(demo.files).items():
        for job in content.get("resources", {}).get("jobs", {}).values():
            for task in job["tasks"]:
                if (given := task.get("spark_python_task")) is None:
                    continue
                assert given["python_file"] == "../maintenance.py", file
                parameters = [one.replace("${var.lake}", LAKE) for one in given["parameters"]]
                command = [sys.executable, "maintenance.py", *parameters]
                ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
                assert ran.returncode == 1
                assert "gone" in ran.stderr
                counts[task["task_key"]] = len(ran.stdout.splitlines())
    assert counts == {"register": 17, "optimize": 30, "vacuum": 31}
