"""Writes docs/reference/{components,deploy,errors,…}.md from the code: `python -m tools.reference`."""

from __future__ import annotations

import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lodestream import errors
from lodestream.cli.call import _NEXT, EXIT_CODES
from lodestream.ports.plugins import load, names
from lodestream.ports.settings import Settings
from lodestream.project.codes import CODES
from lodestream.project.deploying import DatabricksSettings
from lodestream.project.lakes import StoreSettings
from lodestream.project.serving import ServingSettings
from tools.lake_reference import tables
from tools.policy_reference import policies
from tools.rest_reference import rest

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "Written by `python -m tools.reference`; a test holds it to the code."

ROOMS = {
    "sources": """\
Where the rows of a bronze table come from: `source: {name: {setting: value}}`, or `source: name` when nothing has to
be set. A setting may be a reference, `${env:NAME}` or `${file:/run/secrets/name}`; it gets its value when the source
is opened, and only the reference is stored.""",
    "formats": """\
How a record is written: `format: name` or `format: {name: {setting: value}}`. Without it, `json`. A record that does
not decode is set aside in the table's quarantine with its reason and its bytes; [the guide](../guides/quarantine.md)
says what each reason means.""",
    "sinks": """\
Where a table of any layer is published to: `sink: {name: {setting: value}}`, or a list of such.
[The guide](../guides/kafka-out.md) says what is published and what holds.""",
    "enrichers": """\
What a row is told: `enrich: {name: {setting: value}}`, or a list of such; `lookup` is described in
[declaring tables](../guides/declaring.md). [The guide](../guides/enrichment.md) says what holds.""",
}
TRAITS = {
    "replayable": ("the same range gives the same rows again", "a range may give other rows when it is read again"),
    "ordered": ("positions grow with arrival inside a unit", "positions say nothing about arrival"),
    "bounded": ("it ends by itself", "it does not end by itself; `run --until-idle` ends when nothing new is there"),
}
FRAMING = {
    "lines": "a record is a line; its position is the byte it begins at",
    "file": "a record's position is its row number in the file",
    "messages": "a record's position is that of its message",
}
KINDS = {
    "D1": "Declarations: the file",
    "D2": "Declarations: the parts of a table",
    "D3": "Declarations: columns and expressions",
    "D4": "Declarations: policies",
    "D5": "Declarations: deployment, and bundles",
    "P1": "Expressions",
    "P2": "Plans",
    "L1": "Lakes: the disk, as `lodestream doctor` finds it",
    "L2": "Lakes: the log of a table",
    "L3": "Lakes: data files",
    "L4": "Lakes: plans and state",
    "L5": "Lakes: copies",
    "N1": "Notes, which refuse nothing",
}


def components() -> str:
    """docs/reference/components.md: every source, format, sink and enricher with its settings."""
    parts = ["# Sources, formats, sinks and enrichers", NOTE, "`lodestream schema` gives the same to an editor."]
    for room, words in ROOMS.items():
        parts += [f"## {room.capitalize()}", words]
        parts += [part for name in names(room) for part in _component(room, name)]
    return "\n\n".join(parts) + "\n"


def _component(room: str, name: str) -> list[str]:
    component = load(room, name)
    rows = fields(component.settings)
    needed = [field for field, _, default, _ in rows if default == "required" and "." not in field]
    shown = f"{{{name}: {{{', '.join(f'{field}: …' for field in needed)}}}}}" if needed else name
    key = "enrich" if room == "enrichers" else room.removesuffix("s")
    parts = [f"### `{key}: {shown}`", inspect.getdoc(component) or ""]
    if room == "sources":
        parts.append("\n".join(f"- {TRAITS[trait][not value]}" for trait, value in _traits(component)))
    elif room == "formats":
        framing = [component.framing] if hasattr(component, "framing") else ["lines", "file"]
        parts.append("Positions: " + ("; or ".join(FRAMING[one] for one in framing)) + ".")
    if not rows:
        return [*parts, "There is nothing to set."]
    table = ["| setting | type | default | says |", "|---|---|---|---|"]
    table += [f"| `{field}` | {kind} | {default} | {text} |" for field, kind, default, text in rows]
    return [*parts, "\n".join(table)]


