"""The declaration from Python: the same keys as the files, the same model, the same mistakes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

from lodestream.model.diagnostic import Place
from lodestream.model.project import Project
from lodestream.model.table import Table, TableName
from lodestream.project.config import read_config
from lodestream.project.fields import table_name
from lodestream.project.load import assemble
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import from_python
from lodestream.project.tables import TableReading, read_table


def table(name: str, **keys: Any) -> Table:
    """One table, declared with the keys of a table file; `from` is spelled `from_`.

    Example: `table("silver.orders", from_="stream(bronze.orders)", derive={"country": "upper(country)"})`.

    Raises:
        ProjectError: all mistakes of this table that can be seen without its neighbours, at the caller's line.
    """
    place = _caller()
    mistakes = Mistakes()
    parsed = table_name(mistakes, place, name)
    mistakes.raise_any()
    assert parsed is not None
    reading = _read(parsed, keys, place, mistakes)
    mistakes.raise_any()
    return reading.table


def define_project(
    name: str,
    tables: Iterable[Table] | Mapping[str, Mapping[str, Any]],
    *,
    root: str = ".",
    **config: Any,
) -> Project:
    """A project of tables, as `load_project` would read it from files.

    Args:
        name: the project's name.
        tables: tables made by `table`, or the keys of each table by its name (then the mistakes of all tables
            are reported together).
        root: the folder that relative paths are relative to.
        **config: the other keys of `lodestream.yaml`, such as `lake` or `environments`.

    Raises:
        ProjectError: all mistakes that can be seen without knowing columns.
    """
    place = _caller()
    mistakes = Mistakes()
    node = from_python({"project": name, **config}, place)
    base = read_config(node, FilePath(root).absolute(), mistakes)
    readings: dict[TableName, TableReading] = {}
    if isinstance(tables, Mapping):
        for text, keys in tables.items():
            if (parsed := table_name(mistakes, place, text)) is not None:
                readings[parsed] = _read(parsed, keys, place, mistakes)
    else:
        for one in tables:
            if one.name in readings:
                mistakes.add(one.declared_at or place, "D113", "table declared twice", table=one.name)
            readings[one.name] = TableReading(one, {(): one.declared_at or place}, frozenset())
    project = assemble(base, readings.values(), mistakes)
    mistakes.raise_any()
    return project


def _read(name: TableName, keys: Mapping[str, Any], place: Place, mistakes: Mistakes) -> TableReading:
    written = {"from" if key == "from_" else key: value for key, value in keys.items()}
    return read_table(name, from_python(written, place), mistakes)


def _caller() -> Place:
    frame = sys._getframe(2)
    return Place(frame.f_code.co_filename, frame.f_lineno)
