"""Syntax trees of questions, as DuckDB's own parser tells them and writes them again."""

from __future__ import annotations

import copy
import functools
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from lodestream.apis.postgres.failures import PgError

_TEXT_BYTES_MAX = 65_536
_here = threading.local()


def _parser() -> duckdb.DuckDBPyConnection:
    """This thread's connection to a database that holds nothing, may do nothing, and only parses."""
    if not hasattr(_here, "connection"):
        settings: dict[str, Any] = {"enable_external_access": False, "threads": 1, "lock_configuration": True}
        _here.connection = duckdb.connect(":memory:", config=settings)
    connection: duckdb.DuckDBPyConnection = _here.connection
    return connection


@functools.lru_cache(256)
def parse(text: str) -> Mapping[str, Any]:
    """The tree of one question; not to be changed. Raises PgError when it cannot be read."""
    if len(text.encode()) > _TEXT_BYTES_MAX:
        raise PgError("54000", f"statement is too long: {_TEXT_BYTES_MAX} bytes at most")
    try:
        row = _parser().execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
        assert row
        told: dict[str, Any] = json.loads(row[0])
    except duckdb.Error as error:
        raise PgError("42601", str(error).splitlines()[0]) from None
    except RecursionError:
        raise PgError("54001", "statement is nested too deeply") from None
    if told["error"]:
        if told["error_type"] == "not implemented":
            raise PgError("25006", "only SELECT may be asked")
        raise PgError("42601", told["error_message"].strip(), position=_characters(text, told.get("position")))
    if len(told["statements"]) != 1:
        raise PgError("42601", "cannot insert multiple commands into a prepared statement")
    tree: Mapping[str, Any] = told["statements"][0]
    return tree


def write(tree: Mapping[str, Any]) -> str:
    """The text of a tree."""
    whole = json.dumps({"error": False, "statements": [tree]})
    try:
        row = _parser().execute("SELECT json_deserialize_sql(?::JSON)", [whole]).fetchone()
    except duckdb.Error as error:
        raise PgError("0A000", "statement cannot be rewritten", detail=str(error).splitlines()[0]) from None
    assert row
    return str(row[0])


@functools.lru_cache(1024)
def expression(text: str) -> Any:
    """The tree of one expression; not to be changed."""
    return parse(f"SELECT {text}")["node"]["select_list"][0]


def parameters(item: Any) -> Iterator[dict[str, Any]]:
    """Every parameter in a tree."""
    if isinstance(item, list):
        for each in item:
            yield from parameters(each)
    elif isinstance(item, dict):
        if item.get("class") == "PARAMETER":
            yield item
        else:
            for each in item.values():
                yield from parameters(each)


def parameter_count(text: str) -> int:
    """The highest number of a parameter. Raises PgError when the text cannot be read."""
    numbers = (one["identifier"] for one in parameters(parse(text)))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def string(text: str | None, alias: str = "") -> dict[str, Any]:
    """A string constant, or NULL."""
    if text is None:
        found = dict(expression("NULL"))
    else:
        found = dict(expression("''"))
        found["literal"] = {"kind": "STRING", "text": text}
    return found | {"alias": alias}


def integer(value: int, alias: str = "") -> dict[str, Any]:
    """A whole number, cast to what `oid` is here when it does not fit an INTEGER."""
    return dict(expression(f"CAST({value} AS UINTEGER)" if value > 0x7FFFFFFF else str(value))) | {"alias": alias}


def one_row(call: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """What stands for a function after FROM that gives one value: a row of one column, both called `alias`."""
    found = copy.deepcopy(parse("SELECT * FROM (SELECT 1 AS x) AS x")["node"]["from_table"])
    found["alias"] = alias
    found["subquery"]["node"]["select_list"] = [dict(call) | {"alias": alias}]
    table: dict[str, Any] = found
    return table


def output_names(tree: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What PostgreSQL would call the columns; None where the columns of a star are among them."""
    node = tree["node"]
    while node.get("type") in ("SET_OPERATION_NODE", "CTE_NODE"):
        node = node.get("left") or (node.get("children") or [None])[0] or node.get("child")
        if not isinstance(node, dict):
            return None
    if node.get("type") != "SELECT_NODE" or any(item["class"] == "STAR" for item in node["select_list"]):
        return None
    return tuple(_output_name(item) for item in node["select_list"])


_CALLED = {
    "count_star": "count",
    "date_part": "extract",
    "list_value": "array",
    "row": "row",
    "quantile_cont": "percentile_cont",
}


def _output_name(item: Mapping[str, Any]) -> str:
    if item["alias"]:
        return str(item["alias"])
    kind = item["class"]
    if kind == "COLUMN_REF":
        return str(item["column_names"][-1])
    if kind in ("FUNCTION", "WINDOW"):
        name = str(item["function_name"])
        return "?column?" if item.get("is_operator") else _CALLED.get(name, name)
    if kind in ("CAST", "COLLATE"):
        inner = _output_name(item["child"])
        return inner if inner != "?column?" or kind == "COLLATE" else _type_name(item)
    if kind == "CASE":
        return "case"
    if kind == "SUBQUERY" and item["subquery_type"] == "SCALAR":
        names = output_names(item["subquery"])
        return names[0] if names else "?column?"
    if kind == "OPERATOR" and item["type"] == "OPERATOR_COALESCE":
        return "coalesce"
    return "?column?"


def _type_name(item: Mapping[str, Any]) -> str:
    name = str(item["type_expr"].get("type_name", "")).lower()
    return {
        "integer": "int4",
        "bigint": "int8",
        "smallint": "int2",
        "varchar": "varchar",
        "double": "float8",
        "boolean": "bool",
    }.get(name, name or "?column?")


def _characters(text: str, position: str | None) -> int:
    """A byte offset as PostgreSQL counts positions."""
    if position is None or not position.isdecimal():
        return 0
    return len(text.encode()[: int(position)].decode(errors="ignore")) + 1
