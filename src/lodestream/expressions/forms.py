"""The syntactic forms that are not plain operators or calls: patterns, TRIM, EXTRACT, subscripts, fields, bits."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from lodestream.expressions import operators
from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError, nearest
from lodestream.expressions.functions import SCALARS, Call, arrays, moments, patterns, texts
from lodestream.expressions.shape import check_shape
from lodestream.expressions.typed import Typed, duckdb_text, spark_name, strict

BITS: dict[type[exp.Expr], str] = {exp.BitwiseAnd: "&", exp.BitwiseOr: "|", exp.BitwiseXor: "^"}


class Forms:
    """One method per form; `walk` compiles what stands inside."""

    def walk(self, node: exp.Expr) -> Typed:
        """The compiled node. Raises ExpressionError."""
        raise NotImplementedError

    def inside(self, value: Typed, path: list[str], offset: int | None) -> Typed:
        """The field at `path` in a struct value."""
        for part in path:
            members = {f.name.lower(): f for f in value.type.fields}
            field = members.get(part.lower())
            if field is None:
                found = nearest(part, members)
                raise ExpressionError("P110", f"no such field: {part!r}", nearest=found, offset=offset)
            spark = f"{value.spark}.{spark_name(field.name)}"
            if value.members:
                value = replace(value.members[value.type.fields.index(field)], spark=spark)
                continue
            duckdb = f"struct_extract({value.duckdb}, {duckdb_text(field.name)})"
            value = strict(field.type, duckdb, spark, (value,), nullable=field.nullable)
        return value

    def pipes(self, node: exp.DPipe) -> Typed:
        """A || b."""
        parts = (self.walk(node.left), self.walk(node.right))
        made = SCALARS["concat"].build(Call("||", parts, offset_of(node)))
        return made.with_spark(f"({parts[0].spark} || {parts[1].spark})")

    def like(self, node: exp.Binary) -> Typed:
        """LIKE and ILIKE, without ESCAPE."""
        return self._like(node, "\\")

    def escaped(self, node: exp.Escape) -> Typed:
        """LIKE … ESCAPE 'c'."""
        mark = node.expression
        if not isinstance(mark, exp.Literal) or not mark.is_string or len(mark.name) != 1 or mark.name in "%_'":
            raise ExpressionError("P114", "escape takes one character", offset=offset_of(node))
        check_shape(node.this)
        return self._like(node.this, mark.name)

    def _like(self, node: exp.Expr, escape: str) -> Typed:
        if not isinstance(node, exp.Like | exp.ILike):
            raise ExpressionError("P112", "escape belongs to like", offset=offset_of(node))
        value, pattern = self.walk(node.this), self.walk(node.expression)
        made = patterns.like(value, pattern, escape, isinstance(node, exp.ILike), offset_of(node))
        return operators.invert(made, None) if node.args.get("negate") else made

    def rlike(self, node: exp.RegexpLike) -> Typed:
        """A RLIKE b."""
        value, pattern = self.walk(node.this), self.walk(node.expression)
        made = patterns.matches(value, pattern, f"({value.spark} RLIKE {pattern.spark})", offset_of(node))
        return operators.invert(made, None) if node.args.get("negate") else made

    def trim(self, node: exp.Trim) -> Typed:
        """TRIM([BOTH|LEADING|TRAILING] [characters] FROM text)."""
        side = str(node.args.get("position") or "BOTH").upper()
        name = {"BOTH": "trim", "LEADING": "ltrim", "TRAILING": "rtrim"}[side]
        call = Call("trim", (self.walk(node.this),), offset_of(node))
        of = node.args.get("expression")
        characters = None if of is None else Call("trim", (self.walk(of),), offset_of(node)).text(0)
        inner = f"{characters.spark} " if characters else ""
        value = call.text(0)
        return texts.strip(name, value, characters, f"trim({side} {inner}FROM {value.spark})")

    def extract(self, node: exp.Extract) -> Typed:
        """EXTRACT(field FROM moment)."""
        call = Call("extract", (self.walk(node.expression),), offset_of(node))
        field = node.this.name
        return moments.extract(call, field, f"extract({field.upper()} FROM {call[0].spark})")

    def position(self, node: exp.StrPosition) -> Typed:
        """POSITION(a IN b)."""
        start = node.args.get("position")
        parts = tuple(self.walk(part) for part in (node.args["substr"], node.this, start) if part is not None)
        return SCALARS["position"].build(Call("position", parts, offset_of(node)))

    def bracket(self, node: exp.Bracket) -> Typed:
        """array[index], map[key]."""
        if len(node.expressions) != 1:
            raise ExpressionError("P112", "one index", offset=offset_of(node))
        return arrays.subscript(self.walk(node.this), self.walk(node.expressions[0]), offset_of(node))

    def bits(self, node: exp.Binary) -> Typed:
        """A & b, a | b, a ^ b."""
        return operators.bits(BITS[type(node)], self.walk(node.left), self.walk(node.right), offset_of(node))

    def flip(self, node: exp.BitwiseNot) -> Typed:
        """~a."""
        return operators.flip(self.walk(node.this), offset_of(node))

    def dot(self, node: exp.Dot) -> Typed:
        """(struct).field."""
        return self.inside(self.walk(node.this), [node.expression.name], offset_of(node))
