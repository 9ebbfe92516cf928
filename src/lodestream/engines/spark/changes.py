"""Tables of changes on Spark: which changes stand, and what the commit that makes the table of them adds and removes.

A batch's changes meet the rows that the table holds of their keys, and the deletions that are remembered of them. What
decides is that of `engines.embedded.merge`, as window functions. The order of a key's changes is total, so a batch that
is done again decides the same. Files that hold a row which changes are written again without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lodestream.engines.embedded.deletions import POSITION, identity
from lodestream.engines.embedded.merge import DELETES
from lodestream.engines.embedded.outputs import MergeOutput
from lodestream.engines.spark.batch import keep, stored
from lodestream.engines.spark.deletions import KeptDeletions
from lodestream.engines.spark.expressions import literal, quoted
from lodestream.engines.spark.files import HOT, Rewriting, reading
from lodestream.lake.actions import AddFile
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import ApplyChanges, FlowPlan
from lodestream.model.table import VALID_FROM, VALID_TO
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lodestream.lake.table import DeltaTable

_ROW, _KIND, _BEFORE, _UNTIL, _STANDS = "_row", "_kind", "_before", "_until", "_stands"
_EFFECT, _FILE = "_effect", "_file"
_BATCH, _STORED, _DELETED = 0, 1, 2
_JOINS, _LEAVES, _ENDS, _REMEMBERED, _FORGOTTEN = "joins", "leaves", "ends", "remembered", "forgotten"


@dataclass(frozen=True)
class Merge:
    """What a batch of changes does.

    Attributes:
        table: to the table.
        deletions: to the deletions that are remembered; None for nothing.
        superseded: how many changes of the batch lost at once against a newer one.
    """

    table: Rewriting
    deletions: Rewriting | None
    superseded: int

    @property
    def counted(self) -> dict[str, int]:
        """What the batch counts of it."""
        return {"superseded": self.superseded} if self.superseded else {}


class Merger:
    """Merges batches into one table.

    Args:
        plan: the flow.
        step: keys and order.
        table: the table.
        deletions: those that are remembered.
    """

    def __init__(self, plan: FlowPlan, step: ApplyChanges, table: DeltaTable, deletions: KeptDeletions) -> None:
        self._plan, self._step, self._table, self._deletions = plan, step, table, deletions

    def merge(self, changes: DataFrame, batch: BatchPlan, held: ExitStack) -> Merge:
        """Decide what a batch does.

        Args:
            changes: rows that `screened` lets pass.
            batch: the batch's plan.
            held: lets go of what is kept in memory.
        """
        decided = keep(self._decided(changes, batch), held)
        found = decided.groupBy(_KIND, _STANDS, _EFFECT, _FILE).count().collect()
        effects: dict[str, int] = {}
        for row in found:
            if row[_EFFECT] is not None:
                effects[row[_EFFECT]] = effects.get(row[_EFFECT], 0) + int(row["count"])
        superseded = sum(int(row["count"]) for row in found if row[_KIND] == _BATCH and not row[_STANDS])
        changing = {row[_FILE] for row in found if row[_EFFECT] in (_LEAVES, _ENDS)}
        main, deletions = Rewriting(self._table), None
        if effects.keys() & {_JOINS, _LEAVES, _ENDS}:
            main = self._rewriting(decided, effects, changing, batch.batch)
        if effects.keys() & {_REMEMBERED, _FORGOTTEN}:
            names = [quoted(name) for name in identity(self._step)]
            added, gone = (decided.where(f"{_EFFECT} = {literal(effect)}") for effect in (_REMEMBERED, _FORGOTTEN))
            files = {row[_FILE] for row in found if row[_EFFECT] == _FORGOTTEN}
            deletions = self._deletions.change(added.select(*names), gone.select(*POSITION), files, batch)
        return Merge(main, deletions, superseded)

    def remembered(self) -> dict[str, int]:
        """What the main commit says of the deletions that are remembered; nothing when there are none."""
        return self._deletions.held()

    def _decided(self, changes: DataFrame, batch: BatchPlan) -> DataFrame:
        """Changes, and of their keys the stored rows and the deletions, with what becomes of each."""
        schema, names = self._table.snapshot.metadata.schema, identity(self._step)
        history, session = self._step.changes.history, changes.sparkSession
        span = str(schema[VALID_TO].type) if history else "string"
        none = f"cast(NULL AS {span})"
        typed = stored(changes, schema, self._plan, batch.batch, beside=[DELETES])
        shown = [quoted(name) for name in names]
        row = f"struct({', '.join(map(quoted, schema.names))})"
        everything = typed.selectExpr(
            *shown, f"{row} AS {_ROW}", DELETES, f"{_BATCH} AS {_KIND}", f"{none} AS {_BEFORE}",
            f"cast(NULL AS string) AS {_FILE}",
        )  # fmt: skip
        wanted = typed.select(*map(quoted, self._step.changes.keys)).distinct()
        needed = Schema(tuple(schema[name] for name in (*names, *((VALID_TO,) if history else ()))))
        known = []
        if files := self._table.files():
            held = reading(session, self._table.disk, self._table.path, files, needed, _FILE)
            known.append((_STORED, held, quoted(VALID_TO) if history else none))
        if (remembered := self._deletions.before(session, batch.batch, _FILE)) is not None:
            known.append((_DELETED, remembered, none))
        for kind, frame, before in known:
            of_keys = frame.join(wanted, list(self._step.changes.keys), "left_semi")
            part = of_keys.selectExpr(*shown, f"{kind == _DELETED} AS {DELETES}", f"{kind} AS {_KIND}",
                                      f"{before} AS {_BEFORE}", _FILE)  # fmt: skip
            everything = everything.unionByName(part, allowMissingColumns=True)
        return self._with_effect(self._judged(everything))

    def _judged(self, everything: DataFrame) -> DataFrame:
        """Which changes stand, and until when each holds; as `engines.embedded.merge` asks DuckDB."""
        keys = ", ".join(map(quoted, self._step.changes.keys))
        sequence = [quoted(name) for name in self._step.changes.sequence_by]
        latest = "_source DESC, _position DESC"
        if not self._step.changes.history:
            order = ", ".join([*(f"{name} DESC" for name in sequence), latest])
            stands = f"row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"
            return everything.selectExpr("*", f"{stands} AS {_STANDS}", f"{_BEFORE} AS {_UNTIL}")
        stands = f"row_number() OVER (PARTITION BY {keys}, {sequence[0]} ORDER BY {latest}) = 1"
        ranked = everything.selectExpr("*", f"{stands} AS {_STANDS}")
        following = f"lead({sequence[0]}) OVER (PARTITION BY {keys}, {_STANDS} ORDER BY {sequence[0]})"
        return ranked.selectExpr("*", f"least({_BEFORE}, {following}) AS {_UNTIL}")

    def _with_effect(self, judged: DataFrame) -> DataFrame:
        effects = (
            (_BATCH, f"{_STANDS} AND NOT {DELETES}", _JOINS), (_BATCH, f"{_STANDS} AND {DELETES}", _REMEMBERED),
            (_STORED, f"NOT {_STANDS}", _LEAVES), (_STORED, f"NOT {_UNTIL} <=> {_BEFORE}", _ENDS),
            (_DELETED, f"NOT {_STANDS}", _FORGOTTEN),
        )  # fmt: skip
        cases = " ".join(
            f"WHEN {_KIND} = {kind} AND {condition} THEN '{effect}'" for kind, condition, effect in effects
        )
        return judged.selectExpr("*", f"CASE {cases} END AS {_EFFECT}")

    def _rewriting(self, decided: DataFrame, effects: dict[str, int], changing: set[str], batch: int) -> Rewriting:
        """Rows that join, and those that stay in files of which something changes, a bounded number to a file.

        Small files are put together when there are many. All files are hot: each may be swapped with the next batch.
        """
        files = [add for add in self._table.files() if add.path in changing]
        files += self._small(changing)
        schema = self._table.snapshot.metadata.schema
        texts = {name: f"{_ROW}.{quoted(name)}" for name in schema.names}
        if self._step.changes.history:
            texts |= {VALID_FROM: f"{_ROW}.{quoted(self._step.changes.sequence_by[0])}", VALID_TO: _UNTIL}
        joining = decided.where(f"{_EFFECT} = {literal(_JOINS)}")
        rows = joining.selectExpr(*(f"{text} AS {quoted(name)}" for name, text in texts.items()))
        count = effects.get(_JOINS, 0) + sum(add.num_records or 0 for add in files)
        if files:
            before = reading(decided.sparkSession, self._table.disk, self._table.path, files, schema)
            rows = rows.unionByName(self._staying(before, decided, batch))
        parts = max(1, -(-count // MergeOutput.file_rows))
        return Rewriting(self._table, rows.repartition(parts).selectExpr("*", f"true AS {HOT}"), files)

    def _staying(self, before: DataFrame, decided: DataFrame, batch: int) -> DataFrame:
        """Stored rows without those that leave, and with the new ends of spans."""
        changed = decided.where(f"{_EFFECT} IN ({literal(_LEAVES)}, {literal(_ENDS)})")
        joined = before.join(changed.select(*POSITION, _EFFECT, _UNTIL), [*POSITION], "left")
        new = {VALID_TO: _UNTIL, "_batch": f"cast({batch} AS bigint)"} if self._step.changes.history else {}
        items = [
            f"CASE WHEN {_EFFECT} IS NULL THEN {quoted(name)} ELSE {new[name]} END AS {quoted(name)}"
            if name in new else quoted(name) for name in before.columns
        ]  # fmt: skip
        return joined.where(f"NOT {_EFFECT} <=> {literal(_LEAVES)}").selectExpr(*items)

    def _small(self, changing: set[str]) -> Sequence[AddFile]:
        """Small files that stand, if there are so many that they should be one."""
        small = [
            add for add in self._table.files()
            if add.path not in changing and (add.num_records or 0) < MergeOutput.file_rows // 4
        ]  # fmt: skip
        return small if len(small) >= MergeOutput.small_files_max else ()
