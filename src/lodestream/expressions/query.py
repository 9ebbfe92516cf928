"""Batch queries: one SELECT over declared tables, every expression in it through the same whitelist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlglot import exp

from lodestream.expressions.coercion import meet, widen
from lodestream.expressions.dialect import offset_of, parse_select
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.ordering import order_and_limit
from lodestream.expressions.relations import Output, Relation, Sources, schema_of
from lodestream.expressions.select import compile_select
from lodestream.expressions.typed import Typed, quote, spark_name
from lodestream.expressions.walk import Describe
from lodestream.model.expression import Query
from lodestream.model.types import Schema


def compile_query(
    sql: str, schemas: Mapping[str, Schema], *, portable: bool = True, describe: Describe | None = None
) -> Query:
    """Check, type and compile a batch query.

    Args:
        sql: one SELECT in Spark ANSI SQL; it names tables as `layer.name`.
        schemas: the tables it may read.
        portable: False admits, beyond the whitelist, DuckDB scalar functions that `describe` can type.
        describe: gives the type of a DuckDB expression; a query's own columns are not in its sight.

    Raises:
        ExpressionError: the query is refused; see `errors.CODES`.
    """
    used: set[str] = set()
    sources = Sources(schemas, {}, used, _compile, portable, describe)
    relation = _compile(parse_select(sql), sources)
    try:
        schema = schema_of(relation.outputs)
    except ValueError as error:
        raise ExpressionError("P112", str(error), nearest="… as another_name", offset=0) from error
    for output in relation.outputs:
        if output.type.name in ("void", "interval"):
            message = f"column {output.name!r} has no type that tables store"
            raise ExpressionError("P106", message, nearest="cast(null as string)", offset=0)
    lineage = {output.name: output.origins for output in relation.outputs}
    return Query(relation.spark, relation.duckdb, schema, tuple(sorted(used)), lineage, relation.portable)


def _compile(node: exp.Expr, sources: Sources) -> Relation:
    """A SELECT, a UNION ALL, or either in parentheses, with its CTEs."""
    if isinstance(node, exp.Subquery) and not node.args.get("alias"):
        return _compile(node.this, sources)
    sources, head_duckdb, head_spark = _ctes(node, sources)
    if isinstance(node, exp.Select):
        relation = compile_select(node, sources)
    elif isinstance(node, exp.Union):
        relation = _union(node, sources)
    else:
        what = type(node).__name__.lower()
        raise ExpressionError("P101", f"not admitted as a query: {what}", nearest="select", offset=offset_of(node))
    return replace(relation, duckdb=head_duckdb + relation.duckdb, spark=head_spark + relation.spark)


def _ctes(node: exp.Expr, sources: Sources) -> tuple[Sources, str, str]:
    clause = node.args.get("with_")
    if clause is None:
        return sources, "", ""
    if clause.args.get("recursive"):
        raise ExpressionError("P101", "recursive queries", offset=offset_of(node))
    duckdb, spark = [], []
    for cte in clause.expressions:
        name = cte.alias.lower()
        if cte.args["alias"].args.get("columns") or name in sources.ctes or "." in name:
            raise ExpressionError(
                "P112", f"give the CTE {name!r} a name of its own and no columns", offset=offset_of(cte)
            )
        relation = _compile(cte.this, sources)
        sources = replace(sources, ctes={**sources.ctes, name: relation})
        duckdb.append(f"{quote(name)} AS ({relation.duckdb})")
        spark.append(f"{spark_name(name)} AS ({relation.spark})")
    return sources, f"WITH {', '.join(duckdb)} ", f"WITH {', '.join(spark)} "


def _union(node: exp.Union, sources: Sources) -> Relation:
    """UNION ALL by position; each column in the type in which both sides meet."""
    known = ("this", "expression", "distinct", "order", "limit", "with_")
    extra = [k for k, v in node.args.items() if v not in (None, False, []) and k not in known]
    if extra:
        raise ExpressionError("P101", f"not admitted: union with {extra[0]}", offset=offset_of(node))
    left, right = _compile(node.this, sources), _compile(node.expression, sources)
    if len(left.outputs) != len(right.outputs):
        message = f"union of {len(left.outputs)} and {len(right.outputs)} columns"
        raise ExpressionError("P111", message, offset=offset_of(node))
    outputs = tuple(_joined(a, b, node) for a, b in zip(left.outputs, right.outputs, strict=True))
    word = "UNION" if node.args.get("distinct") else "UNION ALL"
    halves = [f'SELECT {_widened(side, outputs)} FROM ({side.duckdb}) AS "_u"' for side in (left, right)]
    relation = Relation(
        f" {word} ".join(halves), f"({left.spark}) {word} ({right.spark})", outputs, left.portable and right.portable
    )
    return order_and_limit(node, relation, None)


def _joined(a: Output, b: Output, node: exp.Expr) -> Output:
    kind = meet(a.type, b.type)
    if kind is None:
        message = f"union of {a.type} and {b.type} in column {a.name!r}"
        raise ExpressionError("P111", message, offset=offset_of(node))
    return Output(a.name, kind, a.nullable or b.nullable, a.origins | b.origins)


def _widened(side: Relation, outputs: tuple[Output, ...]) -> str:
    parts = []
    for have, want in zip(side.outputs, outputs, strict=True):
        value = widen(Typed(have.type, quote(have.name), ""), want.type)
        parts.append(f"{value.duckdb} AS {quote(want.name)}")
    return ", ".join(parts)
