"""Lineage: known answers on the demo, nothing through what one may not see, readers by the audit log, OpenLineage."""

import json
from pathlib import Path

import pytest

from lodestream.catalog import usage
from lodestream.catalog.lineage import Hop, Lineage, Reader, everything
from lodestream.catalog.openlineage import job_events
from lodestream.catalog.sql_reads import reads
from lodestream.model.table import TableName
from lodestream.planning.compile import compile_project
from lodestream.ports.authority import Event
from lodestream.project.load import load_project
from tests.catalog.conftest import BOTH, audit_log

DEMO = Path(__file__).parents[2] / "src/lodestream/demo/project"


def t(text):
    return TableName.parse(text)


FLIGHTS, BY_CARRIER, PER_HOUR = t("silver.flights"), t("gold.delay_by_carrier"), t("gold.departures_per_hour")
GOLD_OF_FLIGHTS = {
    "gold.cancellations_by_weather", "gold.delay_by_carrier", "gold.delay_by_route", "gold.departures_per_hour",
}  # fmt: skip


@pytest.fixture(scope="module")
def flows():
    return compile_project(load_project(str(DEMO)), {}).flows


@pytest.fixture(scope="module")
def known(flows):
    return Lineage(flows)


def texts(walk):
    return {str(hop.table) if hop.column is None else f"{hop.table}.{hop.column}" for hop in walk.hops}


# Up and down ----------------------------------------------------------------------------------------------------------


def test_a_value_is_followed_to_bronze(known):
    walk = known.up(BY_CARRIER, "arr_delay_mean", sees=everything(known), values=True)
    assert walk.hops == (
        Hop(1, FLIGHTS, "arr_delay", (BY_CARRIER, "arr_delay_mean"), "value"),
        Hop(2, t("bronze.flights"), "arr_delay", (FLIGHTS, "arr_delay"), "value"),
    )
    assert texts(known.up(BY_CARRIER, "airline", sees=everything(known), values=True)) == {
        "silver.flights.airline", "silver.airlines.name", "bronze.airlines.name",
    }  # fmt: skip
    assert texts(known.up(FLIGHTS, "cancelled", sees=everything(known), values=True)) == {"bronze.flights.dep_time"}
    assert known.up(PER_HOUR, "scheduled", sees=everything(known), values=True).hops == (), "count(*) has no values"


def test_what_decides_the_rows_is_told_apart(known):
    walk = known.up(FLIGHTS, "airline", sees=everything(known), depth=1)
    hows = {(str(hop.table), hop.column): hop.how for hop in walk.hops}
    assert hows["silver.airlines", "name"] == "value"
    assert hows["bronze.flights", "distance"] == "filter"
    assert hows["bronze.flights", "flight"] == "dedup"
    assert hows["bronze.flights", "tailnum"] == "join", "its rule only warns"
    assert hows["silver.planes", "tailnum"] == "join"
    assert ("bronze.flights", "arr_time") not in hows, "a rule that only warns decides nothing"
    hour = {(hop.column, hop.how) for hop in known.up(PER_HOUR, "cancelled", sees=everything(known), depth=1).hops}
    assert hour == {("cancelled", "value"), ("origin", "group"), ("time_hour", "filter")}


def test_tables_are_followed_by_depth(known):
    sees = everything(known)
    assert texts(known.up(BY_CARRIER, sees=sees, depth=1)) == {"silver.flights"}
    assert {"bronze.weather", "silver.planes", "bronze.flights"} <= texts(known.up(BY_CARRIER, sees=sees))
    assert texts(known.down(t("bronze.weather"), sees=sees, depth=1)) == {"silver.weather"}
    assert texts(known.down(t("bronze.weather"), sees=sees)) == {"silver.weather", "silver.flights"} | GOLD_OF_FLIGHTS
    assert known.down(BY_CARRIER, sees=sees).hops == ()


