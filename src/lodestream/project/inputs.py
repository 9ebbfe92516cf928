"""Finds the tables that a query names, before their columns are known."""

from __future__ import annotations

from lodestream.model.table import TableName


def query_inputs(sql: str) -> tuple[TableName, ...]:
    """Names of the lake's tables in a query, sorted; empty when it does not parse, which its compiler will say."""
    from sqlglot import exp

    from lodestream.expressions.dialect import parse_select
    from lodestream.expressions.errors import ExpressionError

    try:
        tree = parse_select(sql)
    except ExpressionError:
        return ()
    found: set[TableName] = set()
    for table in tree.find_all(exp.Table):
        try:
            found.add(TableName.parse(f"{table.db}.{table.name}".lower()))
        except ValueError:  # a common table expression
            continue
    return tuple(sorted(found))
