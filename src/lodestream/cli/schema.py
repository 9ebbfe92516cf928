"""`lodestream schema`: JSON Schema of the declarations, for editors."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from lodestream.cli.call import Call

_DRAFT = "http://json-schema.org/draft-07/schema#"
_NAME = r"^(bronze|silver|gold)\\.[a-z][a-z0-9_]*$"
_DURATION = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[A-Za-z]+$", "examples": ["30 seconds", "1 hour", "90 days"]}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_MAPPING = {"type": "object", "additionalProperties": {"type": "string"}}


def schema(
    call: Call,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write it there, not to stdout.")] = None,
) -> None:
    """Print the JSON Schema of table files, with the settings of every installed source and format.

    In VS Code, with the YAML extension: `"yaml.schemas": {"lodestream.schema.json": "tables/**/*.yaml"}`.
    """
    text = json.dumps(table_schema(), indent=2, ensure_ascii=False)
    if out is None:
        call.print(text)
        return
    from lodestream.cli.output import open_output

    with open_output(out) as file:
        file.write(text.encode() + b"\n")
    call.say(f"schema written. file={out!r}")


def table_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a file `tables/<layer>/<name>.yaml`."""
    from lodestream.project.keys import KEYS

    definitions: dict[str, Any] = {}
    known = {
        "source": _components("sources", definitions),
        "format": _components("formats", definitions),
        **_PROPERTIES,
    }
    return {
        "$schema": _DRAFT,
        "title": "A Lodestream table",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: known.get(key, {}) for key in KEYS},
        "oneOf": [{"required": ["source"]}, {"required": ["from"]}, {"required": ["sql"]}],
        "definitions": definitions,
    }


def _components(room: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """`name` or `{name: settings}` for each installed component of a room."""
    from lodestream.ports import plugins
    from lodestream.project.components import component_class

    properties: dict[str, Any] = {}
    for name in plugins.names(room):
        component = component_class(room, name)
        if component is None:
            continue
        told = component.settings.model_json_schema(ref_template=f"#/definitions/{room}.{name}.{{model}}")
        for inner, definition in told.pop("$defs", {}).items():
            definitions[f"{room}.{name}.{inner}"] = definition
        told.setdefault("description", (component.__doc__ or "").strip().splitlines()[0])
        properties[name] = {"anyOf": [told, {"type": "null"}]}
    return {
        "description": f"One of the {room}, with its settings.",
        "anyOf": [
            {"type": "string", "enum": list(properties)},
            {"type": "object", "properties": properties, "additionalProperties": False, "maxProperties": 1,
             "minProperties": 1},
        ],
    }  # fmt: skip


def _described(text: str, shape: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, **shape}


_RULE = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "additionalProperties": False, "required": ["that"],
         "properties": {"that": {"type": "string"}, "else": {"enum": ["warn", "drop", "quarantine", "fail"]}}},
    ]
}  # fmt: skip
_LOOKUP = {
    "type": "object", "required": ["lookup"],
    "properties": {
        "lookup": {
            "type": "object", "required": ["table", "on", "columns"],
            "properties": {
                "table": {"type": "string"},
                "on": {"anyOf": [{"type": "string"}, _TEXTS, _MAPPING]},
                "columns": {"anyOf": [_TEXTS, _MAPPING]},
            },
        }
    },
}  # fmt: skip
_PROPERTIES: dict[str, Any] = {
    "comment": _described("What the table holds, for people.", {"type": "string"}),
    "columns": _described("Names and Spark SQL types.", {"anyOf": [{"type": "object"}, {"type": "array"}]}),
    "keep_raw": _described("Whether the bytes of each record are kept in `_raw`.", {"type": "boolean"}),
    "drift": _described(
        "What to do with a field or type that the columns do not have.",
        {"enum": ["add", "widen", "quarantine", "stop"]},
    ),
    "from": _described(
        "The table above: stream(layer.name).", {"type": "string", "examples": ["stream(bronze.orders)"]}
    ),
    "select": _described("Columns to keep.", _TEXTS),
    "derive": _described("Columns computed from the input row, in Spark SQL.", _MAPPING),
    "expect": _described("Rules that each row must meet.", {"type": "object", "additionalProperties": _RULE}),
    "event_time": _described(
        "The column that says when a row happened, and how late a row may come.",
        {
            "type": "object",
            "required": ["column", "delay"],
            "properties": {"column": {"type": "string"}, "delay": _DURATION},
        },
    ),
    "dedup": _described(
        "Rows with equal keys are one row.",
        {"type": "object", "required": ["keys"], "properties": {"keys": _TEXTS, "within": _DURATION}},
    ),
    "enrich": _described(
        "Columns looked up in other tables.", {"anyOf": [_LOOKUP, {"type": "array", "items": _LOOKUP}]}
    ),
    "python": _described(
        "module:function in functions/, from Arrow table to Arrow table.", {"type": ["string", "object"]}
    ),
    "window": _described(
        "Windows of event time.",
        {"type": "object", "required": ["every"], "properties": {"every": _DURATION, "slide": _DURATION}},
    ),
    "group_by": _described("Columns or named expressions.", {"anyOf": [_TEXTS, _MAPPING, {"type": "string"}]}),
    "measures": _described("Aggregates per window and group.", _MAPPING),
    "emit": _described("updates shows open windows, final only closed ones.", {"enum": ["updates", "final"]}),
    "sql": _described("A query over whole tables, refreshed when they change.", {"type": "string"}),
    "schedule": _described("When the query runs: @hourly, every 5 minutes, or cron.", {"type": "string"}),
    "partition_by": _described("Columns, or date(x), hour(x), month(x).", {"anyOf": [_TEXTS, {"type": "string"}]}),
    "retention": _described("How long rows are kept.", _DURATION),
    "engine": _described("Where the table may run.", {"enum": ["any", "embedded", "spark"]}),
}
