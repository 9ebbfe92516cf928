"""Sinks beside flows: run, stop, status, metrics and failures, on a real broker."""

from __future__ import annotations

import json

import pytest

from lodestream.app import now_us
from lodestream.errors import ConfigError
from lodestream.operations.metrics import exposition
from tests.cli.conftest import call
from tests.sinks.reading import messages
from tests.sinks.shop import Shop


@pytest.fixture
def shop(kafka, tmp_path):
    made = Shop(tmp_path, kafka)
    made.sell(120)
    return made


def test_a_run_ends_when_all_is_published_and_status_says_so(shop):
    told = call("run", "--until-idle", "--json", project=shop.root)
    assert told.code == 0, told.err
    done = told.lines[-1]["tables"]
    orders, revenue = f"bronze.orders -> kafka:{shop.orders}", f"gold.revenue -> kafka:{shop.revenue}"
    assert done[orders]["counts"] == {"input": 120, "output": 120}
    assert done[revenue]["counts"]["output"] == shop.check()[1]
    found = {
        sink["sink"]: sink
        for one in call("status", "--json", project=shop.root).json["tables"]
        for sink in one["sinks"]
    }
    assert found.keys() == {orders, revenue}
    assert all(sink["behind"] == 0 and sink["under_way"] is None for sink in found.values())
    assert found[orders]["messages"] == 120
    shown = call("status", project=shop.root).out
    assert orders in shown
    shop.sell(10)
    assert call("run", "--once", project=shop.root).code == 0
    assert call("run", "--until-idle", project=shop.root).code == 0
    assert shop.check()[0] == 130


def test_a_table_that_is_chosen_brings_its_sinks(shop):
    assert call("run", "--until-idle", "--table", "bronze.orders", project=shop.root).code == 0
    assert len(messages(shop.broker.plain, shop.orders)) == 120
    told = call("run", "--until-idle", "--json", "--table", "gold.revenue", project=shop.root)
    assert told.lines[-1]["tables"].keys() == {"gold.revenue", f"gold.revenue -> kafka:{shop.revenue}"}
    shop.check()


def test_a_sink_that_fails_stops_alone(shop):
    text = (shop.root / "tables/gold/revenue.yaml").read_text()
    shop.table("gold.revenue", text.replace("create: {partitions: 2}", "start: all"))
    app = shop.app()
    app.apply()
    pipeline = app.pipeline()
    heard = []
    with pytest.raises(ConfigError, match="no such topic"):
        pipeline.run(until_idle=True, on_error=lambda status: heard.append(str(status.table)))
    states = {str(status.table): status.state for status in pipeline.status}
    broken = f"gold.revenue -> kafka:{shop.revenue}"
    assert states.pop(broken) == "failed"
    assert set(states.values()) == {"stopped"}
    assert heard == [broken]
    assert len(messages(shop.broker.plain, shop.orders)) == 120
    assert f'lodestream_state{{table="{broken}",state="failed"}} 1' in exposition(pipeline.status, now_us())
    shop.table("gold.revenue", text)  # mended: nothing was lost
    shop.run()
    shop.check()


def test_plan_and_explain_show_the_sink(shop):
    shown = call("plan", project=shop.root).out
    assert f"published to kafka:{shop.orders}" in shown
    assert (
        f"publish new rows to kafka:{shop.orders} by country" in call("explain", "bronze.orders", project=shop.root).out
    )
    shop.run()
    text = (shop.root / "tables/bronze/orders.yaml").read_text()
    shop.table("bronze.orders", text.replace("key: country", "key: order_id"))
    (change,) = call("plan", "--json", project=shop.root).json["changes"]
    assert (change["kind"], change["rebuild"]) == ("alter_metadata", False)
    shop.sell(5)
    shop.run()  # goes on with the new key, from where it was
    found = messages(shop.broker.plain, shop.orders)
    assert len(found) == 125
    assert sorted(json.loads(one.value)["order_id"] for one in found if one.key.isdigit()) == list(range(120, 125))


def test_a_sink_that_is_added_later_begins_with_all(kafka, tmp_path):
    shop = Shop(tmp_path, kafka)
    text = (tmp_path / "tables/bronze/orders.yaml").read_text()
    shop.table("bronze.orders", text[: text.index("sink:")])
    for _ in range(3):
        shop.sell(40)
        shop.run()
    shop.table("bronze.orders", text)
    shop.sell(40)
    shop.run()
    assert shop.check()[0] == 160
