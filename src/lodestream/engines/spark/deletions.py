"""The deletions that a table of changes remembers on Spark: those that a batch begins with, and what becomes of them.

They lie where `engines.embedded.kept` says. A batch that is done again does not write them twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestream.engines.embedded.checkpoints import DELETIONS
from lodestream.engines.embedded.deletions import POSITION, identity
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.spark.expressions import quoted
from lodestream.engines.spark.files import Rewriting, reading
from lodestream.engines.spark.kept import KeptTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import ApplyChanges
from lodestream.model.table import TableName
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_FILES_MAX = 16
"""With so many files all are written again as one; the watermark is looked at then."""


class KeptDeletions(KeptTable):
    """The deletions of one epoch of a table; there is no Delta table before there is one of them.

    Args:
        around: the flow's surroundings.
        name: the table.
        epoch: its rebuild generation.
        step: the step that makes them.
        schema: columns of the table.
    """

    def __init__(self, around: Surroundings, name: TableName, epoch: int, step: ApplyChanges, schema: Schema) -> None:
        columns = Schema(tuple(schema[column] for column in identity(step)))
        super().__init__(around, name, epoch, DELETIONS, columns)
        self._step = step

    def before(self, session: SparkSession, batch: int, place: str) -> DataFrame | None:
        """Those that batch N begins with, `place` telling their files; None for none."""
        files = self.files_before(batch)
        return reading(session, self._around.disk, self.path, files, self._schema, place) if files else None

    def change(self, added: DataFrame, gone: DataFrame, files: set[str], batch: BatchPlan) -> Rewriting | None:
        """Remember some and forget others, as batch N; None when that has been done.

        Args:
            added: those to remember.
            gone: positions of those to forget.
            files: paths of the files that these are in.
            batch: by its watermark others are forgotten too: every change that may still come is newer.
        """
        table = self.made(batch.clock_us)
        if self.has(batch.batch):
            return None
        standing = table.files()
        removes = standing if len(standing) >= _FILES_MAX else [add for add in standing if add.path in files]
        rows = added
        if removes:
            before = reading(added.sparkSession, table.disk, self.path, removes, self._schema)
            rows = rows.unionByName(before.join(gone, [*POSITION], "left_anti").select(*rows.columns))
        if self._step.forgets:
            rows = rows.where(f"unix_micros({quoted(self._step.changes.sequence_by[0])}) > {batch.evict_us}")
        return Rewriting(table, rows.coalesce(1), removes)
