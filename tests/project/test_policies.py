"""The JSON Schema of `policies.yaml` says what the reader says, and the file never breaks the reading."""

import json

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from lodestream.model.diagnostic import Place
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import from_python, from_yaml
from lodestream.project.policies import POLICY_FILE, read_policies
from lodestream.project.schema import json_schema

GOOD = """\
users: {alice: {groups: [a], attributes: {country: DE, floor: 7}}, "x y": , loader: {kind: service, disabled: true}}
grants: [{to: group:a, select: [gold, silver.orders, '*']}, {to: [alice], manage: gold}]
row_filters: {f: {on: silver.orders, where: "country = attribute('country')", except: [group:x]}}
masks: {m: {on: [silver.orders.email], with: null}}
tags: {pii: silver.orders.email, big: [silver.orders]}
declassified: {pii: [gold.a.n, gold.b]}
tag_policies: {pii: {mask: "value()"}}
"""
BAD = [
    "user: {}", "users: [a]", "users: {-a: {}}", "users: {a: {kind: robot}}", "users: {a: {group: [x]}}",
    "grants: {to: a}", "grants: [{select: gold}]", "grants: [{to: a, select: glod}]", "grants: [{to: a, read: gold}]",
    "row_filters: {F: {on: gold.a, where: x}}", "row_filters: {f: {on: gold.a}}",
    "row_filters: {f: {on: gold, where: x}}",
    "masks: {m: {on: gold.a, with: x}}", "masks: {m: {on: gold.a.b}}", "tags: {pii: gold}", "tags: {PII: gold.a}",
    "tag_policies: {pii: {}}", "tag_policies: {pii: {with: x}}",
]  # fmt: skip


@pytest.fixture(scope="module")
def valid():
    schema = json.loads(json.dumps(json_schema()))
    return jsonschema_rs.validator_for({**schema["$defs"]["policies"], "$defs": schema["$defs"]}).is_valid


def mistakes(text):
    found = Mistakes()
    node = from_yaml(text.encode(), POLICY_FILE, found)
    if node is not None:
        read_policies(node, found)
    return found.found


def test_the_schema_accepts_what_is_read(valid):
    assert mistakes(GOOD) == []
    assert valid(json.loads(json.dumps(YAML(typ="safe").load(GOOD))))


@pytest.mark.parametrize("text", BAD)
def test_the_schema_refuses_what_the_reader_refuses(valid, text):
    assert mistakes(text) != []
    assert not valid(json.loads(json.dumps(YAML(typ="safe").load(text))))


words = st.sampled_from(
    ("users", "grants", "row_filters", "masks", "tags", "tag_policies", "to", "on", "where", "with", "except", "select",
     "gold", "gold.a", "gold.a.b", "group:x", "*", "null", "alice", "groups", "attributes", "kind", "mask", "")
)  # fmt: skip
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), words, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=6)), max_leaves=25,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(values)
def test_anything_is_read_or_told(value):
    found = Mistakes()
    policies, _ = read_policies(from_python(value, Place(POLICY_FILE, 1)), found)
    for mistake in found.found:
        assert mistake.code
        assert mistake.fix
    if not found.found and isinstance(value, dict):
        said = sum(len(part) for part in (policies.users, policies.row_filters, policies.masks, policies.tag_policies))
        assert said == sum(len(value.get(k) or ()) for k in ("users", "row_filters", "masks", "tag_policies"))


def test_a_file_of_nothing_declares_nothing(tmp_path):
    found = Mistakes()
    assert from_yaml(b"", POLICY_FILE, found) is None or found.found == []
