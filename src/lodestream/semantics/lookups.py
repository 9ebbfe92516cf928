"""A left join to another table, as that table was when the batch was planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lodestream.model.table import Lookup
from lodestream.semantics.changes import as_of
from lodestream.semantics.dedup import key_of

Row = Mapping[str, Any]


def look_up(row: Row, lookup: Lookup, table: Sequence[Row]) -> Row | None:
    """`row` with the columns that the lookup adds, or None when the table has its key more than once.

    A key that is not there, or that has a NULL in it, gives NULLs. A key that is there twice gives no answer at all
    rather than one of two: such a row goes to quarantine. With `as_of` only the rows that held at that moment count.

    Args:
        row: a row of the stream.
        lookup: which columns must be equal and which come over.
        table: all rows of the pinned version.
    """
    wanted = key_of([row[here] for here, _ in lookup.on])
    there_then = table if lookup.as_of is None else as_of(table, row[lookup.as_of])
    matches = [other for other in there_then if key_of([other[there] for _, there in lookup.on]) == wanted]
    found = [] if None in wanted else matches
    if len(found) > 1:
        return None
    return {**row, **{name: found[0][there] if found else None for there, name in lookup.columns}}
