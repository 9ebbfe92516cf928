"""The deletions that a table of changes remembers on Spark: those that a batch begins with, and what becomes of them.

They lie where `engines.embedded.kept_deletions` says. A batch that is done again does not write them twice.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING

import pyarrow as pa

from lodestream.engines.embedded.deletions import POSITION, identity
from lodestream.engines.embedded.kept_deletions import deletions_path, files_before, has_batch
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.engines.spark.expressions import quoted
from lodestream.engines.spark.files import Rewriting, reading
from lodestream.lake.disk import random_id
from lodestream.lake.layout import app_id
from lodestream.lake.paths import decode_path
from lodestream.lake.table import DeltaTable
from lodestream.model.batch import BatchPlan
from lodestream.model.steps import ApplyChanges
from lodestream.model.table import TableName
from lodestream.model.types import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_FILES_MAX = 16
"""With so many files all are written again as one; the watermark is looked at then."""
_CHECKPOINT_EVERY, _VERSIONS_KEPT = 100, 10


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
        self._around, self._step, self._name, self._epoch = around, step, name, epoch
        self._schema = Schema(tuple(schema[column] for column in identity(step)))
        self._table: DeltaTable | None = None
        self._unlinked: set[str] = set()

    def before(self, session: SparkSession, batch: int, place: str) -> DataFrame | None:
        """Those that batch N begins with, `place` telling their files; None for none."""
        table = self._opened()
        if table is None:
            return None
        table.refresh()
        if not self._has(table, batch):  # else it died between this commit and the table's
            self._tidy(table)
        files = files_before(table, self._name, self._epoch, batch)
        return reading(session, table.disk, self.path, files, self._schema, place) if files else None

    def change(self, added: DataFrame, gone: DataFrame, files: set[str], batch: BatchPlan) -> Rewriting | None:
        """Remember some and forget others, as batch N; None when that has been done.

        Args:
            added: those to remember.
            gone: positions of those to forget.
            files: paths of the files that these are in.
            batch: by its watermark others are forgotten too: every change that may still come is newer.
        """
        table = self._made(batch.clock_us)
        if self._has(table, batch.batch):
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

    def take_over(self, rows: pa.Table, batch: int) -> None:
        """Remember these, as another engine does after its batch N, instead of what there is."""
        if self._opened() is None and not len(rows):
            return
        clock_us = self._around.clock()
        table = self._made(clock_us)
        table.refresh()
        if self._has(table, batch):  # a take-over that was broken off has done it, or this engine the very same batch
            return
        adds = table.stage(rows, name=f"{batch}-{random_id()}").adds if len(rows) else ()
        table.commit(
            adds=adds, removes=table.files(), txn=(app_id(self._name, self._epoch), batch), info={"batch": batch},
            clock_us=clock_us,
        )  # fmt: skip

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

    def _made(self, clock_us: int) -> DeltaTable:
        self._table = self._opened() or DeltaTable.create(
            self._around.disk, self.path, self._schema, table_id=str(uuid.uuid4()), clock_us=clock_us
        )
        return self._table

    def _has(self, table: DeltaTable, batch: int) -> bool:
        return has_batch(table, self._name, self._epoch, batch)

    def _tidy(self, table: DeltaTable) -> None:
        """Delete files and versions that no batch may begin with any more."""
        for path in table.snapshot.tombstones.keys() - self._unlinked:
            with contextlib.suppress(FileNotFoundError):
                self._around.disk.unlink(os.path.join(table.path, decode_path(path, table.path)))
            self._unlinked.add(path)
        version = table.snapshot.version
        if version % _CHECKPOINT_EVERY == _CHECKPOINT_EVERY - 1:
            table.checkpoint(self._around.clock())
            table.clean_log(keep_versions=_VERSIONS_KEPT, needed_from=version)
