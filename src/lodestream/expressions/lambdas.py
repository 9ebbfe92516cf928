"""Functions as arguments: `x -> body`, compiled once the function that takes it knows its parameters' types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp

from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.typed import Typed, spark_name
from lodestream.model.types import DataType

if TYPE_CHECKING:
    from lodestream.expressions.walk import Walker


@dataclass(frozen=True, slots=True)
class Written:
    """A lambda as it was written, and the walker that compiles its body."""

    walker: Walker
    node: exp.Lambda
    names: tuple[str, ...]
    depth: int

    @classmethod
    def read(cls, walker: Walker, node: exp.Lambda) -> Written:
        """Read the parameters. Raises ExpressionError P112."""
        names = tuple(parameter.name for parameter in node.expressions)
        if len({name.lower() for name in names}) < len(names):
            raise ExpressionError("P112", "two parameters of one name", offset=offset_of(node))
        return cls(walker, node, names, walker.depth)

    def variable(self, index: int) -> str:
        """A DuckDB name for a parameter, unlike any other in scope."""
        return f'"→{self.depth}_{index}"'

    def bind(self, *parameters: tuple[DataType, str]) -> Typed:
        """The body, where each parameter has a type and a DuckDB text. Raises ExpressionError."""
        if len(parameters) != len(self.names):
            raise ExpressionError(
                "P111", f"the function takes {len(self.names)} parameters, not {len(parameters)}",
                offset=offset_of(self.node),
            )  # fmt: skip
        scope = {
            name.lower(): Typed(kind, duckdb, spark_name(name))
            for name, (kind, duckdb) in zip(self.names, parameters, strict=True)
        }
        return self.walker.within(scope, self.node.this)

    def spark(self, body: Typed) -> str:
        """The lambda as Spark text."""
        names = [spark_name(name) for name in self.names]
        return f"{names[0] if len(names) == 1 else '(' + ', '.join(names) + ')'} -> {body.spark}"
