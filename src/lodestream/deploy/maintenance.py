"""Runs on Databricks: registers the tables of a lake in Unity Catalog, orders their files, deletes old files.

A bundle holds a copy of this file and runs it as a task. It needs Spark with Delta and nothing else:

    maintenance.py register|optimize|vacuum --catalog C --lake URL [--schema LAYER=SCHEMA]… [--hours N] TABLE…

A table is `layer.name`, or `layer.name:column,column` to order its files by those columns. A quarantine,
`layer.name__quarantine`, goes by its path and is never registered: no policy of Unity Catalog would hide what is in
it. One table that fails does not keep the others from their turn; the task fails at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence

QUARANTINE = "__quarantine"


def statements(given: argparse.Namespace) -> list[str]:
    """The SQL statements of one call, one for each table."""
    schemas = dict(pair.split("=", 1) for pair in given.schema)
    found = []
    for text in given.tables:
        table, _, columns = text.partition(":")
        layer, _, name = table.partition(".")
        path = f"{given.lake.rstrip('/')}/{layer}/{name}"
        if name.endswith(QUARANTINE):
            target = f"delta.{_quoted(path)}"
        else:
            target = ".".join(map(_quoted, (given.catalog, schemas.get(layer, layer), name)))
        if given.action == "vacuum":
            found.append(f"VACUUM {target} RETAIN {given.hours} HOURS")
        elif given.action == "optimize":
            order = f" ZORDER BY ({', '.join(map(_quoted, columns.split(',')))})" if columns else ""
            found.append(f"OPTIMIZE {target}{order}")
        elif not name.endswith(QUARANTINE):
            found.append(f"CREATE TABLE IF NOT EXISTS {target} USING DELTA LOCATION '{path}'")
    return found


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("register", "optimize", "vacuum"))
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--schema", action="append", default=[], metavar="LAYER=SCHEMA")
    parser.add_argument("--hours", type=int, default=168)
    parser.add_argument("tables", nargs="+", metavar="TABLE")
    return parser.parse_args(arguments)


def run(sql: Callable[[str], object], texts: Iterable[str], failure: type[Exception]) -> list[str]:
    """Run each statement; those that raise `failure` are returned, with what was said."""
    failed = []
    for text in texts:
        print(text, flush=True)  # noqa: T201 - the task's log
        try:
            sql(text)
        except failure as error:
            failed.append(f"{text}: {error}")
    return failed


if __name__ == "__main__":
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    bad = run(SparkSession.builder.getOrCreate().sql, statements(parsed(sys.argv[1:])), PySparkException)
    if bad:
        raise RuntimeError("\n".join(bad))
