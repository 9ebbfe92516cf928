"""Asks Spark what every admitted function gives on its defining rows, and writes the answers and the reference page."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "tests" / "expressions" / "rows"
PAGE = ROOT / "docs" / "reference" / "functions.md"
VENV = ROOT / ".venv-spark"
REQUIREMENTS = ROOT / "requirements" / "spark.txt"


def main() -> None:
    """Write the rows (with Spark, in its own environment) and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the reference page only; needs no Spark")
    parser.add_argument("--domain", action="append", help="renew only these input tables")
    parser.add_argument("--into", type=Path, help="write the answers into this folder, and no page")
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask(options.ask, options.domain or [])
        return
    if not options.page:
        answer(options.into or ROWS, options.domain or [])
    if options.into:
        return
    from lodestream.expressions.reference import page

    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")


def answer(into: Path, domains: list[str]) -> None:
    """Write the answers of Spark, of all input tables or of those named, into a folder. Takes minutes."""
    command = [str(spark_python()), "-m", "tools.function_rows", "--ask", str(into)]
    for name in domains:
        command += ["--domain", name]
    subprocess.run(command, cwd=ROOT, check=True)


def spark_python() -> Path:
    """The interpreter of `.venv-spark`, made from the pinned requirements when it is missing."""
    python = VENV / "bin" / "python"
    done = VENV / ".installed"
    if done.exists() and done.read_text() == REQUIREMENTS.read_text():
        return python
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([str(uv), "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(VENV)], check=True)
    install = [str(uv), "pip", "install", "--quiet", "--python", str(python), "--require-hashes"]
    subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
    done.write_text(REQUIREMENTS.read_text())
    return python


# Below runs inside .venv-spark ----------------------------------------------------------------------------------------


def ask(into: Path, only: list[str]) -> None:
    """Evaluate every case in one local Spark session and write one file per input table."""
    from tools.function_cases import DOMAINS, GROUPS, QUERY_TABLES, read_cases

    texts = read_cases()

    spark = session()
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (columns, rows) in DOMAINS.items():
            if only and name not in only:
                continue
            view(spark, Path(folder) / f"{name}.parquet", name, columns, rows)
            cases = evaluate(spark, name, len(rows), texts[name])
            write(into / f"{name}.jsonl", spark.version, columns, rows, cases)
            print(f"{name}: {len(cases)} expressions, {len(rows)} rows", flush=True)
        if not only or "aggregates" in only:
            ask_aggregates(spark, into, Path(folder), texts["aggregates"], GROUPS)
        if not only or "queries" in only:
            ask_queries(spark, into, Path(folder), texts["queries"], QUERY_TABLES)
    spark.stop()


def session() -> Any:
    """One thread, ANSI, UTC, and no interface."""
    import logging

    from pyspark.sql import SparkSession

    logging.disable(logging.ERROR)
    # shared subexpressions are evaluated eagerly otherwise, even on the side of AND or OR that does not count
    settings = {
        "spark.sql.subexpressionElimination.enabled": "false",
        "spark.sql.optimizer.nestedSchemaPruning.enabled": "false",  # rows are read apart from expressions
        "spark.sql.ansi.enabled": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.adaptive.enabled": "false",
        "spark.driver.memory": "2g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local[1]").appName("function-rows")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


def view(spark: Any, path: Path, name: str, columns: list[tuple[str, str]], rows: list[list[Any]]) -> None:
    """Register input rows under `name`; `_i` numbers them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {"_i": pa.array(range(len(rows)), pa.int32())}
    for index, (column, kind) in enumerate(columns):
        arrays[column] = pa.array([row[index] for row in rows], arrow_type(kind))
    pq.write_table(pa.table(arrays), path)
    spark.read.parquet(str(path)).createOrReplaceTempView(name)


def arrow_type(kind: str) -> Any:
    """The Arrow type of a column of an input table."""
    import pyarrow as pa

    if kind.startswith("decimal("):
        precision, scale = kind[8:-1].split(",")
        return pa.decimal128(int(precision), int(scale))
    if kind.startswith("array<"):
        return pa.list_(arrow_type(kind[6:-1]))
    if kind.startswith("map<"):
        key, _, value = kind[4:-1].partition(",")
        return pa.map_(arrow_type(key), arrow_type(value))
    if kind.startswith("struct<"):
        fields = [field.partition(":") for field in kind[7:-1].split(",")]
        return pa.struct([(name, arrow_type(inner)) for name, _, inner in fields])
    return {
        "boolean": pa.bool_(), "tinyint": pa.int8(), "smallint": pa.int16(), "int": pa.int32(), "bigint": pa.int64(),
        "float": pa.float32(), "double": pa.float64(), "string": pa.string(), "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"), "binary": pa.binary(),
    }[kind]  # fmt: skip


def evaluate(spark: Any, name: str, count: int, texts: list[str]) -> list[dict[str, Any]]:
    """Expressions over every row: for each its type, and for each row a value or {"!": error condition}.

    Spark's own generated code is called row by row to learn where it raises (a job stops at the first error); then
    one job per bunch of expressions computes the values of the other rows.
    """
    from pyspark.errors import AnalysisException

    cases: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    inputs: dict[tuple[str, ...], Any] = {}
    for text in texts:
        try:
            frame = spark.sql(f"SELECT {text} AS v FROM {name}")
        except AnalysisException as error:
            refused.append({"text": text, "refused": condition(error)})
            continue
        kind = frame.schema["v"].dataType.simpleString()
        cases.append({"text": text, "type": kind, "values": failures(spark, text, name, count, inputs)})
    for start in range(0, len(cases), 20):
        bunch = cases[start : start + 20]
        inner, outer = [], []
        for index, case in enumerate(bunch):
            bad = [str(row) for row, value in enumerate(case["values"]) if value is not None]
            guarded = f"CASE WHEN _i IN ({', '.join(bad)}) THEN NULL ELSE {case['text']} END" if bad else case["text"]
            inner.append(f"{guarded} AS v{index}")
            outer.append(shown(case["type"], f"v{index}"))
        query = f"SELECT _i, {', '.join(outer)} FROM (SELECT _i, {', '.join(inner)} FROM {name})"
        for row in spark.sql(query).collect():
            for case, value in zip(bunch, row[1:], strict=True):
                if case["values"][row[0]] is None:
                    case["values"][row[0]] = encode(value)
    return cases + refused


def shown(kind: str, column: str) -> str:
    """A column in a form that Python can hold: days and microseconds since 1970, the entries of a map in order."""
    if kind.startswith("map<"):
        return f"map_entries({column})"
    return {"date": f"unix_date({column})", "timestamp": f"unix_micros({column})"}.get(kind, column)


def failures(spark: Any, text: str, name: str, count: int, inputs: dict[tuple[str, ...], Any]) -> list[Any]:
    """For each input row {"!": condition} where the expression raises, else None."""
    from pyspark.errors import PySparkException

    found: list[Any] = [None] * count
    columns, projection = projected(spark, text, name)
    if not columns:
        return found
    if any(column.startswith("_common_expr") for column in columns):
        # the optimizer computes a part of it beforehand: ask for one row after the other
        for index in range(count):
            try:
                spark.sql(f"SELECT {text} AS v FROM {name} WHERE _i = {index}").collect()
            except PySparkException as error:
                found[index] = {"!": condition(error)}
        return found
    if columns not in inputs:
        ordered = spark.sql(f"SELECT {', '.join(f'`{c}`' for c in columns)} FROM {name} ORDER BY _i")
        inputs[columns] = list(ordered._jdf.queryExecution().executedPlan().executeCollect())
    for index, row in enumerate(inputs[columns]):
        try:
            # not `projection.apply(row)`: py4j remembers methods by class name, and every generated class has the same
            spark._jvm.scala.Option.apply(row).map(projection)
        except PySparkException as error:
            found[index] = {"!": condition(error)}
            _, projection = projected(spark, text, name)  # a map half built stays in the old one
    return found


def projected(spark: Any, text: str, name: str) -> tuple[tuple[str, ...], Any]:
    """The columns that an expression reads, and Spark's generated code for it; no columns when it is constant."""
    plan = spark.sql(f"SELECT {text} AS v FROM {name}")._jdf.queryExecution().optimizedPlan()
    if plan.nodeName() != "Project":
        return (), None
    output = plan.child().output()
    create = spark._jvm.org.apache.spark.sql.catalyst.expressions.UnsafeProjection.create
    return tuple(output.apply(i).name() for i in range(output.size())), create(plan.projectList(), output)


def condition(error: Exception) -> str:
    """Spark's error condition, without its subclass."""
    getter = getattr(error, "getCondition", None) or getattr(error, "getErrorClass", lambda: None)
    found = getter() or type(error).__name__
    return str(found).partition(".")[0]


def encode(value: Any) -> Any:
    """A value as JSON: doubles as text, so that NaN and -0.0 survive, and decimals too.

    A struct is the list of its fields, a map the list of its pairs, bytes are hexadecimal digits.
    """
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return [[encode(key), encode(item)] for key, item in value.items()]
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return repr(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def write(path: Path, version: str, columns: Any, rows: list[list[Any]], cases: list[dict[str, Any]]) -> None:
    """One file: the input and, a line each, the cases."""
    head = {"spark": version, "columns": columns, "rows": [[encode(value) for value in row] for row in rows]}
    lines = [json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in (head, *cases)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def ask_aggregates(spark: Any, into: Path, folder: Path, measures: list[str], groups: Any) -> None:
    """Every measure over groups of rows."""
    columns, rows = groups
    view(spark, folder / "groups.parquet", "groups", columns, rows)
    keys = sorted({row[0] for row in rows})
    cases = []
    for text in measures:
        kind = spark.sql(f"SELECT {text} AS v FROM groups").schema["v"].dataType.simpleString()
        values = []
        for key in keys:
            try:
                query = f"SELECT {shown(kind, 'v')} AS v FROM (SELECT {text} AS v FROM groups WHERE g = '{key}')"
                values.append(encode(spark.sql(query).collect()[0]["v"]))
            except Exception as error:
                values.append({"!": condition(error)})
        cases.append({"text": text, "type": kind, "values": values})
    write(into / "aggregates.jsonl", spark.version, columns, rows, cases)
    print(f"aggregates: {len(cases)} measures", flush=True)


def ask_queries(spark: Any, into: Path, folder: Path, queries: list[str], tables: Any) -> None:
    """Every query over small tables; results as sorted rows of text."""
    spark.sql("CREATE DATABASE IF NOT EXISTS silver")
    head: dict[str, Any] = {"spark": spark.version, "tables": {}}
    for name, (columns, rows) in tables.items():
        short = name.replace(".", "_")
        view(spark, folder / f"{short}.parquet", short, columns, rows)
        spark.table(short).drop("_i").createOrReplaceTempView(short)
        head["tables"][name] = {"columns": columns, "rows": [[encode(value) for value in row] for row in rows]}
    cases = []
    for text in queries:
        asked = text
        for name in tables:
            asked = asked.replace(name, name.replace(".", "_"))
        try:
            frame = spark.sql(asked)
            types = [[f.name, f.dataType.simpleString()] for f in frame.schema]
            values: Any = sorted(([encode(v) for v in row] for row in frame.collect()), key=json.dumps)
        except Exception as error:
            types, values = [], {"!": condition(error)}
        cases.append({"text": text, "types": types, "values": values})
    lines = [json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in (head, *cases)]
    (into / "queries.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"queries: {len(cases)}", flush=True)


if __name__ == "__main__":
    main()
