"""A compiled expression: its canonical Spark text, its type, and its non-raising DuckDB form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lodestream.model.types import DataType, Schema


@dataclass(frozen=True, slots=True)
class Expression:
    """A scalar expression.

    Attributes:
        text: canonical Spark SQL, as a Spark engine would run it.
        type: its Spark type.
        nullable: whether it may be NULL.
        duckdb: DuckDB SQL over columns named as in the schema (quoted); never raises, NULL where it errs.
            Timestamps are naive DuckDB TIMESTAMP in UTC.
        error: DuckDB boolean SQL, true where Spark's ANSI mode would raise; None when it cannot.
        columns: names of the columns it reads, for lineage.
        portable: whether Spark would give the same value.
    """

    text: str
    type: DataType
    nullable: bool
    duckdb: str
    error: str | None
    columns: frozenset[str]
    portable: bool = True


@dataclass(frozen=True, slots=True)
class Partial:
    """A mergeable piece of an aggregate, kept in state.

    Attributes:
        name: column name in state, unique within the measure list (`p0`, `p1`, …).
        initial: DuckDB aggregate over input rows, e.g. `count("amount")`.
        merge: DuckDB aggregate over stored partials, e.g. `sum("p0")`.
        type: Spark type of the stored partial.
    """

    name: str
    initial: str
    merge: str
    type: DataType


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A measure: an expression over aggregate functions.

    Attributes:
        text: canonical Spark SQL.
        type: Spark type of the result.
        partials: pieces kept per window and group.
        final: DuckDB SQL over the partials' names; never raises.
        final_error: true where Spark would raise (for example sum overflow); fails the refresh.
        initial_error: DuckDB boolean over an input row, true where an argument errs; such rows are quarantined.
        columns: input columns it reads.
    """

    text: str
    type: DataType
    nullable: bool
    partials: tuple[Partial, ...]
    final: str
    final_error: str | None
    initial_error: str | None
    columns: frozenset[str]
    portable: bool = True


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled batch query.

    Attributes:
        text: canonical Spark SQL.
        duckdb: DuckDB SQL over views named by table (`"silver.flights"`); it raises, with a message that begins
            with `query:`, where Spark's ANSI mode would raise.
        schema: the result's columns.
        inputs: names of the tables it reads, sorted.
        lineage: for each result column the (table, column) pairs its values come from.
        portable: whether Spark would give the same rows.
    """

    text: str
    duckdb: str
    schema: Schema
    inputs: tuple[str, ...]
    lineage: Mapping[str, frozenset[tuple[str, str]]]
    portable: bool = True
