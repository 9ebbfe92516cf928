"""What the catalog decides: deny by default, grants at three levels, filters, masks, tags, quarantine."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lodestream.catalog import store
from lodestream.errors import AccessError
from lodestream.model.access import PRIVILEGES, Principal
from lodestream.model.policy import Declassified, Grant, Mask, RowFilter, Tagged, TagPolicy, User
from lodestream.model.table import TableName
from lodestream.model.types import BIGINT, BINARY, STRING, Column, Schema
from tests.catalog.conftest import BOTH, EVENT, reader, say

ROOT = Path(__file__).parents[2]
ORDERS = TableName("gold", "orders")
SILVER = TableName("silver", "orders")
SET_ASIDE = TableName("gold", "orders__quarantine")
SCHEMA = Schema((Column("id", BIGINT), Column("country", STRING), Column("email", STRING)))
ALL = (ORDERS, SET_ASIDE, SILVER, TableName("bronze", "orders"))


@BOTH
def test_who_is_not_mentioned_sees_nothing(catalog):
    assert catalog.visible(reader(), ALL) == []
    assert catalog.privileges(reader(), ORDERS) == frozenset()
    with pytest.raises(AccessError):
        catalog.access(reader(), ORDERS, SCHEMA)
    say(catalog, Grant("bob", "select", "*"))
    assert catalog.visible(reader(), ALL) == []


@BOTH
@pytest.mark.parametrize(
    ("on", "seen"),
    [("gold.orders", [ORDERS]), ("gold", [ORDERS]), ("*", [ORDERS, SILVER, ALL[3]]), ("silver.other", [])],
)
@pytest.mark.parametrize("to", ["alice", "group:analysts"])
def test_grants_hold_on_a_table_a_layer_and_everything(catalog, on, seen, to):
    say(catalog, Grant(to, "select", on))
    alice = reader("alice", "analysts")
    assert catalog.visible(alice, ALL) == seen
    for table in ALL:
        assert ("select" in catalog.privileges(alice, table)) == (table in seen)
    assert catalog.visible(reader("mallory", "alice"), ALL) == []  # a group's name is not a user's


def test_no_privilege_includes_another(catalog):
    for one in PRIVILEGES:
        say(catalog, Grant(f"has_{one}", one, "gold"))
        assert catalog.privileges(reader(f"has_{one}"), ORDERS) == {one}


def test_the_owner_is_bound_by_nothing(catalog):
    say(catalog, RowFilter("f", (ORDERS,), "false"), Mask("m", ((ORDERS, "email"),), "null"))
    root = Principal("root", "owner")
    assert catalog.access(root, ORDERS, SCHEMA).whole
    assert catalog.visible(root, ALL) == list(ALL)
    assert catalog.privileges(root, SET_ASIDE) == {"select", "quarantine", "replay", "manage"}


def test_a_credential_gives_no_more_than_its_scopes(catalog):
    say(catalog, Grant("alice", "select", "*"), Grant("alice", "manage", "*"))

    def held(*scopes):
        return catalog.privileges(Principal("alice", scopes=scopes), ORDERS)

    assert held("query:*") == held("query:gold") == held("query:gold.orders") == {"select"}
    assert held("ingest:*") == held("query:silver") == held() == frozenset()
    assert held("admin:*", "query:*") == {"select", "manage"}
    assert catalog.privileges(Principal("root", "owner", scopes=("ingest:*",)), ORDERS) == frozenset()


def test_a_disabled_user_has_nothing(catalog):
    say(catalog, User("alice", groups=frozenset({"analysts"})), Grant("group:analysts", "select", "*"))
    assert catalog.visible(catalog.principal("alice"), [ORDERS]) == [ORDERS]
    say(catalog, User("alice", groups=frozenset({"analysts"}), disabled=True))
    with pytest.raises(AccessError, match="disabled"):
        catalog.principal("alice")
    assert catalog.visible(reader("alice", "analysts"), [ORDERS]) == []
    assert catalog.principal("nobody") is None


def test_filters_and_masks_bind_all_but_the_exempt(catalog):
    say(
        catalog,
        Grant("group:analysts", "select", "gold"),
        RowFilter("own", (ORDERS,), "country = attribute('country')", ("group:admins", "carol")),
        Mask("mail", ((ORDERS, "email"),), "'***'", ("carol",)),
    )
    found = catalog.access(reader("alice", "analysts", country="DE"), ORDERS, SCHEMA)
    assert found.filters == ("\"country\" = 'DE'",)
    assert found.columns == (("id", None), ("country", None), ("email", "'***'"))
    assert found.policies == ("row_filter:own", "mask:mail")
    assert found.version == catalog.version()
    assert catalog.access(reader("carol", "analysts"), ORDERS, SCHEMA).whole
    boss = catalog.access(reader("boss", "analysts", "admins"), ORDERS, SCHEMA)
    assert boss.filters == ()
    assert boss.policies == ("mask:mail",)


def test_what_the_reader_is_called_stays_text(catalog):
    say(catalog, Grant("group:a", "select", "*"), RowFilter("own", (ORDERS,), "country = current_user()"))
    found = catalog.access(reader("x' OR '1'='1", "a"), ORDERS, SCHEMA)
    assert found.filters == ("\"country\" = 'x'' OR ''1''=''1'",)


def test_what_was_set_aside_is_refused_to_whom_a_policy_binds(catalog):
    say(catalog, Grant("group:ops", "quarantine", "gold"), Grant("group:ops", "select", "gold"))
    alice, carol = reader("alice", "ops"), reader("carol", "ops")
    raw = Schema((Column("_raw", BINARY),))
    assert catalog.access(alice, SET_ASIDE, raw).whole
    assert catalog.visible(alice, ALL) == [ORDERS, SET_ASIDE]
    say(catalog, Mask("mail", ((ORDERS, "email"),), "null", ("carol",)))
    assert catalog.visible(alice, ALL) == [ORDERS]
    with pytest.raises(AccessError):
        catalog.access(alice, SET_ASIDE, raw)
    assert catalog.access(carol, SET_ASIDE, raw).whole


def test_a_policy_of_a_table_above_refuses_what_was_set_aside_below(catalog):
    say(catalog, Grant("alice", "quarantine", "gold"), RowFilter("f", (SILVER,), "country = 'DE'"))
    assert "quarantine" in catalog.privileges(reader(), ORDERS)
    assert (catalog.filtered(reader(), ORDERS), catalog.filtered(reader(), SILVER)) == (False, True)
    flow(catalog, ORDERS, {"id": [SILVER, "id"]})
    assert catalog.privileges(reader(), ORDERS) == frozenset()
    assert catalog.filtered(reader(), ORDERS), "its figures tell of rows that are hidden above"


@pytest.mark.parametrize(
    "policy", [RowFilter("p", (ORDERS,), "country = 'DE'"), Mask("p", ((ORDERS, "country"),), "'x'")]
)
def test_an_old_version_without_the_column_of_a_policy_is_not_shown(catalog, policy):
    say(catalog, Grant("alice", "select", "*"), policy)
    assert catalog.access(reader(), ORDERS, SCHEMA)
    with pytest.raises(AccessError, match="version"):
        catalog.access(reader(), ORDERS, SCHEMA.without("country"))


def test_a_tag_masks_its_columns_wherever_they_are(catalog):
    say(
        catalog, Grant("alice", "select", "*"), Grant("eve", "select", "*"), Tagged("pii", ORDERS, "email"),
        Tagged("pii", SILVER), TagPolicy("pii", "null", ("eve",)),
    )  # fmt: skip
    assert dict(catalog.access(reader(), ORDERS, SCHEMA).columns)["email"] == "CAST(NULL AS VARCHAR)"
    assert [masked is None for _, masked in catalog.access(reader(), SILVER, SCHEMA).columns] == [False] * 3
    assert catalog.access(reader("eve"), SILVER, SCHEMA).whole


def flow(catalog, table, columns):
    """Say where a table's columns come from."""
    named = {column: [[str(name), source]] for column, (name, source) in columns.items()}
    inputs = sorted({str(name) for name, _ in columns.values() if name != table})
    with catalog.changing(EVENT) as (rows, _):
        store.put(rows, store.Entry("flow", str(table), {"columns": named, "inputs": inputs}, "plan"))


