"""Window functions: partition, total order, frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlglot import exp

from lodestream.expressions.aggregates import Aggregation
from lodestream.expressions.coercion import meet_all, widen
from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError, nearest
from lodestream.expressions.operators import comparable
from lodestream.expressions.typed import Typed, literal, union
from lodestream.expressions.walk import Walker
from lodestream.model.types import INT

_RANKS = ("row_number", "rank", "dense_rank")
_MOVES = ("lag", "lead")
WINDOW_FUNCTIONS = (*_RANKS, *_MOVES)
_FRAMED = ("count", "count_if", "sum", "avg", "mean", "min", "max")


@dataclass(frozen=True, slots=True)
class Window:
    """OVER (…): text on both engines, whether it has an order, and what it reads."""

    duckdb: str
    spark: str
    ordered: bool
    parts: tuple[Typed, ...]


def compile_window(
    node: exp.Window,
    walker: Walker,
    ties: Callable[[], Sequence[Typed]],
    settle: Callable[[Typed], Typed],
    add: Callable[[str], str],
) -> Typed:
    """One window function.

    Args:
        node: the syntax.
        walker: compiles what stands inside.
        ties: values that make any order total; row_number, lag, lead and ROWS frames are extended by them.
        settle: takes a value that may err and gives one that cannot: the error is raised in the layer below.
        add: takes DuckDB text that holds a window and gives the name of the column it becomes.

    Raises:
        ExpressionError: P101, P104, P111.
    """
    offset = offset_of(node)
    call, condition = node.this, None
    if isinstance(call, exp.Filter):
        call, condition = call.this, walker.walk(call.expression.this)
    name = call.name.lower() if isinstance(call, exp.Anonymous) else ""
    known = [*_RANKS, *_MOVES, *_FRAMED]
    if name not in known:
        raise ExpressionError("P101", f"not a window function: {name}", nearest=nearest(name, known), offset=offset)
    frame = _frame(node)
    if frame and name in WINDOW_FUNCTIONS:
        raise ExpressionError("P101", f"{name} takes no frame", offset=offset)
    window = _over(node, walker, settle, ties if name in ("row_number", *_MOVES) or frame else None, frame)
    if name in WINDOW_FUNCTIONS and not window.ordered:
        raise ExpressionError("P104", f"{name} needs an order", nearest="over (… order by …)", offset=offset)
    if name in _RANKS:
        if call.expressions:
            raise ExpressionError("P111", f"{name}: takes no arguments", offset=offset)
        column = add(f"CAST({name}() OVER ({window.duckdb}) AS INTEGER)")
        return Typed(INT, column, f"{name}() OVER ({window.spark})", None, False, union(window.parts))
    if name in _MOVES:
        return _move(name, call, window, walker, settle, add, offset)
    aggregation = Aggregation.read(name, call, walker, condition)
    if aggregation.distinct:
        raise ExpressionError("P101", f"{name}(distinct …) over a window", offset=offset)
    aggregation = replace(
        aggregation,
        argument=settle(aggregation.argument) if aggregation.argument else None,
        condition=settle(aggregation.condition) if aggregation.condition else None,
    )
    made = aggregation.build()
    value = made.final([add(piece.over(window.duckdb)) for piece in made.pieces])
    nullable = name not in ("count", "count_if")
    reads = value.columns | union(window.parts)
    return replace(value, spark=f"{aggregation.spark} OVER ({window.spark})", nullable=nullable, columns=reads)


def _move(
    name: str,
    call: exp.Expr,
    window: Window,
    walker: Walker,
    settle: Callable[[Typed], Typed],
    add: Callable[[str], str],
    offset: int | None,
) -> Typed:
    arguments = [settle(walker.walk(argument)) for argument in call.expressions]
    if not 1 <= len(arguments) <= 3:
        raise ExpressionError("P111", f"{name}: takes 1 to 3 arguments", offset=offset)
    step = arguments[1].constant if len(arguments) > 1 else 1
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise ExpressionError("P114", f"{name}: the distance must be an integer literal", offset=offset)
    default = arguments[2] if len(arguments) > 2 else literal(None)
    kind = meet_all([arguments[0], default], name, offset)
    value, other = widen(arguments[0], kind), widen(default, kind)
    column = add(f"{name}({value.duckdb}, {step}, {other.duckdb}) OVER ({window.duckdb})")
    spark = f"{name}({', '.join(a.spark for a in arguments)}) OVER ({window.spark})"
    reads = union([*arguments, *window.parts])
    return Typed(kind, column, spark, None, True, reads)


def _over(
    node: exp.Window,
    walker: Walker,
    settle: Callable[[Typed], Typed],
    ties: Callable[[], Sequence[Typed]] | None,
    frame: str,
) -> Window:
    partition = [settle(walker.walk(part)) for part in node.args.get("partition_by") or []]
    order = node.args.get("order")
    keys = [order_key(item, settle(walker.walk(item.this))) for item in (order.expressions if order else [])]
    if keys and ties is not None:
        known = {value.duckdb for value, _, _ in keys} | {value.duckdb for value in partition}
        for value in ties():
            if value.duckdb in known:
                continue
            if not comparable(value.type):
                message = f"the order is not total, and {value.spark} cannot break ties"
                raise ExpressionError("P104", message, offset=offset_of(node))
            keys.append((value, f"{value.duckdb} ASC NULLS FIRST", f"{value.spark} ASC NULLS FIRST"))
    for value in [*partition, *(value for value, _, _ in keys)]:
        if not comparable(value.type):
            raise ExpressionError("P111", f"{value.type} cannot be ordered", offset=offset_of(node))
    parts_duckdb, parts_spark = [], []
    if partition:
        parts_duckdb.append("PARTITION BY " + ", ".join(p.duckdb for p in partition))
        parts_spark.append("PARTITION BY " + ", ".join(p.spark for p in partition))
    if keys:
        parts_duckdb.append("ORDER BY " + ", ".join(text for _, text, _ in keys))
        parts_spark.append("ORDER BY " + ", ".join(text for _, _, text in keys))
    if frame:
        parts_duckdb.append(frame)
        parts_spark.append(frame)
    reads = (*partition, *(value for value, _, _ in keys))
    return Window(" ".join(parts_duckdb), " ".join(parts_spark), bool(keys), reads)


def order_key(item: exp.Expr, value: Typed) -> tuple[Typed, str, str]:
    """(value, DuckDB text, Spark text) of one ORDER BY item; NULLs come first ascending and last descending."""
    if not isinstance(item, exp.Ordered) or item.args.get("with_fill"):
        raise ExpressionError("P101", "not admitted in order by", offset=offset_of(item))
    tail = " DESC" if item.args.get("desc") else " ASC"
    tail += " NULLS FIRST" if item.args.get("nulls_first") else " NULLS LAST"
    return value, value.duckdb + tail, value.spark + tail


def _frame(node: exp.Window) -> str:
    """A ROWS frame with literal bounds; other frames are refused, the default one is Spark's."""
    extra = [
        k for k, v in node.args.items()
        if v not in (None, False, []) and k not in ("this", "partition_by", "order", "spec", "over")
    ]  # fmt: skip
    spec = node.args.get("spec")
    if extra or node.args.get("over") not in (None, "OVER"):
        raise ExpressionError("P101", "not admitted in over(…)", offset=offset_of(node))
    if spec is None:
        return ""
    if str(spec.args.get("kind")).upper() != "ROWS" or spec.args.get("exclude"):
        raise ExpressionError("P101", "not admitted: this frame", nearest="rows between …", offset=offset_of(node))
    bounds = []
    for key in ("start", "end"):
        value, side = spec.args.get(key), str(spec.args.get(f"{key}_side") or "").upper()
        if value is None:
            bounds.append("CURRENT ROW")
        elif isinstance(value, exp.Literal) and not value.is_string and value.name.isdigit():
            bounds.append(f"{value.name} {side}")
        elif str(value).upper() in ("UNBOUNDED", "CURRENT ROW"):
            bounds.append(f"{str(value).upper()} {side}".strip())
        else:
            raise ExpressionError("P114", "a frame bound must be an integer literal", offset=offset_of(node))
    return f"ROWS BETWEEN {bounds[0]} AND {bounds[1]}"
