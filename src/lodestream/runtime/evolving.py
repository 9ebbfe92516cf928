"""Brings the stored columns of a table in line with declared ones: its files are written again in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from lodestream.errors import LodestreamError
from lodestream.lake.actions import AddFile, RemoveFile
from lodestream.lake.crash import point
from lodestream.lake.disk import random_id
from lodestream.lake.layout import RENAMED_PROPERTY
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import FlowPlan
from lodestream.planning.evolve import Evolution


def evolve_table(
    table: DeltaTable, plan: FlowPlan, evolution: Evolution, configuration: Mapping[str, str], *, clock_us: int
) -> int:  # fmt: skip
    """Rename, widen and drop columns; no row changes otherwise, so flows that read the table see no new rows.

    Versions before it keep their columns and their files. Nothing is left of an attempt that fails; one that is killed
    leaves files that no version knows.

    Args:
        table: the table as it is now.
        plan: what it is to be.
        evolution: how.
        configuration: table properties to set.
        clock_us: commit time.

    Returns:
        The version of the commit.

    Raises:
        ConflictError: somebody wrote to the table meanwhile.
    """
    old = table.snapshot.metadata
    adds: list[AddFile] = []
    attempt = random_id()[:8]
    renamed = {was: now for now, was in evolution.renamed.items()}
    try:
        for number, file in enumerate(table.files()):
            rows = table.read([file]).drop_columns(list(evolution.dropped))
            rows = rows.rename_columns([renamed.get(name, name) for name in rows.column_names])
            staged = table.stage(_in(rows, plan), name=f"altered-{attempt}-{number}", schema=plan.schema, hot=file.hot)
            adds += [replace(add, data_change=False) for add in staged.adds]
            point("alter.file")
        properties = {**old.configuration, **configuration}
        if renamed:
            properties[RENAMED_PROPERTY] = "true"
        version = table.commit(
            adds=adds, removes=[RemoveFile.of(file, data_change=False) for file in table.files()],
            info={"renamed": dict(evolution.renamed), "dropped": list(evolution.dropped)},
            metadata=replace(old, schema=plan.schema, configuration=properties), clock_us=clock_us, operation="ALTER",
            blind=False,
        )  # fmt: skip
    except LodestreamError:
        table.discard(adds)
        raise
    point("alter.done")
    return version


def _in(rows: pa.Table, plan: FlowPlan) -> pa.Table:
    """The rows in the order of the declared columns; those that are new are left to `stage`."""
    return rows.select([name for name in plan.schema.names if name in rows.column_names])
