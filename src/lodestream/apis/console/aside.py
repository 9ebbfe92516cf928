"""Rows that were set aside: grouped by reason, looked at, taken again."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lodestream.apis.problems import ProblemError
from lodestream.lake.layout import quarantine_name
from lodestream.model.access import Principal
from lodestream.model.batch import Mend
from lodestream.model.table import TableName
from lodestream.query.service import QueryService
from lodestream.runtime.replaying import Key, Replayed

LIMIT_MAX = 1_000
ROWS_MAX = 10_000
"""Rows that one request may take again by name."""
_RAW_SHOWN = 64 << 10
_GROUPS = 100
_OPEN = (
    "WITH ranked AS (SELECT *, row_number() OVER (PARTITION BY _source, _position ORDER BY _batch DESC) AS _rank "
    "FROM {table} WHERE kind <> 'late_window'), "
    "entries AS (SELECT *, coalesce(reasons[1], kind) AS reason FROM ranked "
    "WHERE _rank = 1 AND kind IN ('quarantine', 'late')) "
)


class Replay(Protocol):
    """Takes rows of a table's quarantine through its flow again, each exactly once."""

    def __call__(
        self, table: TableName, rows: Sequence[Key] | None, reason: str | None, *, accept_late: bool,
        mends: Mapping[Key, Mend],
    ) -> Replayed:  # fmt: skip
        """Those rows, or all open ones with the reason; some of them mended first.

        Raises:
            ConfigError: none is meant, or declarations have changed and were not applied.
            ConflictError: another process was first again and again.
        """


def entries(
    service: QueryService, name: TableName, principal: Principal, reason: str | None, limit: int, cursor: str | None
) -> dict[str, Any]:
    """Open entries of a quarantine: groups by reason, and one page of rows.

    Raises:
        AccessError: they may not see them.
        ConfigError: there is no such quarantine for them.
    """
    table = _quoted(quarantine_name(name))
    start = _read_cursor(cursor)
    groups = _ask(service, principal, _OPEN + (
        "SELECT reason, count(*) AS rows, min(kind) AS kind, arg_min(row, _batch) AS row, arg_min(raw, _batch) AS raw, "
        f"max(_time) AS last FROM entries GROUP BY reason ORDER BY rows DESC, reason LIMIT {_GROUPS}"
    ), table, [])  # fmt: skip
    where, values = [], []
    if reason is not None:
        values.append(reason)
        where.append(f"reason = ${len(values)}")
    if start is not None:
        values += start
        at = len(values) - 2
        where.append(f"(_batch, _source, _position) > (${at}, ${at + 1}, ${at + 2})")
    text = _OPEN + "SELECT _batch, _source, _position, _time, kind, reasons, rule, detail, row, raw FROM entries"
    text += f" WHERE {' AND '.join(where)}" if where else ""
    text += f" ORDER BY _batch, _source, _position LIMIT {limit + 1:d}"
    found = _ask(service, principal, text, table, values)
    more = found[limit - 1] if len(found) > limit else None
    return {
        "table": str(name),
        "groups": [_group(group) for group in groups],
        "rows": [_entry(row) for row in found[:limit]],
        "cursor": None if more is None else _cursor(more),
    }


def replay(
    run: Replay, name: TableName, asked: Any, record: Callable[[Mapping[str, str | int | float | None]], None], by: str
) -> dict[str, Any]:
    """Do what a request asks for.

    Args:
        run: the machinery.
        name: the table.
        asked: the request's JSON.
        record: puts it into the audit log; nothing is done when it cannot.
        by: who asks; stands beside what they mended.

    Raises:
        ProblemError: it cannot be read.
        What `run` raises else.
    """
    rows, reason, accept_late, mends = _asked(asked, by)
    record({
        "rows": len(rows) if rows is not None else None, "reason": reason, "accept_late": int(accept_late),
        "mended": len(mends),
    })  # fmt: skip
    done = run(name, rows, reason, accept_late=accept_late, mends=mends)
    return {"table": str(name), "replayed": done.chosen, "passed": done.passed, "counts": dict(done.counts)}