def _traits(component: Any) -> list[tuple[str, bool]]:
    return [(trait, getattr(component.traits, trait)) for trait in TRAITS]


SERVER = """\
# Settings of the server

{note}

What may stand under `server:` in `lodestream.yaml`. `metrics_port` is that of `lodestream run`; the others are those of
`lodestream serve`, which [takes records in over HTTP](../guides/ingest.md). A setting may be a reference,
`${{env:NAME}}`.

| setting | type | default | says |
|---|---|---|---|
{rows}
"""


def server() -> str:
    """docs/reference/server.md: what may stand under `server:`."""
    metrics = ("metrics_port", "whole number", "–", "Port for `/metrics` and `/healthz` of a run; 0 takes a free one.")
    rows = [metrics, *fields(ServingSettings)]
    lines = [f"| `{field}` | {kind} | {default} | {text} |" for field, kind, default, text in rows]
    return SERVER.format(note=NOTE, rows="\n".join(lines))


STORES = """\
# Settings of a lake in an object store

{note}

What may stand under `lake:` in `lodestream.yaml`, and under `lake:` of an environment, beside `url`:
[the guide](../guides/stores.md) says what holds. A setting may be a reference, `${{env:NAME}}` or
`${{file:/run/secrets/name}}`; it gets its value when the lake is opened.

| setting | type | default | says |
|---|---|---|---|
| `url` | text | required | `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH` or `s3://BUCKET/PATH`. |
{rows}
"""


def stores() -> str:
    """docs/reference/stores.md: what may stand under `lake:`."""
    rows = fields(StoreSettings)
    lines = [f"| `{field}` | {kind} | {default} | {text} |" for field, kind, default, text in rows]
    return STORES.format(note=NOTE, rows="\n".join(lines))


DEPLOY = """\
# Settings of deployments

{note}

What may stand under `deploy: {{databricks: …}}` in `lodestream.yaml`, all of it optional.
[The guide](../guides/databricks.md) says what comes of it.

| setting | type | default | says |
|---|---|---|---|
{rows}
"""


def deploy() -> str:
    """docs/reference/deploy.md: what may stand under `deploy:`."""
    rows = fields(DatabricksSettings)
    lines = [f"| `{field}` | {kind} | {default} | {text} |" for field, kind, default, text in rows]
    return DEPLOY.format(note=NOTE, rows="\n".join(lines))


def fields(settings: type[Settings], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """(name, type, default, description) of each field; those of a block within are named `block.field`."""
    rows = []
    for attribute, field in settings.model_fields.items():
        name = field.alias or attribute
        if (inner := _block(field.annotation)) is not None:
            rows.append((f"{prefix}{name}", "block", "–", field.description or ""))
            rows += fields(inner, f"{prefix}{name}.")
            continue
        rows.append((f"{prefix}{name}", _type(field), _default(field), (field.description or "").replace("|", "\\|")))
    return [(name, kind, default, " ".join(text.split())) for name, kind, default, text in rows]


def _block(annotation: Any) -> type[Settings] | None:
    """The settings of a block, which may be left out."""
    kinds = [one for one in (annotation, *typing.get_args(annotation)) if inspect.isclass(one)]
    return next((one for one in kinds if issubclass(one, Settings)), None)


def _type(field: FieldInfo) -> str:
    words = _kind(field.annotation)
    least = next((f"at least {m.ge:,}" for m in field.metadata if isinstance(m, Ge)), None)
    least = next((f"more than {m.gt:,}" for m in field.metadata if isinstance(m, Gt)), least)
    most = next((f"at most {m.le:,}" for m in field.metadata if isinstance(m, Le)), None)
    most = next((f"less than {m.lt:,}" for m in field.metadata if isinstance(m, Lt)), most)
    size = {type(m): m for m in field.metadata if isinstance(m, MinLen | MaxLen)}
    one = len(size) == 2 and size[MinLen].min_length == size[MaxLen].max_length == 1
    return ", ".join(filter(None, [words, least, most, "one character" if one else None]))


def _kind(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if one is type(None) else _kind(one) for one in inner)
    if origin in (tuple, list):
        return f"list of {_kind(inner[0])}"
    if origin is dict:
        return f"{_kind(inner[1])} by {_kind(inner[0])}"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", SecretStr: "secret text"}
    return plain[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined and field.default_factory is not None:
        value = field.default_factory()  # type: ignore[call-arg]
    return "–" if value is None else f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def error_classes() -> list[type[errors.LodestreamError]]:
    """The classes of `lodestream.errors`, the base first."""
    found = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, errors.LodestreamError)]
    return sorted(found, key=lambda one: (one is not errors.LodestreamError, one.exit_code, one.__name__))


