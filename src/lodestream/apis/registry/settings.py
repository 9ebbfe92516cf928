"""Compatibility level, mode and normalisation: of all subjects, and of one."""

from __future__ import annotations

from typing import Any

from lodestream.apis.registry import problems
from lodestream.apis.registry.database import Rows

GLOBAL = ""
LEVELS = (
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE",
)  # fmt: skip
MODES = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT")
_DEFAULTS = {"level": "BACKWARD", "mode": "READWRITE", "normalize": "false"}
_UNKNOWN = ("alias", "compatibilityGroup", "defaultMetadata", "overrideMetadata", "defaultRuleSet", "overrideRuleSet")


def own(rows: Rows, subject: str, name: str) -> str | None:
    """A setting as it was set for a subject; None when it was not."""
    found = rows.all("SELECT value FROM settings WHERE subject = ? AND name = ?", subject, name)
    return str(found[0][0]) if found else None


def effective(rows: Rows, subject: str, name: str) -> str:
    """A setting as it holds for a subject."""
    return own(rows, subject, name) or own(rows, GLOBAL, name) or _DEFAULTS[name]


def mode(rows: Rows, subject: str) -> str:
    """READWRITE, READONLY or IMPORT as it holds for a subject."""
    if own(rows, GLOBAL, "mode") == "READONLY_OVERRIDE":
        return "READONLY"
    found = effective(rows, subject, "mode")
    return "READONLY" if found == "READONLY_OVERRIDE" else found


def put(rows: Rows, subject: str, name: str, value: str) -> None:
    """Set a setting."""
    rows.all(
        "INSERT INTO settings VALUES (?, ?, ?) ON CONFLICT (subject, name) DO UPDATE SET value = excluded.value",
        subject, name, value,
    )  # fmt: skip


def forget(rows: Rows, subject: str, *names: str) -> None:
    """Take settings back."""
    for name in names:
        rows.all("DELETE FROM settings WHERE subject = ? AND name = ?", subject, name)


def read_config(body: Any) -> dict[str, str]:
    """Settings in the JSON of a request, by name. Raises Problem."""
    if not isinstance(body, dict):
        raise problems.unreadable('the body is a JSON object such as {"compatibility": "BACKWARD"}')
    if there := [key for key in _UNKNOWN if body.get(key) is not None]:
        raise problems.unreadable(f"not supported by this registry: {', '.join(there)}")
    found: dict[str, str] = {}
    level = body.get("compatibility", body.get("compatibilityLevel"))
    if level is not None:
        if not isinstance(level, str) or level.upper() not in LEVELS:
            raise problems.invalid_level(str(level)[:80])
        found["level"] = level.upper()
    if (normalize := body.get("normalize")) is not None:
        if not isinstance(normalize, bool):
            raise problems.unreadable("normalize is true or false")
        found["normalize"] = "true" if normalize else "false"
    if not found:
        raise problems.invalid_level(None)
    return found


def read_mode(body: Any) -> str:
    """The mode in the JSON of a request. Raises Problem."""
    found = body.get("mode") if isinstance(body, dict) else None
    if not isinstance(found, str) or found.upper() not in MODES:
        raise problems.invalid_mode(str(found)[:80])
    return found.upper()
