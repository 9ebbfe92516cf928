"""Search: the right thing first, slips of the finger forgiven, and nothing of what one may not know of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestream.app import open_project
from lodestream.catalog.search import Index, Item, differs, split
from lodestream.catalog.things import declared_readers, seen_by, things
from lodestream.model.policy import Grant, Tagged
from lodestream.model.table import TableName
from lodestream.model.types import Column, Schema, parse_type
from tests.catalog.conftest import reader, say

ORDERS, FLIGHTS, RAW = TableName("gold", "orders"), TableName("silver", "flights"), TableName("bronze", "orders_raw")
SCHEMAS = {
    ORDERS: Schema((Column("order_id", parse_type("string")), Column("email", parse_type("string")),
                    Column("revenueEUR", parse_type("double")))),
    FLIGHTS: Schema((Column("tailnum", parse_type("string"), comment="registration of the aircraft"),
                     Column("carrier", parse_type("string")))),
    RAW: Schema((Column("payload", parse_type("binary")),)),
}  # fmt: skip
COMMENTS = {ORDERS: "What was sold.", RAW: "orders as they came"}


def everything(table):
    return frozenset(SCHEMAS[table].names)


@pytest.fixture
def index(catalog):
    return Index(things(catalog, SCHEMAS, COMMENTS, []))


def names(index, text, sees=everything, **more):
    return [hit.item.name for hit in index.find(text, sees, **more)]


# Ranking --------------------------------------------------------------------------------------------------------------


def test_the_name_itself_comes_first(index):
    assert names(index, "orders")[:2] == ["gold.orders", "bronze.orders_raw"]
    assert names(index, "gold.orders")[0] == "gold.orders"
    assert names(index, "orders raw")[0] == "bronze.orders_raw"
    assert names(index, "order_id")[0] == "gold.orders.order_id"
    assert names(index, "CARRIER") == ["silver.flights.carrier"]


def test_words_are_found_by_their_beginning_middle_and_capitals(index):
    assert names(index, "tail") == names(index, "ilnu") == ["silver.flights.tailnum"]
    assert names(index, "eur revenue") == names(index, "RevenueEur") == ["gold.orders.revenueEUR"]


def test_comments_are_found_behind_names(index):
    assert names(index, "sold") == ["gold.orders"]
    assert names(index, "aircraft") == ["silver.flights.tailnum"]
    assert names(index, "came")[0] == "bronze.orders_raw"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("carier", "silver.flights.carrier"),
        ("carreir", "silver.flights.carrier"),
        ("carroer", "silver.flights.carrier"),
        ("xcarrier", "silver.flights.carrier"),
        ("registraton", "silver.flights.tailnum"),
        ("regstration", "silver.flights.tailnum"),
        ("regisration of the aircarft", "silver.flights.tailnum"),
        ("fligths", "silver.flights"),
        ("payl", "bronze.orders_raw.payload"),
        ("pyload", "bronze.orders_raw.payload"),
    ],
)
def test_slips_are_forgiven(index, typed, meant):
    assert names(index, typed)[0] == meant


def test_every_word_must_be_found(index):
    assert names(index, "orders aircraft") == []
    assert names(index, "qqqqqq") == names(index, "") == names(index, " _.- ") == []
    assert names(index, "orders", limit=1) == ["gold.orders"]


def test_tags_and_owners_are_found(catalog):
    say(catalog, Tagged("pii", ORDERS, "email"), Tagged("finance", ORDERS))
    with catalog.changing(_event()) as (rows, at):
        from lodestream.catalog import store

        store.put(rows, store.Entry("owner", "gold.orders", {"owner": "group:sales"}, at_us=at))
        store.put(rows, store.Entry("comment", "gold.orders.email", {"text": "where to write"}, at_us=at))
    index = Index(things(catalog, SCHEMAS, COMMENTS, []))
    assert names(index, "pii") == ["gold.orders.email"]
    assert set(names(index, "finance")) == {
        "gold.orders", "gold.orders.order_id", "gold.orders.email", "gold.orders.revenueEUR",
    }  # fmt: skip
    assert names(index, "sales") == ["gold.orders"]
    assert names(index, "write") == ["gold.orders.email"]
    (hit,) = index.find("pii", everything)
    assert hit.item.tags == ("finance", "pii")
    assert hit.fields == ("tags",)


def _event():
    from lodestream.ports.authority import Event

    return Event("root", "cli", "cli", "test", "allowed")


# What one may know of -------------------------------------------------------------------------------------------------


def test_nothing_of_what_one_may_not_know_is_found(catalog):
    items = list(things(catalog, SCHEMAS, COMMENTS, []))
    items += [
        Item("saved_query", "orders_of_flights", (ORDERS, FLIGHTS)),
        Item("dashboard", "orders_board", (ORDERS,)),
    ]
    index = Index(items)
    alice, bob = reader("alice"), reader("bob")
    say(catalog, Grant("alice", "select", "gold.orders"))
    found = set(names(index, "orders", seen_by(catalog, alice, SCHEMAS)))
    assert "gold.orders" in found
    assert "orders_board" in found
    assert "bronze.orders_raw" not in found
    assert "orders_of_flights" not in found, "it reads a table that alice may not know of"
    every = {word for item in items for word in split(f"{item.name} {item.comment}")}
    for word in every:
        assert names(index, word, seen_by(catalog, bob, SCHEMAS)) == [], word
        for name in names(index, word, seen_by(catalog, alice, SCHEMAS)):
            assert name.startswith("gold.orders") or name == "orders_board"


def test_columns_that_one_may_not_know_are_not_found(index):
    def no_email(table):
        return everything(table) - {"email"}

    assert names(index, "email", no_email) == []
    assert names(index, "email") == ["gold.orders.email"]


# What is searched -----------------------------------------------------------------------------------------------------


def test_saved_queries_and_dashboards_are_found_by_what_they_read(catalog, tmp_path):
    from lodestream.catalog.queries import entry
    from lodestream.catalog.store import put
    from lodestream.model.query import SavedQuery

    with catalog.changing(_event()) as (rows, at):
        put(rows, entry(SavedQuery("who_flies", "select carrier from silver.flights", title="All airlines"), at))
        put(rows, entry(SavedQuery("torn", "select from ("), at))
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries/by_mail.sql").write_text(
        "-- parameters: {whose: string}\nselect sum(amount) as all from gold.orders where email = $whose\n"
    )
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards/sales.yaml").write_text(
        "title: Sales\npanels:\n- {title: a, kind: number, sql: select count(*) as n from gold.orders}\n"
        "- {title: b, kind: table, sql: select email from gold.orders}\n"
    )
    found = {one.name: one for one in declared_readers(catalog, str(tmp_path), SCHEMAS)}
    assert found["who_flies"].reads == {FLIGHTS: {"carrier"}}
    assert "email" in found["by_mail"].reads[ORDERS]
    assert found["sales"].reads == {ORDERS: {"email"}}
    index = Index(things(catalog, SCHEMAS, COMMENTS, found.values()))
    assert names(index, "flies") == names(index, "airlines") == ["who_flies"]
    assert names(index, "by_mail") == ["by_mail"], "declared in a file"
    assert names(index, "sales") == ["sales"]
    assert names(index, "torn") == [], "nobody can tell whether one may know of it"


def test_the_demo_is_searched(tmp_path):
    import shutil
    from pathlib import Path

    shutil.copytree(Path(__file__).parents[2] / "src/lodestream/demo/project", tmp_path / "demo")
    app = open_project(str(tmp_path / "demo"))
    alice = reader("alice")
    assert [hit.item.name for hit in app.known.index().find("carrier delay", app.known.sees(alice))] == []
    say(app.catalog, Grant("alice", "select", "gold"))
    assert [hit.item.name for hit in app.known.index().find("delay carrier", app.known.sees(alice), limit=1)] == [
        "gold.delay_by_carrier"
    ]
    app.catalog.close()


# The distance ---------------------------------------------------------------------------------------------------------


def reference(one, other):
    """Optimal string alignment, by its definition."""
    from functools import cache

    @cache
    def at(i, j):
        if not i or not j:
            return i + j
        found = [at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + (one[i - 1] != other[j - 1])]
        if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
            found.append(at(i - 2, j - 2) + 1)
        return min(found)

    return at(len(one), len(other))


@given(st.text("abc", max_size=9), st.text("abc", max_size=9), st.integers(0, 4))
def test_differences_are_counted(one, other, most):
    assert differs(one, other, most) == reference(one, other) or (
        differs(one, other, most) > most and reference(one, other) > most
    )
