"""Rows as people write them in tests, as Arrow tables, and what differs between the two."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from lodestream.errors import ConfigError
from lodestream.model.arrow import to_arrow
from lodestream.model.types import DataType, Schema

_SHOWN_MAX = 5
_CLOSE = 1e-9


def moment_us(value: Any) -> int:
    """Microseconds since 1970 of ISO 8601 text; without a zone it is UTC. Raises ValueError."""
    moment = dt.datetime.fromisoformat(str(value).strip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def typed(value: Any, kind: DataType) -> Any:
    """A value as written, as Arrow wants it for a column of that type.

    Raises:
        ValueError: it is not of that type.
    """
    if value is None:
        return None
    if kind.name == "timestamp":
        return moment_us(value)
    if kind.name == "date":
        return dt.date.fromisoformat(str(value))
    if kind.name == "decimal":
        try:
            return Decimal(str(value)).quantize(Decimal(1).scaleb(-kind.scale))
        except InvalidOperation:
            raise ValueError(f"not a {kind}: {value!r}") from None
    if kind.name == "binary":
        return str(value).encode()
    if kind.name == "string":
        return value if isinstance(value, str) else json.dumps(value)
    if kind.name in ("float", "double"):
        return float(value)
    if kind.is_integer:
        if isinstance(value, bool) or int(value) != value:
            raise ValueError(f"not a {kind}: {value!r}")
        return int(value)
    if kind.name == "boolean" and not isinstance(value, bool):
        raise ValueError(f"not a boolean: {value!r}")
    if kind.name == "array":
        assert kind.element
        return [typed(one, kind.element) for one in value]
    if kind.name == "map":
        assert kind.element
        return [(key, typed(one, kind.element)) for key, one in value.items()]
    if kind.name == "struct":
        return {field.name: typed(value.get(field.name), field.type) for field in kind.fields}
    return value


def as_arrow(rows: Sequence[Mapping[str, Any]], schema: Schema) -> pa.Table:
    """Written rows in the columns of `schema`; a column that a row does not name is NULL.

    Raises:
        ConfigError: a row names a column that is not there, or a value is not of its type.
    """
    for row in rows:
        for name in row:
            _known(name, schema)
    full = to_arrow(schema)
    columns = [
        pa.array([_value(row, column.name, column.type) for row in rows], full.field(column.name).type)
        for column in schema
    ]
    return pa.table(columns, schema=pa.schema([field.with_nullable(True) for field in full]))


def _known(name: str, schema: Schema) -> None:
    import difflib

    if name not in schema:
        near = difflib.get_close_matches(name, schema.names, 1)
        raise ConfigError("no such column in a test row", column=name, nearest=near[0] if near else None)


def _value(row: Mapping[str, Any], name: str, kind: DataType) -> Any:
    try:
        return typed(row.get(name), kind)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            "value of a test row has another type", column=name, type=str(kind), reason=str(error)
        ) from None


def differences(what: str, expected: Sequence[Mapping[str, Any]], found: pa.Table, schema: Schema) -> list[str]:
    """What differs, in lines; empty when every expected row has a row of its own and none is left.

    Each expected row is compared in the columns that it names. Rows that match fewest others are matched first.

    Args:
        what: word for a row in the lines.
        expected: rows as written.
        found: rows as stored.
        schema: their types.
    """
    for row in expected:
        for name in row:
            _known(name, schema)
    wanted = [{name: _plain(_value(row, name, schema[name].type)) for name in row} for row in expected]
    named = list(dict.fromkeys(name for row in wanted for name in row))
    given = [{name: _plain(value) for name, value in row.items()} for row in _stored(found, schema)]
    matches = [[i for i, row in enumerate(given) if _fits(row, want)] for want in wanted]
    taken = _matched(matches)
    missing = [wanted[i] for i in range(len(wanted)) if i not in taken]
    left = [given[i] for i in range(len(given)) if i not in taken.values()]
    lines = [f"- {what} is missing: {_shown(row, list(row))}" for row in missing[:_SHOWN_MAX]]
    lines += [f"+ {what} was not expected: {_shown(row, named or list(row))}" for row in left[:_SHOWN_MAX]]
    hidden = max(0, len(missing) - _SHOWN_MAX) + max(0, len(left) - _SHOWN_MAX)
    return [*lines, f"… and {hidden} more"] if hidden else lines


def _matched(matches: list[list[int]]) -> dict[int, int]:
    """A largest matching of expected rows to found rows (augmenting paths)."""
    owner: dict[int, int] = {}

    def place(want: int, seen: set[int]) -> bool:
        for have in matches[want]:
            if have in seen:
                continue
            seen.add(have)
            if have not in owner or place(owner[have], seen):
                owner[have] = want
                return True
        return False

    for want in range(len(matches)):
        place(want, set())
    return {want: have for have, want in owner.items()}


def _stored(found: pa.Table, schema: Schema) -> list[dict[str, Any]]:
    columns = {}
    for name, column in zip(found.column_names, found.columns, strict=True):
        if schema[name].type.name == "timestamp":
            column = column.cast(pa.int64())
        columns[name] = column.to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    """Nested times and maps in one comparable form."""
    if isinstance(value, dt.datetime):
        return moment_us(value.isoformat())
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _fits(row: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    return all(_same(row[name], value) for name, value in want.items())


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, float) and isinstance(wanted, float) and found == found and wanted == wanted:
        return found == wanted or abs(found - wanted) <= _CLOSE * max(abs(found), abs(wanted))
    if isinstance(found, float) and isinstance(wanted, float):
        return (found != found) == (wanted != wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    return bool(found == wanted)


def _shown(row: Mapping[str, Any], names: Sequence[str]) -> str:
    counts = Counter(names)
    return "{" + ", ".join(f"{name}: {row.get(name)}" for name in counts) + "}"
