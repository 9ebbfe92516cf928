"""Saved queries in files: what is right becomes a value, every mistake has file and line."""

import pytest

from lodestream.model.query import named
from lodestream.project.mistakes import Mistakes
from lodestream.project.queries import Queries, read_queries, read_query

GOOD = """\
-- title: Orders of a country
-- description: Its sum, by day.
-- parameters:
--   country: {type: string, default: DE, description: Two letters}
--   since: date
--   least: {type: 'decimal(10,2)', default: 0}
SELECT day, sum(amount) AS amount -- $not one
FROM gold.orders
WHERE country = $country AND day >= $since AND amount >= $least AND country <> '$neither'
GROUP BY day
"""


def read(text, name="orders_of"):
    mistakes = Mistakes()
    found = read_query(name, text, f"queries/{name}.sql", mistakes)
    return found, [(one.line, one.code) for one in mistakes.found]


def test_a_query_and_what_it_takes():
    query, mistakes = read(GOOD)
    assert mistakes == []
    assert (query.title, query.description) == ("Orders of a country", "Its sum, by day.")
    assert [(one.name, one.type, one.default) for one in query.parameters] == [
        ("country", "string", "DE"), ("since", "date", None), ("least", "decimal(10,2)", "0"),
    ]  # fmt: skip
    assert "country = $1 AND day >= $2 AND amount >= $3" in query.positional()
    assert "$not one" in query.positional()
    assert "'$neither'" in query.positional()
    assert query.origin == "queries/orders_of.sql"


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("-- titel: x\nSELECT 1", [(1, "D103")]),
        ("-- title: x\n", [(1, "D105")]),
        ("", [(1, "D105")]),
        ("SELECT $a", [(1, "D207")]),
        ("-- title: x\nSELECT 1\nWHERE x = $a", [(3, "D103")]),
        ("-- title: x\nSELECT ?", [(2, "D103")]),
        ("-- title: x\nSELECT $1", [(2, "D103")]),
        ("-- parameters: {a: date}\nSELECT 1", [(1, "D207")]),
        ("-- parameters: {a: dat}\nSELECT $a", [(1, "D108")]),
        ("-- parameters:\n--   a: {type: date, defalt: x}\nSELECT $a", [(2, "D103")]),
        ("-- parameters: {format: string}\nSELECT $format", [(1, "D111"), (2, "D103")]),
        ("-- parameters: {A: string}\nSELECT $A", [(1, "D110"), (2, "D103")]),
        ("-- parameters: [a]\nSELECT 1", [(1, "D104")]),
        ("-- {\nSELECT 1", [(1, "D101")]),
    ],
)
def test_mistakes_have_their_line(text, mistakes):
    _, found = read(text)
    assert [code for _, code in found] == [code for _, code in mistakes]
    if mistakes != [(1, "D101")]:
        assert found == mistakes


def test_a_name_that_is_none():
    assert read("SELECT 1", "Bad-Name")[1] == [(1, "D110")]


def test_what_is_quoted_is_no_parameter():
    text = "SELECT '$a', \"$b\", $$ $c $$ -- $d\n/* $e */ , $f, 'it''s $g'"
    assert [name for name, _ in named(text)] == ["f"]


def test_files_of_a_project_are_read_again_when_they_change(tmp_path):
    queries = Queries(str(tmp_path))
    assert queries.current() == {}
    folder = tmp_path / "queries"
    folder.mkdir()
    (folder / "one.sql").write_text("SELECT 1")
    (folder / "bad.sql").write_text("-- titel: x\nSELECT 1")
    (folder / "notes.txt").write_text("x")
    assert [*queries.current()] == ["one"]
    (folder / "two.sql").write_text("SELECT 2")
    assert [*queries.current()] == ["one", "two"]
    found, mistakes = read_queries(str(tmp_path))
    assert [*found] == ["one", "two"]
    assert [(one.file, one.line) for one in mistakes] == [("queries/bad.sql", 1)]
