"""The JSON Schema of `lodestream.yaml`, `policies.yaml` and table files, for completion and checking in editors."""

from __future__ import annotations

from typing import Any, get_args

from lodestream.errors import ConfigError
from lodestream.model.table import Drift, Late, OnFail
from lodestream.ports import plugins
from lodestream.ports.settings import Settings
from lodestream.project.config import SERVER_KEYS
from lodestream.project.deploying import DatabricksSettings
from lodestream.project.joins import KINDS as JOIN_KINDS
from lodestream.project.keys import KEYS
from lodestream.project.lakes import StoreSettings
from lodestream.project.maintain import KEYS as MAINTAIN_KEYS
from lodestream.project.maintain import SIZE
from lodestream.project.policy_schema import policies_schema
from lodestream.project.tables import ENGINES

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NAME = r"^(bronze|silver|gold)\.[a-z][a-z0-9_]*$"
_BYTES = r"^[0-9]+(\.[0-9]+)? ?[KMGT]i?B$"
_DURATION = r"^[0-9]+(\.[0-9]+)? ?(ms|milliseconds?|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?|years?)$"
_PARTITION = r"^((date|hour|month|year)\( *[^()]+ *\)|[^()]+)$"


def json_schema() -> dict[str, Any]:
    """One schema with three definitions.

    Returns:
        A JSON Schema (draft 2020-12) whose `$defs` are `project` (for `lodestream.yaml`), `policies` (for
        `policies.yaml`) and `table` (for `tables/<layer>/<name>.yaml`); the schema itself takes any of them.
    """
    return {
        "$schema": _DRAFT,
        "title": "Lodestream declaration",
        "anyOf": [{"$ref": "#/$defs/table"}, {"$ref": "#/$defs/project"}, {"$ref": "#/$defs/policies"}],
        "$defs": {"project": _project(), "policies": policies_schema(), "table": _table(), **_shared()},
    }


