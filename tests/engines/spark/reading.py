"""Tables that we wrote, read by Spark with Delta Lake. Runs in the environment of Spark."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lodestream.engines.spark.session import open_session
from lodestream.errors import LodestreamError
from tests.lake.rows import rows_of, tables_under, with_ours
from tests.lake.variants import VARIANTS


def read_variants(root, session):
    """A table of every kind that the lake writes."""
    root.mkdir()
    for name, make in VARIANTS.items():
        make(str(root / name))
    return read_all(root, session)


def read_all(folder, session):
    """Every table under a folder, by Spark and by us; those that tests have broken, so that we cannot, are told."""
    read, rows, differences, broken = [], 0, [], []
    for path in tables_under(Path(folder)):
        try:
            ours = with_ours(str(path))
        except LodestreamError as error:
            broken.append(f"{path}: {error}")
            continue
        read.append(path.name)
        try:
            theirs = session.read.format("delta").load(str(path)).toArrow()
        except Exception as error:
            differences.append(f"{path}: {type(error).__name__} {str(error)[:200]}")
            continue
        wanted = rows_of(ours, ours.column_names)
        rows += len(wanted)
        if set(theirs.column_names) != set(ours.column_names):
            differences.append(f"{path}: columns {theirs.column_names} instead of {ours.column_names}")
        elif (found := rows_of(theirs, ours.column_names)) != wanted:
            only = sorted(set(found) ^ set(wanted))[:4]
            differences.append(f"{path}: {len(found)} rows instead of {len(wanted)}, such as {only}")
    return {"read": read, "rows": rows, "differences": differences, "broken": broken}


_SMALL = {
    # A few rows are sooner interpreted than compiled for.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
}


if __name__ == "__main__":
    answer = read_all(sys.argv[1], spark := open_session("local[2]", settings=_SMALL))
    spark.stop()
    print(json.dumps(answer))
