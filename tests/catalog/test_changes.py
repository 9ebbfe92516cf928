"""Who may change the catalog, what is refused, and that both are written down."""

import pytest

from lodestream.catalog.audit_table import Wanted, facts
from lodestream.catalog.changes import Changes
from lodestream.errors import AccessError, ConfigError
from lodestream.model.access import Principal
from lodestream.model.policy import Declassified, Grant, Mask, RowFilter, Tagged, TagPolicy, User
from lodestream.model.table import TableName
from lodestream.model.types import BIGINT, DATE, STRING, Column, Schema
from tests.catalog.conftest import reader, say

ORDERS, SILVER = TableName("gold", "orders"), TableName("silver", "orders")
SCHEMA = Schema((Column("id", BIGINT), Column("email", STRING), Column("at", DATE)))
SCHEMAS = {ORDERS: SCHEMA, SILVER: SCHEMA}
ROOT = Principal("root", "owner", via="cli")


@pytest.fixture
def by(catalog):
    """Changes in somebody's name."""
    return lambda principal: Changes(catalog, principal, "rest", SCHEMAS.get, lambda: SCHEMAS)


def written(catalog, count):
    """The newest records of the audit log, the newest first."""
    return [facts(record) for record in catalog._journal.records(Wanted(limit=count))]


CHANGES = {
    "user": (User("bob"), "*"),
    "grant": (Grant("bob", "select", "gold.orders"), "gold.orders"),
    "grant-layer": (Grant("bob", "select", "gold"), "gold"),
    "grant-all": (Grant("bob", "manage", "*"), "*"),
    "filter": (RowFilter("f", (ORDERS,), "id > 1"), "gold.orders"),
    "mask": (Mask("m", ((ORDERS, "email"),), "null"), "gold.orders"),
    "tag": (Tagged("pii", ORDERS, "email"), "gold.orders"),
    "declassified": (Declassified("pii", ORDERS, "email"), "*"),
    "tag-policy": (TagPolicy("pii", "null"), "*"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("held", ["", "gold.orders", "gold", "silver", "*"])
def test_a_change_needs_manage_on_what_it_touches(catalog, by, name, held):
    change, needed = CHANGES[name]
    if held:
        say(catalog, Grant("alice", "manage", held))
    before = catalog.version()
    wider = {"gold.orders": ("gold.orders", "gold", "*"), "gold": ("gold", "*"), "*": ("*",)}[needed]
    if held in wider:
        by(reader()).put(change)
        assert catalog.version() == before + 1
        return
    with pytest.raises(AccessError, match="manage"):
        by(reader()).put(change)
    assert catalog.version() == before
    (last,) = written(catalog, 1)
    assert (last["principal"], last["decision"]) == ("alice", "refused")


def test_a_filter_over_two_tables_needs_both(catalog, by):
    say(catalog, Grant("alice", "manage", "gold"))
    with pytest.raises(AccessError):
        by(reader()).put(RowFilter("f", (ORDERS, SILVER), "id > 1"))


def test_reading_is_no_leave_to_change(catalog, by):
    say(catalog, Grant("alice", "select", "*"), Grant("alice", "quarantine", "*"), Grant("alice", "replay", "*"))
    with pytest.raises(AccessError):
        by(reader()).put(Grant("alice", "manage", "gold"))
    with pytest.raises(AccessError):
        by(reader()).comment("gold.orders", "mine")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (RowFilter("f", (TableName("gold", "order"),), "true"), "gold.orders"),
        (RowFilter("f", (ORDERS,), "emial = 'x'"), "email"),
        (RowFilter("f", (ORDERS,), "email"), "condition"),
        (RowFilter("f", (ORDERS,), "true", ("group:",)), "group:name"),
        (RowFilter("f", (TableName("gold", "orders__quarantine"),), "true"), "quarantine"),
        (Mask("m", ((ORDERS, "id"),), "at"), "P111"),
        (Mask("m", ((ORDERS, "nothing"),), "null"), "no such column"),
        (Tagged("PII", ORDERS), "not a name"),
        (Grant("bob", "select", "orders"), "layer"),
        (Grant("bob", "own", "gold"), "privilege"),
        (Grant("", "select", "gold"), "user"),
        (User("-"), "name"),
    ],
    ids=str,
)
def test_what_cannot_hold_is_refused(catalog, by, change, told):
    before = catalog.version()
    with pytest.raises(ConfigError, match=told):
        by(ROOT).put(change)
    assert catalog.version() == before


def test_a_column_has_one_mask(catalog, by):
    by(ROOT).put(Mask("m", ((ORDERS, "email"),), "null"))
    by(ROOT).put(Mask("m", ((ORDERS, "email"),), "'x'"))  # in its own place
    with pytest.raises(ConfigError, match="drop that first"):
        by(ROOT).put(Mask("other", ((ORDERS, "email"),), "null"))


def test_a_tag_policy_must_fit_every_column_that_has_the_tag(catalog, by):
    by(ROOT).put(Tagged("pii", ORDERS, "id"))
    with pytest.raises(ConfigError, match="P111"):
        by(ROOT).put(TagPolicy("pii", "at"))
    by(ROOT).put(TagPolicy("pii", "email"))


def test_every_change_is_written_down_with_its_number(catalog, by):
    by(ROOT).put(Grant("bob", "select", "gold"))
    by(ROOT).drop("grant", "select on gold to bob")
    with pytest.raises(ConfigError, match="no such grant"):
        by(ROOT).drop("grant", "select on gold to bob")
    second, first = written(catalog, 2)
    assert (first["action"], second["action"]) == ("grant", "revoke")
    assert first["catalog_version"] == catalog.version() - 1
    assert first["detail"]["says"] == '{"on": "gold", "privilege": "select", "to": "bob"}'
    assert first["door"] == "rest"