def test_tags_flow_to_what_is_computed_from_a_column(catalog):
    flow(catalog, SILVER, {"mail": (ALL[3], "email"), "id": (ALL[3], "id")})
    flow(catalog, ORDERS, {"contact": (SILVER, "mail"), "id": (SILVER, "id")})
    say(catalog, Grant("alice", "select", "*"), Tagged("pii", ALL[3], "email"), TagPolicy("pii", "null"))
    schema = Schema((Column("id", BIGINT), Column("contact", STRING)))
    assert catalog.access(reader(), ORDERS, schema).columns == (("id", None), ("contact", "CAST(NULL AS VARCHAR)"))
    old = schema.with_columns(Column("before", STRING))
    assert catalog.access(reader(), ORDERS, old).columns == catalog.access(reader(), ORDERS, schema).columns


def test_what_is_declassified_inherits_no_tag_and_hands_none_on(catalog):
    top = TableName("gold", "top")
    flow(catalog, ORDERS, {"mail": (SILVER, "email"), "n": (SILVER, "email")})
    flow(catalog, top, {"mails": (ORDERS, "n"), "mail": (ORDERS, "mail")})
    say(catalog, Grant("alice", "select", "*"), Tagged("pii", SILVER, "email"), Tagged("big", SILVER, "email"),
        TagPolicy("pii", "null"), Declassified("pii", ORDERS, "n"))  # fmt: skip
    assert catalog.state.tags_of(ORDERS, "n") == catalog.state.tags_of(top, "mails") == {"big"}
    assert catalog.state.tags_of(top, "mail") == {"pii", "big"}
    schema = Schema((Column("mail", STRING), Column("n", BIGINT)))
    assert dict(catalog.access(reader(), ORDERS, schema).columns) == {"mail": "CAST(NULL AS VARCHAR)", "n": None}
    say(catalog, Declassified("pii", SILVER))  # what carries a tag itself keeps it
    assert "pii" in catalog.state.tags_of(SILVER, "email")


