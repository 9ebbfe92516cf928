"""Whatever somebody writes, the answer is a plan or a list of mistakes, never another exception."""

import copy

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from lodestream.planning.compile import compile_project
from lodestream.planning.diff import Deployed, diff
from lodestream.planning.explain import column_lineage, explain
from lodestream.project.build import define_project
from lodestream.project.mistakes import ProjectError

TEXTS = ["", " ", "x", "_x", "a.b", "stream()", "stream(silver.orders)", "country", "'", "(", "count(*)"]
LISTS = [[], [None], ["order_id"], ["a", "a"], [[1]], [{"lookup": {}}]]
WRONG = [None, True, 5, -1, 1.5, float("nan"), {}, {"a": None}, {"": 1}, {"a": {"b": ["c"]}}, {"lookup": []}]
WRONG += TEXTS + LISTS


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))


def answer(tables, path, wrong, *, extra=None):
    tables = copy.deepcopy(tables)
    at = tables
    for key in path[:-1]:
        at = at[key]
    if extra is None:
        at[path[-1]] = wrong
    elif isinstance(at[path[-1]], dict):
        at[path[-1]][extra] = wrong
    mistakes = ()
    try:
        plans = compile_project(define_project("x", tables), {})
    except ProjectError as error:
        mistakes = error.diagnostics
    if mistakes:
        assert all(one.fix and one.message == one.message.strip() for one in mistakes), mistakes
        return
    deployed = {n: Deployed(p.declaration, p.schema, p.definition) for n, p in plans.flows.items()}
    assert diff(plans, deployed) == []
    assert set(column_lineage(plans.flows)) == set(plans.flows)
    assert all(explain(plan).steps for plan in plans.flows.values())


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_wrong_value_anywhere(data, sample):
    tables = {
        name.removeprefix("tables/").removesuffix(".yaml").replace("/", "."): YAML(typ="safe").load(text)
        for name, text in sample.items()
        if name.startswith("tables/")
    }
    tables["gold.sums"] = {"sql": "select country, sum(amount) as s from silver.orders group by country"}
    every = [path for path in paths(tables) if len(path) > 1]
    path = data.draw(st.sampled_from(every))
    wrong = data.draw(st.sampled_from(WRONG))
    keys = ("window", "group_by", "select", "python", "sql", "source", "columns", "nullable", "slide", "else", "expect")
    extra = data.draw(st.none() | st.sampled_from(keys))
    answer(tables, path, wrong, extra=extra)
