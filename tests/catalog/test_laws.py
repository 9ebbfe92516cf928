"""Laws of decisions: whatever is said, no further policy shows more, and nothing depends on the order of saying."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.catalog import decide
from lodestream.catalog.entries import declared, entry, policy
from lodestream.catalog.state import arrange
from lodestream.catalog.store import Entry
from lodestream.errors import AccessError
from lodestream.model.access import PRIVILEGES, Principal
from lodestream.model.policy import Declassified, Grant, Mask, Policies, RowFilter, Tagged, TagPolicy, User
from lodestream.model.table import TableName
from lodestream.model.types import BIGINT, BINARY, STRING, Column, Schema

TABLES = [TableName(layer, name) for layer in ("silver", "gold") for name in ("a", "b")]
COLUMNS = ("id", "mail", "_raw")
SCHEMA = Schema((Column("id", BIGINT), Column("mail", STRING), Column("_raw", BINARY)))
OLDER = SCHEMA.without("mail")

tables, columns = st.sampled_from(TABLES), st.sampled_from(("id", "mail"))
names = st.sampled_from(("alice", "bob", "group:x", "group:y"))
exempt = st.lists(names, max_size=2, unique=True).map(tuple)
objects = st.one_of(tables.map(str), st.sampled_from(("silver", "gold", "*")))
one_of = st.one_of(
    st.builds(User, st.sampled_from(("alice", "bob")), disabled=st.booleans()),
    st.builds(Grant, names, st.sampled_from(PRIVILEGES), objects),
    st.builds(RowFilter, st.sampled_from("fg"), st.lists(tables, min_size=1, max_size=2, unique=True).map(tuple),
              st.sampled_from(("id > 1", "mail = attribute('mail')", "is_member('x')")), exempt),
    st.builds(Mask, st.sampled_from("mn"), st.lists(st.tuples(tables, columns), min_size=1, max_size=2).map(tuple),
              st.sampled_from(("null", "'1'", "current_user()")), exempt),
    st.builds(Tagged, st.sampled_from(("pii", "big")), tables, st.one_of(st.none(), columns)),
    st.builds(Declassified, st.sampled_from(("pii", "big")), tables, st.one_of(st.none(), columns)),
    st.builds(TagPolicy, st.sampled_from(("pii", "big")), st.sampled_from(("null", "'2'")), exempt),
)  # fmt: skip
cells = st.tuples(tables.map(str), columns).map(list)
flows = st.builds(
    lambda table, mapped, inputs: Entry("flow", str(table), {"columns": mapped | {"_raw": []}, "inputs": inputs}),
    tables, st.fixed_dictionaries({"id": st.lists(cells, max_size=2), "mail": st.lists(cells, max_size=2)}),
    st.lists(tables.map(str), max_size=2, unique=True),
)  # fmt: skip
kept = st.lists(st.one_of(one_of.map(entry), flows), max_size=12)
readers = st.builds(
    Principal, st.sampled_from(("alice", "bob", "eve")), groups=st.frozensets(st.sampled_from("xy")),
    attributes=st.sampled_from(({}, {"mail": "m"})),
)  # fmt: skip


def deciding(entries):
    return arrange(1, list({(e.kind, e.name): e for e in entries}.values()))


def seen(state, who, table, schema=SCHEMA):
    """How they see a table, or None."""
    try:
        return decide.access(state, who, table, schema)
    except AccessError:
        return None


def shows_no_more(less, more):
    """Whether one decision hides at least what another one hides."""
    if less is None:
        return True
    if more is None:
        return False
    stored = {name for name, masked in less.columns if masked is None}
    return stored <= {name for name, masked in more.columns if masked is None} and set(less.filters) >= set(
        more.filters
    )


@settings(max_examples=200, deadline=None)
@given(kept, one_of, readers, tables)
def test_a_further_filter_mask_or_tag_shows_no_more(entries, new, who, table):
    if isinstance(new, Grant | User | Declassified):
        return
    named = (entry(new).kind, entry(new).name)
    before = [e for e in entries if (e.kind, e.name) != named]
    assert shows_no_more(seen(deciding([*before, entry(new)]), who, table), seen(deciding(before), who, table))


@settings(max_examples=200, deadline=None)
@given(kept, st.builds(Grant, names, st.sampled_from(PRIVILEGES), objects), readers)
def test_a_further_grant_shows_no_less(entries, new, who):
    fewer, more = deciding(entries), deciding([*entries, entry(new)])
    for table in TABLES:
        assert decide.privileges(fewer, who, table) <= decide.privileges(more, who, table)
        assert shows_no_more(seen(fewer, who, table), seen(more, who, table))


@settings(max_examples=100, deadline=None)
@given(kept, readers, st.randoms())
def test_the_order_of_saying_does_not_matter(entries, who, rng):
    once = list({(e.kind, e.name): e for e in entries}.values())
    other = list(once)
    rng.shuffle(other)
    for table in TABLES:
        one, two = seen(arrange(1, once), who, table), seen(arrange(1, other), who, table)
        assert (one is None) == (two is None)
        if one is not None:
            assert one.columns == two.columns
            assert set(one.filters) == set(two.filters)
            assert set(one.policies) == set(two.policies)


@settings(max_examples=200, deadline=None)
@given(kept, readers)
def test_what_is_visible_is_what_may_be_used(entries, who):
    state = deciding(entries)
    every = [*TABLES, *(replace(t, name=f"{t.name}__quarantine") for t in TABLES)]
    found = decide.visible(state, who, every)
    for table in every:
        held = decide.privileges(state, who, table)
        if table.name.endswith("__quarantine"):
            assert (table in found) == ("select" in held)
            about = replace(table, name=table.name.removesuffix("__quarantine"))
            if "select" in held:  # whoever reads whole records is bound by nothing on the table
                assert not decide.bound(state, who, about)
                if "select" in decide.privileges(state, who, about):
                    assert seen(state, who, about).whole
        else:
            assert (table in found) == bool(held)
        assert (seen(state, who, table) is not None) <= ("select" in held)
    if who.name in state.disabled:
        assert found == []


@settings(max_examples=200, deadline=None)
@given(kept, readers, tables)
def test_an_older_version_shows_no_more_than_todays(entries, who, table):
    state = deciding(entries)
    today, then = seen(state, who, table), seen(state, who, table, OLDER)
    if then is not None:
        assert today is not None
        hidden = {name for name, masked in today.columns if masked is not None}
        assert not hidden & {name for name, masked in then.columns if masked is None}
        assert set(then.filters) == set(today.filters)


@settings(max_examples=100, deadline=None)
@given(kept, st.sampled_from(TABLES))
def test_nobody_is_seen_to_have_anything_without_a_grant(entries, table):
    none = [e for e in entries if e.kind != "grant"]
    state = deciding(none)
    for who in ("alice", "bob", "eve"):
        assert decide.privileges(state, Principal(who, groups=frozenset("xy")), table) == frozenset()
        assert decide.visible(state, Principal(who), TABLES) == []


@given(one_of)
def test_an_entry_says_what_was_said(said):
    assert policy(entry(said)) == said
    assert declared(Policies(grants=(Grant("a", "select", "*"),)), origin="f", who="f", at_us=1)[0].origin == "f"