def test_a_change_of_a_column_breaks_what_it_decides_too(known):
    sees = everything(known)
    found = texts(known.down(t("bronze.flights"), "distance", sees=sees))
    assert {"silver.flights.distance", "silver.flights"} | GOLD_OF_FLIGHTS <= found
    assert texts(known.down(t("bronze.flights"), "distance", sees=sees, values=True)) & GOLD_OF_FLIGHTS == set()
    assert texts(known.down(FLIGHTS, "temp", sees=sees)) == set(), "nothing in gold uses it"
    assert texts(known.down(FLIGHTS, "arr_delay", sees=sees)) == {
        "gold.delay_by_carrier.arr_delay_sum", "gold.delay_by_carrier.arr_delay_mean",
        "gold.delay_by_carrier.arr_delay_max", "gold.delay_by_route.arr_delay_mean",
    } & texts(known.down(FLIGHTS, "arr_delay", sees=sees)) | {
        one for one in texts(known.down(FLIGHTS, "arr_delay", sees=sees)) if "delay_by_route" in one
    }  # fmt: skip


def test_up_and_down_are_each_other_turned_round(known):
    """Each link that one of them follows, the other follows back."""
    sees = everything(known)
    links = 0
    for table, schema in known.schemas.items():
        for column in schema.names:
            for hop in known.up(table, column, sees=sees, depth=1).hops:
                back = known.down(hop.table, hop.column, sees=sees, depth=1).hops
                wanted = (table, column if hop.how == "value" else None)
                assert wanted in {(one.table, one.column) for one in back}, (table, column, hop)
                links += 1
    assert links > 300


# Readers --------------------------------------------------------------------------------------------------------------

BOARD = Reader("dashboard", "delays", {BY_CARRIER: frozenset({"carrier", "arr_delay_mean"})})
SAVED = Reader("saved_query", "weather", {t("silver.weather"): None})
ALICE = Reader("principal", "alice", {BY_CARRIER: frozenset({"carrier"}), FLIGHTS: None}, 5)


def names(walk):
    return {reader.name for reader in walk.readers}


def test_impact_reaches_queries_and_dashboards(flows):
    known = Lineage(flows, [BOARD, SAVED, ALICE])
    sees, manages = everything(known), lambda _table: True
    assert names(known.down(t("bronze.flights"), "arr_delay", sees=sees)) == {"delays"}
    assert names(known.down(t("bronze.flights"), "arr_delay", sees=sees, manages=manages)) == {"delays", "alice"}
    assert names(known.down(t("bronze.weather"), sees=sees)) == {"weather", "delays"}
    assert names(known.down(BY_CARRIER, "arr_delay_max", sees=sees, manages=manages)) == set()
    assert names(known.down(BY_CARRIER, "arr_delay_mean", sees=sees)) == {"delays"}


def test_nothing_is_followed_through_what_one_may_not_see(flows):
    known = Lineage(flows, [BOARD, SAVED, ALICE])

    def analyst(table):
        """Gold and bronze, without one column."""
        columns = everything(known)(table)
        return None if table.layer == "silver" else columns - {"arr_delay_sum"}

    assert known.up(BY_CARRIER, "arr_delay_mean", sees=analyst).hops == ()
    assert known.up(BY_CARRIER, sees=analyst).hops == ()
    assert known.down(t("bronze.flights"), "arr_delay", sees=analyst).hops == ()
    assert names(known.down(BY_CARRIER, sees=analyst)) == {"delays"}
    assert names(known.down(BY_CARRIER, sees=lambda _table: None)) == set()
    some = known.down(FLIGHTS, "arr_delay", sees=analyst)
    assert "gold.delay_by_carrier.arr_delay_mean" in texts(some)
    assert "gold.delay_by_carrier.arr_delay_sum" not in texts(some)