def _asked(asked: Any, by: str) -> tuple[list[Key] | None, str | None, bool, dict[Key, Mend]]:
    if not isinstance(asked, dict) or asked.keys() - {"rows", "reason", "accept_late"}:
        raise ProblemError(400, "send {rows: [{source, position}]} or {reason}, and accept_late if late rows are meant")
    reason, accept_late, listed = asked.get("reason"), asked.get("accept_late", False), asked.get("rows")
    if not isinstance(accept_late, bool) or not isinstance(reason, str | None) or (reason is None) == (listed is None):
        raise ProblemError(400, "send either rows or a reason; accept_late is true or false")
    if listed is None:
        return None, reason, accept_late, {}
    if not isinstance(listed, list) or not 0 < len(listed) <= ROWS_MAX:
        raise ProblemError(400, f"rows is a list of 1 to {ROWS_MAX} entries")
    keys: list[Key] = []
    mends: dict[Key, Mend] = {}
    for row in listed:
        key, mend = _row(row, by)
        keys.append(key)
        if mend is not None:
            mends[key] = mend
    return keys, None, accept_late, mends


def _row(row: Any, by: str) -> tuple[Key, Mend | None]:
    """One row that is named, and how it is mended."""
    source, position = (row.get("source"), row.get("position")) if isinstance(row, dict) else (None, None)
    position = int(position) if isinstance(position, str) and position.isdecimal() else position
    if not isinstance(source, str) or not isinstance(position, int) or isinstance(position, bool):
        raise ProblemError(400, "each row has a source (text) and a position (whole number)")
    values, raw = row.get("set", {}), row.get("raw")
    if row.keys() - {"source", "position", "set", "raw"} or not isinstance(values, dict):
        raise ProblemError(400, "a row is mended by set: {column: value}, or by raw when it did not decode")
    if not isinstance(raw, str | None):
        raise ProblemError(400, "raw is the whole record as text")
    return (source, position), Mend(values, raw, by) if values or raw is not None else None


def _ask(
    service: QueryService, principal: Principal, text: str, table: str, values: list[Any]
) -> list[dict[str, Any]]:  # fmt: skip
    with service.ask(text.format(table=table), principal=principal, door="console", parameters=values) as answer:
        found: list[dict[str, Any]] = answer.table().to_pylist()
    return found


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    raw, encoding = _raw(group["raw"])
    return {
        "reason": group["reason"], "rows": group["rows"], "kind": group["kind"], "last": _time(group["last"]),
        "sample": _json(group["row"]) if group["row"] is not None else raw, "sample_encoding": encoding,
    }  # fmt: skip


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    raw, encoding = _raw(row["raw"])
    at = row["_position"]
    return {
        "id": {"source": row["_source"], "position": at if abs(at) < 1 << 53 else str(at)},
        "kind": row["kind"], "reasons": row["reasons"] or [], "rule": row["rule"], "detail": _json(row["detail"]),
        "raw": raw, "raw_encoding": encoding, "columns": _json(row["row"]), "time": _time(row["_time"]),
        "batch": row["_batch"], "state": "open",
    }  # fmt: skip


def _raw(data: bytes | None) -> tuple[str | None, str | None]:
    """A record as it came: its text, or base64 when it is none."""
    if data is None:
        return None, None
    shown = data[:_RAW_SHOWN]
    try:
        return shown.decode("utf-8"), "text"
    except UnicodeDecodeError:
        return base64.b64encode(shown).decode(), "base64"


def _json(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _time(value: Any) -> str | None:
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def _cursor(row: Mapping[str, Any]) -> str:
    told = json.dumps([row["_batch"], row["_source"], row["_position"]])
    return base64.urlsafe_b64encode(told.encode()).decode()


def _read_cursor(text: str | None) -> list[Any] | None:
    if text is None:
        return None
    try:
        batch, source, position = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (ValueError, binascii.Error, TypeError):
        raise ProblemError(400, "not a cursor of this list", parameter="cursor") from None
    if not isinstance(batch, int) or not isinstance(source, str) or not isinstance(position, int):
        raise ProblemError(400, "not a cursor of this list", parameter="cursor")
    return [batch, source, position]


def _quoted(name: TableName) -> str:
    return f'{name.layer}."{name.name}"'
