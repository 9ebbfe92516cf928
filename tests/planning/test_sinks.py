"""What a table file says of its sinks: one or a list, checked against the columns, and no reason for a rebuild."""

import itertools

import pytest

from lodestream.model.table import SinkName, TableName
from lodestream.planning.compile import compile_project
from lodestream.planning.diff import Deployed, diff
from lodestream.planning.explain import explain
from lodestream.ports import plugins
from lodestream.project.build import table
from lodestream.project.load import read_project
from lodestream.project.mistakes import ProjectError
from lodestream.sinks.kafka import KafkaSink

GOLD, QUERY = "tables/gold/revenue.yaml", "tables/gold/by_country.yaml"
SQL = "sql: select country, count(*) as n from silver.orders group by country\n"


@pytest.fixture(autouse=True)
def _with_the_real_sink(_components, monkeypatch):
    names, load = plugins.names, plugins.load
    monkeypatch.setattr(plugins, "names", lambda room: ["kafka"] if room == "sinks" else names(room))
    monkeypatch.setattr(plugins, "load", lambda room, name: KafkaSink if room == "sinks" else load(room, name))


@pytest.fixture
def plans(write, sample):
    def compiled(sink, file=GOLD):
        text = SQL if file == QUERY else sample[file]
        return compile_project(read_project(write({file: f"{text}{sink}\n"})), {})

    return compiled


def mistakes(compiled, sink, file=GOLD):
    with pytest.raises(ProjectError) as refused:
        compiled(sink, file)
    return [(one.line, one.code, one.nearest) for one in refused.value.diagnostics]


def test_one_sink_or_several(plans):
    found = plans("sink: {kafka: {topic: revenue}}").flows[TableName("gold", "revenue")]
    (sink,) = found.sinks
    assert sink.name == SinkName(TableName("gold", "revenue"), "kafka:revenue")
    assert str(sink.name) == "gold.revenue -> kafka:revenue"
    assert (sink.key, sink.changing, sink.value, sink.exactly_once) == (("window_start", "country"), True, None, True)
    two = plans("sink:\n- kafka: {topic: a, key: [country, window_start], columns: [orders]}\n- kafka: {topic: b}")
    first, second = two.flows[TableName("gold", "revenue")].sinks
    assert (first.key, first.value, first.beside) == (
        ("country", "window_start"), ("orders",), ("orders", "country", "window_start"),
    )  # fmt: skip
    assert second.name.sink == "kafka:b"


def test_rows_that_only_join_need_no_key(plans):
    found = plans("sink: {kafka: {topic: orders, headers: [_source]}}", "tables/silver/orders.yaml")
    (sink,) = found.flows[TableName("silver", "orders")].sinks
    assert (sink.key, sink.changing, sink.beside) == ((), False, ("_source",))


@pytest.mark.parametrize(("sink", "file", "wanted"), [
    ("sink: {kafka: {topic: t, key: [countri]}}", GOLD, [(7, "P110", "country")]),
    ("sink: {kafka: {topic: t, columns: [order]}}", GOLD, [(7, "P110", "orders")]),
    ("sink:\n- kafka: {topic: a}\n- kafka:\n    topic: t\n    key: revenu", GOLD, [(11, "P110", "revenue")]),
    ("sink: {kafka: {topic: t, value: raw}}", GOLD, [(7, "P110", "_rows")]),
    ("sink: {kafka: {topic: t}}", QUERY, [(2, "D212", None)]),
    ("sink: [{kafka: {topic: t}}, {kafka: {topic: t}}]", GOLD, [(7, "D113", None)]),
    ("sink: {kafka: {topik: t}}", GOLD, [(7, "D105", None), (7, "D103", "topic")]),
    ("sink: {kafka: {topic: 'a b'}}", GOLD, [(7, "D203", None)]),
    ("sink: {kafka: {topic: t, start: old}}", GOLD, [(7, "D203", None)]),
    ("sink: {kafk: {topic: t}}", GOLD, [(7, "D202", "kafka")]),
    ("sink: 7", GOLD, [(7, "D104", None)]),
    ("sinks: {kafka: {topic: t}}", GOLD, [(7, "D103", "sink")]),
])  # fmt: skip
def test_mistakes_have_place_code_and_nearest(plans, sink, file, wanted):
    assert mistakes(plans, sink, file) == wanted


def test_adding_or_changing_a_sink_touches_no_row(plans):
    name = TableName("gold", "revenue")
    stages = ["", "sink: {kafka: {topic: a}}", "sink: {kafka: {topic: b, key: [country]}}"]
    for before, after in itertools.pairwise(stages):
        old, new = plans(before), plans(after)
        assert old.flows[name].definition == new.flows[name].definition
        lake = {n: Deployed(p.declaration, p.schema, p.definition) for n, p in old.flows.items()}
        (change,) = diff(new, lake)
        assert (change.table, change.kind) == (name, "alter_metadata")
        assert all(line.startswith("sink: ") for line in change.lines)
        assert '"topic": ' in change.lines[0]


def test_where_to_find_the_cluster_is_not_stored_with_the_table(plans):
    found = plans("sink: {kafka: {topic: a, servers: 'secret:9092', user: u, password: p}}")
    assert "secret" not in found.flows[TableName("gold", "revenue")].declaration


def test_explain_tells_the_sink(plans):
    found = plans("sink: {kafka: {topic: a, profile: event_hubs, connection_string: '${env:HUBS}'}}")
    last = explain(found.flows[TableName("gold", "revenue")]).steps[-1]
    assert last == "publish changes to kafka:a by window_start, country: all columns, at least once"
    (note,) = [note for note in found.notes if note.code == "N102"]
    assert "at least once" in note.message
    assert dict(note.facts) == {"sink": "gold.revenue -> kafka:a"}


def test_a_shared_connection_is_under_what_the_table_says(write, sample):
    config = sample["lodestream.yaml"] + "connections: {kafka: {servers: 'broker:9092', client: {linger.ms: 7}}}\n"
    text = sample[GOLD] + "sink: {kafka: {topic: a, client: {acks: all}}}\n"
    found = compile_project(read_project(write({"lodestream.yaml": config, GOLD: text})), {})
    (sink,) = found.flows[TableName("gold", "revenue")].sinks
    assert sink.sink.settings == {"servers": "broker:9092", "client": {"acks": "all"}, "topic": "a"}


def test_sinks_in_python():
    made = table("gold.x", sql="select 1 as a", sink=[{"kafka": {"topic": "a", "key": "a"}}])
    assert [(one.name, dict(one.settings)) for one in made.sinks] == [("kafka", {"topic": "a", "key": "a"})]
