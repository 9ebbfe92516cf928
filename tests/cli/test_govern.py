"""Users, grants, policies, comments and tags from the command line."""

import pytest

from lodestream.app import open_project
from lodestream.model.access import Principal
from lodestream.model.table import TableName
from tests.cli.conftest import call

SILVER = TableName("silver", "orders")


@pytest.fixture
def shop(own_orders):
    """A project of the test's own, and what one sees in it."""

    def run(*arguments, code=0):
        result = call(*arguments, project=own_orders)
        assert result.code == code, result.err
        return result

    run.folder = own_orders
    return run


def seen(shop, name):
    app = open_project(str(shop.folder))
    principal = app.catalog.principal(name) or Principal(name)
    found = [str(one) for one in app.catalog.visible(principal, app.deployed)]
    app.catalog.close()
    return found


def test_a_user_is_granted_and_refused(shop):
    shop("users", "add", "alice", "-g", "analysts", "-a", "country=DE")
    assert seen(shop, "alice") == []
    shop("grant", "select", "gold", "group:analysts")
    shop("grant", "select,quarantine", "silver.orders", "alice", "bob")
    assert "silver.orders" in seen(shop, "alice")
    assert seen(shop, "bob") == ["silver.orders"]
    shop("revoke", "select,quarantine", "silver.orders", "bob")
    assert seen(shop, "bob") == []
    shop("users", "set", "alice", "--no-groups", "-a", "country=", "-a", "region=EU")
    (user,) = shop("users", "list", "--json").json["users"]
    assert (user["name"], user["groups"], user["attributes"], user["disabled"]) == (
        "alice",
        [],
        {"region": "EU"},
        False,
    )
    shop("users", "disable", "alice")
    assert "disabled" in shop("users", "list").out
    shop("users", "enable", "alice")
    assert seen(shop, "alice") == ["silver.orders"]
    shop("users", "remove", "alice")
    assert seen(shop, "alice") == []  # the next of that name has nothing of hers
    told = [(e["action"], e["decision"]) for e in shop("audit", "list", "--json").lines]
    assert {("user", "allowed"), ("grant", "allowed"), ("revoke", "allowed"), ("disable", "allowed")} <= set(told)


def test_policies_are_set_shown_and_dropped(shop):
    shop("grant", "select", "silver", "alice")
    shop(
        "policies",
        "set",
        "own",
        "--on",
        "silver.orders",
        "--where",
        "country = attribute('country')",
        "--except",
        "eve",
    )
    shop("policies", "set", "no_id", "--on", "silver.orders.customer_id", "--with", "null")
    shop("catalog", "tag", "secret", "silver.orders.amount")
    shop("policies", "set", "secret", "--with", "0")
    found = shop("catalog", "show", "orders", "--as", "alice", code=3)
    assert "no such table" in found.err  # bronze and silver have one of that name
    found = shop("catalog", "show", "silver.orders", "--as", "alice", "--json").json
    assert found["privileges"] == ["select"]
    assert found["filters"] == ['"country" = CAST(NULL AS VARCHAR)']
    assert found["columns"]["customer_id"].startswith("CAST(NULL")
    assert found["columns"]["amount"] is not None
    assert found["policies"] == ["row_filter:own", "mask:no_id", "tag_policy:secret"]
    listed = {(p["kind"], p["name"]) for p in shop("policies", "list", "--json").json["policies"]}
    assert ("row_filter", "own") in listed
    assert ("tag", "secret on silver.orders.amount") in listed
    assert "except eve" in shop("policies", "list", "--kind", "row_filter").out
    shop("catalog", "declassify", "secret", "silver.orders.amount")
    assert shop("policies", "list", "--kind", "declassified", "--json").json["policies"][0]["column"] == "amount"
    shop("catalog", "declassify", "secret", "silver.orders.amount", "--remove")
    shop("policies", "drop", "own")
    shop("policies", "drop", "no_id")
    shop("policies", "drop", "secret")
    shop("catalog", "tag", "secret", "silver.orders.amount", "--remove")
    assert shop("catalog", "show", "silver.orders", "--as", "alice", "--json").json["policies"] == []


def test_a_table_is_described(shop):
    shop("catalog", "comment", "silver.orders", "orders, once each")
    shop("catalog", "comment", "silver.orders.amount", "with tax")
    shop("catalog", "owner", "silver", "group:sales")
    found = shop("catalog", "show", "silver.orders", "--json").json
    assert (found["comment"], found["owner"]) == ("orders, once each", "group:sales")
    assert {c["name"]: c["comment"] for c in found["columns"]}["amount"] == "with tax"
    assert "orders, once each" in shop("catalog", "show", "silver.orders").out
    shop("catalog", "comment", "silver.orders", "")
    assert shop("catalog", "show", "silver.orders", "--json").json["comment"] == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("grant", "selct", "gold", "alice"), "nearest='select'"),
        (("grant", "select", "glod", "alice"), "nearest='gold'"),
        (("grant", "select", "silver.order", "alice"), "nearest='silver.orders'"),
        (("grant", "select", "gold", "group:"), "group:name"),
        (("revoke", "select", "gold", "alice"), "no such grant"),
        (("users", "set", "nobody"), "no such user"),
        (("users", "remove", "nobody"), "no such user"),
        (("users", "disable", "nobody"), "no such user"),
        (("users", "add", "group:x"), "name"),
        (("users", "add", "x", "-a", "y"), "name=value"),
        (("policies", "set", "p", "--on", "silver.orders", "--where", "contry = 'DE'"), "nearest='country'"),
        (("policies", "set", "p", "--on", "silver.orders", "--where", "country"), "condition"),
        (("policies", "set", "p", "--on", "silver.orders.contry", "--with", "null"), "nearest='country'"),
        (("policies", "set", "p", "--on", "silver.orders__quarantine", "--where", "true"), "quarantine"),
        (("policies", "set", "p", "--on", "silver.orders"), "either --where"),
        (("policies", "set", "P", "--on", "silver.orders", "--where", "true"), "not a name"),
        (("policies", "drop", "p"), "no such"),
        (("policies", "list", "--kind", "x"), "no such kind"),
        (("catalog", "comment", "silver.orders.x", "y"), "no such column"),
        (("catalog", "tag", "t", "silver"), "layer.table.column"),
    ],
    ids=lambda value: "-".join(value[:3]) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_told(orders, arguments, told):
    result = call(*arguments, project=orders)
    assert result.code == 3
    assert told in result.err
    assert call("policies", "list", "--json", project=orders).json["policies"] == []


def test_what_a_file_declares_is_changed_there(shop):
    (shop.folder / "policies.yaml").write_text(
        "users: {alice: {groups: [a]}}\ngrants:\n  - {to: group:a, select: gold}\nrow_filters:\n"
        "  f: {on: silver.orders, where: country = 'DE'}\n",
        encoding="utf-8",
    )
    assert "user alice: new" in shop("plan").out
    assert shop("plan", "--json").json["policies"][0] == "user alice: new"
    shop("run", "--until-idle")
    assert "Nothing to change" in shop("plan").out
    for arguments in (
        ("users", "set", "alice", "-g", "b"), ("users", "remove", "alice"), ("revoke", "select", "gold", "group:a"),
        ("policies", "drop", "f"),
    ):  # fmt: skip
        assert "policies.yaml" in shop(*arguments, code=3).err
    shop("users", "disable", "alice")  # but an attack does not wait for a review
    assert shop("catalog", "show", "silver.orders", "--as", "alice", code=8).out == ""
    shop("users", "enable", "alice")
    assert seen(shop, "alice") != []
