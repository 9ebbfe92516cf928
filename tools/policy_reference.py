"""The page of `policies.yaml`, from its JSON Schema and what expressions may ask of the reader."""

from __future__ import annotations

from typing import Any

from lodestream.expressions.identity import FUNCTIONS, VALUE
from lodestream.project.policy_schema import policies_schema

_ASKS = {
    "current_user": "the reader's name",
    "is_member": "whether the reader is in a group",
    "attribute": "a fact about the reader, as text; NULL when they have none of that name",
    VALUE: "in a mask: what the column holds",
}
_PAGE = """\
# policies.yaml

{note}

Who may see what of the lake; [the guide](../guides/governance.md) says how it is used. Where a list is asked for, one
text alone will do.

{blocks}

## What expressions may ask

Expressions are [Spark SQL](functions.md) over the stored columns of the table.

| function | gives |
|---|---|
{functions}
"""


def policies(note: str) -> str:
    """docs/reference/policies.md."""
    asked = {**FUNCTIONS, VALUE: f"{VALUE}()"}
    functions = "\n".join(f"| `{asked[name]}` | {told} |" for name, told in _ASKS.items())
    assert asked.keys() == _ASKS.keys()
    blocks = [_block(name, schema) for name, schema in policies_schema()["properties"].items()]
    return _PAGE.format(note=note, blocks="\n\n".join(blocks), functions=functions)


def _block(name: str, schema: dict[str, Any]) -> str:
    item = schema.get("additionalProperties") or schema["items"]
    if "properties" not in item:
        return f"## {name}\n\n{schema['description']} {item['description']}"
    rows = [
        f"| `{key}` | {_needed(key, item, told)} | {told['description']} |" for key, told in item["properties"].items()
    ]
    return "\n".join([f"## {name}", "", schema["description"], "", "| key | default | says |", "|---|---|---|", *rows])


def _needed(key: str, item: dict[str, Any], told: dict[str, Any]) -> str:
    if key in item.get("required", ()):
        return "required"
    default = told.get("default", "–")
    return f"`{str(default).lower()}`" if default != "–" else "–"
