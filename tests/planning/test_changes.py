"""What a table file says of its changes: the steps it gives, and every mistake with its place and its fix."""

import json

import pytest

from lodestream.model.steps import ApplyChanges, LookUp
from lodestream.model.table import Changes, TableName
from lodestream.planning.compile import compile_project
from lodestream.planning.explain import explain
from lodestream.project.load import read_project
from lodestream.project.mistakes import ProjectError

CHANGED, JOINED = "tables/silver/customers.yaml", "tables/silver/visits.yaml"
TEXT = """\
from: stream(bronze.customers)
derive: {gone: tier = 'none', listed: "split(tier, ',')"}
select: [customer_id, tier, since]
changes:
  keys: [customer_id]
  sequence_by: since
  delete_when: gone
  type: 1
"""
VISITS = """\
from: stream(bronze.orders)
enrich: {lookup: {table: silver.customers, on: customer_id, columns: [tier]}}
"""
HISTORY = ("type: 1", "type: 2")
AS_OF = ("columns: [tier]", "columns: [tier], as_of: ordered_at")


def plans(write, text=TEXT, visits=None):
    files = {CHANGED: text} if visits is None else {CHANGED: text, JOINED: visits}
    return compile_project(read_project(write(files)), {}).flows


def test_a_table_of_last_values(write):
    plan = plans(write)[TableName("silver", "customers")]
    (step,) = [step for step in plan.steps if isinstance(step, ApplyChanges)]
    assert step.changes == Changes(("customer_id",), ("since",), "gone")
    assert not step.forgets
    assert plan.schema.names == (
        "customer_id", "tier", "since", "_source", "_position", "_ingest_time", "_batch",
    )  # fmt: skip
    assert json.loads(plan.declaration)["changes"]["type"] == 1
    assert "apply changes: last values of each customer_id, in the order of since" in explain(plan).steps


def test_a_table_with_history_has_the_span_of_each_row(write):
    text = TEXT.replace(*HISTORY) + "event_time: {column: since, delay: 1 day}\n"
    plan = plans(write, text)[TableName("silver", "customers")]
    assert plan.schema.names[3:5] == ("valid_from", "valid_to")
    assert [str(plan.schema[name].type) for name in ("valid_from", "valid_to")] == ["timestamp", "timestamp"]
    assert "delete when gone; a deletion is remembered until the watermark has passed it" in explain(plan).steps
    assert explain(plan).columns["valid_to"] == explain(plan).columns["since"]


def test_a_lookup_knows_whether_the_key_is_unique(write):
    for visits, unique in ((VISITS, True), (VISITS.replace("on: customer_id", "on: {country: tier}"), False)):
        plan = plans(write, visits=visits)[TableName("silver", "visits")]
        assert [step.unique for step in plan.steps if isinstance(step, LookUp)] == [unique]
    plan = plans(write, TEXT.replace(*HISTORY), VISITS.replace(*AS_OF))[TableName("silver", "visits")]
    assert "look up tier in silver.customers on customer_id, as of ordered_at" in explain(plan).steps


