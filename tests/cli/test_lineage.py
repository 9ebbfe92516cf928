import shutil

from tests.cli.conftest import call


def hops(project, *arguments):
    found = call("lineage", *arguments, "--json", project=project)
    assert found.code == 0, found.err
    return {(one["table"], one["column"], one["how"]) for one in found.json["hops"]}


def test_a_column_is_followed_up_and_down(orders):
    assert ("silver.orders", "amount", "value") in hops(orders, "gold.revenue_per_minute.revenue")
    assert ("bronze.orders", "amount", "value") in hops(orders, "gold.revenue_per_minute.revenue")
    assert ("gold.revenue_per_minute", "revenue", "value") in hops(orders, "bronze.orders.amount", "--down")
    near = hops(orders, "bronze.orders.amount", "--down", "--depth", "1")
    assert {table for table, _, _ in near} == {"silver.orders"}
    assert all(how == "value" for _, _, how in hops(orders, "bronze.orders.amount", "--down", "--values"))


def test_a_table_is_followed(orders):
    assert ("gold.revenue_per_minute", None, "rows") in hops(orders, "bronze.orders", "--down")
    shown = call("lineage", "gold.revenue_per_minute", project=orders).out
    assert "silver.orders" in shown
    assert "Nothing is above" in call("lineage", "bronze.orders", project=orders).out


def test_who_asked_is_shown(own_orders):
    shutil.rmtree(own_orders / "lake/_lodestream/access", ignore_errors=True)  # nobody has asked anything yet
    assert call("query", "select country from gold.revenue_per_minute", project=own_orders).code == 0
    readers = call("lineage", "silver.orders.country", "--down", "--json", project=own_orders).json["readers"]
    assert {"gold.revenue_per_minute": ["country"]} in [one["reads"] for one in readers]


def test_what_is_not_there_is_told(orders):
    for wrong in ("gold.nothing", "gold.revenue_per_minute.nothing"):
        result = call("lineage", wrong, project=orders)
        assert result.code == 3
        assert "no such" in result.err
    assert call("lineage", project=orders).code == 3


def test_every_table_is_an_openlineage_event(orders):
    events = call("lineage", "--openlineage", project=orders).lines
    assert "flow.gold.revenue_per_minute" in {one["job"]["name"] for one in events}
    assert all(one["schemaURL"].startswith("https://openlineage.io/spec/2-0-2/") for one in events)