ERRORS = """\
# Errors and codes

{note}

A bad row is never an error: it is set aside with a reason ([quarantine](../guides/quarantine.md)). An error stops a
command, or one table of a run while the others go on. Its class says what to do about it, and is the exit code.

## Classes

{classes}

Other exit codes:

{others}

## Codes

`lodestream plan` tells every mistake of a project at once: file, line, column, code, what is wrong, the nearest thing
that would be right, and the fix. A code that begins with `N` is a note.
"""


def error_page() -> str:
    """docs/reference/errors.md: classes with exit codes, and every code with its remedy."""
    classes = [f"| `{one.__name__}` | {one.exit_code} | {_when(one)} | {_next(one)} |" for one in error_classes()]
    others = [f"| {code} | {text} |" for code, text in EXIT_CODES.items() if code not in _used()]
    parts = [
        ERRORS.format(
            note=NOTE,
            classes="\n".join(["| class | exit code | when | next |", "|---|---|---|---|", *classes]),
            others="\n".join(["| exit code | says |", "|---|---|", *others]),
        )
    ]
    for kind, title in KINDS.items():
        codes = {code: told for code, told in sorted(CODES.items()) if code.startswith(kind)}
        titled = any(told.title != told.remedy for told in codes.values())
        rows = ["| code | says | do |", "|---|---|---|"] if titled else ["| code | do |", "|---|---|"]
        for code, told in codes.items():
            rows.append(
                f"| `{code}` | {f'{told.title} | ' if titled else ''}{told.remedy.replace('|', chr(92) + '|')} |"
            )
        parts.append("\n".join([f"### {title}", "", *rows, ""]))
    return "\n".join(parts)


def _used() -> set[int]:
    return {one.exit_code for one in error_classes()} - {1}


def _when(error: type[errors.LodestreamError]) -> str:
    if error is errors.LodestreamError:
        return "an error that is of none of the classes below: a bug"
    return (error.__doc__ or "").split("\n\n")[0].strip().rstrip(".")


def _next(error: type[errors.LodestreamError]) -> str:
    if error is errors.MissingDriverError:
        return "install the package that the message names"
    found = next((step for kind, step in _NEXT if issubclass(error, kind)), None)
    if found is None:
        return "report it, with what `--debug` shows"
    return f"`{found}`" if found.startswith("lodestream") and "," not in found else found


PAGES = {
    "components.md": components, "deploy.md": deploy, "server.md": server, "stores.md": stores,
    "errors.md": error_page, "policies.md": lambda: policies(NOTE),
    "tables.md": lambda: tables(NOTE), "rest.md": lambda: rest(NOTE),
}  # fmt: skip
"""File name under docs/reference, and what writes it."""


if __name__ == "__main__":
    for file, write in PAGES.items():
        (FOLDER / file).write_text(write(), encoding="utf-8")
        print(FOLDER / file)
