"""The deletions that a table of changes remembers on Spark: a small Delta table beside the flow's plans.

Batch N's commit to it comes before the table's own, under the same number. A batch that is done again begins with what
the batch before left, and its commit is passed over when it is there already.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING, Any

from lodestream.engines.embedded.deletions import POSITION, identity
from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.spark.delta import merge_into
from lodestream.engines.spark.expressions import quoted
from lodestream.lake.layout import app_id, flow_folder
from lodestream.lake.paths import decode_path
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import ApplyChanges
from lodestream.model.table import TableName
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_RETENTION = {"delta.deletedFileRetentionDuration": "interval 10 minutes"}


def deletions_path(lake: str, name: TableName, epoch: int) -> str:
    """Where they lie."""
    return os.path.join(flow_folder(lake, name), str(epoch), "deletions")


class KeptDeletions:
    """The deletions of one epoch of a table; there is no Delta table before there is one of them.

    Args:
        around: the flow's surroundings.
        name: the table.
        epoch: its rebuild generation.
        step: the step that makes them.
        schema: columns of the table.
    """

    def __init__(self, around: Surroundings, name: TableName, epoch: int, step: ApplyChanges, schema: Schema) -> None:
        self.path = deletions_path(around.lake, name, epoch)
        self._around, self._step, self._app = around, step, app_id(name, epoch)
        self._schema = Schema(tuple(schema[column] for column in identity(step)))
        self._table: DeltaTable | None = None
        self._unlinked: set[str] = set()

    def before(self, session: SparkSession, batch: int) -> DataFrame | None:
        """Those that batch N begins with; None for none."""
        table = self._opened()
        if table is None:
            return None
        version = table.refresh().version
        if table.snapshot.txns.get(self._app, 0) >= batch:  # it died between this commit and the table's
            commit = last_commit(table, self._app)
            assert commit is not None
            version = commit.version - 1
        else:
            self._delete_left_files(table)
        reader: Any = session.read.format("delta").option("versionAsOf", version)
        frame: DataFrame = reader.load(self.path)
        return frame

    def change(self, rows: DataFrame, batch: BatchPlan) -> None:
        """Forget those of the rows that are remembered and remember the others, as batch N.

        What the watermark has passed is forgotten too: every change that may still come is newer.
        """
        if self._opened() is None:
            self._table = DeltaTable.create(
                self._around.disk, self.path, self._schema, configuration=_RETENTION, table_id=str(uuid.uuid4()),
                clock_us=batch.clock_us,
            )  # fmt: skip
        clauses = "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT *"
        if self._step.forgets:
            passed = f"unix_micros({{}}.{quoted(self._step.changes.sequence_by[0])}) <= {batch.evict_us}"
            clauses = (
                f"WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND NOT {passed.format('s')} THEN INSERT *"
                f" WHEN NOT MATCHED BY SOURCE AND {passed.format('t')} THEN DELETE"
            )
        told = f'{{"lodestream": {{"batch": {batch.batch}}}}}'
        merge_into(self.path, rows, POSITION, self._app, batch.batch, told, clauses)

    def held(self) -> tuple[int, int]:
        """How many there are, and bytes of their files."""
        table = self._opened()
        if table is None:
            return 0, 0
        table.refresh()
        files = table.files()
        return sum(add.num_records or 0 for add in files), sum(add.size for add in files)

    def _opened(self) -> DeltaTable | None:
        self._table = self._table or DeltaTable.open(self._around.disk, self.path)
        return self._table

    def _delete_left_files(self, table: DeltaTable) -> None:
        """Delete files that no version has which a batch may still begin with."""
        for path in table.snapshot.tombstones.keys() - self._unlinked:
            with contextlib.suppress(FileNotFoundError):
                self._around.disk.unlink(os.path.join(table.path, decode_path(path, table.path)))
            self._unlinked.add(path)
