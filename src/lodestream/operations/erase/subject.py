"""Who is to be erased: the columns that hold the value in every table, and the value in each of their types."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lodestream.errors import ConfigError
from lodestream.model.steps import Aggregation, Derive, FlowPlan, JoinStreams, LookUp, ReadTable, RunQuery
from lodestream.model.table import TableName
from lodestream.operations.tracing.keys import Test, ValueKey, parse_key
from lodestream.planning.explain import column_lineage

Node = tuple[TableName, str]
"""A table and a column of it."""
_ASKED = re.compile(r"(?:(?P<table>\w+\.\w+)\.)?(?P<column>[A-Za-z_]\w*)=(?P<value>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject.

    Attributes:
        asked: as written: (table or None, column, value).
        tests: per table, columns that hold the value; a row is the subject's when one of them passes.
        inherited: columns that are made of such columns, by table: the value may show in them.
        words: the values as texts, of columns of text.
    """

    asked: tuple[tuple[TableName | None, str, str], ...]
    tests: Mapping[TableName, tuple[Test, ...]]
    inherited: Mapping[TableName, frozenset[str]]
    words: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """How the subject was named, without the values."""
        return tuple(f"{table}.{column}" if table else column for table, column, _ in self.asked)

    @property
    def pattern(self) -> re.Pattern[bytes] | None:
        """Finds the words in bytes, each as a whole; None when there is none."""
        if not self.words:
            return None
        forms = {form for word in self.words for form in (word, word.encode("unicode_escape").decode())}
        either = b"|".join(re.escape(form.encode()) for form in sorted(forms))
        return re.compile(rb"(?<![0-9A-Za-z_])(?:" + either + rb")(?![0-9A-Za-z_])")


def subject_of(asked: Iterable[str], flows: Mapping[TableName, FlowPlan]) -> Subject:
    """Find the columns of a subject.

    A name without a table means that column wherever there is one. From there every column is followed that holds the
    same value: read on, renamed, looked up by, joined on or grouped by.

    Args:
        asked: `column=value` or `layer.table.column=value`; a row is the subject's when any of them holds.
        flows: the project's plans.

    Raises:
        ConfigError: another form, no such column, or a value that is none of a column's type.
    """
    parsed = tuple(_parsed(text) for text in asked)
    beside = _same_values(flows)
    tests: dict[TableName, dict[str, Test]] = defaultdict(dict)
    for table, column, value in parsed:
        roots = [(name, column) for name, plan in flows.items() if column in plan.schema and table in (None, name)]
        if not roots:
            known = sorted({c for name, plan in flows.items() if table in (None, name) for c in plan.schema.names})
            near = difflib.get_close_matches(column, known, 1, 0.4)
            raise ConfigError(
                "no such column", column=column, table=str(table) if table else None,
                nearest=near[0] if near else None, fix="lodestream explain TABLE lists columns",
            )  # fmt: skip
        for name, used in _reached(roots, beside):
            test = _test(flows[name], used, value, must=(name, used) in roots)
            if test is not None:
                tests[name][used] = test
    found = {name: tuple(by_column.values()) for name, by_column in tests.items()}
    words = {test.text for listed in found.values() for test in listed if pa.types.is_string(test.value.type)}
    return Subject(parsed, found, _inherited(flows, found), tuple(sorted(words)))


def _parsed(text: str) -> tuple[TableName | None, str, str]:
    match = _ASKED.fullmatch(text)
    if match is None:
        raise ConfigError("write --subject as COLUMN=VALUE or LAYER.TABLE.COLUMN=VALUE", forms="email=ada@example.org")
    table = TableName.parse(match["table"]) if match["table"] else None
    return table, match["column"], match["value"]


def _test(plan: FlowPlan, column: str, value: str, *, must: bool) -> Test | None:
    """The value in the column's type; None when it is none of that, unless it must be."""
    quoted = "'" + value.replace("'", "''") + "'"
    try:
        key = parse_key(f"{column}={quoted}", plan.schema, str(plan.table.name))
    except ConfigError as error:
        if must:
            told = {name: fact for name, fact in error.facts.items() if name != "value"}
            raise ConfigError(error.message, **told) from None
        return None
    assert isinstance(key, ValueKey)
    return key.tests[0]


def _reached(roots: Sequence[Node], beside: Mapping[Node, set[Node]]) -> list[Node]:
    known, waiting = set(roots), deque(roots)
    while waiting:
        for node in sorted(beside.get(waiting.popleft(), set()) - known):
            known.add(node)
            waiting.append(node)
    return sorted(known)


def _same_values(flows: Mapping[TableName, FlowPlan]) -> dict[Node, set[Node]]:
    """Which columns hold the same values as which, in both directions."""
    beside: dict[Node, set[Node]] = defaultdict(set)
    for name, plan in flows.items():
        for here, there in _copies(name, plan):
            if here[1] in plan.schema and there[0] in flows and there[1] in flows[there[0]].schema:
                beside[here].add(there)
                beside[there].add(here)
    return beside


def _copies(name: TableName, plan: FlowPlan) -> list[tuple[Node, Node]]:
    """Pairs of a column of a table and a column, of another or itself, whose value it is."""
    known: dict[str, set[Node]] = {}
    pairs: list[tuple[Node, Node]] = []
    for step in plan.steps:
        if isinstance(step, ReadTable):
            known = {column: {(step.table, column)} for column in step.schema.names}
        elif isinstance(step, Derive):
            plain = {column: expression.text for column, expression in step.columns}
            own = {column: {(name, text)} if text in plan.schema else set() for column, text in plain.items()}
            known |= {column: (known.get(text, set()) | own[column]) for column, text in plain.items()}
        elif isinstance(step, LookUp):
            known |= {here: {(step.lookup.table, there)} for there, here in step.lookup.columns}
            pairs += [((name, here), (step.lookup.table, there)) for here, there in step.lookup.on]
        elif isinstance(step, JoinStreams):
            known |= {here: {(step.join.table, there)} for there, here in step.join.columns}
            pairs += [((name, here), (step.join.table, there)) for here, there in step.join.on]
        elif isinstance(step, Aggregation):
            known = {group: known.get(expression.text, set()) for group, expression in step.group_by}
        elif isinstance(step, RunQuery):
            known = {column: set(origins) for column, origins in step.lineage if len(origins) == 1}
    return pairs + [((name, column), node) for column, nodes in known.items() for node in nodes]


def _inherited(
    flows: Mapping[TableName, FlowPlan], tests: Mapping[TableName, Sequence[Test]]
) -> dict[TableName, frozenset[str]]:
    """The columns whose values come from the subject's columns of tables that a source feeds."""
    lineage = column_lineage(flows)
    ends = {
        end for name, listed in tests.items() for test in listed for end in lineage[name].get(test.column, frozenset())
    }
    return {
        name: frozenset(column for column, origins in columns.items() if origins & ends)
        for name, columns in lineage.items()
    }
