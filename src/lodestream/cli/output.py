"""Values and tables as people and programs read them on stdout."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import IO, Any

_CELL_MAX = 60
EXACT_DIGITS = 15
"""Decimals of more digits are strings in JSON: a double does not hold all of them."""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: set[str] | None = None) -> None:
    """Print an aligned table on stdout; on a terminal in colour, within its width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    right = right or set()
    terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(
            Text(safe(name)), justify="right" if name in right else "left", overflow="ellipsis", no_wrap=True
        )
    for row in rows:
        table.add_row(*(Text(cell(value, short=terminal)) for value in row))
    console = Console(file=sys.stdout, highlight=False, width=None if terminal else 100_000)
    if terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def cell(value: object, *, short: bool = False) -> str:
    """A value as text in a table; control characters are shown, never sent to the terminal."""
    if value is None:
        text = "–"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, dt.datetime):
        text = when(value)
    elif isinstance(value, float):
        text = f"{value:.6g}" if value and abs(value) < 1e15 and short else repr(value)
    elif isinstance(value, bytes):
        text = value.decode("utf-8", "backslashreplace")
    elif isinstance(value, dict | list):
        text = json.dumps(plain(value), ensure_ascii=False, default=str)
    else:
        text = str(value)
    text = safe(text)
    return text[: _CELL_MAX - 1] + "…" if short and len(text) > _CELL_MAX else text


def safe(text: str) -> str:
    """The text with control characters written as escapes, so that data cannot drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def when(value: dt.datetime) -> str:
    """A time in UTC, without what is zero."""
    text = value.astimezone(dt.UTC).isoformat(sep=" ") if value.tzinfo else value.isoformat(sep=" ")
    return text.removesuffix("+00:00")


def when_us(us: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 in UTC."""
    if us is None or us <= 0:
        return None
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=us)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(value: Any) -> Any:
    """A value of a row as JSON has it: times in ISO 8601 UTC, bytes as hex, no NaN.

    Decimals are numbers when a double holds every value of that many digits, else strings.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        if value == value.to_integral_value() and value.as_tuple().exponent == 0:
            return int(value)
        return float(value) if len(value.as_tuple().digits) <= EXACT_DIGITS else str(value)
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value)


def count(number: int | None) -> str:
    """A number with thousands marked."""
    return "–" if number is None else f"{number:,}"


def span(seconds: float | None) -> str:
    """A duration in the one or two units that matter."""
    if seconds is None:
        return "–"
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 10:
        return f"{sign}{seconds:.1f}s"
    for size, unit, rest, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{sign}{int(seconds // size)}{unit} {int(seconds % size // rest)}{small}"
    return f"{sign}{int(seconds)}s"


def size(number: int | None) -> str:
    """Bytes in the largest fitting unit."""
    if number is None:
        return "–"
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def open_output(path: str) -> IO[bytes]:
    """A file to write the answer to. Raises ConfigError when it cannot be."""
    from lodestream.errors import ConfigError

    try:
        return open(path, "wb")
    except OSError as error:
        raise ConfigError("cannot write the output file", path=path, reason=os.strerror(error.errno or 0)) from error