def test_people_are_shown_to_who_manages_all_that_they_read(flows):
    known = Lineage(flows, [ALICE])
    sees = everything(known)
    assert names(known.down(BY_CARRIER, sees=sees, manages=lambda table: table == BY_CARRIER)) == set()
    assert names(known.down(BY_CARRIER, sees=sees, manages=lambda table: table in (BY_CARRIER, FLIGHTS))) == {"alice"}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select carrier, avg(arr_delay_mean) from gold.delay_by_carrier where flights > ? group by 1",
         {"gold.delay_by_carrier": {"carrier", "arr_delay_mean", "flights"}}),
        ("select count(*) from GOLD.Delay_By_Carrier", {"gold.delay_by_carrier": set()}),
        ("select demo.gold.delay_by_carrier.carrier from demo.gold.delay_by_carrier at (version => 3)",
         {"gold.delay_by_carrier": {"carrier"}}),
        ("with a as (select carrier from silver.flights) select * from a", {"silver.flights": None}),
        ("select f from silver.flights f", {"silver.flights": None}),
        ("from silver.flights", {"silver.flights": None}),
        ("summarize silver.flights", {"silver.flights": None}),
        ("select columns('d.*') from silver.flights", {"silver.flights": None}),
        ("select faa from silver.airports natural join silver.flights", {"silver.airports": None,
                                                                         "silver.flights": None}),
        ("select carrier from gold.not_declared", {"gold.not_declared": None}),
        ("select 1", {}),
        ("not sql at all (", {}),
    ],
)  # fmt: skip
def test_columns_of_a_query_are_never_too_few(sql, expected, known):
    found = {
        str(table): None if columns is None else set(columns) for table, columns in reads(sql, known.schemas).items()
    }
    assert found == expected


def asked(who, sql, *objects, decision="allowed", **detail):
    return Event(who, "key:1", "rest", "query", decision, objects, detail={"sql": sql, **detail})


@BOTH
def test_who_read_what_is_added_up_from_the_audit_log(where, tmp_path, known):
    clock = iter(range(1_000, 9_000)).__next__
    log, other = audit_log(where, tmp_path, clock), audit_log(where, tmp_path, clock)
    log.record(asked("alice", "select carrier from gold.delay_by_carrier", "gold.delay_by_carrier"))
    log.record(asked("alice", "select flights from gold.delay_by_carrier", "gold.delay_by_carrier@3"))
    log.record(asked("bob", "select * from silver.flights", "silver.flights", dashboard="delays"))
    log.record(asked("eve", "select carrier from silver.flights", "silver.flights", decision="refused"))
    log.record(asked("eve", "select carrier from silver.flights", "silver.flights", reason="no memory"))
    log.flush()
    found = {(one.kind, one.name): one for one in other.readers(known.schemas)}
    assert found.keys() == {("principal", "alice"), ("principal", "bob"), ("dashboard", "delays")}
    assert found["principal", "alice"].reads == {BY_CARRIER: {"carrier", "flights"}}
    assert found["principal", "bob"].reads == found["dashboard", "delays"].reads == {FLIGHTS: None}
    before = found["principal", "alice"].last_us
    log.record(asked("alice", "select arr_delay_max from gold.delay_by_carrier", "gold.delay_by_carrier"))
    log.flush()
    again = {(one.kind, one.name): one for one in log.readers(known.schemas)}
    assert again["principal", "alice"].reads == {BY_CARRIER: {"carrier", "flights", "arr_delay_max"}}
    assert again["principal", "alice"].last_us > before
    assert [one.name for one in log.readers(known.schemas)] == [one.name for one in other.readers(known.schemas)]
    for one in (log, other):
        one.close()


def test_a_long_log_is_added_up_in_parts(tmp_path, known, monkeypatch):
    log = audit_log(str(tmp_path / "catalog.db"), tmp_path, iter(range(1_000, 9_000)).__next__)
    for n in range(60):
        log.record(asked(f"user{n}", "select carrier from gold.delay_by_carrier", "gold.delay_by_carrier"))
    log.flush()
    monkeypatch.setattr(usage, "_PAGE", 10)
    database = log._database
    assert len(usage.readers(database, known.schemas, records_max=20)) == 19, "the first record is that of the log"
    assert len(usage.readers(database, known.schemas)) == 60
    log.close()


# OpenLineage ----------------------------------------------------------------------------------------------------------


