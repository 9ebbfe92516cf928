"""The whitelist: every function that is admitted, by Spark's name, with how it is typed and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from lodestream.expressions.coercion import widen
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.typed import VOID, Typed, spark_name
from lodestream.model.types import BIGINT, BOOLEAN, DATE, DOUBLE, INT, INTEGERS, STRING, TIMESTAMP, DataType

Build = Callable[["Call"], Typed]


class Lambda(Protocol):
    """A function written as an argument: `x -> body` or `(x, y) -> body`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters."""

    def bind(self, *parameters: tuple[DataType, str]) -> Typed:
        """The body, where each parameter has a type and a DuckDB text. Raises ExpressionError."""

    def variable(self, index: int) -> str:
        """A DuckDB name for a parameter, unlike any other in scope."""

    def spark(self, body: Typed) -> str:
        """The lambda as Spark text."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an admitted function: its arguments, and what may be asked of them."""

    name: str
    arguments: tuple[Typed, ...]
    offset: int | None
    lambdas: tuple[Lambda, ...] = ()

    def __getitem__(self, index: int) -> Typed:
        return self.arguments[index]

    def __len__(self) -> int:
        return len(self.arguments)

    @property
    def spark(self) -> str:
        """The call as Spark text."""
        return f"{self.name}({', '.join(a.spark for a in self.arguments)})"

    def error(self, message: str, code: str = "P111", nearest: str | None = None) -> ExpressionError:
        """An error that points at this call."""
        return ExpressionError(code, f"{self.name}: {message}", nearest=nearest, offset=self.offset)

    def count(self, least: int, most: int | None = None) -> None:
        """Raise P111 unless the number of arguments lies within the bounds (both inclusive)."""
        top = least if most is None else most
        if not least <= len(self.arguments) <= top:
            wanted = str(least) if least == top else f"{least} to {top}"
            raise self.error(f"takes {wanted} arguments, not {len(self.arguments)}")

    def _take(self, index: int, names: Sequence[str], to: DataType) -> Typed:
        value = self.arguments[index]
        if value.type != VOID and value.type.name not in names:
            wanted = names[0] if len(names) == 1 else " or ".join(names)
            raise self.error(f"argument {index + 1} must be {wanted}, not {value.type}", nearest=f"cast(… as {to})")
        return widen(value, to)

    def text(self, index: int) -> Typed:
        """A string argument."""
        return self._take(index, ("string",), STRING)

    def texts(self) -> list[Typed]:
        """Every argument, as strings."""
        return [self.text(i) for i in range(len(self.arguments))]

    def int_(self, index: int) -> Typed:
        """An int argument (tinyint and smallint widen; bigint does not)."""
        return self._take(index, INTEGERS[:3], INT)

    def bigint(self, index: int) -> Typed:
        """An integer argument, as bigint."""
        return self._take(index, INTEGERS, BIGINT)

    def double(self, index: int) -> Typed:
        """A numeric argument, as double."""
        return self._take(index, (*INTEGERS, "decimal", "float", "double"), DOUBLE)

    def date(self, index: int) -> Typed:
        """A date argument; a timestamp is not one."""
        return self._take(index, ("date",), DATE)

    def timestamp(self, index: int) -> Typed:
        """A timestamp argument; a date becomes its midnight."""
        return self._take(index, ("timestamp", "date"), TIMESTAMP)

    def instant(self, index: int) -> Typed:
        """A timestamp argument; a date is not one."""
        return self._take(index, ("timestamp",), TIMESTAMP)

    def boolean(self, index: int) -> Typed:
        """A boolean argument."""
        return self._take(index, ("boolean",), BOOLEAN)

    def number(self, index: int) -> Typed:
        """A numeric argument of whatever type it has."""
        value = self.arguments[index]
        if value.type == VOID:
            return widen(value, DOUBLE)
        if not value.type.is_numeric:
            raise self.error(f"argument {index + 1} must be a number, not {value.type}")
        return value

    def array(self, index: int) -> Typed:
        """An array argument."""
        value = self.arguments[index]
        if value.type.name != "array":
            raise self.error(f"argument {index + 1} must be an array, not {value.type}")
        return value

    def map(self, index: int) -> Typed:
        """A map argument."""
        value = self.arguments[index]
        if value.type.name != "map":
            raise self.error(f"argument {index + 1} must be a map, not {value.type}")
        return value

    def literal_text(self, index: int) -> str:
        """The value of a string literal. Raises P114 for anything else."""
        value = self.arguments[index].constant
        if not isinstance(value, str):
            raise self.error(f"argument {index + 1} must be a string literal", "P114")
        return value

    def literal_int(self, index: int) -> int:
        """The value of an integer literal. Raises P114 for anything else."""
        value = self.arguments[index].constant
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"argument {index + 1} must be an integer literal", "P114")
        return value


@dataclass(frozen=True, slots=True)
class Function:
    """One admitted function as the reference page shows it."""

    name: str
    arguments: str
    result: str
    note: str
    section: str
    build: Build
    lambdas: int
    unit: bool


SCALARS: Final[dict[str, Function]] = {}
"""Scalar functions by name."""

AGGREGATES: Final[dict[str, str]] = {}
"""Aggregate function name -> its reference line `arguments | result | note`."""

REFUSED: Final[dict[str, tuple[str, str, str | None]]] = {}
"""Function name -> (code, why, nearest) for functions that people will look for."""


def scalar(
    section: str,
    name: str,
    arguments: str,
    result: str,
    note: str = "",
    *,
    lambdas: int = 0,
    unit: bool = False,
) -> Callable[[Build], Build]:
    """Admit a scalar function; the decorated builder types and compiles one call.

    The last `lambdas` arguments are functions; with `unit`, the first of three arguments is a bare word.
    """

    def admit(build: Build) -> Build:
        for one in name.split():
            SCALARS[one] = Function(one, arguments, result, note, section, build, lambdas, unit)
        return build

    return admit


def refuse(code: str, why: str, nearest: str | None, *names: str) -> None:
    """Name functions that are not admitted, and what to use in their place."""
    for name in names:
        REFUSED[name] = (code, why, nearest)


__all__ = [
    "AGGREGATES", "REFUSED", "SCALARS", "Build", "Call", "Function", "Lambda", "refuse", "scalar", "spark_name",
]  # fmt: skip