MISTAKES = [
    # id, replaced, by, line, code
    ("no-keys", "  keys: [customer_id]\n", "", 4, "D105"),
    ("empty-keys", "[customer_id]\n", "[]\n", 5, "D104"),
    ("no-sequence", "  sequence_by: since\n", "", 4, "D105"),
    ("sequence-is-number", "sequence_by: since", "sequence_by: 7", 6, "D104"),
    ("unknown-key", "keys: [customer_id]", "keys: [customer]", 5, "P110"),
    ("unknown-sequence", "sequence_by: since", "sequence_by: sinse", 6, "P110"),
    ("nested-key", "keys: [customer_id]", "keys: [customer_id, listed]", 5, "D306"),
    ("inexact-key", "keys: [customer_id]", "keys: [customer_id, score]", 5, "D311"),
    ("inexact-sequence", "sequence_by: since", "sequence_by: [since, score]", 6, "D311"),
    ("delete-is-no-condition", "delete_when: gone", "delete_when: tier", 7, "D305"),
    ("delete-reads-nothing", "delete_when: gone", "delete_when: op = 'd'", 7, "P110"),
    ("type-3", "type: 1", "type: 3", 8, "D106"),
    (
        "history-of-two",
        "sequence_by: since\n  delete_when: gone\n  type: 1",
        "sequence_by: [since, tier]\n  type: 2",
        6,
        "D106",
    ),
    ("word", "delete_when", "deletes_when", 7, "D103"),
    ("select-without-key", "select: [customer_id, tier, since]", "select: [tier, since]", 3, "D310"),
    ("select-without-sequence", "select: [customer_id, tier, since]", "select: [customer_id, tier]", 3, "D310"),
    ("other-event-time", "changes:", "event_time: {column: at, delay: 1 day}\nchanges:", 4, "P207"),
    ("dedup", "changes:", "dedup: {keys: [customer_id]}\nchanges:", 4, "D207"),
    ("partitions", "changes:", "partition_by: [date(since)]\nchanges:", 4, "D207"),
    ("retention", "changes:", "retention: 1 day\nchanges:", 4, "D207"),
    ("group", "changes:", "group_by: [tier]\nchanges:", 4, "D207"),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "code"), [one[1:] for one in MISTAKES], ids=[one[0] for one in MISTAKES]
)
def test_one_mistake_gives_one_diagnostic(write, old, new, line, code):
    text = TEXT.replace("derive: {", "derive: {at: since, ") if "column: at" in new else TEXT
    if "score" in new or "listed" in new:
        text = text.replace("select: [", "select: [score, listed, ")
    if new == "keys: [customer]":
        text = text.replace("select: [customer_id, tier, since]\n", "comment: all columns\n")
    if "sinse" in new:
        text = text.replace("select: [customer_id, tier, since]\n", "comment: all columns\n")
    assert old in text
    with pytest.raises(ProjectError) as refused:
        plans(write, text.replace(old, new, 1))
    found = [(one.file, one.line, one.code) for one in refused.value.diagnostics]
    assert found == [(CHANGED, line, code)], "\n".join(map(str, refused.value.diagnostics))
    assert refused.value.diagnostics[0].fix


SPANS, THEN = TEXT.replace(*HISTORY), VISITS.replace(*AS_OF)
TAKEN = SPANS.replace("tier, since]", "tier, since, valid_to]").replace("gone:", "valid_to: since, gone:")


@pytest.mark.parametrize(
    ("changed", "visits", "file", "line", "code"),
    [
        (TEXT, THEN, JOINED, 2, "D215"),
        (SPANS, VISITS, JOINED, 2, "D215"),
        (SPANS, THEN.replace("as_of: ordered_at", "as_of: amount"), JOINED, 2, "D303"),
        (SPANS, THEN.replace("as_of: ordered_at", "as_of: orderd_at"), JOINED, 2, "P110"),
        (TEXT, "from: stream(silver.customers)\n", JOINED, 1, "D210"),
        (TAKEN, None, CHANGED, 4, "D307"),
    ],
    ids=["no-history", "no-moment", "moment-of-another-type", "unknown-moment", "no-stream", "name-taken"],
)
def test_mistakes_between_tables(write, changed, visits, file, line, code):
    with pytest.raises(ProjectError) as refused:
        plans(write, changed, visits)
    found = [(one.file, one.line, one.code) for one in refused.value.diagnostics]
    assert found == [(file, line, code)], "\n".join(map(str, refused.value.diagnostics))
    assert refused.value.diagnostics[0].fix


def test_changes_belong_to_a_stream_and_to_no_window(write, sample):
    block = "changes: {keys: [order_id], sequence_by: ordered_at}\n"
    for file in ("tables/bronze/orders.yaml", "tables/gold/revenue.yaml"):
        with pytest.raises(ProjectError) as refused:
            compile_project(read_project(write({file: sample[file] + block})), {})
        (found,) = refused.value.diagnostics
        assert (found.file, found.code) == (file, "D207")
        assert found.fix
        write({file: sample[file]})
