"""What is made of a question before it is asked: names get their layers, PostgreSQL's spellings get DuckDB's.

A question about the system catalogs is told apart from one about the lake: the first is answered from tables that list
what the asker may see, the second by the lake itself.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lodestream.apis.postgres import spellings, tree
from lodestream.apis.postgres.failures import PgError
from lodestream.query.functions import TABLE_FUNCTIONS

PG_CATALOG, INFORMATION = "pg_catalog", "information_schema"
SERIES = "_series"
"""What `generate_series` is called where the catalogs answer."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A question, ready to be asked.

    Attributes:
        text: DuckDB SQL.
        catalog: whether it concerns the system catalogs.
        parameters: numbers of the parameters it takes, in the order of `$1`, `$2`, … of `text`.
        declared: how many parameters the client's text has.
        names: what its columns are called; None leaves that to DuckDB.
        settings: what it sets by `set_config`.
        casts: each parameter that is cast, and the number of the type it is cast to.
        lists: each parameter that stands in `column = ANY($1)`, and the column.
        numbered: whether it joins the functions of `pg_type` by number.
    """

    text: str
    catalog: bool
    parameters: tuple[int, ...]
    declared: int
    names: tuple[str, ...] | None
    settings: tuple[tuple[str, str], ...] = ()
    casts: tuple[tuple[int, int], ...] = ()
    lists: tuple[tuple[int, str], ...] = ()
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a question may refer to.

    Attributes:
        tables: `layer.name` of each table that the asker may know of.
        search_path: layers that tables without one are looked for in.
        relations: names of the system catalogs' relations, `pg_catalog.pg_class` and such.
        functions: functions that only the catalogs have.
        oids: numbers of tables, `layer.name`, and of types.
        values: what functions without arguments and words such as `current_user` stand for.
        variables: settings of the session by name, in lower case.
    """

    tables: tuple[str, ...]
    search_path: tuple[str, ...]
    relations: Mapping[str, str]
    functions: frozenset[str]
    oids: Mapping[str, Mapping[str, int]]
    values: Mapping[str, str | int | bool | None]
    variables: Mapping[str, str]


def plan(text: str, around: Surroundings) -> Planned:
    """Make a question ready. Raises PgError when it cannot be read or names what is not there."""
    found = tree.parse(text)
    named = tree.output_names(found)
    changed = copy.deepcopy(dict(found))
    pass_ = _Pass(around, text)
    try:
        changed["node"] = pass_.walk(changed["node"], frozenset())
    except RecursionError:
        raise PgError("54001", "statement is nested too deeply") from None
    if pass_.catalog:
        pass_.unbounded()
    if pass_.lake and pass_.catalog:
        raise PgError(
            "0A000", "one question reads either the lake or the system catalogs",
            detail=f"{min(pass_.lake)} is in the lake, {min(pass_.catalog)} is a catalog.",
        )  # fmt: skip
    declared = max(
        (int(one["identifier"]) for one in tree.parameters(found) if one["identifier"].isdecimal()), default=0
    )
    left = sorted({int(one["identifier"]) for one in tree.parameters(changed) if one["identifier"].isdecimal()})
    if left != list(range(1, declared + 1)):
        for one in tree.parameters(changed):
            one["identifier"] = str(left.index(int(one["identifier"])) + 1)
        changed["named_param_map"] = [{"key": str(n), "value": n} for n in range(1, len(left) + 1)]
        pass_.rewritten = True
    if pass_.rewritten:
        text = tree.write(changed)
    elif pass_.insertions:
        text = _inserted(text, pass_.insertions)
    casts = tuple(spellings.parameter_casts(found["node"]))
    numbered = f"{PG_CATALOG}.pg_proc" in pass_.catalog
    return Planned(
        text, bool(pass_.catalog), tuple(left), declared, named, tuple(pass_.settings), casts,
        tuple(spellings.parameter_lists(found["node"])), numbered,
    )  # fmt: skip


def _inserted(text: str, insertions: Sequence[tuple[int, str]]) -> str:
    data = text.encode()
    for place, layer in sorted(insertions, reverse=True):
        data = data[:place] + f"{layer}.".encode() + data[place:]
    return data.decode()


