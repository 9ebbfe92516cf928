"""Makes a table of changes again from its upstream rows, in other words than the engine's, and compares the two.

A change that a newer one replaced is nowhere recorded, and need not be: keys and sequences of all changes are in the
upstream table, and they say which change stands. So every position is output, set aside, superseded or a deletion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from lodestream.model.steps import Annotate, ApplyChanges, Derive, FlowPlan, LookUp, RunPython
from lodestream.model.table import VALID_FROM, VALID_TO
from lodestream.query.quoting import quoted


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the changes that were taken in.

    Attributes:
        output: changes that the table has to hold.
        deleted: deletions that stand.
        superseded: changes that a newer one of their key has replaced.
        wrong: what differs, each with the positions (`_source`, `_position`) that show it.
    """

    output: int
    deleted: int
    superseded: int
    wrong: tuple[tuple[str, pa.Table], ...]


def columns_needed(plan: FlowPlan) -> list[str] | None:
    """Upstream columns that decide which change stands; None when they are made by a function or a lookup."""
    step = next(step for step in plan.steps if isinstance(step, ApplyChanges))
    derived = {name: made for one in plan.steps if isinstance(one, Derive) for name, made in one.columns}
    wanted = {*step.changes.keys, *step.changes.sequence_by}
    wanted |= step.delete_when.columns if step.delete_when is not None else set()
    if any(isinstance(one, RunPython) for one in plan.steps):
        return None
    brought = {column.name for one in plan.steps if isinstance(one, LookUp | Annotate) for column in one.schema}
    if wanted & brought:
        return None
    return sorted({column for name in wanted for column in (derived[name].columns if name in derived else (name,))})


def columns_held(plan: FlowPlan) -> list[str]:
    """Columns of the table to compare with what should be there."""
    step = next(step for step in plan.steps if isinstance(step, ApplyChanges))
    span = (VALID_FROM, VALID_TO) if step.changes.history else ()
    return list(dict.fromkeys(("_source", "_position", *step.changes.keys, *step.changes.sequence_by, *span)))


def judge(plan: FlowPlan, changes: pa.Table, held: pa.Table) -> Verdict:
    """Compare a table with the changes that were taken in.

    Args:
        plan: the table's flow.
        changes: `_source`, `_position` and `columns_needed` of the upstream rows that were not set aside.
        held: `columns_held` of all rows of the table.
    """
    step = next(step for step in plan.steps if isinstance(step, ApplyChanges))
    with duckdb.connect(":memory:", config={"enable_external_access": False}) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("given", _utc(changes))
        connection.register("held", _utc(held))
        connection.execute(f"CREATE TABLE change AS {_changes(plan, step)}")
        connection.execute(f"CREATE TABLE standing AS {_standing(step)}")
        total, standing, deleted = connection.sql(
            "SELECT (SELECT count(*) FROM change), count(*), count(*) FILTER (WHERE deletes) FROM standing"
        ).fetchall()[0]
        wrong = tuple((what, connection.sql(sql).to_arrow_table()) for what, sql in _comparisons(step))
    return Verdict(standing - deleted, deleted, total - standing, wrong)


def _changes(plan: FlowPlan, step: ApplyChanges) -> str:
    """Keys, sequence and effect of each change."""
    derived = {name: made.duckdb for one in plan.steps if isinstance(one, Derive) for name, made in one.columns}
    names = {*step.changes.keys, *step.changes.sequence_by}
    names |= step.delete_when.columns if step.delete_when is not None else set()
    made = ", ".join(f"{derived.get(name, quoted(name))} AS {quoted(name)}" for name in sorted(names))
    deletes = f"coalesce({step.delete_when.duckdb}, false)" if step.delete_when is not None else "false"
    return f"SELECT *, {deletes} AS deletes FROM (SELECT _source, _position, {made} FROM given)"


def _standing(step: ApplyChanges) -> str:
    """The changes that no other replaces: the greatest of each key, with history of each key and sequence."""
    keys, sequence = step.changes.keys, step.changes.sequence_by
    order = ", ".join(map(quoted, dict.fromkeys((*sequence, "_source", "_position"))))
    group = ", ".join(map(quoted, dict.fromkeys((*keys, *(sequence if step.changes.history else ())))))
    last = f"SELECT unnest(arg_max(change, row({order}))) FROM change GROUP BY {group}"
    if not step.changes.history:
        return last
    start = quoted(sequence[0])
    within = f"PARTITION BY {', '.join(map(quoted, keys))} ORDER BY {start}"
    return f"SELECT *, lead({start}) OVER ({within}) AS next FROM ({last})"


def _comparisons(step: ApplyChanges) -> Iterator[tuple[str, str]]:
    same = "h._source = s._source AND h._position = s._position"
    yield "row is there twice", "SELECT _source, _position FROM held GROUP BY ALL HAVING count(*) > 1"
    yield (
        "change stands and is not in the table",
        f"SELECT s._source, s._position FROM standing s ANTI JOIN held h ON {same} WHERE NOT s.deletes",
    )
    yield (
        "row is in the table and its change does not stand",
        f"SELECT h._source, h._position FROM held h ANTI JOIN (FROM standing WHERE NOT deletes) s ON {same}",
    )
    names = dict.fromkeys((*step.changes.keys, *step.changes.sequence_by))
    differs = [f"h.{quoted(name)} IS DISTINCT FROM s.{quoted(name)}" for name in names]
    yield (
        "row has another key or sequence than its change",
        f"SELECT h._source, h._position FROM held h JOIN standing s ON {same} WHERE {' OR '.join(differs)}",
    )
    if step.changes.history:
        start = quoted(step.changes.sequence_by[0])
        yield (
            "row has another span than its change",
            f"SELECT h._source, h._position FROM held h JOIN standing s ON {same}"
            f" WHERE h.{VALID_FROM} IS DISTINCT FROM s.{start} OR h.{VALID_TO} IS DISTINCT FROM s.next",
        )


def _utc(table: pa.Table) -> pa.Table:
    fields = [f.with_type(pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f for f in table.schema]
    return table.cast(pa.schema([field.with_nullable(True) for field in fields]))
