"""What a WHERE clause says of a column and a value is handed to the side that reads, and no more than it says."""

import pytest

from lodestream.query.conditions import conditions
from lodestream.query.guard import parse


@pytest.mark.parametrize(
    ("where", "parameters", "found"),
    [
        ("id between $1 and $2", (1, 5), [("id", ">=", 1), ("id", "<=", 5)]),
        ("id between 1 and 5 and name = 'x'", (), [("id", ">=", 1), ("id", "<=", 5), ("name", "=", "x")]),
        ("id between other and 5", (), [("id", "<=", 5)]),
        ("5 between id and other", (), []),
        ("id not between 1 and 5", (), []),
        ("not (id between 1 and 5)", (), []),
        ("id between 1 and 5 or name = 'x'", (), []),
        ("id + 1 between 1 and 5", (), []),
        ("5 > id", (), [("id", "<", 5)]),
    ],
)
def test_what_must_hold(where, parameters, found):
    statement = parse(f"select id, name, other from gold.t where {where}")
    assert [(one.column, one.operator, one.value) for one in conditions(statement, parameters)] == found
