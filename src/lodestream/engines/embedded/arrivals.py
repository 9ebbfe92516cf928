"""In which batch of a flow a row of the table above was taken in, and which versions it was to look up there."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import positions_of
from lodestream.engines.embedded.store import FlowStore
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.errors import DataLossRefused
from lodestream.lake.layout import present_app_id, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.table import TableName


class Arrivals:
    """The plans that stand tell it, and the log of the table above, which has the batch of each version.

    Args:
        store: the flow's plans.
        around: its surroundings.
        above: the table above.
        batch: the flow's last batch.
        entries: what the quarantine has; a row that was taken again was so in the batch of that entry.
    """

    def __init__(self, store: FlowStore, around: Surroundings, above: TableName, batch: int, entries: pa.Table) -> None:
        self._store, self._around, self._above = store, around, above
        self._plan = self._planned(batch)
        self._version = self._plan.upto
        self._known: dict[int, int] = {}
        again = entries.filter(pc.equal(entries.column("kind"), "resolved"))
        self._again = dict(zip(positions_of(again), again.column("_batch").to_pylist(), strict=True))

    def pins_of(self, rows: pa.Table) -> tuple[list[Mapping[str, int]], np.ndarray]:
        """Versions that n rows were to look up, and for each row the number of those it was.

        Args:
            rows: n rows with `_source`, `_position` and the `_batch` of the table above.

        Raises:
            DataLossRefused: a plan is gone, or the log of the table above no longer reaches back so far.
        """
        if not len(rows):
            return [self._plan.pins], np.zeros(0, np.int64)
        above = rows.column("_batch").to_pylist()
        again = [self._again.get(place) for place in positions_of(rows)] if self._again else [None] * len(rows)
        first = min((number for number, known in zip(above, again, strict=True) if known is None), default=None)
        if first is not None:
            self._look_back(first)
        batches = np.array(
            [self._known[number] if known is None else known for number, known in zip(above, again, strict=True)],
            np.int64,
        )
        found: dict[str, int] = {}
        pins: list[Mapping[str, int]] = []
        of_batch = {}
        for batch in np.unique(batches).tolist():
            named = self._planned(batch).pins
            text = json.dumps(dict(named), sort_keys=True)
            if text not in found:
                found[text] = len(pins)
                pins.append(named)
            of_batch[batch] = found[text]
        return pins, np.array([of_batch[batch] for batch in batches.tolist()], np.int64)

    def _look_back(self, number: int) -> None:
        """Know which batch took in those of the table above from `number` on."""
        if self._known and min(self._known) <= number:
            return
        table = DeltaTable.open(self._around.disk, table_path(self._around.lake, self._above))
        if table is None:
            raise DataLossRefused("upstream table is gone", table=str(self._above))
        application = present_app_id(self._above, table.snapshot.metadata.configuration)
        while not self._known or min(self._known) > number:
            if self._version < 0:
                raise DataLossRefused("upstream rows are of no batch that its log tells of", table=str(self._above))
            for commit in table.commits(self._version - 1, self._version):
                while self._plan.after >= self._version:
                    self._plan = self._planned(self._plan.batch - 1)
                if application in commit.txns:
                    self._known[commit.txns[application]] = self._plan.batch
            self._version -= 1

    def _planned(self, batch: int) -> BatchPlan:
        plan = self._store.plan(batch)
        if plan is None:
            raise DataLossRefused(
                "the plan of a batch is gone whose rows are still counted or joined; go on with the engine that filled "
                "the table until their windows are closed", folder=self._store.root, batch=batch,
            )  # fmt: skip
        return plan
