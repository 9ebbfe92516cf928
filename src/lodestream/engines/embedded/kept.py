"""Where Spark keeps what its batches hand on that its own state does not hold: small Delta tables beside the plans.

Those are the deletions that a table of changes remembers, and open windows that its workers fold. Batch N's commit to
such a table comes before the flow's own, under the same number. So what batch N begins with is the newest version, or,
when batch N is half done, the one before.
"""

from __future__ import annotations

import os

import pyarrow as pa

from lodestream.engines.embedded.frames import conform
from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.surroundings import Surroundings
from lodestream.lake.actions import AddFile
from lodestream.lake.layout import app_id, flow_folder
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import from_arrow_type, to_arrow
from lodestream.model.steps import Aggregation, Annotate, FlowPlan
from lodestream.model.table import Session, TableName
from lodestream.model.types import BIGINT, Column, Schema

WINDOWS = "windows"
_DIGEST = "_digest"
"""A hash, which is no type of Delta's; a table has its bits as a signed number."""


def kept_path(lake: str, name: TableName, epoch: int, what: str) -> str:
    """Where such a table lies; `what` is DELETIONS or WINDOWS."""
    return os.path.join(flow_folder(lake, name), str(epoch), what)


def has_batch(table: DeltaTable, name: TableName, epoch: int, batch: int) -> bool:
    """Whether the table is as batch N leaves it."""
    return table.snapshot.txns.get(app_id(name, epoch), 0) >= batch


def kept_before(around: Surroundings, name: TableName, epoch: int, batch: int, what: str) -> pa.Table | None:
    """What batch N begins with; None while there is no such table."""
    table = DeltaTable.open(around.disk, kept_path(around.lake, name, epoch, what))
    return None if table is None else table.read(files_before(table, name, epoch, batch))


def files_before(table: DeltaTable, name: TableName, epoch: int, batch: int) -> list[AddFile]:
    """The files with what batch N begins with."""
    if not has_batch(table, name, epoch, batch):
        return table.files()
    commit = last_commit(table, app_id(name, epoch))
    assert commit is not None
    return table.read_version(commit.version - 1)


# --- open windows -----------------------------------------------------------------------------------------------------


def is_folded(plan: FlowPlan) -> bool:
    """Whether Spark has no operator for the windows of a flow, or none that works late enough in a query.

    Those are windows that say what they cover, sessions that are shown while they are open, and windows of enriched
    rows. The workers fold them with this engine's code.
    """
    step = plan.step(Aggregation)
    if step is None:
        return False
    shown_open = isinstance(step.window, Session) and step.emit == "updates"
    return shown_open or step.completeness or plan.step(Annotate) is not None


def kept_schema(windows: pa.Schema) -> Schema:
    """Columns of the table that open windows of that schema are kept in."""
    return Schema(tuple(Column(f.name, BIGINT if f.name == _DIGEST else from_arrow_type(f.type)) for f in windows))


def signed(windows: pa.Table) -> pa.Table:
    """Open windows as they are kept."""
    kept = to_arrow(kept_schema(windows.schema), nullable=True)
    return conform(_digest_as(windows, pa.int64()), kept)


def unsigned(kept: pa.Table, windows: pa.Schema) -> pa.Table:
    """Open windows in their own schema."""
    return conform(_digest_as(kept, pa.uint64()), windows)


def _digest_as(table: pa.Table, kind: pa.DataType) -> pa.Table:
    digest = pa.chunked_array([c.view(kind) for c in table.column(_DIGEST).chunks], kind)
    return table.set_column(table.schema.get_field_index(_DIGEST), _DIGEST, digest)
