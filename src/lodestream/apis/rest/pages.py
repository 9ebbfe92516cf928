"""Pages of one table at one version: complete whatever is written meanwhile, each row on one page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lodestream.apis.problems import ProblemError
from lodestream.apis.rest.cursors import Cursors, Place
from lodestream.apis.rest.filters import Filter, Wanted, sql
from lodestream.apis.rest.values import value_of
from lodestream.apis.rows import plain
from lodestream.model.access import Principal
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.query.quoting import quoted
from lodestream.query.service import QueryService

_PAGE_BYTES_MAX = 32 << 20
_KEYED = frozenset({"tinyint", "smallint", "int", "bigint", "decimal", "string", "date", "timestamp"})
"""Types whose values can be carried in a cursor exactly."""
_KEY_CHARACTERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, and the cursor of those after them; None when there are none."""

    rows: pa.Table
    version: int
    next: str | None


class Pages:
    """Reads pages.

    Args:
        service: the read path.
        cursors: of this server.
        door: name of the door, for the audit log.
    """

    def __init__(self, service: QueryService, cursors: Cursors, door: str) -> None:
        self._service, self._cursors, self._door = service, cursors, door
        self._budget = replace(service.budget, bytes_max=_PAGE_BYTES_MAX)

    def read(
        self, table: TableName, wanted: Wanted, schema: Schema, version: int, place: Place | None, principal: Principal
    ) -> Page:
        """One page. Raises what `QueryService.ask` does, and ProblemError 413 for a row that no page can hold.

        Without `order`, rows that fit on one page come in any order. Else, and on all pages, they are ordered by the
        columns asked for after those of `order`, so that rows which tie are the same row.
        """

        def ask(order: Sequence[tuple[str, bool]], offset: int, more: Sequence[Filter]) -> tuple[pa.Table, bool]:
            text, values = sql(_quoted(table), wanted, order, wanted.limit + 1, offset, more)
            with self._service.ask(
                text,
                principal=principal,
                door=self._door,
                parameters=values,
                as_of={table: version},
                budget=self._budget,
            ) as answer:
                found = answer.table()
                return found, answer.cut

        if place is None and not wanted.order:
            rows, cut = ask((), 0, ())
            if not cut and len(rows) <= wanted.limit:
                return Page(rows, version, None)
        order = _total(wanted, schema)
        rows, cut = ask(order, place.skip if place else 0, _after(place, order, schema))
        shown = rows.slice(0, wanted.limit)
        if cut and not len(shown):
            raise ProblemError(413, "a row is too large for a page; ask for fewer columns, or in SQL")
        if not cut and len(rows) <= wanted.limit:
            return Page(shown, version, None)
        following = self._following(table, wanted, schema, order, shown, version, place, principal)
        return Page(shown, version, following)

    def place(self, cursor: str, table: TableName, wanted: Wanted, principal: Principal) -> Place:
        """Where a cursor says to go on. Raises ProblemError 400 when it is not of this question."""
        return self._cursors.read(cursor, _question(table, wanted, principal))

    def _following(
        self, table: TableName, wanted: Wanted, schema: Schema, order: Sequence[tuple[str, bool]], shown: pa.Table,
        version: int, place: Place | None, principal: Principal,
    ) -> str:  # fmt: skip
        """The cursor after these rows."""
        first = order[0][0]
        skip = (place.skip if place else 0) + len(shown)
        told = Place(version, place.key if place else None, place.keyed if place else False, skip)
        if first in shown.column_names and schema[first].type.name in _KEYED:
            column = shown.column(first)
            last = column[len(column) - 1].as_py()
            key = None if last is None else _text(last)
            if key is None or (len(key) <= _KEY_CHARACTERS_MAX and "\0" not in key):
                same = _trailing(column, last)
                whole = same == len(shown) and place is not None and place.keyed and place.key == key
                told = Place(version, key, keyed=True, skip=skip if whole else same)
        return self._cursors.write(told, _question(table, wanted, principal))


def _total(wanted: Wanted, schema: Schema) -> list[tuple[str, bool]]:
    """An order in which rows that tie are the same row."""
    chosen = {name for name, _ in wanted.order}
    others = [name for name in wanted.columns if name not in chosen]
    others.sort(key=lambda name: schema[name].type.name not in _KEYED)
    return [*wanted.order, *((name, False) for name in others)]


def _after(place: Place | None, order: Sequence[tuple[str, bool]], schema: Schema) -> list[Filter]:
    """A condition that leaves out what surely came before a place."""
    if place is None or not place.keyed:
        return []
    name, down = order[0]
    column = quoted(name).replace("{", "{{").replace("}", "}}")
    if place.key is None:
        return [Filter(f"{column} IS NULL", ())]
    value = value_of(place.key, str(schema[name].type), name)
    return [Filter(f"({column} {'<=' if down else '>='} {{}} OR {column} IS NULL)", (value,))]


def _trailing(column: pa.ChunkedArray, last: Any) -> int:
    """How many values at the end are the last one."""
    values = column.to_pylist()
    count = 0
    for value in reversed(values):
        if value != last:
            break
        count += 1
    return count


def _text(value: Any) -> str:
    told = plain(value)
    return told.removesuffix("Z") if isinstance(told, str) and not isinstance(value, str) else str(told)


def _question(table: TableName, wanted: Wanted, principal: Principal) -> str:
    told = [str(table), wanted.given, principal.name]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _quoted(table: TableName) -> str:
    return f"{quoted(table.layer)}.{quoted(table.name)}"
