"""A user's function inside a flow: called with the batch, bisected when it raises, held to its positions."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

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

DROPPED = "drop:python"
"""Reason of a row that the function left out."""


@dataclass(frozen=True, slots=True)
class Called:
    """What a function made of n rows.

    Attributes:
        rows: what it gave back, in order of the input rows: declared columns and provenance.
        numbers: of each of these the number of its input row.
        failed: numbers of the rows that made it raise, each with the reasons.
        gone: n flags, true for rows that it left out.
    """

    rows: pa.Table
    numbers: np.ndarray
    failed: list[tuple[int, list[str]]]
    gone: np.ndarray


def run_python(passing: Pass, step: RunPython, function: PythonFunction) -> None:
    """Apply `function` to the current rows.

    Raises:
        ConfigError: the function breaks its contract, or raises too often.
    """
    rows = passing.out.rows
    indexes = rows.column(INDEX).to_numpy()
    called = call(rows.drop_columns([INDEX]), step, function)
    passing.out.rows = called.rows.append_column(INDEX, pa.array(indexes[called.numbers]))
    if called.failed:
        bad = np.array([i for i, _ in called.failed])
        passing.record(indexes[bad], "quarantine", [reasons for _, reasons in called.failed])
    if called.gone.any():
        passing.record(indexes[called.gone], "dropped", [[DROPPED]] * int(called.gone.sum()))


def call(rows: pa.Table, step: RunPython, function: PythonFunction) -> Called:
    """What `function` makes of rows.

    It sees all columns and gives back the declared ones with `_source` and `_position`. A position that it leaves out
    is gone; a repeated or unknown one is an error; rows that make it raise are found by halving, at most a hundred
    calls.

    Raises:
        ConfigError: the function breaks its contract, or raises too often.
    """
    name = step.step.function
    results: list[pa.Table] = []
    failed: list[tuple[int, list[str]]] = []
    calls = 0
    todo = [(0, len(rows))] if len(rows) else []
    while todo:
        start, stop = todo.pop()
        calls += 1
        if calls > _CALLS_MAX:
            raise ConfigError("python step raises too often; mend the function", function=name, calls=_CALLS_MAX)
        try:
            results.append(function(rows.slice(start, stop - start)))
        except Exception as error:  # noqa: BLE001 - the function is the user's; its failures are data
            if stop - start == 1:
                failed.append((start, ["python:error", f"python:{type(error).__name__}: {error}"[:500]]))
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
    gone[[i for i, _ in failed]] = False
    return Called(table.take(pa.array(order)), numbers[order], failed, gone)


class Functions:
    """The functions of a project's `functions` folder; each file is loaded once.

    Args:
        root: project folder.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._modules: dict[str, ModuleType] = {}

    def __call__(self, name: str) -> PythonFunction:
        """The user's function `module:function`.

        Raises:
            ConfigError: there is no such file or function.
        """
        module_name, _, function = name.partition(":")
        module = self._modules.get(module_name)
        if module is None:
            path = os.path.join(self._root, "functions", *module_name.split(".")) + ".py"
            spec = importlib.util.spec_from_file_location(f"lodestream_functions.{module_name}", path)
            if spec is None or spec.loader is None or not os.path.exists(path):
                raise ConfigError("no such functions file", function=name, file=path)
            module = self._modules[module_name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        found = getattr(module, function, None)
        if not callable(found):
            raise ConfigError("no such function", function=name, file=module.__file__)
        return found  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Callable[..., Functions], tuple[str, tuple[int, ...]]]:
        """Another process that is sent this again and again loads files again only when they have changed."""
        files = [str(module.__file__) for module in self._modules.values()]
        return _as_they_are, (
            os.path.abspath(self._root),
            tuple(os.stat(file).st_mtime_ns for file in files if os.path.exists(file)),
        )


@functools.lru_cache(maxsize=16)
def _as_they_are(root: str, _changed_ns: tuple[int, ...]) -> Functions:
    return Functions(root)


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
