"""What is known of a table's columns while it is compiled, and the one place where expressions are judged."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from lodestream.expressions.aggregate import compile_measures
from lodestream.expressions.dialect import parse_expression
from lodestream.expressions.errors import ExpressionError
from lodestream.expressions.scalar import compile_scalar
from lodestream.model.diagnostic import Place
from lodestream.model.expression import Aggregate, Expression
from lodestream.model.project import Path, Project
from lodestream.model.table import JOIN_META, Named, Table
from lodestream.model.types import BIGINT, STRING, TIMESTAMP, Column, DataType, Schema
from lodestream.project.mistakes import Mistakes, nearest

Describe = Callable[[Schema, str], DataType]
"""Asks the engine for the type of a DuckDB expression over columns; raises ValueError where there is none."""

PROVENANCE = (
    Column("_source", STRING, nullable=False),
    Column("_position", BIGINT, nullable=False),
    Column("_ingest_time", TIMESTAMP, nullable=False),
)
JOINED = tuple(Column(name, STRING if name.endswith("source") else BIGINT) for name in JOIN_META)
BATCH = Column("_batch", BIGINT, nullable=False)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a table that others may use.

    Attributes:
        schema: columns whose type is known, without provenance and physical partition columns.
        unknown: columns that exist, but whose type a mistake hides.
        lost: nothing is known, so nothing that reads this table is judged.
        raw: whether rows carry `_raw`.
    """

    schema: Schema = field(default_factory=Schema)
    unknown: frozenset[str] = frozenset()
    lost: bool = False
    raw: bool = False

    def has(self, name: str) -> bool:
        """Whether there is, or may be, such a column."""
        return self.lost or name in self.schema or name in self.unknown


@dataclass
class Scope:
    """The columns that one stage of one table sees; it grows from stage to stage.

    Attributes:
        hidden: columns that expressions may read although they are no columns of the table (`_source`, `_raw` …).
        notes: what a portable engine could not run, as (place, text).
        sink_notes: what a person should know of a sink, as (place, sink, text).
    """

    project: Project
    table: Table
    mistakes: Mistakes
    shape: Shape = field(default_factory=Shape)
    hidden: tuple[Column, ...] = ()
    describe: Describe | None = None
    notes: list[tuple[Place, str]] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    sink_notes: list[tuple[Place, str, str]] = field(default_factory=list)

    @property
    def portable(self) -> bool:
        """Whether only functions that Spark computes alike are admitted."""
        return self.table.engine != "embedded"

    @property
    def schema(self) -> Schema:
        """All columns that an expression may name here."""
        return self.shape.schema.with_columns(*self.hidden)

    def place(self, *path: str | int) -> Place:
        """Where a part of the table was declared."""
        return self.project.place(self.table.name, *path)

    def add(self, columns: list[Column], unknown: set[str]) -> None:
        """Later stages see these columns too; a namesake is replaced."""
        names = {column.name for column in columns}
        schema = self.shape.schema.without(*unknown).with_columns(*columns)
        hides = (self.shape.unknown - names) | unknown
        self.shape = Shape(schema, hides, self.shape.lost, self.shape.raw)

    def blind(self, text: str) -> bool:
        """Whether a text cannot be judged, since it may use something that an earlier mistake hides."""
        if self.shape.lost:
            return True
        hidden = {name.lower() for name in self.shape.unknown}
        return any(word.lower() in hidden for word in _WORD.findall(text))

    def describer(self, schema: Schema) -> Callable[[str], DataType] | None:
        """The engine's answer to the type of an expression that Spark does not know, over `schema`."""
        return None if self.describe is None else partial(self.describe, schema)

    def scalar(self, text: str, path: Path) -> Expression | None:
        """The compiled expression, or None when it is wrong (noted) or cannot be judged."""
        try:
            if self.blind(text):  # what it means cannot be said, but it can be read
                parse_expression(text)
                return None
            made = compile_scalar(text, self.schema, portable=self.portable, describe=self.describer(self.schema))
        except ExpressionError as error:
            self.refuse(text, path, error)
            return None
        self._seen(made, path)
        return made

    def measures(self, named: tuple[Named, ...]) -> tuple[tuple[str, Aggregate], ...] | None:
        """The compiled measures; each wrong one is noted on its own."""
        good = True
        for one in named:
            path = ("measures", one.name)
            try:
                if self.blind(one.text):
                    parse_expression(one.text)
                    good = False
                    continue
                ((_, made),) = self._measures((one,))
            except ExpressionError as error:
                self.refuse(one.text, path, error)
                good = False
                continue
            self._seen(made, path)
        if not good:
            return None
        return self._measures(named)

    def _measures(self, named: tuple[Named, ...]) -> tuple[tuple[str, Aggregate], ...]:
        items, schema = [(one.name, one.text) for one in named], self.schema
        return compile_measures(items, schema, portable=self.portable, describe=self.describer(schema))

    def refuse(self, text: str, path: Path, error: ExpressionError) -> None:
        """Note what an expression's compiler says, at the spot inside the text."""
        place = self.place(*path).at(text, error.offset)
        self.mistakes.add(place, error.code, error.message, nearest=error.nearest)

    def column(self, name: str, path: Path, *, within: Schema | None = None) -> Column | None:
        """A column by its exact name; a missing one is noted, one that a mistake hides is not."""
        schema = self.shape.schema if within is None else within
        if (found := schema.get(name)) is not None:
            self.read.add(name)
            return found
        if within is None and self.shape.has(name):
            return None
        self.missing(name, path, schema.names)
        return None

    def missing(self, name: str, path: Path, names: tuple[str, ...]) -> None:
        """Note that there is no such column among `names`."""
        self.mistakes.add(self.place(*path), "P110", "no such column", column=name, nearest=nearest(name, names))

    def _seen(self, made: Expression | Aggregate, path: Path) -> None:
        self.read |= made.columns
        if not made.portable:
            self.notes.append((self.place(*path), ".".join(str(part) for part in path)))
