"""The JSON Schema of `policies.yaml`, from which editors and the reference page take what its keys mean."""

from __future__ import annotations

from typing import Any

from lodestream.model.access import PRIVILEGES
from lodestream.project.policies import (
    FILTER_KEYS,
    GRANT_KEYS,
    MASK_KEYS,
    POLICY_KEYS,
    TAG_POLICY_KEYS,
    USER_KEYS,
)

_NAME = r"^[a-z][a-z0-9_]*$"
_TABLE = r"^(bronze|silver|gold)\.[A-Za-z_]\w*$"
_COLUMN = r"^(bronze|silver|gold)\.[A-Za-z_]\w*\.[^.]+$"
_OBJECT = r"^(\*|bronze|silver|gold|(bronze|silver|gold)\.[A-Za-z_]\w*)$"
_MAY = {
    "select": "Read rows.", "quarantine": "Read rows that were set aside, raw records included.",
    "replay": "Repair rows that were set aside, and take them again.",
    "manage": "Change grants, policies, comments, tags and owners.",
}  # fmt: skip


def policies_schema() -> dict[str, Any]:
    """The schema of the whole file."""
    blocks = {
        "users": _named(_user(), "Local users and service accounts, by name.", r"^[A-Za-z0-9][A-Za-z0-9 ._@/+-]*$"),
        "grants": {"type": ["array", "null"], "items": _grant(), "description": "Who may do what with which tables."},
        "row_filters": _named(_filter(), "What hides rows, by name."),
        "masks": _named(_mask(), "What is shown in place of columns, by name."),
        "tags": _named(_listed(_TABLE[:-1] + r"(\.[^.]+)?$", "Columns, or tables for all of their columns."),
                       "What columns are, by tag."),
        "declassified": _named(_listed(_TABLE[:-1] + r"(\.[^.]+)?$", "Columns, or tables for all of their columns."),
                               "What does not inherit a tag from what it is computed from, by tag."),
        "tag_policies": _named(_tag_policy(), "What is shown in place of every column that has a tag, by tag."),
    }  # fmt: skip
    assert tuple(blocks) == POLICY_KEYS
    return _block(blocks, "Who may see what.")


def _user() -> dict[str, Any]:
    fact = {"type": ["string", "number", "boolean"]}
    keys = {
        "kind": {"enum": ["user", "service"], "description": "A person, or a program.", "default": "user"},
        "groups": _listed(None, "Groups they are in."),
        "attributes": {"type": "object", "additionalProperties": fact,
                       "description": "Facts that policies ask for with `attribute('name')`, as text."},
        "disabled": {"type": "boolean", "description": "Whether they are refused on every door.", "default": False},
    }  # fmt: skip
    assert tuple(keys) == USER_KEYS
    block = _block(keys, "One user; nothing has to be said of them.")
    return {**block, "type": ["object", "null"]}


def _grant() -> dict[str, Any]:
    keys = {"to": _listed(None, "Users, and groups as `group:name`.")}
    keys |= {name: _listed(_OBJECT, f"{_MAY[name]} Tables, layers, or `*`.") for name in PRIVILEGES}
    assert tuple(keys) == GRANT_KEYS
    return _block(keys, "Privileges for everybody in `to`.", ("to",))


def _filter() -> dict[str, Any]:
    keys = {
        "on": _listed(_TABLE, "Tables."),
        "where": _expression("Condition; a row is shown when it is true."),
        "except": _exempt(),
    }
    assert tuple(keys) == FILTER_KEYS
    return _block(keys, "One row filter.", ("on", "where"))


def _mask() -> dict[str, Any]:
    keys = {"on": _listed(_COLUMN, "Columns."), "with": _shown(), "except": _exempt()}
    assert tuple(keys) == MASK_KEYS
    return _block(keys, "One mask.", ("on", "with"))


def _tag_policy() -> dict[str, Any]:
    keys = {"mask": _shown(), "except": _exempt()}
    assert tuple(keys) == TAG_POLICY_KEYS
    return _block(keys, "The policy of one tag.", ("mask",))


def _exempt() -> dict[str, Any]:
    return _listed(None, "Users and `group:name` whom it does not bind.")


def _shown() -> dict[str, Any]:
    return _expression("What is shown, in the column's type; `value()` is what the column holds.")


def _expression(description: str) -> dict[str, Any]:
    return {"type": ["string", "number", "boolean", "null"], "description": f"{description} Spark SQL."}


def _listed(pattern: str | None, description: str) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "string"} | ({"pattern": pattern} if pattern else {})
    return {"anyOf": [item, {"type": "array", "items": item}], "description": description}


def _named(item: dict[str, Any], description: str, pattern: str = _NAME) -> dict[str, Any]:
    return {
        "type": ["object", "null"], "propertyNames": {"pattern": pattern}, "additionalProperties": item,
        "description": description,
    }  # fmt: skip


def _block(properties: dict[str, Any], description: str, required: tuple[str, ...] = ()) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**block, "description": description} | ({"required": list(required)} if required else {})
