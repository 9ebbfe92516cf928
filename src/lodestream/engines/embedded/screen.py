"""The changes stage: which rows are changes that can be put in order, which of them delete, which come too late."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.engines.embedded.frames import select
from lodestream.engines.embedded.merge import DELETES
from lodestream.engines.embedded.passing import Pass, mask_of
from lodestream.model.steps import ApplyChanges


def screen(passing: Pass, step: ApplyChanges) -> None:
    """Set aside what is no change, and give the others the column `DELETES`; a condition that is NULL does not delete.

    What lies at or behind W(n-1) is late when deletions are forgotten: its key may have been deleted since.
    """
    _set_aside(passing, step)
    if step.forgets and not passing.batch.accept_late:
        passing.reject_late(passing.events() <= passing.batch.late_us)
    rows = passing.settle()
    if step.delete_when is None:
        passing.put(DELETES, pa.chunked_array([pa.array(np.zeros(len(rows), np.bool_))]))
        return
    needed = rows.select([c for c in rows.column_names if c in step.delete_when.columns or c == "_position"])
    flags = select(passing.connection, needed, [(DELETES, f"coalesce({step.delete_when.duckdb}, false)")])
    passing.put(DELETES, flags.column(DELETES))


def _set_aside(passing: Pass, step: ApplyChanges) -> None:
    """Quarantine rows without key or sequence, and those for which it cannot be said whether they delete."""
    checks = [(f"null_key:{name}", name) for name in step.changes.keys]
    checks += [(f"null_sequence:{name}", name) for name in step.changes.sequence_by]
    flags = [(reason, mask_of(pc.is_null(passing.column(name)))) for reason, name in checks]
    condition = step.delete_when
    if condition is not None and condition.error is not None:
        rows = passing.settle()
        needed = rows.select([c for c in rows.column_names if c in condition.columns or c == "_position"])
        found = select(passing.connection, needed, [("_bad", f"coalesce({condition.error}, false)")])
        flags.append(("delete_when:error", mask_of(found.column("_bad"))))
    matrix = np.column_stack([flag for _, flag in flags])
    bad: np.ndarray = matrix.sum(axis=1) > 0
    if bad.any():
        names = [reason for reason, _ in flags]
        reasons = [[name for name, hit in zip(names, row, strict=True) if hit] for row in matrix[bad]]
        passing.reject(bad, "quarantine", reasons)
