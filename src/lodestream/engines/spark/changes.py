"""Tables of changes on Spark: which changes stand, and the commit that makes the table of them.

A batch's changes meet the rows that the table holds of their keys, and the deletions that are remembered of them. What
decides is that of `engines.embedded.merge`, as window functions. The order of a key's changes is total, so a batch that
is done again decides the same.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.deletions import POSITION, identity
from lodestream.engines.embedded.merge import DELETES
from lodestream.engines.spark.batch import keep, stored
from lodestream.engines.spark.deletions import KeptDeletions
from lodestream.engines.spark.delta import append, merge_into
from lodestream.engines.spark.expressions import literal, quoted
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import ApplyChanges, FlowPlan
from lodestream.model.table import VALID_FROM, VALID_TO

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lodestream.lake.table import DeltaTable

_ROW, _KIND, _BEFORE, _UNTIL, _STANDS, _EFFECT = "_row", "_kind", "_before", "_until", "_stands", "_effect"
_BATCH, _STORED, _DELETED = 0, 1, 2
_JOINS, _LEAVES, _ENDS, _REMEMBERED, _FORGOTTEN = "joins", "leaves", "ends", "remembered", "forgotten"


@dataclass(frozen=True)
class Merge:
    """What a batch of changes does.

    Attributes:
        rows: the batch's changes, and of their keys the stored rows and the deletions, each with its effect or NULL.
        effects: how many there are of each.
        superseded: how many changes of the batch lost at once against a newer one.
    """

    rows: DataFrame
    effects: dict[str, int]
    superseded: int

    @property
    def counted(self) -> dict[str, int]:
        """What the batch counts of it."""
        return {"superseded": self.superseded} if self.superseded else {}

    @property
    def writes(self) -> bool:
        """Whether the table changes."""
        return bool(self.effects.keys() & {_JOINS, _LEAVES, _ENDS})


class Merger:
    """Merges batches into one table.

    Args:
        plan: the flow.
        step: keys and order.
        table: the table.
        deletions: those that are remembered.
        app: application id of the flow's commits.
    """

    def __init__(
        self, plan: FlowPlan, step: ApplyChanges, table: DeltaTable, deletions: KeptDeletions, app: str
    ) -> None:
        self._plan, self._step, self._table, self._deletions, self._app = plan, step, table, deletions, app

    def merge(self, changes: DataFrame, batch: BatchPlan, held: ExitStack) -> Merge:
        """Decide what a batch does.

        Args:
            changes: rows that `screened` lets pass.
            batch: the batch's plan.
            held: lets go of what is kept in memory.
        """
        decided = keep(self._decided(changes, batch), held)
        found = decided.groupBy(_KIND, _STANDS, _EFFECT).count().collect()
        effects = {row[_EFFECT]: int(row["count"]) for row in found if row[_EFFECT] is not None}
        superseded = sum(int(row["count"]) for row in found if row[_KIND] == _BATCH and not row[_STANDS])
        return Merge(decided, effects, superseded)

    def remember(self, merge: Merge, batch: BatchPlan) -> None:
        """Commit what the batch does to the deletions that are remembered."""
        if merge.effects.keys() & {_REMEMBERED, _FORGOTTEN}:
            chosen = merge.rows.where(f"{_EFFECT} IN ({literal(_REMEMBERED)}, {literal(_FORGOTTEN)})")
            self._deletions.change(chosen.select(*map(quoted, identity(self._step))), batch)

    def remembered(self) -> dict[str, int]:
        """What the main commit says of them; nothing when there are none."""
        rows, size = self._deletions.held()
        return {"state_rows": rows, "state_bytes": size} if rows else {}

    def write(self, merge: Merge, batch: BatchPlan, told: str) -> None:
        """Commit what the batch does to the table; `merge.writes` says whether that is anything."""
        if merge.effects.keys() & {_LEAVES, _ENDS}:
            self._merge_in(merge.rows, batch, told)
        else:
            rows = self._shown(merge.rows, _JOINS).drop(_EFFECT)
            append(rows, self._table.path, self._app, batch.batch, told)

    def _decided(self, changes: DataFrame, batch: BatchPlan) -> DataFrame:
        """Changes, and of their keys the stored rows and the deletions, with what becomes of each."""
        schema, names = self._table.snapshot.metadata.schema, identity(self._step)
        history = self._step.changes.history
        span = str(schema[VALID_TO].type) if history else "string"
        typed = stored(changes, schema, self._plan, batch.batch, beside=[DELETES])
        shown = [quoted(name) for name in names]
        row = f"struct({', '.join(map(quoted, schema.names))})"
        everything = typed.selectExpr(
            *shown, f"{row} AS {_ROW}", DELETES, f"{_BATCH} AS {_KIND}", f"cast(NULL AS {span}) AS {_BEFORE}"
        )
        wanted = typed.select(*map(quoted, self._step.changes.keys)).distinct()
        before = quoted(VALID_TO) if history else f"cast(NULL AS {span})"
        reader: Any = changes.sparkSession.read.format("delta").option("versionAsOf", self._table.snapshot.version)
        known = [(_STORED, reader.load(self._table.path), before)]
        remembered = self._deletions.before(changes.sparkSession, batch.batch)
        known += [] if remembered is None else [(_DELETED, remembered, f"cast(NULL AS {span})")]
        for kind, frame, until in known:
            of_keys = frame.join(wanted, list(self._step.changes.keys), "left_semi")
            part = of_keys.selectExpr(*shown, f"{kind == _DELETED} AS {DELETES}", f"{kind} AS {_KIND}",
                                      f"{until} AS {_BEFORE}")  # fmt: skip
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

    def _shown(self, decided: DataFrame, *effects: str) -> DataFrame:
        """Rows with these effects, in the table's columns; of stored rows only what the table is to be told."""
        schema = self._table.snapshot.metadata.schema
        texts = {name: f"{_ROW}.{quoted(name)}" for name in schema.names} | {name: name for name in POSITION}
        if self._step.changes.history:
            texts |= {VALID_FROM: f"{_ROW}.{quoted(self._step.changes.sequence_by[0])}", VALID_TO: _UNTIL}
        chosen = decided.where(f"{_EFFECT} IN ({', '.join(map(literal, effects))})")
        return chosen.selectExpr(*(f"{text} AS {quoted(name)}" for name, text in texts.items()), _EFFECT)

    def _merge_in(self, decided: DataFrame, batch: BatchPlan, told: str) -> None:
        """One MERGE; stored rows are known by their position, and none that joins has that of another."""
        rows = self._shown(decided, _JOINS, _LEAVES, _ENDS)
        names = [quoted(name) for name in rows.columns if name != _EFFECT]
        ends = f" WHEN MATCHED THEN UPDATE SET t.{VALID_TO} = s.{VALID_TO}, t._batch = {batch.batch}"
        merge_into(
            self._table.path, rows, [*POSITION], self._app, batch.batch, told,
            f"WHEN MATCHED AND s.{_EFFECT} = {literal(_LEAVES)} THEN DELETE"
            f"{ends if self._step.changes.history else ''}"
            f" WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) VALUES ({', '.join(f's.{name}' for name in names)})",
        )  # fmt: skip
