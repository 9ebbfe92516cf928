"""PostgreSQL's spellings that DuckDB has in another form: types, functions, formats of dates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lodestream.apis.postgres import tree, types
from lodestream.apis.postgres.failures import PgError

WORDS = frozenset({"current_user", "session_user", "user", "current_role", "current_catalog", "current_schema"})
"""Words that are functions without brackets."""

_TEXTS = frozenset(
    [
        "name",
        "text",
        "bpchar",
        "char",
        "cstring",
        "unknown",
        "xml",
        "citext",
        "inet",
        "cidr",
        "macaddr",
        "regproc",
        "regprocedure",
        "regoper",
    ]
)
_NUMBERS = frozenset(["oid", "xid", "cid", "regclass", "regtype", "regnamespace", "regrole", "regconfig"])
_LISTS = {"int2vector": "SMALLINT[]", "oidvector": "UINTEGER[]"}
_RENAMED = {
    "btrim": "trim", "every": "bool_and", "clock_timestamp": "now", "statement_timestamp": "now", "div": "//",
    "json_build_object": "json_object", "jsonb_build_object": "json_object", "json_build_array": "json_array",
    "jsonb_build_array": "json_array", "json_agg": "json_group_array", "jsonb_agg": "json_group_array",
    "to_jsonb": "to_json", "jsonb_array_length": "json_array_length", "json_typeof": "json_type",
    "jsonb_typeof": "json_type", "date_bin": "time_bucket", "log10": "log10", "textcat": "concat",
}  # fmt: skip

_FORMATS = (
    ("HH24", "%H"), ("HH12", "%I"), ("HH", "%I"), ("YYYY", "%Y"), ("IYYY", "%G"), ("YY", "%y"), ("MONTH", "%B"),
    ("Month", "%B"), ("month", "%B"), ("MON", "%b"), ("Mon", "%b"), ("mon", "%b"), ("MM", "%m"), ("MI", "%M"),
    ("MS", "%g"), ("US", "%f"), ("DAY", "%A"), ("Day", "%A"), ("day", "%A"), ("DDD", "%j"), ("DD", "%d"),
    ("DY", "%a"), ("Dy", "%a"), ("dy", "%a"), ("IW", "%V"), ("ID", "%u"), ("SS", "%S"), ("AM", "%p"), ("PM", "%p"),
    ("TZ", "%Z"),
)  # fmt: skip
_PATTERN = re.compile("|".join([r'"[^"]*"', *(name for name, _ in _FORMATS), "[A-Za-z]", "%", "."]), re.DOTALL)


def cast(item: dict[str, Any], oids: Mapping[str, Mapping[str, int]], looked_up: Callable[[str], None]) -> Any:
    """A cast to a type that DuckDB does not have, in another form; the item itself when it has it.

    Args:
        item: the CAST.
        oids: numbers of relations, types and schemas by the name of the type that stands for them.
        looked_up: told when a name is looked up in the catalogs at the time of the answer.
    """
    kind = item["type_expr"]
    name = str(kind.get("type_name", "")).lower()
    child = item["child"]
    if name == "list" and kind.get("children"):
        element = str(kind["children"][0].get("type_name", "")).lower()
        made = _element(element) or (element if kind["children"][0].get("schema") else None)
        return item if made is None else _to(item, f"{made}[]")
    if name in ("regclass", "regtype", "regnamespace"):
        return _registered(item, name, child, oids, looked_up)
    if name in ("regproc", "regprocedure", "regoper") and _literal(child) is not None:
        return tree.string(str(_literal(child)).rpartition(".")[2], item["alias"])
    if name == "oid" and _is_text(child):
        return _procedure(str(_literal(child)), item["alias"], oids)
    if name in _LISTS:
        return _to(item, _LISTS[name])
    if name in ("decimal", "numeric") and not kind.get("children"):
        return _to(item, "DECIMAL(38, 10)")
    made = _element(name)
    if made is None and kind.get("schema"):
        made = name
    return item if made is None else _to(item, made)


def _element(name: str) -> str | None:
    if name in _TEXTS:
        return "VARCHAR"
    if name in _NUMBERS:
        return "UINTEGER"
    return {"jsonb": "JSON", "money": "DECIMAL(19, 2)", "decimal": "DECIMAL(38, 10)", "numeric": "DECIMAL(38, 10)"}.get(
        name
    )


def _to(item: dict[str, Any], kind: str) -> dict[str, Any]:
    return item | {"type_expr": tree.expression(f"CAST(NULL AS {kind})")["type_expr"]}


_PROCEDURES = frozenset({"typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze"})


def comparison(item: dict[str, Any]) -> Any:
    """Columns of functions hold names here, and the one that is none is called `-`; the item itself for all else."""
    for side, other in (("left", "right"), ("right", "left")):
        column = item[side].get("column_names", [""])[-1].lower() if item[side].get("class") == "COLUMN_REF" else ""
        if column in _PROCEDURES and _literal(item[other]) == "0":
            return item | {other: tree.string("-")}
    return item


def parameter_casts(item: Any) -> Iterator[tuple[int, int]]:
    """Each parameter below that is cast at once, and the number of the type."""
    if isinstance(item, list):
        for each in item:
            yield from parameter_casts(each)
    elif isinstance(item, dict):
        child = item.get("child")
        if item.get("class") == "CAST" and isinstance(child, dict) and child.get("class") == "PARAMETER":
            kind = item["type_expr"]
            several = str(kind.get("type_name", "")).lower() == "list" and bool(kind.get("children"))
            name = str((kind["children"][0] if several else kind).get("type_name", ""))
            oid = types.TEXT.oid if name.startswith("reg") else types.oid_of(name + ("[]" if several else ""))
            if oid and child["identifier"].isdecimal():
                yield int(child["identifier"]), oid
            return
        for each in item.values():
            yield from parameter_casts(each)


def parameter_lists(item: Any) -> Iterator[tuple[int, str]]:
    """Each parameter below that stands in `column = ANY($1)`, and the name of the column."""
    if isinstance(item, list):
        for each in item:
            yield from parameter_lists(each)
    elif isinstance(item, dict):
        if item.get("class") == "SUBQUERY" and item["subquery_type"] == "ANY":
            column, items = item["child"], item["subquery"]["node"].get("select_list", ())
            if column and column.get("class") == "COLUMN_REF" and len(items) == 1:
                listed = [each["expression"] for each in items[0].get("arguments", ())]
                if listed and listed[0].get("class") == "PARAMETER" and listed[0]["identifier"].isdecimal():
                    yield int(listed[0]["identifier"]), str(column["column_names"][-1]).lower()
        for each in item.values():
            yield from parameter_lists(each)


def _registered(
    item: dict[str, Any], name: str, child: Any, oids: Mapping[str, Mapping[str, int]], looked_up: Callable[[str], None]
) -> Any:  # fmt: skip
    """`'gold.orders'::regclass` is a number; of a number it is the name, which is how clients show it."""
    text = _literal(child)
    if text is not None and not text.isdecimal():
        wanted = text.replace('"', "").strip().removeprefix("pg_catalog.")
        found = oids[name].get(wanted.lower())
        if found is None:
            code, what = ("42P01", "relation") if name == "regclass" else ("42704", name.removeprefix("reg"))
            raise PgError(code, f'{what} "{text}" does not exist')
        return tree.integer(found, item["alias"])
    if text is not None:
        return tree.integer(int(text), item["alias"])
    if child.get("class") == "CAST":
        return _to(item, "UINTEGER")
    call = dict(tree.expression(f"{'to_' + name if child.get('class') == 'PARAMETER' else name + '_name'}(1)"))
    looked_up(f"pg_catalog.{name}")
    call["arguments"] = [call["arguments"][0] | {"expression": child}]
    return call | {"alias": item["alias"]}


def _procedure(name: str, alias: str, oids: Mapping[str, Mapping[str, int]]) -> Any:
    """The number of a function; what is a number already stays one."""
    found = int(name) if name.strip().isdecimal() else oids["regproc"].get(name.lower())
    if found is None:
        raise PgError("42883", f'function "{name}" does not exist')
    return tree.integer(found, alias)


def _is_text(item: Any) -> bool:
    literal = item.get("literal") if isinstance(item, dict) else None
    return literal is not None and literal.get("kind") == "STRING"


def function(name: str, item: dict[str, Any], arguments: Sequence[Any]) -> Any:
    """A call of a function that DuckDB has in another form; None when it needs no other."""
    if name in _RENAMED:
        return _renamed(item, _RENAMED[name])
    if name == "to_char" and len(arguments) == 2:
        return _renamed(item, "strftime") | {"arguments": _formatted(item)}
    if name in ("to_date", "to_timestamp") and len(arguments) == 2:
        made = _renamed(item, "strptime") | {"arguments": _formatted(item), "alias": ""}
        return _wrapped("DATE", made, item) if name == "to_date" else made | {"alias": item["alias"] or name}
    if item.get("is_operator") and name in ("~", "~*", "!~", "!~*"):
        made = _renamed(item, "regexp_matches") | {"is_operator": False, "alias": ""}
        if name.endswith("*"):
            made["arguments"] = [*made["arguments"], {"name": "", "expression": tree.string("i")}]
        if name.startswith("!"):
            made = dict(tree.expression("NOT true")) | {"children": [made]}
        return made | {"alias": item["alias"]}
    if item.get("is_operator") and item.get("schema"):
        return item | {"schema": "", "qualified_name": {"path": [item["function_name"]]}}
    return None


def _renamed(item: dict[str, Any], name: str) -> dict[str, Any]:
    made = item | {
        "function_name": name,
        "qualified_name": {"path": [name]},
        "alias": item["alias"] or item["function_name"],
    }
    return made | {"is_operator": True} if name == "//" else made


def _wrapped(kind: str, inner: Any, item: Mapping[str, Any]) -> dict[str, Any]:
    return dict(tree.expression(f"CAST(NULL AS {kind})")) | {
        "child": inner,
        "alias": item["alias"] or item["function_name"],
    }


def _formatted(item: Mapping[str, Any]) -> list[Any]:
    """The arguments with PostgreSQL's format of dates in C's letters."""
    first, second = item["arguments"]
    text = _literal(second["expression"])
    if text is None:
        raise PgError("0A000", f"{item['function_name']} takes its format as it is written")
    return [first, second | {"expression": tree.string(c_format(text))}]


def c_format(text: str) -> str:
    """A format of `to_char` in the letters of `strftime`. Raises PgError for a part that has none."""
    letters = dict(_FORMATS)
    made = []
    for part in _PATTERN.findall(text.replace("FM", "").replace("TH", "").replace("th", "")):
        if part in letters or part.upper() in letters:
            made.append(letters.get(part, letters.get(part.upper(), "")))
        elif part.startswith('"'):
            made.append(part[1:-1].replace("%", "%%"))
        elif part == "%":
            made.append("%%")
        elif part == "T" or not part.isalpha():
            made.append(part)
        else:
            raise PgError("0A000", f'this part of a date format is not known: "{part}"', hint="Use strftime.")
    return "".join(made)


def _literal(item: Any) -> str | None:
    """The text of a constant."""
    literal = item.get("literal") if isinstance(item, dict) else None
    return (
        str(literal["text"]) if literal and "text" in literal and literal.get("kind") in ("STRING", "INTEGER") else None
    )
