import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.errors import ConfigError
from lodestream.model.types import Column, Schema, parse_type
from lodestream.testing.rows import as_arrow, differences

COLUMNS = {
    "id": "string", "n": "int", "amount": "decimal(10,2)", "at": "timestamp", "day": "date", "ok": "boolean",
    "x": "double", "tags": "array<string>", "who": "struct<name:string,age:int>", "by": "map<string,bigint>",
}  # fmt: skip
SCHEMA = Schema(tuple(Column(name, parse_type(kind)) for name, kind in COLUMNS.items()))
ROW = {
    "id": "a", "n": 1, "amount": 2.5, "at": "2024-05-01T12:00:00+02:00", "day": "2024-05-01", "ok": True, "x": 0.1,
    "tags": ["p", "q"], "who": {"name": "z"}, "by": {"k": 3},
}  # fmt: skip


def test_a_row_equals_itself_in_every_type():
    assert differences("row", [ROW], as_arrow([ROW], SCHEMA), SCHEMA) == []
    assert differences("row", [{"at": "2024-05-01T10:00:00Z"}], as_arrow([ROW], SCHEMA), SCHEMA) == []


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_any_other_value_is_a_difference(name):
    found = as_arrow([{**ROW, name: None}], SCHEMA)
    assert differences("row", [{name: ROW[name]}], found, SCHEMA)
    assert differences("row", [{name: None}], found, SCHEMA) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1.5),
        ("n", True),
        ("n", "x"),
        ("at", "yesterday"),
        ("day", "1st"),
        ("amount", "much"),
        ("ok", 1),
        ("nope", 1),
    ],
)
def test_values_of_another_type_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        as_arrow([{name: value}], SCHEMA)


def test_too_few_and_too_many():
    found = as_arrow([{"id": "a"}, {"id": "a"}, {"id": "b"}], SCHEMA)
    assert len(differences("row", [{"id": "a"}, {"id": "b"}], found, SCHEMA)) == 1
    assert len(differences("row", [{"id": "a"}] * 3, found, SCHEMA)) == 2
    assert differences("row", [], found, SCHEMA)
    many = differences("row", [], as_arrow([{"id": str(i)} for i in range(50)], SCHEMA), SCHEMA)
    assert many[-1] == "… and 45 more"


def test_a_row_with_few_columns_leaves_the_exact_one_to_others():
    found = as_arrow([{"id": "a", "n": 1}, {"id": "a", "n": 2}], SCHEMA)
    assert differences("row", [{"id": "a"}, {"id": "a", "n": 1}], found, SCHEMA) == []
    assert differences("row", [{"id": "a", "n": 1}, {"id": "a"}], found, SCHEMA) == []


ROWS = st.lists(st.fixed_dictionaries({"id": st.sampled_from("ab"), "n": st.integers(0, 2)}), max_size=6)


@given(ROWS, ROWS)
def test_no_difference_exactly_when_the_bags_are_equal(left, right):
    found = differences("row", left, as_arrow(right, SCHEMA), SCHEMA)
    key = sorted((row["id"], row["n"]) for row in left), sorted((row["id"], row["n"]) for row in right)
    assert (not found) == (key[0] == key[1])
