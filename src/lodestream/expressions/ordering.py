"""ORDER BY and LIMIT over a result, made total where it decides which rows stay."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.operators import comparable
from lodestream.expressions.relations import Output, Relation
from lodestream.expressions.typed import Typed, quote, spark_name
from lodestream.expressions.walk import Walker
from lodestream.expressions.windows import order_key


def order_keys(
    node: exp.Expr, outputs: tuple[Output, ...], final: Walker | None
) -> tuple[list[tuple[str, str]] | None, list[Typed]]:
    """ORDER BY as (DuckDB, Spark) texts over the result, and hidden columns it needs."""
    order = node.args.get("order")
    if order is None:
        return None, []
    names = {output.name.lower(): output for output in outputs}
    keys, hidden = [], []
    for item in order.expressions:
        inner = item.this
        if isinstance(inner, exp.Literal) and not inner.is_string and inner.name.isdigit():
            if not 1 <= int(inner.name) <= len(outputs):
                raise ExpressionError("P112", f"no result column {inner.name}", offset=offset_of(inner))
            found: Output | None = outputs[int(inner.name) - 1]
        else:
            found = names.get(inner.name.lower()) if isinstance(inner, exp.Column) and len(inner.parts) == 1 else None
        if found is not None:
            value = Typed(found.type, quote(found.name), spark_name(found.name))
        elif final is not None:
            value = final.walk(inner)
            hidden.append(value)
            value = replace(value, duckdb=quote(f"_o{len(hidden) - 1}"))
        else:
            raise ExpressionError("P110", "order by a column of the result", offset=offset_of(inner))
        if not comparable(value.type):
            raise ExpressionError("P111", f"{value.type} cannot be ordered", offset=offset_of(inner))
        _, duckdb, spark = order_key(item, value)
        keys.append((duckdb, spark))
    return keys, hidden


def order_and_limit(node: exp.Expr, relation: Relation, keys: list[tuple[str, str]] | None) -> Relation:
    """ORDER BY and LIMIT over a result; a limited order is made total by all result columns.

    Raises:
        ExpressionError: P104, a limit without an order; P114, a limit that is not a literal.
    """
    if keys is None:
        keys, _none = order_keys(node, relation.outputs, None)
    limit = node.args.get("limit")
    if limit is None and keys is None:
        return relation
    names = ", ".join(quote(output.name) for output in relation.outputs)
    tail_spark = tail = ""
    if limit is not None:
        count = limit.expression
        if not isinstance(limit, exp.Limit) or not isinstance(count, exp.Literal) or not count.name.isdigit():
            raise ExpressionError("P114", "a limit must be an integer literal", offset=offset_of(limit))
        if not keys:
            raise ExpressionError("P104", "limit without order by", nearest="order by … limit", offset=offset_of(limit))
        if not all(comparable(output.type) for output in relation.outputs):
            raise ExpressionError("P104", "a limited order cannot be made total over arrays", offset=offset_of(limit))
        ties = [(f"{quote(o.name)} ASC NULLS FIRST", f"{spark_name(o.name)} ASC NULLS FIRST") for o in relation.outputs]
        have = {spark.split(" ")[0] for _, spark in keys}
        keys = [*keys, *(tie for tie in ties if tie[1].split(" ")[0] not in have)]
        tail = tail_spark = f" LIMIT {count.name}"
    order = ", ".join(duckdb for duckdb, _ in keys or [])
    order_spark = ", ".join(spark for _, spark in keys or [])
    return replace(
        relation,
        duckdb=f'SELECT {names} FROM ({relation.duckdb}) AS "_result" ORDER BY {order}{tail}',
        spark=f"{relation.spark} ORDER BY {order_spark}{tail_spark}",
    )
