"""`lodestream schema`: JSON Schema of the declarations, for editors; `check` says what a changed schema breaks."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import FAILED, Call, verb

if TYPE_CHECKING:
    from lodestream.operations.contracts import Changed, Finding

_DRAFT = "http://json-schema.org/draft-07/schema#"
_NAME = r"^(bronze|silver|gold)\\.[a-z][a-z0-9_]*$"
_DURATION = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[A-Za-z]+$", "examples": ["30 seconds", "1 hour", "90 days"]}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_MAPPING = {"type": "object", "additionalProperties": {"type": "string"}}


def schema(
    call: Call,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write it there, not to stdout.")] = None,
) -> None:
    """Print the JSON Schema of table files, with the settings of every installed source, format and sink.

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


def check(
    call: Call,
    schemas: Annotated[
        list[str] | None, typer.Argument(metavar="[SUBJECT=]FILE", help="Changed schemas; default: all in schemas/.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option("--registry", metavar="NAME|URL", help="Ask this registry whether its rule refuses.")
    ] = None,
) -> None:
    """Say before deployment what changed schemas (.avsc, .json, .proto) would break; ends with 1 if anything.

    A schema belongs to the bronze tables whose format names its file or subject, or whose topic its file is named
    after (`schemas/orders.avsc`, `schemas/orders-value.avsc`). Columns that vanish, types that no longer decode, and
    expressions of tables downstream that would not compile are told, with file and line. A registry's rule is asked
    where a table's format names the registry, and with --registry always.
    """
    from lodestream.engines.embedded.frames import describe
    from lodestream.operations.contracts import Contracts, schema_files

    app = call.app()
    existing = {name: table.schema for name, table in app.deployed.items()}
    contracts = Contracts(app.project, app.flows, existing, app.registry, registry, describe)
    chosen = [_changed(text) for text in schemas or []] or schema_files(app.project.root)
    found: list[tuple[Changed, list[Finding]]] = [(one, contracts.check(one)) for one in chosen]
    bad = any(finding.breaks for _, findings in found for finding in findings)
    if call.json:
        told = [_told(finding) for _, findings in found for finding in findings]
        call.emit({"ok": not bad, "schemas": [one.file for one in chosen], "findings": told})
    else:
        for one, findings in found:
            _show(call, one, findings)
        if not chosen:
            call.say("no schemas: name files, or put them into schemas/")
    if bad:
        raise typer.Exit(FAILED)


def _changed(text: str) -> Changed:
    from lodestream.operations.contracts import Changed

    subject, equals, file = text.rpartition("=")
    return Changed(file, subject if equals else None)


def _told(finding: Finding) -> dict[str, Any]:
    return {
        "breaks": finding.breaks, "what": finding.what, "schema": finding.schema, "text": finding.text,
        "table": None if finding.table is None else str(finding.table), "column": finding.column,
        "file": finding.file, "line": finding.line,
    }  # fmt: skip


def _show(call: Call, changed: Changed, findings: list[Finding]) -> None:
    from lodestream.cli.output import safe

    if not findings:
        call.print(f"{changed.file}: breaks nothing")
        return
    call.print(f"{changed.file}:")
    for one in findings:
        mark = "BAD " if one.breaks else "note"
        where = ".".join(filter(None, [None if one.table is None else str(one.table), one.column]))
        at = f" ({one.file}:{one.line})" if one.file is not None else ""
        call.print(f"    {mark}  {one.what}: {f'{where}: ' if where else ''}{safe(one.text)}{at}")


def table_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a file `tables/<layer>/<name>.yaml`."""
    from lodestream.project.keys import KEYS

    definitions: dict[str, Any] = {}
    known = {
        "source": _components("sources", definitions),
        "format": _components("formats", definitions),
        "sink": _one_or_more(_components("sinks", definitions)),
        "enrich": _enrich(definitions),
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


def _settings(room: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The settings of each installed component of a room, by its name."""
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
    return properties


def _components(room: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """`name` or `{name: settings}` for each installed component of a room."""
    properties = _settings(room, definitions)
    return {
        "description": f"One of the {room}, with its settings.",
        "anyOf": [
            {"type": "string", "enum": list(properties)},
            {"type": "object", "properties": properties, "additionalProperties": False, "maxProperties": 1,
             "minProperties": 1},
        ],
    }  # fmt: skip


def _enrich(definitions: dict[str, Any]) -> dict[str, Any]:
    """Lookups and enrichers by name, in one block or a list of them."""
    parts = {"lookup": _LOOKUP, **_settings("enrichers", definitions)}
    one = {"type": "object", "properties": parts, "additionalProperties": False, "minProperties": 1}
    text = "Columns looked up in other tables, computed from the row, or asked from a service."
    return _described(text, {"anyOf": [one, {"type": "array", "items": one}]})


def _one_or_more(component: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": "Where the table is published to: one sink, or a list of them.",
        "anyOf": [component, {"type": "array", "items": component}],
    }


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
    "type": "object", "required": ["table", "on", "columns"],
    "properties": {
        "table": {"type": "string"},
        "on": {"anyOf": [{"type": "string"}, _TEXTS, _MAPPING]},
        "columns": {"anyOf": [_TEXTS, _MAPPING]},
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
    "join": _described(
        "New rows of another stream that have the same key, within a time of each other.",
        {
            "type": "object",
            "required": ["from", "on", "event_time", "within", "columns"],
            "properties": {
                "from": {"type": "string"},
                "kind": {"enum": ["inner", "left"]},
                "on": {"anyOf": [{"type": "string"}, _TEXTS, _MAPPING]},
                "event_time": {"type": "object"},
                "within": {"type": "object"},
                "columns": {"anyOf": [_TEXTS, _MAPPING]},
            },
        },
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
    "changes": _described(
        "Keep the table up to date from change events: type 1 one row per key, type 2 its history.",
        {"type": "object", "required": ["keys", "sequence_by"]},
    ),
    "sql": _described("A query over whole tables, refreshed when they change.", {"type": "string"}),
    "schedule": _described("When the query runs: @hourly, every 5 minutes, or cron.", {"type": "string"}),
    "partition_by": _described("Columns, or date(x), hour(x), month(x).", {"anyOf": [_TEXTS, {"type": "string"}]}),
    "skip_silver": _described("This gold table reads bronze on purpose.", {"type": "boolean"}),
    "retention": _described("How long rows are kept.", _DURATION),
    "engine": _described("Where the table may run.", {"enum": ["any", "embedded", "spark"]}),
}


def _alone(command: Callable[..., None]) -> Callable[..., None]:
    """A verb that runs when no other word follows it."""

    @functools.wraps(command)
    def callback(*, context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is None:
            command(context=context, **given)

    return callback


app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.callback()(_alone(verb(schema)))
app.command("check")(verb(check))
