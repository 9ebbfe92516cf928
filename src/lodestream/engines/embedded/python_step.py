"""A user's function inside a flow: called with the batch, bisected when it raises, held to its positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from lodestream.engines.embedded.frames import conform, positions_of
from lodestream.engines.embedded.passing import INDEX, Pass
from lodestream.errors import ConfigError
from lodestream.model.arrow import to_arrow
from lodestream.model.steps import RunPython
from lodestream.model.table import META_COLUMNS

PythonFunction = Callable[[pa.Table], pa.Table]
_CALLS_MAX = 100


def run_python(passing: Pass, step: RunPython, function: PythonFunction) -> None:
    """Apply `function` to the current rows.

    It sees all columns and gives back the declared ones with `_source` and `_position`. A position it leaves out is
    recorded as dropped; a repeated or unknown one is an error; rows that make it raise are found by halving, at most a
    hundred calls, and quarantined.

    Raises:
        ConfigError: the function breaks its contract, or raises too often.
    """
    rows = passing.out.rows
    name = step.step.function
    results: list[pa.Table] = []
    failed: list[tuple[int, str]] = []
    calls = 0
    todo = [(0, len(rows))] if len(rows) else []
    while todo:
        start, stop = todo.pop()
        calls += 1
        if calls > _CALLS_MAX:
            raise ConfigError("python step raises too often; mend the function", function=name, calls=_CALLS_MAX)
        try:
            results.append(function(rows.slice(start, stop - start).drop_columns([INDEX])))
        except Exception as error:  # noqa: BLE001 - the function is the user's; its failures are data
            if stop - start == 1:
                failed.append((start, f"{type(error).__name__}: {error}"))
            else:
                half = (start + stop) // 2
                todo += [(half, stop), (start, half)]
    schema = to_arrow(step.schema)
    provenance = [rows.schema.field(c) for c in META_COLUMNS if c in rows.column_names and c != "_batch"]
    target = pa.schema([*(f.with_nullable(True) for f in schema), *provenance])
    made = [_checked(result, target, rows, name) for result in results]
    table = pa.concat_tables(made) if made else target.empty_table()
    numbers = _row_numbers(table, rows, name)
    order = np.argsort(numbers, kind="stable")
    gone = np.ones(len(rows), np.bool_)
    gone[numbers] = False
    indexes = rows.column(INDEX).to_numpy()
    passing.out.rows = table.take(pa.array(order)).append_column(INDEX, pa.array(indexes[numbers[order]]))
    if failed:
        bad = np.array([i for i, _ in failed])
        gone[bad] = False
        passing.record(indexes[bad], "quarantine", [["python:error", f"python:{text}"[:500]] for _, text in failed])
    if gone.any():
        passing.record(indexes[gone], "dropped", [["drop:python"]] * int(gone.sum()))


def _checked(result: pa.Table, target: pa.Schema, rows: pa.Table, name: str) -> pa.Table:
    if not isinstance(result, pa.Table):
        raise ConfigError("python step gives back no pyarrow.Table", function=name, got=type(result).__name__)
    missing = [c for c in target.names if c not in result.column_names and c != "_ingest_time"]
    if missing:
        raise ConfigError("python step leaves out declared columns", function=name, missing=", ".join(missing))
    if "_ingest_time" in target.names and "_ingest_time" not in result.column_names:
        ingest = rows.column("_ingest_time")
        numbers = _row_numbers(result, rows, name)
        result = result.append_column("_ingest_time", ingest.take(pa.array(numbers)))
    try:
        return conform(result, target)
    except pa.ArrowInvalid as error:
        raise ConfigError(
            "python step gives back other types than declared", function=name, cause=str(error)
        ) from error


def _row_numbers(table: pa.Table, rows: pa.Table, name: str) -> np.ndarray:
    """The number of the input row of each row of `table`. Raises ConfigError for repeated or unknown positions."""
    wanted = positions_of(table)
    place = {key: i for i, key in enumerate(positions_of(rows))}
    unknown = [key for key in wanted if key not in place]
    if unknown or len(set(wanted)) != len(wanted):
        raise ConfigError("python step repeats or invents positions", function=name, example=(unknown or wanted)[0])
    return np.array([place[key] for key in wanted], dtype=np.int64)
