"""Physical partition columns: `date(x)` is stored as `x_date`, so that every Delta reader can prune by it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lodestream.model.expression import Expression
from lodestream.model.maintenance import can_order
from lodestream.model.steps import Partition
from lodestream.model.types import DATE, INT, Column, DataType, Schema
from lodestream.planning.scope import Scope
from lodestream.project.mistakes import nearest

_CALL = re.compile(r"(\w+)\(\s*`?([^()`]+?)`?\s*\)")
TRANSFORMS = {"date": ("date",), "hour": ("date", "hour"), "month": ("month",), "year": ("year",)}
"""Physical columns of each transform; an hour means little without its date."""
_TYPES: dict[str, DataType] = {"date": DATE, "hour": INT, "month": DATE, "year": INT}
_SPARK = {
    "date": "CAST({0} AS DATE)",
    "hour": "HOUR({0})",
    "month": "CAST(DATE_TRUNC('MONTH', {0}) AS DATE)",
    "year": "YEAR({0})",
}
_DUCKDB = {
    "date": "CAST({0} AS DATE)",
    "hour": "CAST(hour({0}) AS INTEGER)",
    "month": "CAST(date_trunc('month', {0}) AS DATE)",
    "year": "CAST(year({0}) AS INTEGER)",
}
_SIMPLE = ("boolean", "tinyint", "smallint", "int", "bigint", "string", "date")


def compile_partitions(scope: Scope) -> tuple[Partition, ...]:
    """The partition columns of a table, each once; wrong ones are noted.

    `month(x)` is the date of the month's first day. A plain column is its own partition column.
    """
    found: dict[str, Partition] = {}
    for i, text in enumerate(scope.table.partition_by):
        path = ("partition_by", i)
        call = _CALL.fullmatch(text.strip())
        if call is None and "(" in text:
            scope.mistakes.add(scope.place(*path), "D302", "not a partition", value=text)
            continue
        if call is not None and call[1].lower() not in TRANSFORMS:
            near = nearest(call[1], TRANSFORMS)
            suggested = f"{near}({call[2]})" if near else None
            scope.mistakes.add(scope.place(*path), "D302", "no such partition function", value=text, nearest=suggested)
            continue
        column = scope.column(call[2] if call else text.strip(), path)
        if column is None:
            continue
        made = [_plain(scope, column, i)] if call is None else _transformed(scope, column, call[1].lower(), i)
        for one in made:
            if one is not None:
                found.setdefault(one.name, one)
    return tuple(found.values())


def check_z_columns(scope: Scope, schema: Schema, partitions: Iterable[Partition]) -> None:
    """Note the columns of `maintain: z_order:` that rows cannot lie by."""
    taken = {one.name for one in partitions}
    for i, name in enumerate(scope.table.maintenance.z_order):
        place, column = scope.place("maintain", "z_order", i), schema.get(name)
        if column is None:
            near = nearest(name, schema.names)
            scope.mistakes.add(place, "D312", "no such column to order by", column=name, nearest=near)
        elif not can_order(column.type):
            kind = str(column.type)
            scope.mistakes.add(place, "D312", "rows cannot be ordered by this type", column=name, type=kind)
        elif name in taken:
            fix = "leave it out: every file has one value of a partition column"
            scope.mistakes.add(place, "D312", "the table is partitioned by this column", column=name, fix=fix)


def _plain(scope: Scope, column: Column, i: int) -> Partition | None:
    if column.type.name not in _SIMPLE:
        kind = str(column.type)
        scope.mistakes.add(
            scope.place("partition_by", i), "D302", "cannot partition by this type", column=column.name, type=kind
        )
        return None
    return Partition(column.name, _expression(column, "{0}", "{0}", column.type))


def _transformed(scope: Scope, column: Column, function: str, i: int) -> list[Partition | None]:
    allowed = ("timestamp",) if function == "hour" else ("timestamp", "date")
    place = scope.place("partition_by", i)
    if column.type.name not in allowed:
        message = f"{function}(x) takes a {' or '.join(allowed)}"
        scope.mistakes.add(place, "D302", message, column=column.name, type=column.type)
        return []
    made: list[Partition | None] = []
    for part in TRANSFORMS[function]:
        name = f"{column.name}_{part}"
        twin = next((one for one in scope.shape.schema.names if one.lower() == name.lower()), None)
        if twin is not None:
            fix = f"rename the column, or partition by it: partition_by: [{twin}]"
            scope.mistakes.add(place, "D111", "this name is taken by the partition", column=twin, fix=fix)
            continue
        made.append(Partition(name, _expression(column, _SPARK[part], _DUCKDB[part], _TYPES[part])))
    return made


def _expression(column: Column, spark: str, duckdb: str, kind: DataType) -> Expression:
    quoted = '"' + column.name.replace('"', '""') + '"'
    text = spark.format(f"`{column.name}`")
    return Expression(text, kind, column.nullable, duckdb.format(quoted), None, frozenset({column.name}))
