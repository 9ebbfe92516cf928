"""What goes wrong, as SQLSTATE codes that clients know what to do with."""

from __future__ import annotations

import re

from lodestream.errors import AccessError, ConfigError, ConflictError, CorruptionError, LodestreamError, TransientError


class PgError(Exception):
    """An error as the protocol tells it.

    Attributes:
        sqlstate: five characters (PostgreSQL's appendix A).
        message: what happened.
        detail: more of it.
        hint: what to do.
        position: where in the statement, counted in characters from 1; 0 when unknown.
        fatal: whether the connection ends.
    """

    def __init__(
        self, sqlstate: str, message: str, *, detail: str = "", hint: str = "", position: int = 0, fatal: bool = False
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.position = position
        self.fatal = fatal


_SAID = (
    (r"no such table|Table with name .* does not exist", "42P01"),
    (r"Referenced column .* not found|does not have a column|column .* not found", "42703"),
    (r"function (is not allowed|.* does not exist)|No function matches|Scalar Function with name", "42883"),
    (r"cannot be read|syntax error|Parser Error", "42601"),
    (r"ambiguous", "42702"),
    (r"must appear in the GROUP BY", "42803"),
    (r"[Dd]ivision by zero", "22012"),
    (r"[Oo]ut of [Rr]ange|[Oo]verflow", "22003"),
    (r"Could not convert|Conversion Error|invalid input syntax", "22P02"),
    (r"more memory|Out of Memory", "53200"),
    (r"nested too deeply", "54001"),
    (r"too long", "54000"),
    (r"Binder Error|cannot compare|Type", "42804"),
)


def pg_error(error: LodestreamError) -> PgError:
    """An error of ours as one of the protocol's."""
    hint = str(error.facts.get("fix") or "")
    nearest = error.facts.get("nearest")
    if nearest and not hint:
        hint = f'Perhaps you meant "{nearest}".'
    message = _told(error)
    return PgError(_code(error, message), message, hint=hint)


def _told(error: LodestreamError) -> str:
    facts = {name: value for name, value in error.facts.items() if name not in ("fix", "nearest") and value is not None}
    tail = " ".join(f"{name}={value!r}" for name, value in facts.items())
    return f"{error.message.strip()} {tail}".strip()


def _code(error: LodestreamError, message: str) -> str:
    said = next((code for pattern, code in _SAID if re.search(pattern, message)), None)
    if isinstance(error, TransientError):
        if re.search(r"took longer|cancel|stopping", message):
            return "57014"
        return "53200" if said == "53200" else "53300"
    if isinstance(error, AccessError):
        if "only SELECT" in message:
            return "25006"
        return said if said == "42883" else "42501"
    if isinstance(error, ConflictError):
        return "40001"
    if isinstance(error, CorruptionError):
        return "XX001"
    return said or ("42000" if isinstance(error, ConfigError) else "XX000")