def table_schema() -> dict[str, Any]:
    """The schema of `tables/<layer>/<name>.yaml` alone."""
    return {"$schema": _DRAFT, "title": "A Lodestream table", **_table(), "$defs": _shared()}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _ref(name: str, description: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", "description": description}


def _block(properties: dict[str, Any], description: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    block["description"] = description
    if required:
        block["required"] = list(required)
    return block


def _shared() -> dict[str, Any]:
    return {
        "duration": {"type": "string", "pattern": _DURATION, "examples": ["30 seconds", "500 ms", "90 days"]},
        "expression": {"type": ["string", "number", "boolean"], "description": "A Spark SQL expression."},
        "names": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "pairs": {
            "anyOf": [
                {"type": "string"},
                {"$ref": "#/$defs/names"},
                {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
            ]
        },
        "expressions": {"type": "object", "additionalProperties": {"$ref": "#/$defs/expression"}},
    }


def _project() -> dict[str, Any]:
    place = _text("Folder or URL of the lake; relative to this file's folder.", default="lake")
    store = _inlined_settings(StoreSettings)
    store = {**store, "properties": {"url": place, **store["properties"]}, "required": ["url"]}
    lake = {"anyOf": [place, store], "description": "Where the lake is, and what it takes to use its store."}
    port = {"type": "integer", "minimum": 0, "maximum": 65_535}
    whole = {"type": "integer", "minimum": 1}
    server = {key: port if key != "host" else {"type": "string"} for key in SERVER_KEYS}
    batch = {
        "rows_max": {**whole, "description": "Most rows of one batch."},
        "bytes_max": {**whole, "description": "Most bytes read for one batch."},
        "interval": _ref("duration", "Time between two looks for new input."),
    }
    memory = _text("Most that all flows of a process hold in memory, such as 4 GiB.", pattern=_BYTES)
    environments = {"type": "object", "additionalProperties": _block({"lake": lake}, "What differs here.")}
    properties = {
        "project": _text("Name of the project."),
        "lake": lake,
        "environments": {**environments, "description": "Other lakes for the same tables, by name."},
        "stores": {
            "type": "object",
            "additionalProperties": {"anyOf": [place, store]},
            "description": "Places for backups and replicas of the lake, by name.",
        },
        "batch": _block(batch, "Bounds of one batch."),
        "state": _block({"memory": memory}, "Where the state of flows lies."),
        "server": _block(server, "Where the server listens."),
        "deploy": _block({"databricks": _inlined_settings(DatabricksSettings)}, "How it runs elsewhere."),
        "catalog": _block(
            {"url": _text("PostgreSQL database of the catalog.")}, "Where the catalog is kept.", ("url",)
        ),
    }
    return _block(properties, "The project.", ("project",))


def _table() -> dict[str, Any]:
    properties = {
        "comment": _text("What the table is for."),
        "source": _component("sources", "Where records come from."),
        "format": _component("formats", "How a record is written."),
        "sink": _sink(),
        "columns": _columns(),
        "keep_raw": {"type": "boolean", "description": "Keep each record's bytes in `_raw`."},
        "skip_silver": {"type": "boolean", "description": "This gold table reads bronze on purpose."},
        "drift": {"enum": list(get_args(Drift)), "description": "What to do with fields that no column takes."},
        "from": _text(
            "The table above, as a stream.", pattern=r"^stream\( *(bronze|silver|gold)\.[a-z][a-z0-9_]* *\)$"
        ),
        "join": _join(),
        "python": _text("A function `(pyarrow.Table) -> pyarrow.Table`, module:function.", pattern=r"^[\w.]+:\w+$"),
        "select": _ref("names", "Columns to keep."),
        "derive": _ref("expressions", "Columns computed from the input row."),
        "expect": _expect(),
        "event_time": _block(
            {"column": {"type": "string"}, "delay": _ref("duration", "How far a row may lag the newest one.")},
            "The column that orders rows.",
            ("column", "delay"),
        ),
        "dedup": _block(
            {"keys": {"$ref": "#/$defs/names"}, "within": _ref("duration", "Time within which repeats are dropped.")},
            "Rows with equal keys are one row.",
            ("keys",),
        ),
        "enrich": _enrich(),
        "window": _window(),
        "group_by": {"anyOf": [{"$ref": "#/$defs/names"}, {"$ref": "#/$defs/expressions"}]},
        "measures": _ref("expressions", "Aggregates of each window and group."),
        "emit": {"enum": ["updates", "final"], "description": "Every change of a window, or closed windows only."},
        "late": {"enum": list(get_args(Late)), "description": "Set a late row aside, or correct its closed window."},
        "completeness": {
            "type": "boolean",
            "description": "Say of each window whether it is final and what it covers.",
        },
        "changes": _changes(),
        "sql": _text("A query that makes the whole table."),
        "schedule": _text("When to refresh: @hourly, 'every 5 minutes', or five cron fields in UTC."),
        "partition_by": {"type": "array", "items": {"type": "string", "pattern": _PARTITION}, "uniqueItems": True},
        "retention": {
            "anyOf": [{"$ref": "#/$defs/duration"}, {"enum": ["forever"]}],
            "description": "How long rows are kept.",
        },
        "maintain": _maintain(),
        "engine": {"enum": list(ENGINES), "description": "`embedded` admits functions that Spark lacks."},
    }
    assert set(properties) == set(KEYS)
    table = _block(properties, "One table.")
    table["oneOf"] = [{"required": [key]} for key in ("source", "from", "sql")]
    return table


def _maintain() -> dict[str, Any]:
    size = _text("Files of this size are left alone.", pattern=f"^{SIZE.pattern}$", default="64 MB")
    whole = {"type": "integer", "minimum": 1, "default": 100, "description": "Commits between two checkpoints."}
    parts = {
        "checkpoint_interval": whole,
        "log_retention": _ref("duration", "Age under which a log entry stays."),
        "compact": {"type": "boolean", "default": True, "description": "Put small files together."},
        "target_file_size": size,
        "z_order": _ref("names", "Columns along whose Z-curve compacted rows lie."),
        "deleted_file_retention": _ref("duration", "How long a file stays that no version has any more."),
        "quarantine_retention": {
            "anyOf": [{"$ref": "#/$defs/duration"}, {"enum": ["forever"]}],
            "description": "How long entries of the quarantine are kept; as long as the rows when nothing is said.",
        },
    }
    assert tuple(parts) == MAINTAIN_KEYS
    return _block(parts, "What is done beside the writer.")


def _window() -> dict[str, Any]:
    parts = {
        "every": _ref("duration", "Length of a window."),
        "slide": _ref("duration", "Time between two starts."),
        "gap": _ref("duration", "A session ends this long after its last row."),
    }
    block = _block(parts, "Event-time windows: of one length with `every`, sessions with `gap`.")
    forbidden = {"anyOf": [{"required": ["every"]}, {"required": ["slide"]}]}
    block["oneOf"] = [{"required": ["every"]}, {"required": ["gap"], "not": forbidden}]
    return block


def _columns() -> dict[str, Any]:
    details = {
        "type": {"type": "string"},
        "nullable": {"type": "boolean"},
        "comment": {"type": "string"},
        "renamed_from": {"type": "string"},
    }
    detailed = _block(details, "A column.", ("type",))
    listed = _block({"name": {"type": "string"}, **details}, "A column.", ("name", "type"))
    by_name = {"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, detailed]}, "minProperties": 1}
    return {"anyOf": [by_name, {"type": "array", "items": listed, "minItems": 1}], "description": "Spark SQL types."}


def _changes() -> dict[str, Any]:
    columns = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/names"}]}
    parts = {
        "keys": _ref("names", "Columns that say what changed."),
        "sequence_by": {**columns, "description": "Columns that order the changes of a key."},
        "delete_when": _ref("expression", "Which changes delete."),
        "type": {"enum": [1, 2], "description": "1 keeps one row per key, 2 its history."},
    }
    return _block(parts, "Keep the table up to date from change events.", ("keys", "sequence_by"))


def _expect() -> dict[str, Any]:
    rule = _block(
        {"that": {"$ref": "#/$defs/expression"}, "else": {"enum": list(get_args(OnFail))}}, "A rule.", ("that",)
    )
    either = {"anyOf": [{"$ref": "#/$defs/expression"}, rule]}
    return {"type": "object", "additionalProperties": either, "description": "Rules that each row must meet."}


def _enrich() -> dict[str, Any]:
    parts = {
        "table": {"type": "string", "pattern": _NAME},
        "on": _ref("pairs", "Key columns; {here: there} when they are named differently."),
        "columns": _ref("pairs", "Columns to add; {there: here} to rename them."),
        "as_of": _text("The column that says at which moment, for a table with history."),
    }
    lookup = _block(parts, "A left join to a table with a unique key.", ("table", "on", "columns"))
    others = {name: _settings("enrichers", name) for name in plugins.names("enrichers")}
    one = _block({"lookup": {"anyOf": [lookup, {"type": "array", "items": lookup}]}, **others}, "Enrichers by name.")
    one["minProperties"] = 1
    return {
        "anyOf": [one, {"type": "array", "items": one}],
        "description": "Columns from other tables, computed from the row, or asked from a service.",
    }


def _join() -> dict[str, Any]:
    zero = "Least and greatest distance of a partner in event time."
    parts = {
        "from": _text("The other stream.", pattern=r"^stream\( *(bronze|silver|gold)\.[a-z][a-z0-9_]* *\)$"),
        "kind": {"enum": list(JOIN_KINDS), "description": "`left` keeps rows that meet nobody.", "default": "inner"},
        "on": _ref("pairs", "Key columns; {here: there} when they are named differently."),
        "event_time": _block(
            {"column": {"type": "string"}, "delay": _ref("duration", "How far a row may lag the newest one.")},
            "The event time of the other stream.", ("column", "delay"),
        ),
        "within": _block(
            {"before": _ref("duration", "A partner may be this much earlier."),
             "after": _ref("duration", "A partner may be this much later.")}, zero,
        ),
        "columns": _ref("pairs", "Columns to add; {there: here} to rename them."),
    }  # fmt: skip
    needed = ("from", "on", "event_time", "within", "columns")
    return _block(parts, "A join with the new rows of another table, by key and distance in event time.", needed)


def _sink() -> dict[str, Any]:
    """One sink, or a list of them."""
    description = "Where the table is published to: one, or a list."
    one = _component("sinks", description)
    return {"description": description, "anyOf": [one, {"type": "array", "items": one}]}


def _component(room: str, description: str) -> dict[str, Any]:
    """Any installed component by name, with the settings of each; anything goes while none is installed."""
    names = plugins.names(room)
    if not names:
        return {"type": ["string", "object"], "description": description}
    settings = {name: _settings(room, name) for name in names}
    block = {
        "type": "object", "additionalProperties": False, "properties": settings,
        "minProperties": 1, "maxProperties": 1,
    }  # fmt: skip
    return {"anyOf": [{"enum": names}, block], "description": description}


def _settings(room: str, name: str) -> dict[str, Any]:
    try:
        return _inlined_settings(plugins.load(room, name).settings)
    except ConfigError:  # its package is not installed
        return {"type": ["object", "null"]}


def _inlined_settings(settings: type[Settings]) -> dict[str, Any]:
    told = settings.model_json_schema()
    inlined: dict[str, Any] = _inlined(told, told.pop("$defs", {}))
    return inlined


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its own definitions in place, since they cannot be referred to from inside another schema."""
    if isinstance(value, dict):
        reference = value.get("$ref", "")
        if reference.startswith("#/$defs/"):
            inner = definitions[reference.removeprefix("#/$defs/")]
            return {**_inlined(inner, definitions), **{key: item for key, item in value.items() if key != "$ref"}}
        return {key: _inlined(item, definitions) for key, item in value.items()}
    if isinstance(value, list):
        return [_inlined(item, definitions) for item in value]
    return value