class _Pass:
    """One walk over a tree, from the leaves up."""

    def __init__(self, around: Surroundings, text: str) -> None:
        self._around, self._text = around, text
        self.rewritten = False
        self.insertions: list[tuple[int, str]] = []
        self.lake: set[str] = set()
        self.catalog: set[str] = set()
        self.settings: list[tuple[str, str]] = []
        self._series: list[dict[str, Any]] = []

    def walk(self, item: Any, known: frozenset[str]) -> Any:
        """The item as it should be; `known` are names that WITH has given so far."""
        if isinstance(item, list):
            return [self.walk(each, known) for each in item]
        if not isinstance(item, dict):
            return item
        if "cte_map" in item:
            known = self._common(item["cte_map"]["map"], known)
        for key, value in item.items():
            if key != "cte_map" and isinstance(value, dict | list):
                item[key] = self.walk(value, known)
        if item.get("type") == "BASE_TABLE":
            return self._table(item, known)
        if item.get("type") == "TABLE_FUNCTION":
            return self._after_from(item)
        if "null_order" in item and "expression" in item:
            return self._order(item)
        kind = item.get("class")
        if kind == "COLUMN_REF":
            return self._column(item)
        if kind in ("FUNCTION", "WINDOW"):
            return self._function(item)
        if kind == "CAST":
            return self._changed(item, spellings.cast(item, self._around.oids, self._catalog_name))
        if kind == "COMPARISON":
            return self._changed(item, spellings.comparison(item))
        if kind == "COLLATE":
            return self._changed(item, item["child"] | {"alias": item["alias"]})
        return item

    def unbounded(self) -> None:
        """Let the catalogs count up to what they hold: the lake's questions give such bounds as they are written."""
        for item in self._series:
            item["function_name"] = SERIES
            item["qualified_name"] = {"path": [SERIES]}
            self.rewritten = True

    def _changed(self, before: Any, after: Any) -> Any:
        if after is not before:
            self.rewritten = True
        return after

    def _common(self, entries: list[dict[str, Any]], known: frozenset[str]) -> frozenset[str]:
        for entry in entries:
            name = entry["key"].lower()
            node = entry["value"]
            recursive = node.get("query_node", node.get("query", {})).get("type") == "RECURSIVE_CTE_NODE"
            entry["value"] = self.walk(node, known | {name} if recursive else known)
            known |= {name}
        return known

    def _table(self, item: dict[str, Any], known: frozenset[str]) -> Any:
        schema, name = item["schema_name"].lower(), item["table_name"].lower()
        if item["catalog_name"]:
            if schema in (PG_CATALOG, INFORMATION):
                item["catalog_name"] = ""
            else:
                self.lake.add(f"{schema}.{name}")
                return item
        if not schema and name in known:
            return item
        if schema in (PG_CATALOG, INFORMATION):
            return self._catalog_table(item, f"{schema}.{name}")
        if schema:
            self.lake.add(f"{schema}.{name}")
            return item
        return self._unqualified(item, name)

    def _unqualified(self, item: dict[str, Any], name: str) -> Any:
        path = [layer for layer in self._around.search_path if f"{layer}.{name}" in self._around.tables]
        if len(path) > 1:
            written = ", ".join(f"{layer}.{name}" for layer in path)
            raise PgError(
                "42P09", f'table reference "{name}" is ambiguous: {written}', position=self._position(item),
                hint="Write the layer, or choose one with SET search_path.",
            )  # fmt: skip
        if path:
            self.lake.add(f"{path[0]}.{name}")
            self.insertions.append((item["query_location"], path[0]))
            item["schema_name"] = path[0]
            item["qualified_name"] = {"path": [path[0], item["table_name"]]}
            item["alias"] = item["alias"] or item["table_name"]
            return item
        if f"{PG_CATALOG}.{name}" in self._around.relations:
            return self._catalog_table(item, f"{PG_CATALOG}.{name}")
        near = difflib.get_close_matches(name, [table.partition(".")[2] for table in self._around.tables], 1)
        hint = f'Perhaps you meant "{near[0]}".' if near else ""
        raise PgError(
            "42P01", f'relation "{item["table_name"]}" does not exist', hint=hint, position=self._position(item)
        )

    def _catalog_table(self, item: dict[str, Any], full: str) -> Any:
        stands = self._around.relations.get(full)
        if stands is None:
            raise PgError("42P01", f'relation "{full}" does not exist', position=self._position(item))
        self.catalog.add(full)
        self.rewritten = True
        item["alias"] = item["alias"] or item["table_name"]
        item["schema_name"] = ""
        item["table_name"] = stands
        item["qualified_name"] = {"path": [stands]}
        return item

    def _catalog_name(self, name: str) -> None:
        """A spelling stands for a lookup in the catalogs."""
        self.catalog.add(name)

    def _column(self, item: dict[str, Any]) -> Any:
        names = item["column_names"]
        if len(names) == 1 and (word := names[0].lower()) in spellings.WORDS and word in self._around.values:
            return self._changed(item, self._constant(self._around.values[word], item["alias"] or word))
        if names[-1].lower() == "tableoid":  # every row of PostgreSQL has one; here it says nothing
            return self._changed(item, tree.integer(0, item["alias"] or "tableoid"))
        if len(names) >= 3 and names[-3].lower() in (PG_CATALOG, INFORMATION):
            item["column_names"] = names[-2:]
            self.rewritten = True
        return item

    def _after_from(self, item: dict[str, Any]) -> Any:
        """In `FROM generate_series(1, 3) s` the column, too, is called `s`."""
        called = item["function"]
        single = called["function_name"].lower() in ("generate_series", "range", SERIES) or (
            called["function_name"].lower() == "unnest" and len(called["arguments"]) == 1
        )
        name = called["function_name"].lower()
        if not single and name not in TABLE_FUNCTIONS and name not in self._around.functions:
            self.rewritten = True
            return tree.one_row(called, item["alias"] or name)
        if single and item["alias"] and not item["column_name_alias"]:
            item["column_name_alias"] = [item["alias"]]
            self.rewritten = True
        return item

    def _function(self, item: dict[str, Any]) -> Any:
        schema, name = (item.get("schema") or "").lower(), item["function_name"].lower()
        if schema in (PG_CATALOG, INFORMATION):
            item["schema"] = ""
            item["qualified_name"] = {"path": [item["function_name"]]}
            self.rewritten = True
        elif schema:
            return item
        arguments = [each["expression"] for each in item.get("arguments", ())]
        if name in self._around.values and not arguments:
            return self._changed(item, self._constant(self._around.values[name], item["alias"] or name))
        if name == "current_schemas" and item["class"] == "FUNCTION":
            return self._changed(item, self._schemas(arguments, item["alias"] or name))
        if name in ("current_setting", "set_config"):
            return self._changed(item, self._setting(name, item, arguments, item["alias"] or name))
        if (made := spellings.function(name, item, arguments)) is not None:
            return self._changed(item, made)
        if name in ("generate_series", "range"):
            self._series.append(item)
        if name in self._around.functions:
            self.catalog.add(f"{PG_CATALOG}.{name}")
        return item

    def _schemas(self, arguments: Sequence[Any], alias: str) -> Any:
        implicit = bool(arguments) and "true" in str(arguments[0]).lower()
        names = [*([PG_CATALOG] if implicit else []), *self._around.search_path]
        return dict(tree.expression("[" + ", ".join(f"'{name.replace(chr(39), '')}'" for name in names) + "]")) | {
            "alias": alias
        }

    def _setting(self, name: str, item: Any, arguments: Sequence[Any], alias: str) -> Any:
        values = [each.get("literal", {}).get("text") for each in arguments]
        if name == "current_setting" and values and values[0] is None:
            self.catalog.add(f"{PG_CATALOG}.pg_settings")
            return item | {"function_name": "_setting", "qualified_name": {"path": ["_setting"]}, "alias": alias}
        if not values or values[0] is None:
            raise PgError("0A000", f"{name} takes the name of a setting as it is written")
        if name == "current_setting":
            found = self._around.variables.get(values[0].lower())
            if found is None and len(values) < 2:
                raise PgError("42704", f'unrecognized configuration parameter "{values[0]}"')
            return tree.string(found, alias)
        if len(values) < 2 or values[1] is None:
            raise PgError("0A000", "set_config takes a value as it is written")
        self.settings.append((values[0], values[1]))
        return tree.string(values[1], alias)

    def _order(self, item: dict[str, Any]) -> Any:
        """PostgreSQL sorts nulls as the largest values, DuckDB always last."""
        if item.get("type") in ("DESCENDING", "ORDER_DESCENDING") and item["null_order"] == "ORDER_DEFAULT":
            item["null_order"] = "NULLS FIRST"
            self.rewritten = True
        return item

    def _constant(self, value: str | int | bool | None, alias: str) -> Any:
        if isinstance(value, bool):
            return dict(tree.expression("true" if value else "false")) | {"alias": alias}
        return tree.integer(value, alias) if isinstance(value, int) else tree.string(value, alias)

    def _position(self, item: Mapping[str, Any]) -> int:
        place = item.get("query_location")
        data = self._text.encode()
        return len(data[:place].decode(errors="ignore")) + 1 if isinstance(place, int) and place <= len(data) else 0
