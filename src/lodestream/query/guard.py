"""Reads a query with DuckDB's own parser and lets through what only asks.

DuckDB calls a statement SELECT although a part of it deletes rows or writes a file, so the statement's kind says
nothing: every node of its syntax tree must be of a kind known to be harmless, every function on the allowlist and every
table one of the lake.
"""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from lodestream.errors import AccessError, ConfigError
from lodestream.model.table import LAYERS
from lodestream.ports.waiting import before_waiting
from lodestream.query.functions import ALLOWED, SIZE_MAX, SIZED, TABLE_FUNCTIONS

TEXT_BYTES_MAX = 65_536
_EXPRESSIONS = frozenset(
    [
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "LAMBDA_REF",
        "OPERATOR",
        "PARAMETER",
        "POSITIONAL_REFERENCE",
        "STAR",
        "SUBQUERY",
        "TYPE",
        "WINDOW",
    ]
)
_NODES = frozenset(["SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"])
_TABLES = frozenset(
    ["BASE_TABLE", "JOIN", "SUBQUERY", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST", "SHOW_REF", "PIVOT"]
)
_PARTS = frozenset(
    [
        "ORDER_MODIFIER",
        "LIMIT_MODIFIER",
        "LIMIT_PERCENT_MODIFIER",
        "DISTINCT_MODIFIER",
        "ORDER_DEFAULT",
        "ASCENDING",
        "DESCENDING",
        "ORDER_ASCENDING",
        "ORDER_DESCENDING",
        "INVALID",
    ]
)
_SHOWN = frozenset({"DESCRIBE", "SUMMARY"})


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A table that a query names, in lower case, and which version of it: the newest when neither is given.

    Attributes:
        layer, name: the table.
        version: of `AT (VERSION => n)`.
        time_us: of `AT (TIMESTAMP => '…')`, microseconds since 1970 UTC.
    """

    layer: str
    name: str
    version: int | None = None
    time_us: int | None = None

    @property
    def label(self) -> str:
        """The table's name without its layer, with the version or the time that is asked for."""
        if self.version is not None:
            return f"{self.name}@{self.version}"
        return self.name if self.time_us is None else f"{self.name}@{self.time_us}us"

    def __str__(self) -> str:
        return f"{self.layer}.{self.name}"


@dataclass(frozen=True, slots=True)
class Relations:
    """What a query may name besides the lake: tables that are handed to it, and functions over them.

    Attributes:
        tables: `schema.name`, or a name alone, in lower case.
        functions: further functions, in lower case; also after FROM.
    """

    tables: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Statement:
    """A query that may run.

    Attributes:
        text: SQL to run; versions are part of the tables' names in it, see `view_name`.
        tables: every table of the lake that it reads.
        names: every name in it that may be a column's, in lower case; None when it may read all columns.
        given: tables of `Relations` that it reads.
        parameters: how many values it needs.
        tree: its syntax tree as DuckDB tells it; not to be changed.
        known: what was worked out of the tree by others, kept as long as the statement.
    """

    text: str
    tables: tuple[Reference, ...]
    names: frozenset[str] | None
    given: tuple[str, ...]
    parameters: int
    tree: Mapping[str, Any]
    known: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


def view_name(reference: Reference) -> str:
    """The name by which the statement's text calls the table, within the schema of its layer."""
    return reference.label


_TIMES = frozenset({"timestamp", "timestamptz", "timestamp with time zone", "datetime", "date"})
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NOTHING = Relations()
_KEPT, _KEPT_BYTES_MAX = 256, 2048
"""Statements whose reading is remembered, and how long one may be: a syntax tree takes hundreds of times its text."""


def parse(text: str, catalog: str | None = None, relations: Relations = _NOTHING) -> Statement:
    """Read one query.

    Args:
        text: DuckDB SQL.
        catalog: name that may stand before the layer, in lower case.
        relations: what it may name besides the lake.

    Raises:
        ConfigError: it is not SQL, too long, or names what cannot be a table.
        AccessError: it does more than ask.
    """
    size = len(text.encode())
    if size > TEXT_BYTES_MAX:
        raise ConfigError("query is too long", bytes=size, bytes_max=TEXT_BYTES_MAX)
    return (_read if size <= _KEPT_BYTES_MAX else _read.__wrapped__)(text, catalog, relations)


@functools.lru_cache(_KEPT)
def _read(text: str, catalog: str | None, relations: Relations) -> Statement:
    before_waiting()  # a long text takes its time
    connection = _parser()
    try:
        tree = _tree(connection, text)
        check = _Check(catalog, relations)
        check.walk(tree["node"], frozenset())
        if check.changed:  # the tree now calls some tables by other names
            whole = json.dumps({"error": False, "statements": [tree]})
            row = connection.execute("SELECT json_deserialize_sql(?::JSON)", [whole]).fetchone()
            assert row
            text = row[0]
    except RecursionError:
        raise ConfigError("query is nested too deeply") from None
    tables = tuple(sorted(check.tables, key=lambda one: (one.layer, one.label)))
    names = None if check.all_columns or check.alone & check.called else frozenset(check.names)
    return Statement(text, tables, names, tuple(sorted(check.given)), check.parameters, tree)


_here = threading.local()


def _parser() -> duckdb.DuckDBPyConnection:
    """This thread's connection to a database that holds nothing and may do nothing."""
    if not hasattr(_here, "connection"):
        _here.connection = duckdb.connect(
            ":memory:", config={"enable_external_access": False, "threads": 1, "lock_configuration": True}
        )
    connection: duckdb.DuckDBPyConnection = _here.connection
    return connection


def syntax_tree(text: str) -> Mapping[str, Any]:
    """The syntax tree of a query that need not be checked; not to be changed."""
    return _tree(_parser(), text)


def _tree(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    try:
        row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    except duckdb.Error as error:
        raise ConfigError("query cannot be read", reason=str(error).splitlines()[0]) from None
    assert row
    tree: dict[str, Any] = json.loads(row[0])
    if tree["error"]:
        if tree["error_type"] == "not implemented":
            fix = "ask with SELECT; tables are changed by their declarations"
            raise AccessError("only SELECT may be asked", fix=fix)
        raise ConfigError(f"query cannot be read\n{tree['error_message'].strip()}\n")
    if len(tree["statements"]) != 1:
        raise AccessError("one statement at a time", statements=len(tree["statements"]))
    statement: dict[str, Any] = tree["statements"][0]
    return statement


class _Check:
    """A walk over a syntax tree that knows which names are those of common table expressions."""

    def __init__(self, catalog: str | None, relations: Relations) -> None:
        self._catalog, self._relations = catalog, relations
        self._allowed = ALLOWED | relations.functions
        self._after_from = TABLE_FUNCTIONS | relations.functions
        self.tables: set[Reference] = set()
        self.given: set[str] = set()
        self.names: set[str] = set()
        self.alone: set[str] = set()
        self.called: set[str] = set()
        self.changed = self.all_columns = False
        self.parameters = 0

    def walk(self, item: Any, known: frozenset[str]) -> None:
        """Check `item` and all below it; `known` are the names that WITH has given so far."""
        if isinstance(item, list):
            for each in item:
                self.walk(each, known)
        elif isinstance(item, dict):
            self.kind(item)
            if "cte_map" in item:
                known = self.common(item["cte_map"]["map"], known)
            if item.get("type") == "BASE_TABLE":
                self.table(item, known)
            elif item.get("type") == "JOIN":
                self.names.update(name.lower() for name in item["using_columns"])
                self.all_columns |= item["ref_type"] != "REGULAR"
            for key, value in item.items():
                if key != "cte_map":
                    self.walk(value, known)

    def kind(self, item: dict[str, Any]) -> None:
        """Refuse a node of a kind that nobody has looked at."""
        if "info_type" in item:
            raise AccessError("only SELECT may be asked", found=item["info_type"])
        if "class" in item:
            if item["class"] not in _EXPRESSIONS:
                raise AccessError("not allowed in a query", found=str(item["class"]).lower())
            if "function_name" in item:
                self.function(item)
            elif item["class"] == "COLUMN_REF":
                self.column(item)
            elif item["class"] == "PARAMETER":
                if not item["identifier"].isdecimal():
                    raise AccessError("parameters are $1, $2, … or ?", found=f"${item['identifier']}")
                self.parameters = max(self.parameters, int(item["identifier"]))
            elif item["class"] in ("STAR", "POSITIONAL_REFERENCE"):
                self.all_columns = True
            return
        kind = item.get("type")
        if not isinstance(kind, str) or "id" in item:
            return
        if kind not in _NODES and kind not in _TABLES and kind not in _PARTS:
            raise AccessError("only SELECT may be asked", found=kind.removesuffix("_NODE").lower())
        self.all_columns |= kind in ("SHOW_REF", "PIVOT")
        if kind == "TABLE_FUNCTION" and item["function"]["function_name"].lower() not in self._after_from:
            raise AccessError("function is not allowed after FROM", function=item["function"]["function_name"])
        if kind == "SHOW_REF" and (item["show_type"] not in _SHOWN or item["query"] is None):
            raise AccessError("only DESCRIBE and SUMMARIZE of a table may be asked; `lodestream status` lists tables")

    def column(self, item: dict[str, Any]) -> None:
        """Note the names of a column, without the catalog."""
        names = item["column_names"]
        if len(names) == 4 and names[0].lower() == self._catalog:
            del names[0]
            self.changed = True
        self.names.update(name.lower() for name in names)
        if len(names) == 1:  # of a table's own name, it is the whole row
            self.alone.add(names[0].lower())

    def function(self, item: Mapping[str, Any]) -> None:
        """Refuse a function that is not on the list, or one that makes more than a literal says."""
        name, allowed = item["function_name"].lower(), self._allowed
        if item.get("catalog") or item.get("schema") not in ("", "main", None):
            raise AccessError("function is not allowed in a query", function=name)
        if name in SIZED:
            arguments = [argument["expression"] for argument in item["arguments"]]
            index = SIZED[name]
            for argument in arguments if index is None else arguments[index : index + 1]:
                if not _small_literal(argument):
                    fix = f"give whole numbers up to {SIZE_MAX}"
                    raise AccessError("sizes must be literals", function=name, fix=fix)
        elif name not in allowed:
            near = difflib.get_close_matches(name, allowed, 1, 0.75)
            raise AccessError("function is not allowed in a query", function=name, nearest=near[0] if near else None)

    def common(self, entries: list[dict[str, Any]], known: frozenset[str]) -> frozenset[str]:
        """Check each WITH entry with the names before it (and, when recursive, its own)."""
        for entry in entries:
            name = entry["key"].lower()
            body = entry["value"]["query_node"]
            recursive = body.get("type") == "RECURSIVE_CTE_NODE"
            self.walk(entry["value"], known | {name} if recursive else known)
            known |= {name}
        return known

    def table(self, item: dict[str, Any], known: frozenset[str]) -> None:
        """Note a table of the lake; pin it when the query says which version."""
        layer, name = item["schema_name"].lower(), item["table_name"].lower()
        self.called.update((name, item["alias"].lower()))
        self.all_columns |= bool(item["column_name_alias"])
        if not layer and name in known and not item["catalog_name"]:
            return
        if item["catalog_name"] and item["catalog_name"].lower() == self._catalog:
            item["catalog_name"] = ""
            item["qualified_name"] = {"path": [item["schema_name"], item["table_name"]]}
            self.changed = True
        given = f"{layer}.{name}" if layer else name
        if not item["catalog_name"] and given in self._relations.tables:
            self.given.add(given)
            return
        if item["catalog_name"] or layer not in LAYERS or not name.isidentifier():
            written = ".".join(part for part in (item["catalog_name"], item["schema_name"], item["table_name"]) if part)
            raise ConfigError("no such table; write bronze.name, silver.name or gold.name", table=written)
        reference = Reference(layer, name, *_moment(item["at_clause"]))
        self.tables.add(reference)
        if reference.label != name:
            self.changed = True
            item["at_clause"] = None
            item["alias"] = item["alias"] or item["table_name"]
            item["table_name"] = view_name(reference)
            item["qualified_name"] = {"path": [item["schema_name"], item["table_name"]]}


def _small_literal(item: Mapping[str, Any]) -> bool:
    literal = item.get("literal") if item.get("class") == "CONSTANT" else None
    if literal is None or literal.get("kind") != "INTEGER":
        return False
    return abs(int(literal["text"].replace("_", ""))) <= SIZE_MAX


def _moment(clause: Mapping[str, Any] | None) -> tuple[int | None, int | None]:
    """The version or the time of an AT clause; a time without a zone is UTC."""
    if clause is None:
        return None, None
    inner = clause["expr"]
    if inner["class"] == "CAST" and inner["type_expr"]["type_name"].lower() in _TIMES:
        inner = inner["child"]
    literal, unit = inner.get("literal") or {}, clause["unit"].upper()
    if unit == "VERSION" and literal.get("kind") == "INTEGER" and "-" not in literal["text"]:
        return int(literal["text"]), None
    if unit == "TIMESTAMP" and literal.get("kind") == "STRING":
        return None, moment_us(literal["text"])
    raise ConfigError(
        "only AT (VERSION => n) and AT (TIMESTAMP => '…') can be read; `lodestream table history` shows both"
    )


def moment_us(text: str) -> int:
    """Microseconds since 1970 of a date or a time as ISO 8601 writes them; without a zone it is UTC.

    Raises:
        ConfigError: it is neither.
    """
    try:
        found = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError("not a time; write such as '2024-01-31 12:00:00'", value=text[:100]) from None
    found = found if found.tzinfo else found.replace(tzinfo=dt.UTC)
    return (found - _EPOCH) // dt.timedelta(microseconds=1)
