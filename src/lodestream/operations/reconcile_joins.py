"""Proves for a table that joins two streams that every row of both is accounted for, and every pair is there once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from lodestream.lake.layout import ERASURE_PROPERTY, table_path
from lodestream.model.steps import FlowPlan
from lodestream.model.table import JOIN_META, TableName
from lodestream.operations.lake_files import LakeFiles
from lodestream.operations.positions import I64, Coder, read_columns, read_upto
from lodestream.query.quoting import quoted

_KEYS = ("_source", "_position")
_PLACE = "_place"


@dataclass(frozen=True)
class JoinFindings:
    """What became of the rows of both streams.

    Attributes:
        given: positions read of both sides; those of the other side are known as `table/source`.
        paired: positions that are in a row of the table.
        waiting: positions that are nowhere, and whose time is not over.
        lost: positions that are nowhere although their time is over.
        problems: what is wrong with pairs, in words.
        notes: what was not looked at.
    """

    given: I64
    paired: I64
    waiting: I64
    lost: I64
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_join(
    files: LakeFiles, plan: FlowPlan, table: DeltaTable, info: Mapping[str, object], coder: Coder,
    aside: Mapping[str, I64],
) -> JoinFindings:  # fmt: skip
    """Check one table.

    Args:
        files: the lake.
        plan: its flow, with a `JoinStreams` step.
        table: the table.
        info: `commitInfo` of the last batch.
        coder: gives positions their numbers.
        aside: positions in quarantine by kind.
    """
    return _Check(files, plan, table, info, coder, aside).run()


class _Check:
    def __init__(
        self, files: LakeFiles, plan: FlowPlan, table: DeltaTable, info: Mapping[str, object], coder: Coder,
        aside: Mapping[str, I64],
    ) -> None:  # fmt: skip
        assert plan.join is not None
        assert plan.table.event_time is not None
        assert plan.upstream is not None
        self.files, self.plan, self.table, self.info = files, plan, table, info
        self.coder, self.aside = coder, aside
        self.join, self.time = plan.join.join, plan.table.event_time.column
        self.upstream = plan.upstream

    def run(self) -> JoinFindings:
        join, watermark_us = self.join, int(str(self.info.get("watermark_us", 0)))
        made = self.made_here()
        own_time = self.time not in made
        keys = [here for here, _ in join.on]
        proven = own_time and made.isdisjoint(keys)
        here = self.rows(self.upstream, "upto", [*([self.time] if own_time else []), *(keys if proven else [])], "")
        there = self.rows(
            join.table, "joined_upto", [join.event_time.column, *(other for _, other in join.on)], f"{join.table}/"
        )
        pairs = read_columns(self.files, self.table, (*JOIN_META, "_position"))
        left = self.coder.encode(pairs.column(JOIN_META[0]), pairs.column(JOIN_META[1]))
        matched = pairs.filter(pairs.column(JOIN_META[2]).is_valid())
        right = self.coder.encode(_named(matched.column(JOIN_META[2]), f"{join.table}/"), matched.column(JOIN_META[3]))
        given = np.concatenate([here.column(_PLACE).to_numpy(), there.column(_PLACE).to_numpy()])
        paired = np.union1d(left, right)
        nowhere = np.setdiff1d(given, np.concatenate([paired, *self.aside.values()]))
        may_wait = there.filter(_after(there, join.event_time.column, watermark_us + join.low_us)).column(_PLACE)
        still = [np.asarray(may_wait.to_numpy(), np.int64)]
        if own_time:
            still.append(here.filter(_after(here, self.time, watermark_us - join.high_us)).column(_PLACE).to_numpy())
        else:
            still.append(here.column(_PLACE).to_numpy())
        waiting = np.intersect1d(nowhere, np.concatenate(still))
        problems = self.of_pairs(pairs, left, right)
        if proven and len(here) and len(there):
            problems += self.missing(here, there, left, right, pairs.column(JOIN_META[2]).is_valid().to_numpy())
        notes = () if proven else ("keys or event time are made in this flow: pairs were counted, not made again",)
        return JoinFindings(given, paired, waiting, np.setdiff1d(nowhere, waiting), tuple(problems), notes)

    def made_here(self) -> set[str]:
        """Columns that the flow computes itself."""
        declared = self.plan.table
        looked_up = {name for lookup in declared.lookups for _, name in lookup.columns}
        python = set(declared.columns.names) if declared.python is not None and declared.columns is not None else set()
        return {named.name for named in declared.derive} | looked_up | python

    def rows(self, name: TableName, upto: str, columns: list[str], prefix: str) -> pa.Table:
        """The rows that were read of one side: the number of its position, and the columns."""
        version = int(str(self.info.get(upto, -1)))
        table = self.files.table(table_path(self.files.lake, name), version) if version >= 0 else None
        wanted = list(dict.fromkeys([*_KEYS, *columns]))
        if table is None:
            return pa.table({name: pa.array([], pa.int64()) for name in (_PLACE, *wanted)})
        rows = read_upto(self.files, name, table, wanted)
        keys = self.coder.encode(_named(rows.column("_source"), prefix), rows.column("_position"))
        return rows.append_column(_PLACE, pa.array(keys))

    def of_pairs(self, pairs: pa.Table, left: I64, right: I64) -> list[str]:
        """What pairs show of themselves: none is there twice, and each has a position of its own."""
        both = np.full(len(left), -1, np.int64)
        both[pairs.column(JOIN_META[2]).is_valid().to_numpy()] = right
        twice = len(both) - len(np.unique(np.column_stack([left, both]), axis=0)) if len(both) else 0
        found = [f"a pair is there more than once: {twice} rows"] if twice else []
        positions = np.sort(pairs.column("_position").to_numpy())
        if ERASURE_PROPERTY in self.table.metadata().configuration:  # erased rows took their numbers along
            whole = len(np.unique(positions)) == len(positions)
        else:
            whole = np.array_equal(positions, np.arange(len(positions)))
        if not whole:
            found.append("positions of joined rows do not count from 0 on")
        return found

    def missing(self, here: pa.Table, there: pa.Table, left: I64, right: I64, matched: np.ndarray) -> list[str]:
        """Join all rows of both sides that were on time once more, and compare."""
        away = np.concatenate(
            [np.empty(0, np.int64), *(self.aside[kind] for kind in ("late", "quarantine", "duplicate"))]
        )
        on = [f"l.{quoted(a)} = r.{quoted(b)}" for a, b in self.join.on]
        times = f"epoch_us(r.{quoted(self.join.event_time.column)}) - epoch_us(l.{quoted(self.time)})"
        sides = {"l": here, "r": there}
        with duckdb.connect(":memory:") as connection:
            for name, rows in sides.items():
                connection.register(name, rows.filter(pa.array(~np.isin(rows.column(_PLACE).to_numpy(), away))))
            met = connection.sql(
                f"SELECT l.{_PLACE} AS a, r.{_PLACE} AS b FROM l JOIN r ON {' AND '.join(on)}"
                f" AND {times} BETWEEN {self.join.low_us} AND {self.join.high_us}"
            ).to_arrow_table()
        expected = set(zip(met.column("a").to_pylist(), met.column("b").to_pylist(), strict=True))
        actual = set(zip(left[matched].tolist(), right.tolist(), strict=True))
        found = []
        for what, wrong in (("pair is missing", expected - actual), ("pair should not be there", actual - expected)):
            if wrong:
                example = " and ".join(":".join(map(str, self.coder.decode(key))) for key in min(wrong))
                found.append(f"{what}: {len(wrong)} pairs, such as {example}")
        return found


def _named(sources: pa.ChunkedArray, prefix: str) -> pa.Array:
    return pa.array([prefix + source for source in sources.to_pylist()], pa.string())


def _after(rows: pa.Table, column: str, time_us: int) -> pa.Array:
    times = np.asarray(rows.column(column).cast(pa.int64()).fill_null(-(1 << 63)).to_numpy(), np.int64)
    return pa.array(times > time_us)