def test_the_mask_of_a_tag_is_made_for_the_column_and_hides_what_it_does_not_fit(catalog):
    flow(catalog, ORDERS, {"contact": (SILVER, "email"), "length": (SILVER, "email"), "id": (SILVER, "id")})
    say(catalog, Grant("alice", "select", "*"), Tagged("pii", SILVER, "email"), TagPolicy("pii", "value() || '…'"))
    assert dict(catalog.access(reader(), SILVER, SCHEMA).columns)["email"] == "\"email\" || '…'"
    schema = Schema((Column("id", BIGINT), Column("contact", STRING), Column("length", BIGINT)))
    shown = dict(catalog.access(reader(), ORDERS, schema).columns)
    assert shown == {"id": None, "contact": "\"contact\" || '…'", "length": "CAST(NULL AS BIGINT)"}
    say(catalog, Tagged("pii", SILVER, "id"))  # what carries the tag itself must fit, or nothing is shown of the table
    with pytest.raises(AccessError, match="tag_policy:pii"):
        catalog.access(reader(), SILVER, SCHEMA)


def test_the_record_as_it_came_is_hidden_with_what_it_holds(catalog):
    schema = SCHEMA.with_columns(Column("_raw", BINARY), Column("upper_mail", STRING))
    bronze = ALL[3]
    flow(catalog, bronze, {"id": (bronze, "id"), "country": (bronze, "country"), "email": (bronze, "email"),
                           "_raw": (bronze, "email"), "upper_mail": (bronze, "email")})  # fmt: skip
    say(catalog, Grant("alice", "select", "*"), Mask("mail", ((bronze, "email"),), "'***'"))
    shown = dict(catalog.access(reader(), bronze, schema).columns)
    assert shown == {"id": None, "country": None, "email": "'***'", "_raw": "CAST(NULL AS BLOB)",
                     "upper_mail": "CAST(NULL AS VARCHAR)"}  # fmt: skip


def test_masks_that_do_not_agree_show_nothing(catalog):
    say(
        catalog, Grant("alice", "select", "*"), Mask("mail", ((ORDERS, "email"),), "'***'"),
        Tagged("a", ORDERS, "email"), TagPolicy("a", "'---'", ("group:x",)),
    )  # fmt: skip
    assert dict(catalog.access(reader(), ORDERS, SCHEMA).columns)["email"] == "CAST(NULL AS VARCHAR)"
    assert dict(catalog.access(reader("alice", "x"), ORDERS, SCHEMA).columns)["email"] == "'***'"


# Keeping up -----------------------------------------------------------------------------------------------------------


@BOTH
def test_another_process_is_seen_within_a_second(where, opened, tmp_path):
    mine = opened(where)
    assert mine.visible(reader(), [ORDERS]) == []
    program = "import sys; from tests.catalog.test_catalog import _grant; _grant(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", program, where, str(tmp_path)], check=True, timeout=60, cwd=ROOT)
    deadline = time.monotonic() + 1.0
    while mine.visible(reader(), [ORDERS]) == [] and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # a busy machine may have slept through the deadline
    assert mine.visible(reader(), [ORDERS]) == [ORDERS]


def _grant(where, folder):
    from tests.catalog.conftest import Opened

    opens = Opened(folder)
    say(opens(where), Grant("alice", "select", "gold"))
    opens.found[0].close()


@BOTH
def test_writers_side_by_side_lose_nothing(where, opened):
    catalogs = [opened(where, refresh_s=0.0) for _ in range(3)]
    before = catalogs[0].version()

    def work(number, catalog):
        for i in range(10):
            say(catalog, Grant(f"user{number}_{i}", "select", "gold"))

    threads = [threading.Thread(target=work, args=item) for item in enumerate(catalogs)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert all(len(one.state.grants) == 30 for one in catalogs)
    assert {one.version() for one in catalogs} == {before + 30}
    with catalogs[0].database.read() as rows:
        assert rows.all("SELECT count(*) FROM audit_log WHERE action = 'test'")[0][0] == 30


@BOTH
def test_a_change_that_cannot_be_written_down_is_not_made(catalog, monkeypatch):
    class Full:
        def append(self, rows, events, at_us):
            raise OSError("no space")

    before = catalog.version()
    monkeypatch.setattr(catalog, "_journal", Full())
    with pytest.raises(OSError, match="no space"):
        say(catalog, Grant("alice", "select", "*"))
    assert catalog.version() == before
    assert catalog.visible(reader(), [ORDERS]) == []


def test_the_version_is_cheap_to_ask_for(where, opened):
    catalog = opened(where)
    catalog.version()
    reads = []
    real = catalog.database.read
    catalog.database.read = lambda: reads.append(1) or real()
    for _ in range(1_000):
        catalog.version()
    assert len(reads) < 20  # looked up a few times a second, however often it is asked