def events(flows, sees=None):
    return {e["job"]["name"]: e for e in job_events(flows, "flights", 1_000_000, Lineage(flows), sees)}


def test_events_tell_inputs_columns_and_what_decides(flows):
    event = events(flows)["flow.gold.delay_by_carrier"]
    assert event["eventTime"] == "1970-01-01T00:00:01.000Z"
    assert [one["name"] for one in event["inputs"]] == ["silver.flights"]
    (output,) = event["outputs"]
    assert output["name"] == "gold.delay_by_carrier"
    fields = output["facets"]["columnLineage"]["fields"]
    assert [(one["name"], one["field"]) for one in fields["arr_delay_sum"]["inputFields"]] == [
        ("silver.flights", "arr_delay")
    ]
    assert "flights" not in fields
    hour = events(flows)["flow.gold.departures_per_hour"]["outputs"][0]["facets"]["columnLineage"]["dataset"]
    told = {(one["field"], one["transformations"][0]["subtype"]) for one in hour}
    assert told == {("origin", "GROUP_BY"), ("time_hour", "WINDOW"), ("time_hour", "FILTER")}


def test_events_hold_nothing_that_one_may_not_see(flows):
    known = Lineage(flows)

    def gold_only(table):
        return everything(known)(table) - {"airline"} if table.layer == "gold" else None

    found = events(flows, gold_only)
    assert {name.split(".")[1] for name in found} == {"gold"}
    text = json.dumps(list(found.values()))
    assert "silver" not in text
    assert "bronze" not in text
    assert '"airline"' not in text


def test_events_are_read_by_the_openlineage_client(flows):
    """Its classes, generated from the specification's JSON Schema, take every event and write the same again."""
    pytest.importorskip("openlineage.client", reason="needs openlineage-python")
    from openlineage.client.event_v2 import InputDataset, Job, JobEvent, OutputDataset
    from openlineage.client.generated import (
        column_lineage_dataset as columns,
    )
    from openlineage.client.generated import (
        documentation_dataset,
        job_type_job,
        schema_dataset,
        sql_job,
    )
    from openlineage.client.serde import Serde

    def facet(kind, told, **made):
        told = {key: value for key, value in told.items() if not key.startswith("_")} | made
        return kind(**told)

    def lineage(told):
        def used(one):
            return columns.InputField(
                **one | {"transformations": [columns.Transformation(**how) for how in one["transformations"]]}
            )

        fields = {
            name: columns.Fields(inputFields=[used(one) for one in told["inputFields"]])
            for name, told in told["fields"].items()
        }
        return columns.ColumnLineageDatasetFacet(fields=fields, dataset=[used(one) for one in told["dataset"]])

    def schema(told):
        return schema_dataset.SchemaDatasetFacet([schema_dataset.SchemaDatasetFacetFields(**f) for f in told["fields"]])

    kinds = {
        "columnLineage": lineage,
        "schema": schema,
        "documentation": lambda told: facet(documentation_dataset.DocumentationDatasetFacet, told),
        "jobType": lambda told: facet(job_type_job.JobTypeJobFacet, told),
        "sql": lambda told: facet(sql_job.SQLJobFacet, told),
    }

    def built(one):
        return one | {"facets": {name: kinds[name](told) for name, told in one.get("facets", {}).items()}}

    def bare(value):
        """Without producer and addresses of schemas, and without what is empty."""
        if isinstance(value, dict):
            found = {k: bare(v) for k, v in value.items() if k not in ("_producer", "producer", "_schemaURL")}
            return {key: one for key, one in found.items() if one not in (None, [], {}, "")}
        return [bare(one) for one in value] if isinstance(value, list) else value

    for event in events(flows).values():
        made = JobEvent(
            eventTime=event["eventTime"],
            producer=event["producer"],
            job=Job(**built(event["job"])),
            inputs=[InputDataset(**built(one)) for one in event["inputs"]],
            outputs=[OutputDataset(**built(one)) for one in event["outputs"]],
        )
        assert made.schemaURL == event["schemaURL"]
        assert bare(json.loads(Serde.to_json(made))) == bare(event)
