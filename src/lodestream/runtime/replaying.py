"""Takes rows that were set aside through their flow again, beside whatever process runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa

from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.rejects import decode_rows
from lodestream.engines.embedded.replay import entries_before, input_schema, open_entries
from lodestream.errors import ConfigError
from lodestream.lake.disk import Disk
from lodestream.lake.layout import quarantine_name, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import Mend
from lodestream.model.steps import FlowPlan
from lodestream.model.table import Session, TableName
from lodestream.model.types import Schema
from lodestream.runtime.pipeline import Pipeline

REPLAYABLE = ("quarantine", "late")
"""Kinds of entries that can be taken again; the latter only when late rows are accepted."""
Key = tuple[str, int]
"""Source and position of a row."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of rows that were taken again.

    Attributes:
        chosen: how many were.
        passed: those whose entries are closed now.
        counts: rows by fate, as the batch says; empty when another process ran it.
    """

    chosen: int
    passed: int
    counts: Mapping[str, int]


def standing(disk: Disk, lake: str, name: TableName) -> pa.Table:
    """The open entries of a table's quarantine, in batch order. Raises ConfigError when it has none."""
    table = DeltaTable.open(disk, table_path(lake, quarantine_name(name)))
    if table is None:
        raise ConfigError("nothing was set aside from this table", table=str(name))
    return open_entries(entries_before(table, sys.maxsize))


def chosen(entries: pa.Table, reason: str | None, kind: str | None = None) -> pa.Table:
    """Those with a reason, of a kind; without either, those that can be taken again."""
    keep = [
        (reason is None or reason in (reasons or []))
        and (found == kind if kind else reason is not None or found in REPLAYABLE)
        for reasons, found in zip(entries["reasons"].to_pylist(), entries["kind"].to_pylist(), strict=True)
    ]
    return entries.filter(pa.array(keep, pa.bool_()))


def keys_of(entries: pa.Table, wanted: set[Key] | None, *, accept_late: bool) -> list[Key]:
    """Positions of those that can be taken again; only `wanted` ones unless that is None."""
    kinds = REPLAYABLE if accept_late else REPLAYABLE[:1]
    rows = zip(*(entries[c].to_pylist() for c in ("_source", "_position", "kind")), strict=True)
    return [(source, at) for source, at, kind in rows if kind in kinds and (wanted is None or (source, at) in wanted)]


def take_again(
    pipeline: Pipeline, name: TableName, keys: Sequence[Key], *, accept_late: bool,
    mends: Mapping[Key, Mend] = MappingProxyType({}),
) -> Replayed:  # fmt: skip
    """Run these rows as a batch of their own; each is taken once, whoever runs the flow beside.

    Args:
        pipeline: opens the flow.
        name: the table.
        keys: the rows.
        accept_late: whether late rows are taken too.
        mends: how some of them are changed first.

    Raises:
        ConfigError: a mend does not fit the row, the table has windows that cannot be mended, or closed windows would
            change that another table reads as a stream.
        ConflictError: another process was first again and again.
    """
    disk, lake = pipeline.around.disk, pipeline.around.lake
    if accept_late and isinstance(pipeline.flows[name].table.window, Session):
        fix = "give the table a longer delay, or rebuild it"
        raise ConfigError("a late row cannot be taken into closed sessions", table=str(name), fix=fix)
    below = [str(other) for other, plan in pipeline.flows.items() if plan.upstream == name]
    if accept_late and below and pipeline.flows[name].table.window is not None:
        message = "closed windows of this table are a stream, so a late row cannot change them"
        raise ConfigError(message, table=str(name), read_by=", ".join(below))
    entries = standing(disk, lake, name)
    before = _batches(entries)
    _check(entries, mends, pipeline.flow(name).plan)
    left = list(keys)

    def settled() -> bool:
        """Whether the plan was made, and another process has run it."""
        now = _batches(standing(disk, lake, name))
        left[:] = [key for key in left if now.get(key) is not None and now[key] == before.get(key)]
        return not left

    done = pipeline.beside(name, lambda flow: flow.submit_replay(left, accept_late=accept_late, mends=mends), settled)
    counts = {} if done is None else dict(done.counts)
    after = _batches(standing(disk, lake, name))
    return Replayed(len(keys), sum(key not in after for key in keys), counts)


def _check(entries: pa.Table, mends: Mapping[Key, Mend], plan: FlowPlan) -> None:
    """Raises ConfigError when a mend names no column of the row, or has a value of another type."""
    if not mends:
        return
    columns = {column.name: column for column in input_schema(plan)}
    rows = dict(zip(positions_of(entries), entries["row"].to_pylist(), strict=True))
    for key, mend in mends.items():
        row = rows.get(key)
        if (row is None) == bool(mend.values) or (row is not None and mend.raw is not None):
            fix = "give the whole record anew" if row is None else "give new values of its columns"
            raise ConfigError(f"this row is mended otherwise: {fix}", source=key[0], position=key[1])
        for name, value in mend.values.items():
            if name not in columns or name.startswith("_"):
                raise ConfigError("the row has no such column", column=name)
            try:
                decode_rows([json.dumps({name: value})], Schema((columns[name],)))
            except (ValueError, TypeError, AttributeError, ArithmeticError, pa.ArrowException) as error:
                kind = str(columns[name].type)
                raise ConfigError("not a value of the column", column=name, type=kind) from error


def _batches(entries: pa.Table) -> dict[Key, int]:
    """The batch that set each open row aside."""
    kinds, batches = entries["kind"].to_pylist(), entries["_batch"].to_pylist()
    found = zip(positions_of(entries), kinds, batches, strict=True)
    return {key: batch for key, kind, batch in found if kind in REPLAYABLE}
