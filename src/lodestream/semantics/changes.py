"""Tables that are kept up to date from changes: what a set of changes makes, whatever the order in which they came.

The order of a key's changes is total: by `sequence_by`, then `_source`, then `_position`. So of two changes with the
same sequence the one with the higher position stands, and the table is a function of the set of its changes alone: of
how they were cut into batches, or came too early or too late, nothing can be seen in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from lodestream.model.table import VALID_FROM, VALID_TO, Changes
from lodestream.semantics.dedup import Key, key_of

Row = Mapping[str, Any]
DELETES = "_deletes"
"""Column of a change: whether it deletes."""


def unfit(row: Row, changes: Changes) -> tuple[str, ...]:
    """Why a row is no change that can be put in order: it has no key or no sequence; empty when it has."""
    keys = [f"null_key:{name}" for name in changes.keys if row[name] is None]
    return (*keys, *(f"null_sequence:{name}" for name in changes.sequence_by if row[name] is None))


def order_of(row: Row, changes: Changes) -> tuple[Any, ...]:
    """What the changes of a key are ordered by; no two rows have the same."""
    return (*(row[name] for name in changes.sequence_by), row["_source"], row["_position"])


def table_of(rows: Iterable[Row], changes: Changes) -> list[Row]:
    """The table that a set of changes makes.

    Args:
        rows: all changes so far, in any order, each with `DELETES`; keys and sequence are not None.
        changes: the declaration.

    Returns:
        Without history the last change of each key, unless it deletes. With history every change that does not delete
        and that no other of the same key and sequence follows, with the span [`valid_from`, `valid_to`) from its own
        sequence to the key's next one; `valid_to` is None where there is no next one.
    """
    by_key: dict[Key, list[Row]] = {}
    for row in sorted(rows, key=lambda row: order_of(row, changes)):
        by_key.setdefault(key_of([row[name] for name in changes.keys]), []).append(row)
    if not changes.history:
        return [_shown(found[-1], {}) for found in by_key.values() if not found[-1][DELETES]]
    return [row for found in by_key.values() for row in _history(found, changes.sequence_by[0])]


def as_of(rows: Iterable[Row], when: Any) -> list[Row]:
    """The rows of a table with history that held at a moment; none when it is None."""
    if when is None:
        return []
    return [row for row in rows if row[VALID_FROM] <= when and (row[VALID_TO] is None or when < row[VALID_TO])]


def _history(ordered: list[Row], sequence: str) -> list[Row]:
    standing = list({row[sequence]: row for row in ordered}.values())
    ends = [*(after[sequence] for _, after in pairwise(standing)), None]
    return [
        _shown(row, {VALID_FROM: row[sequence], VALID_TO: end})
        for row, end in zip(standing, ends, strict=True)
        if not row[DELETES]
    ]


def _shown(row: Row, more: Mapping[str, Any]) -> Row:
    return {**{name: value for name, value in row.items() if name != DELETES}, **more}
