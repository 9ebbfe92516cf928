"""Where Spark and sqlglot could read the same text as different trees, the user must write parentheses."""

from __future__ import annotations

from sqlglot import exp

from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError

_PREDICATES = (
    exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.Is, exp.In, exp.Between, exp.Like,
    exp.ILike, exp.RegexpLike, exp.Escape,
)  # fmt: skip
_LEVELS: tuple[tuple[type[exp.Expr], ...], ...] = (
    (exp.Or,), (exp.And,), (exp.Not,), _PREDICATES, (exp.BitwiseOr, exp.BitwiseXor, exp.BitwiseAnd),
    (exp.Add, exp.Sub, exp.DPipe), (exp.Mul, exp.Div, exp.Mod, exp.IntDiv), (exp.Neg, exp.BitwiseNot),
)  # fmt: skip
_LEVEL = {kind: level for level, kinds in enumerate(_LEVELS) for kind in kinds}
_PRIMARY = len(_LEVELS)
_CHAINS = ((exp.Or,), (exp.And,), (exp.Add, exp.Sub), (exp.DPipe,), (exp.Mul, exp.Div, exp.Mod, exp.IntDiv))

_KEYS: dict[type[exp.Expr], frozenset[str]] = {
    exp.Column: frozenset({"this", "table", "db", "catalog"}),
    exp.Identifier: frozenset({"this", "quoted"}),
    exp.Literal: frozenset({"this", "is_string"}),
    exp.Cast: frozenset({"this", "to"}),
    exp.TryCast: frozenset({"this", "to", "safe"}),
    exp.Case: frozenset({"this", "ifs", "default"}),
    exp.If: frozenset({"this", "true", "false"}),
    exp.In: frozenset({"this", "expressions", "query", "unnest"}),
    exp.Between: frozenset({"this", "low", "high"}),
    exp.Bracket: frozenset({"this", "expressions"}),
    exp.Interval: frozenset({"this", "unit"}),
    exp.Anonymous: frozenset({"this", "expressions"}),
    exp.Trim: frozenset({"this", "expression", "position"}),
    exp.Extract: frozenset({"this", "expression"}),
    exp.StrPosition: frozenset({"this", "substr", "position"}),
    exp.Like: frozenset({"this", "expression", "negate"}),
    exp.ILike: frozenset({"this", "expression", "negate"}),
    exp.RegexpLike: frozenset({"this", "expression", "negate"}),
    exp.DPipe: frozenset({"this", "expression", "safe"}),
    exp.Boolean: frozenset({"this"}),
    exp.Window: frozenset({"this", "partition_by", "order", "spec", "over"}),
}
_DEFAULT_KEYS = frozenset({"this", "expression"})


def check_shape(node: exp.Expr) -> None:
    """Refuse parts of a node that nobody reads, and operator chains that are not plainly nested.

    Raises:
        ExpressionError: P101 for an unread part; P112, parentheses are needed.
    """
    known = _KEYS.get(type(node), _DEFAULT_KEYS)
    extra = [key for key, value in node.args.items() if value not in (None, False, []) and key not in known]
    if extra:
        raise ExpressionError(
            "P101", f"not admitted: {type(node).__name__.lower()} with {extra[0]}", offset=offset_of(node)
        )
    level = _LEVEL.get(type(node))
    if level is None:
        return
    chain = next((kinds for kinds in _CHAINS if isinstance(node, kinds)), ())
    for key in ("this", "expression", "low", "high", "expressions"):
        found = node.args.get(key)
        for child in found if isinstance(found, list) else [found]:
            if not isinstance(child, exp.Expr):
                continue
            while isinstance(child, exp.Paren) and "written" not in child.meta:
                child = child.this
            inner = _LEVEL.get(type(child), _PRIMARY)
            plain = inner > level or (key == "this" and chain and isinstance(child, chain))
            if isinstance(node, exp.Connector) and isinstance(child, type(node)):
                plain = True
            if isinstance(node, exp.Not) and isinstance(child, _PREDICATES):
                plain = True
            if isinstance(node, exp.Escape) and isinstance(child, exp.Like | exp.ILike):
                plain = True
            if isinstance(node, exp.In) and key == "expressions":
                plain = True
            if not plain:
                raise ExpressionError("P112", "put parentheses around the inner operator", offset=offset_of(child))
