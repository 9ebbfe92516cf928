"""Relations of a query: what FROM and JOIN bring into sight, under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from lodestream.expressions.dialect import offset_of
from lodestream.expressions.errors import ExpressionError, nearest
from lodestream.expressions.operators import boolean, meet_pair
from lodestream.expressions.typed import Typed, quote, spark_name
from lodestream.expressions.walk import Describe, Walker
from lodestream.model.types import Column, DataType, Schema

FAILED = "query: an expression failed, as it would in the ANSI mode of Spark"
"""What DuckDB's message says when a query raises on purpose."""


@dataclass(frozen=True, slots=True)
class Output:
    """One column that a relation shows: `origins` are the table columns its values come from."""

    name: str
    type: DataType
    nullable: bool
    origins: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, CTE or subquery: text on both engines and what it shows."""

    duckdb: str
    spark: str
    outputs: tuple[Output, ...]
    portable: bool = True
    table: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """One column in sight: under which alias, its value, and its table where no alias hides that."""

    alias: str
    name: str
    value: Typed
    table: str = ""


@dataclass(slots=True)
class Sight:
    """Everything a select can name, in the order in which * shows it."""

    columns: list[Seen] = field(default_factory=list)
    merged: list[Seen] = field(default_factory=list)
    portable: bool = True

    @property
    def star(self) -> list[Seen]:
        """Columns of `*`: those joined by USING once and first."""
        hidden = {seen.name.lower() for seen in self.merged}
        return [*self.merged, *(seen for seen in self.columns if seen.name.lower() not in hidden)]

    def add(self, alias: str, relation: Relation, *, optional: bool) -> None:
        """Bring a relation into sight; the columns of an optional one may be NULL."""
        for output in relation.outputs:
            value = Typed(
                output.type, f"{quote(alias)}.{quote(output.name)}", f"{spark_name(alias)}.{spark_name(output.name)}",
                None, output.nullable or optional, output.origins,
            )  # fmt: skip
            self.columns.append(Seen(alias, output.name, value, relation.table.lower()))
        self.portable = self.portable and relation.portable

    def make_optional(self) -> None:
        """All columns so far may be NULL: they stand on the outer side of a join."""
        self.columns = [replace(seen, value=replace(seen.value, nullable=True)) for seen in self.columns]
        self.merged = [replace(seen, value=replace(seen.value, nullable=True)) for seen in self.merged]

    def find(self, parts: list[str], offset: int | None) -> tuple[Typed, list[str]]:
        """The column that `parts` begins with, and the rest (struct fields). Raises ExpressionError P110."""
        lower = [part.lower() for part in parts]
        if len(parts) > 1:
            found = [s for s in self.columns if (s.alias.lower(), s.name.lower()) == (lower[0], lower[1])]
            if len(found) == 1:
                return found[0].value, parts[2:]
            if any(s.alias.lower() == lower[0] for s in self.columns):
                names = [s.name for s in self.columns if s.alias.lower() == lower[0]]
                raise self._unknown(".".join(parts[:2]), nearest(parts[1], names), bool(found), offset)
            if len(parts) > 2 and any(s.table == f"{lower[0]}.{lower[1]}" for s in self.columns):
                return self.find(parts[1:], offset)
        found = [s for s in self.merged if s.name.lower() == lower[0]] or [
            s for s in self.columns if s.name.lower() == lower[0]
        ]
        if len(found) != 1:
            raise self._unknown(parts[0], nearest(parts[0], [s.name for s in self.columns]), bool(found), offset)
        return found[0].value, parts[1:]

    @staticmethod
    def _unknown(name: str, near: str | None, many: bool, offset: int | None) -> ExpressionError:
        problem = "ambiguous column" if many else "no such column"
        return ExpressionError("P110", f"{problem}: {name!r}", nearest=None if many else near, offset=offset)


class RowWalker(Walker):
    """Scalar syntax over the columns in sight."""

    def __init__(self, sight: Sight, *, portable: bool, describe: Describe | None) -> None:
        super().__init__(Schema(), portable=portable, describe=describe)
        self.sight = sight

    def fields(self, parts: list[str], offset: int | None) -> Typed:
        """`column`, `alias.column`, and struct fields after them."""
        value, path = self.sight.find(parts, offset)
        return self.inside(value, path, offset)


@dataclass(frozen=True, slots=True)
class Sources:
    """What FROM may name: tables of the project and CTEs in scope; `used` collects the tables that are read."""

    schemas: Mapping[str, Schema]
    ctes: Mapping[str, Relation]
    used: set[str]
    compile: Callable[[exp.Expr, Sources], Relation]
    portable: bool
    describe: Describe | None

    def table(self, node: exp.Table) -> Relation:
        """A table or a CTE. Raises ExpressionError P109."""
        name = ".".join(part.name for part in node.parts)
        lower = name.lower()
        if lower in self.ctes:
            return replace(self.ctes[lower], duckdb=quote(lower), spark=spark_name(lower))
        known = {table.lower(): table for table in self.schemas}
        if lower not in known:
            near = nearest(lower, [*known, *self.ctes])
            raise ExpressionError("P109", f"no such table: {name!r}", nearest=near, offset=offset_of(node))
        table = known[lower]
        self.used.add(table)
        outputs = tuple(Output(c.name, c.type, c.nullable, frozenset({(table, c.name)})) for c in self.schemas[table])
        spark = ".".join(spark_name(part) for part in table.split("."))
        return Relation(quote(table), spark, outputs, table=table)


def checked_condition(node: exp.Expr, walker: Walker, what: str) -> Typed:
    """A boolean condition that raises in DuckDB where it errs."""
    return raising(boolean(walker.walk(node), what, offset_of(node)))


def raising(value: Typed) -> Typed:
    """The same value, but DuckDB raises where it errs."""
    if value.error is None:
        return value
    return replace(value, error=None, duckdb=f"CASE WHEN {value.error} THEN error('{FAILED}') ELSE {value.duckdb} END")


def from_clause(select: exp.Select, sources: Sources) -> tuple[Sight, str, str]:
    """FROM with its joins: what is in sight, DuckDB text and Spark text.

    Raises:
        ExpressionError: P101, P109, P110, P111, P112.
    """
    first = select.args.get("from_")
    if first is None:
        raise ExpressionError("P112", "a query reads from a table", offset=offset_of(select))
    sight = Sight()
    alias, relation = _item(first.this, sources)
    sight.add(alias, relation, optional=False)
    duckdb, spark = _aliased(alias, relation)
    taken = {alias.lower()}
    for join in select.args.get("joins") or []:
        alias, relation = _item(join.this, sources)
        if alias.lower() in taken:
            raise ExpressionError("P112", f"two tables are called {alias!r}", offset=offset_of(join.this))
        taken.add(alias.lower())
        more_duckdb, more_spark = _join(join, alias, relation, sight, sources)
        duckdb, spark = duckdb + more_duckdb, spark + more_spark
    return sight, duckdb, spark


def _item(node: exp.Expr, sources: Sources) -> tuple[str, Relation]:
    extra = [k for k, v in node.args.items() if v not in (None, False, []) and k not in ("this", "db", "alias")]
    if extra:
        raise ExpressionError("P101", f"not admitted in from: {extra[0]}", offset=offset_of(node))
    alias = node.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        raise ExpressionError("P101", "column names after a table alias", offset=offset_of(node))
    if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
        relation = sources.table(node)
        return (node.name, relation) if alias is None else (alias.name, replace(relation, table=""))
    if isinstance(node, exp.Subquery):
        relation = sources.compile(node.this, sources)
        if alias is None:
            raise ExpressionError("P112", "a subquery needs a name", nearest="(select …) as t", offset=offset_of(node))
        return alias.name, replace(relation, duckdb=f"({relation.duckdb})", spark=f"({relation.spark})")
    raise ExpressionError("P101", f"not admitted in from: {type(node).__name__.lower()}", offset=offset_of(node))


def _aliased(alias: str, relation: Relation) -> tuple[str, str]:
    return f"{relation.duckdb} AS {quote(alias)}", f"{relation.spark} AS {spark_name(alias)}"


_JOINS = {
    ("", ""): "INNER", ("", "INNER"): "INNER", ("", "CROSS"): "CROSS", ("LEFT", ""): "LEFT", ("LEFT", "OUTER"): "LEFT",
    ("RIGHT", ""): "RIGHT", ("RIGHT", "OUTER"): "RIGHT", ("FULL", ""): "FULL", ("FULL", "OUTER"): "FULL",
    ("LEFT", "SEMI"): "SEMI", ("", "SEMI"): "SEMI", ("LEFT", "ANTI"): "ANTI", ("", "ANTI"): "ANTI",
}  # fmt: skip


def _join(join: exp.Join, alias: str, relation: Relation, sight: Sight, sources: Sources) -> tuple[str, str]:
    offset = offset_of(join)
    extra = [
        k
        for k, v in join.args.items()
        if v not in (None, False, []) and k not in ("this", "side", "kind", "on", "using")
    ]
    kind = _JOINS.get((str(join.args.get("side") or "").upper(), str(join.args.get("kind") or "").upper()))
    if extra or kind is None:
        raise ExpressionError("P101", f"not admitted: this kind of join {extra[0] if extra else ''}", offset=offset)
    on, using = join.args.get("on"), join.args.get("using")
    if (kind == "CROSS") == bool(on or using):
        raise ExpressionError("P112", "a join needs on or using, a cross join neither", offset=offset)
    both = Sight([*sight.columns], [*sight.merged], sight.portable)
    both.add(alias, relation, optional=False)
    duckdb_item, spark_item = _aliased(alias, relation)
    clause_duckdb, clause_spark = "", ""
    merged: list[Seen] = []
    if on is not None:
        walker = RowWalker(both, portable=sources.portable, describe=sources.describe)
        condition = checked_condition(on, walker, "on")
        clause_duckdb, clause_spark = f" ON {condition.duckdb}", f" ON {condition.spark}"
    elif using:
        names = [part.name for part in using]
        pairs = []
        for name in names:
            left, _ = sight.find([name], offset)
            right, _ = both.find([alias, name], offset)
            pairs.append((meet_pair("=", left, right, offset), left, right, name))
        clause_duckdb = " ON " + " AND ".join(f"{a.duckdb} = {b.duckdb}" for (a, b), _, _, _ in pairs)
        clause_spark = f" USING ({', '.join(spark_name(name) for name in names)})"
        merged = [Seen("", name, _merged(kind, wide, left, right, name)) for wide, left, right, name in pairs]
    words = {"INNER": "INNER JOIN", "CROSS": "CROSS JOIN", "SEMI": "SEMI JOIN", "ANTI": "ANTI JOIN"}
    word = words.get(kind, f"{kind} JOIN")
    if kind in ("RIGHT", "FULL"):
        sight.make_optional()
    if kind not in ("SEMI", "ANTI"):
        sight.add(alias, relation, optional=kind in ("LEFT", "FULL"))
        names_now = {seen.name.lower() for seen in merged}
        sight.merged = [*merged, *(seen for seen in sight.merged if seen.name.lower() not in names_now)]
    spark_word = f"LEFT {word}" if kind in ("SEMI", "ANTI") else word
    return f" {word} {duckdb_item}{clause_duckdb}", f" {spark_word} {spark_item}{clause_spark}"


def _merged(kind: str, wide: tuple[Typed, Typed], left: Typed, right: Typed, name: str) -> Typed:
    """The one column that USING makes of two."""
    spark = spark_name(name)
    if kind == "RIGHT":
        return replace(right, spark=spark)
    if kind != "FULL":
        return replace(left, spark=spark)
    a, b = wide
    return Typed(
        a.type, f"coalesce({a.duckdb}, {b.duckdb})", spark, None, True, a.columns | b.columns,
        portable=a.portable and b.portable,
    )  # fmt: skip


def schema_of(outputs: tuple[Output, ...]) -> Schema:
    """The outputs as a schema."""
    return Schema(tuple(Column(o.name, o.type, o.nullable) for o in outputs))
