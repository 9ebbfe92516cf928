"""A few rows under policies, by a statement and by a table that is read: the same."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from lodestream.model.access import TableAccess
from lodestream.model.arrow import to_arrow
from lodestream.query import sight
from tests.query.conftest import schema_of

SCHEMA = schema_of(
    {
        "id": "bigint", "small": "tinyint", "name": "string", "on": "boolean", "day": "date", "at": "timestamp",
        "amount": "decimal(20,4)", "ratio": "double", "rough": "float", "tags": "array<string>", "raw": "binary",
    }
)  # fmt: skip
UTC = dt.UTC
ROWS = [
    [1, -128, "a'\"$1", True, dt.date(1, 1, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), Decimal("0.0001"),
     float("nan"), 0.1, ["x"], b"\x00"],
    [-(1 << 63), 127, "", False, dt.date(9999, 12, 31), dt.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
     Decimal("-9999999999999999.9999"), float("inf"), float("-inf"), [], b""],
    [None] * 11,
    [7, 0, "ü\0z", None, dt.date(2024, 2, 29), dt.datetime(2024, 5, 1, tzinfo=UTC), Decimal(7), -0.0, 1e-40, None,
     None],
]  # fmt: skip
NAMES = SCHEMA.names


def rows_of(*rows):
    return pa.table([[row[n] for row in rows] for n in range(len(NAMES))], schema=to_arrow(SCHEMA))


def masked(**masks):
    return tuple((name, masks.get(name)) for name in NAMES)


SIGHTS = {
    "a filter": TableAccess(masked(), ('"amount" > 0',)),
    "two filters": TableAccess(masked(), ('"on"', '"id" IS NOT NULL')),
    "a filter that is unknown": TableAccess(masked(), ('"on" OR NULL',)),
    "masks": TableAccess(
        masked(name="""'***'""", amount='floor("amount")', at="date_trunc('hour', \"at\")", day="NULL")
    ),
    "masks of what is not finite": TableAccess(masked(ratio='"ratio" * 2', rough='"rough"', small='"small"')),
    "a mask that does not fit": TableAccess(masked(small='"id"', name='CAST("ratio" AS VARCHAR)')),
    "texts": TableAccess(masked(name="""concat("name", '!')"""), ("\"name\" <> ''",)),
    "columns left out": TableAccess(tuple(pair for pair in masked() if pair[0] not in ("id", "tags")), ('"id" > 0',)),
    "a mask of what has no plain form": TableAccess(masked(tags="NULL", raw="NULL"), ('"id" > 0',)),
}


@pytest.mark.parametrize("kind", SIGHTS)
@pytest.mark.parametrize("rows", [[], [0], [1], [2], [3], [0, 1, 2, 3], [3, 3]], ids=str)
def test_both_ways_show_the_same(monkeypatch, kind, rows):
    found, access = rows_of(*(ROWS[row] for row in rows)), SIGHTS[kind]
    few = sight.filtered(found, SCHEMA, access)
    monkeypatch.setattr(sight, "_FEW_ROWS", -1)
    many = sight.filtered(found, SCHEMA, access)
    assert few.column_names == many.column_names
    assert str(few.cast(many.schema).to_pylist()) == str(many.to_pylist())


def test_a_few_rows_take_the_statement(monkeypatch):
    monkeypatch.setattr(sight, "_connection", lambda: pytest.fail("a table was read"))
    for kind, access in SIGHTS.items():
        if "no plain form" not in kind:
            sight.filtered(rows_of(ROWS[0]), SCHEMA, access)
