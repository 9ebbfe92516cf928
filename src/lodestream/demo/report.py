"""Prints what the demo found: gold answers with small bars, where every row went, and what to type next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

Query = Callable[[str], pa.Table]
Accounting = Mapping[str, Mapping[str, Any]]
"""Table name → rows by fate (`input`, `output`, `quarantine`, `late`, `duplicate`, `dropped`, `open`), `reconciled`,
and `skipped` when the table is a query over others and has no positions of its own."""

FATES = ("output", "quarantine", "late", "duplicate", "dropped", "open")
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_CELLS = 16
_PLAIN_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Answer:
    """A question to gold: its title, SQL, and the column drawn as bars (its last one by default)."""

    title: str
    sql: str
    bar: str


ANSWERS = (
    Answer(
        "What does weather do to departures?",
        "select conditions, flights, cancelled, delay_mean, cancelled_percent from gold.cancellations_by_weather "
        "order by cancelled_percent desc",
        "cancelled_percent",
    ),
    Answer(
        "Which airline is late?",
        "select airline, flights, cancelled, arr_delay_mean from gold.delay_by_carrier "
        "where flights >= 300 order by arr_delay_mean desc limit 8",
        "arr_delay_mean",
    ),
    Answer(
        "Which routes are late?",
        "select route, dest_name, flights, arr_delay_mean from gold.delay_by_route "
        "where flights >= 300 order by arr_delay_mean desc limit 8",
        "arr_delay_mean",
    ),
    Answer(
        "When do delays build up? (by scheduled hour, UTC)",
        "select hour(window_start) as hour_utc, cast(sum(scheduled) as bigint) as scheduled, "
        "cast(sum(cancelled) as bigint) as cancelled, "
        "cast(sum(delay_sum) as double) / sum(departed) as delay_mean from gold.departures_per_hour "
        "where scheduled > 0 group by hour(window_start) having sum(departed) >= 300 order by hour_utc",
        "delay_mean",
    ),
    Answer(
        "The worst hours at each airport",
        "select origin, window_start, scheduled, cancelled, delay_mean from gold.departures_per_hour "
        "where departed >= 10 order by delay_mean desc limit 6",
        "delay_mean",
    ),
)

NEXT = (
    ('lodestream query "select * from gold.delay_by_carrier"', "ask yourself"),
    ("lodestream quarantine list silver.flights_feed", "what did not pass"),
    ("lodestream explain silver.flights", "steps and lineage"),
    ("lodestream reconcile silver.flights_feed", "prove that no row is lost"),
    ("lodestream table history gold.departures_per_hour", "every version of a table"),
    ("lodestream up", "console, REST and PostgreSQL clients, all of it live"),
)


def report(console: Console, query: Query, accounting: Accounting, *, place: str = "demo-lake") -> None:
    """Print answers, accounting and next steps; plain text without colours when `console` is not a terminal.

    Args:
        console: where to.
        query: runs SQL over the lake's tables, named `layer.name`.
        accounting: rows of each table by fate.
        place: folder of the project, for the commands to type.
    """
    width = None if console.is_terminal else max(console.width, _PLAIN_WIDTH)
    for answer in ANSWERS:
        rows = query(answer.sql).to_pylist()
        if rows:
            console.print(Text(answer.title, style="bold"))
            console.print(_answer(answer, rows), width=width)
            console.print()
    console.print(Text("Where every row went", style="bold"))
    console.print(_accounting(accounting), width=width)
    console.print()
    _verdict(console, accounting)
    console.print(Text("What to type next", style="bold"))
    console.print(Text(f"  cd {place}"))
    longest = max(len(command) for command, _ in NEXT)
    for command, what in NEXT:
        console.print(Text.assemble("  ", (command.ljust(longest), "cyan"), "  ", (what, "dim")), soft_wrap=True)


def bar(value: float | None, largest: float, cells: int = _BAR_CELLS) -> str:
    """A bar of eighth blocks, `cells` long for `largest`; empty for nothing, negative or unknown values."""
    if value is None or largest <= 0 or value <= 0:
        return ""
    full, rest = divmod(round(min(value / largest, 1.0) * cells * 8), 8)
    return ("█" * full + _EIGHTHS[rest]).rstrip() or "▏"


def _answer(answer: Answer, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table()
    names = list(rows[0])
    for name in names:
        justify: Literal["left", "right"] = "left" if isinstance(_first(rows, name), str) else "right"
        table.add_column(name.replace("_", " "), justify=justify, no_wrap=True)
    table.add_column("", no_wrap=True, min_width=_BAR_CELLS)
    largest = max((row[answer.bar] or 0 for row in rows), default=0)
    for row in rows:
        table.add_row(*(_text(row[name]) for name in names), Text(bar(row[answer.bar], largest), style="yellow"))
    return table


def _accounting(accounting: Accounting) -> Table:
    table = _table()
    table.add_column("table", no_wrap=True)
    for name in ("input", *FATES):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ok", no_wrap=True)
    for name, rows in accounting.items():
        cells = [_text(rows.get(fate) or 0, zero="·") for fate in ("input", *FATES)]
        good = bool(rows.get("reconciled"))
        if good and rows.get("skipped"):
            continue
        table.add_row(name, *cells, Text("yes" if good else "NO", style="green" if good else "bold red"))
    return table


def _verdict(console: Console, accounting: Accounting) -> None:
    queries = [name for name, rows in accounting.items() if rows.get("skipped")]
    if queries:
        console.print(Text(f"Computed as a whole from the tables above: {', '.join(queries)}.", style="dim"))
    wrong = [name for name, rows in accounting.items() if not rows.get("reconciled")]
    if wrong:
        console.print(Text(f"These tables do not add up: {', '.join(wrong)}.", style="bold red"))
    else:
        console.print(
            Text("Every row that came in is in the output or has a recorded reason why not.", style="bold green")
        )
    console.print()


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))


def _first(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next((row[name] for row in rows if row[name] is not None), None)


def _text(value: Any, *, zero: str = "0") -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if value else zero
    if isinstance(value, float | Decimal):
        return f"{value:,.1f}"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M"))
    return str(value)
