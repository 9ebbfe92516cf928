"""Keys of rows as people write them: `SOURCE:POSITION`, or `column=value` pairs typed by the table's schema."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.errors import ConfigError
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import DataType, Schema

FORMS = (
    "SOURCE:POSITION of a source row, such as 2013-01.jsonl:204; column=value[,column=value], such as id=7; for "
    "windows window_start=2013-01-01T05:00:00Z,origin=EWR"
)
"""The forms of a key, for messages and help."""

_HELP = "lodestream trace --help"
_POSITION = re.compile(r"(?P<source>.+):(?P<position>\d+)", re.DOTALL)
_PAIR = re.compile(
    r"""\s*(?P<name>[A-Za-z_]\w*)=(?P<value>'(?:[^']|'')*'|"(?:[^"]|"")*"|.*?)\s*(?:,(?=\s*[A-Za-z_]\w*=)|\Z)""",
    re.DOTALL,
)
_NESTED = ("array", "map", "struct")


@dataclass(frozen=True, slots=True)
class Test:
    """What a row must have in one column.

    Attributes:
        column: its name.
        value: an Arrow scalar of the column's type; NULL asks for NULL.
        text: the value as it was written.
        quoted: whether it was written in quotes, so that `null` is text.
        until: with it, values from `value` up to before `until` pass.
    """

    column: str
    value: pa.Scalar
    text: str
    quoted: bool = False
    until: pa.Scalar | None = None

    __test__ = False  # no test case, whatever its name begins with

    def mask(self, values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
        """Which of n values pass, as n booleans without NULL."""
        if self.until is not None:
            return pc.fill_null(pc.and_(pc.greater_equal(values, self.value), pc.less(values, self.until)), False)
        if not self.value.is_valid:
            return pc.is_null(values)
        if pa.types.is_floating(self.value.type) and math.isnan(self.value.as_py()):
            return pc.fill_null(pc.is_nan(values), False)
        return pc.fill_null(pc.equal(values, self.value), False)

    def retyped(self, kind: DataType) -> Test | None:
        """The same question of a column of another type; None when the value is none of that type."""
        if to_arrow_type(kind) == self.value.type:
            return self
        try:
            return Test(self.column, _scalar(kind, self.text, quoted=self.quoted), self.text, self.quoted)
        except (ValueError, TypeError, OverflowError, pa.ArrowException, InvalidOperation):
            return None


@dataclass(frozen=True, slots=True)
class PositionKey:
    """One row of a source."""

    source: str
    position: int


@dataclass(frozen=True, slots=True)
class ValueKey:
    """Rows with these values."""

    tests: tuple[Test, ...]


def equal(column: str, value: Any, kind: DataType) -> Test:
    """A test for one Python value, as a row has it."""
    return Test(column, pa.scalar(value, to_arrow_type(kind)), str(value), quoted=True)


def place(source: str, position: int) -> tuple[Test, Test]:
    """The tests for one position."""
    return (
        Test("_source", pa.scalar(source, pa.string()), source, quoted=True),
        Test("_position", pa.scalar(position, pa.int64()), str(position)),
    )


def all_of(tests: Iterable[Test], rows: pa.Table) -> pa.ChunkedArray | pa.Array:
    """Which of n rows pass all tests."""
    mask: Any = pa.repeat(pa.scalar(value=True), len(rows))
    for test in tests:
        mask = pc.and_(mask, test.mask(rows.column(test.column)))
    return mask


def parse_key(text: str, schema: Schema, table: str) -> PositionKey | ValueKey:
    """Read a key. `SOURCE:POSITION` may hold `=`, unless what precedes the first one is a column of the table.

    Args:
        text: as written on the command line. A value may stand in quotes; `null` without quotes is NULL.
        schema: the table's columns.
        table: its name, for messages.

    Raises:
        ConfigError: another form, no such column, or a value that is none of the column's type.
    """
    head = text.partition("=")[0].strip() if "=" in text else None
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("key is not UTF-8", key=ascii(text)) from None
    position = _POSITION.fullmatch(text)
    if position and (head is None or head not in schema):
        return PositionKey(position["source"], _int64(position["position"], text))
    if head is None or not re.fullmatch(r"[A-Za-z_]\w*", head):
        raise ConfigError("not a key of a row; write one of the forms", key=text, forms=FORMS, help=_HELP)
    tests: list[Test] = []
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            raise ConfigError(
                "not a key of a row; write one of the forms", key=text, rest=text[at:], forms=FORMS, help=_HELP
            )
        tests.append(_test(pair["name"], pair["value"], schema, table))
        at = pair.end()
    if {test.column for test in tests} >= {"_source", "_position"} and len(tests) == 2:
        values = {test.column: test.value.as_py() for test in tests}
        if values["_source"] is not None and values["_position"] is not None:
            return PositionKey(values["_source"], values["_position"])
    return ValueKey(tuple(tests))


def _test(name: str, written: str, schema: Schema, table: str) -> Test:
    column = schema.get(name)
    if column is None:
        near = difflib.get_close_matches(name, schema.names, 1, 0.4)
        fix = f"lodestream explain {table} lists its columns"
        raise ConfigError("no such column", column=name, table=table, nearest=near[0] if near else None, fix=fix)
    if column.type.name in _NESTED:
        raise ConfigError(
            "a column of this type is no key; take another", column=name, type=str(column.type), help=_HELP
        )
    quoted = len(written) >= 2 and written[0] == written[-1] and written[0] in "'\""
    value = written[1:-1].replace(written[0] * 2, written[0]) if quoted else written
    try:
        return Test(name, _scalar(column.type, value, quoted=quoted), value, quoted)
    except (ValueError, TypeError, OverflowError, pa.ArrowException, InvalidOperation) as error:
        raise ConfigError(
            "not a value of this column's type", column=name, type=str(column.type), value=value,
            example=_EXAMPLES.get(column.type.name), help=_HELP,
        ) from error  # fmt: skip


_EXAMPLES = {"timestamp": "2013-01-01T05:00:00Z", "date": "2013-01-01", "boolean": "true", "binary": "0a1b"}


def _int64(digits: str, key: str) -> int:
    value = int(digits)
    if value >= 1 << 63:
        raise ConfigError("position is too large", key=key, help=_HELP)
    return value


def _scalar(kind: DataType, text: str, *, quoted: bool) -> pa.Scalar:
    """The text as an Arrow scalar of that type. Raises ValueError and its like when it is none."""
    target = to_arrow_type(kind)
    if text == "null" and not quoted:
        return pa.scalar(None, target)
    value: object = text
    match kind.name:
        case "boolean":
            value = {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else None
            if value is None:
                raise ValueError(text)
        case "tinyint" | "smallint" | "int" | "bigint":
            value = int(text)
        case "float" | "double":
            value = float(text)
        case "decimal":
            value = Decimal(text)
        case "date":
            value = date.fromisoformat(text)
        case "timestamp":
            at = datetime.fromisoformat(text)
            value = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        case "binary":
            value = bytes.fromhex(text)
    return pa.scalar(value, target)
