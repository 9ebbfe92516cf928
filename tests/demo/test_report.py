import io
import re
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from rich.console import Console

from lodestream.demo.report import ANSWERS, bar, report

ACCOUNTING = {
    "bronze.flights": {"input": 336_776, "output": 336_776, "reconciled": True},
    "silver.flights_feed": {"input": 10, "output": 5, "quarantine": 2, "late": 1, "duplicate": 1, "dropped": 1,
                            "open": 0, "reconciled": True},
    "gold.delay_by_route": {"input": 0, "reconciled": True, "skipped": "a query"},
}  # fmt: skip


def _answer(sql: str) -> pa.Table:
    answer = next(answer for answer in ANSWERS if answer.sql == sql)
    return pa.table(
        {
            "name": ["snow", "clear", None],
            "at": [datetime(2013, 2, 9, 12, tzinfo=UTC)] * 3,
            "flights": [1_282, 304_354, None],
            answer.bar: [22.1, 1.9, None],
        }
    )


def _printed(terminal: bool, accounting: dict = ACCOUNTING) -> str:
    out = io.StringIO()
    report(Console(file=out, force_terminal=terminal, width=140), _answer, accounting, place="my-lake")
    return out.getvalue()


def test_answers_bars_accounting_and_next_steps_are_printed() -> None:
    text = _printed(terminal=False)
    for answer in ANSWERS:
        assert answer.title in text
    assert re.search(r"snow +2013-02-09 12:00 +1,282 +22\.1 +█{16}\n", text)
    assert re.search(r"clear .*304,354 +1\.9 +█▍", text)
    assert re.search(r"silver\.flights_feed +10 +5 +2 +1 +1 +1 +· +yes", text)
    assert re.search(r"bronze\.flights +336,776 +336,776 +· ", text)
    assert "Computed as a whole from the tables above: gold.delay_by_route." in text
    assert "cd my-lake" in text
    assert "lodestream reconcile silver.flights_feed" in text


def test_plain_text_when_not_a_terminal() -> None:
    assert "\x1b" not in _printed(terminal=False)
    assert "\x1b" in _printed(terminal=True)


def test_a_table_that_does_not_add_up_is_named() -> None:
    text = _printed(terminal=False, accounting=ACCOUNTING | {"gold.x": {"input": 2, "output": 1, "reconciled": False}})
    assert "do not add up: gold.x." in text
    assert "Every row that came in" not in text


@pytest.mark.parametrize(
    ("value", "drawn"),
    [(8, "█" * 8), (4, "█" * 4), (4.5, "████▌"), (0.01, "▏"), (0, ""), (-3, ""), (None, ""), (80, "█" * 8)],
)
def test_bars_are_in_proportion(value: float | None, drawn: str) -> None:
    assert bar(value, 8, cells=8) == drawn


def test_no_bar_without_a_scale() -> None:
    assert bar(1, 0) == ""
