"""One table as one query reads it: which files, which columns of them, and what the caller sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lodestream.lake.actions import AddFile
from lodestream.lake.log import Snapshot
from lodestream.lake.table import DeltaTable
from lodestream.model.access import TableAccess
from lodestream.model.types import Schema
from lodestream.query.conditions import Condition
from lodestream.query.guard import Reference, view_name
from lodestream.query.job import Scan
from lodestream.query.scan import scan, seen

_WORTH = 16
"""Leaving out fewer files costs more than having DuckDB look into them."""


@dataclass(slots=True)
class Read:
    """One table of a query, pinned, and how it is seen.

    Attributes:
        reference: how the query names it.
        table: it.
        snapshot: the version that is read.
        access: what the caller sees of it.
        adds: the files that may hold rows of the answer; None for all.
    """

    reference: Reference
    table: DeltaTable
    snapshot: Snapshot
    access: TableAccess
    adds: Sequence[AddFile] | None = None

    @property
    def label(self) -> tuple[str, str]:
        """What the query calls it."""
        return self.reference.layer, self.reference.label

    @property
    def schema(self) -> Schema:
        """The columns that are seen."""
        return self.access.schema(self.snapshot.metadata.schema)

    @property
    def direct(self) -> bool:
        """Whether the query may have the files themselves, as it may see all that is in them."""
        return self.access.whole and len(self.access.columns) == len(self.snapshot.metadata.schema.names)

    @property
    def files(self) -> tuple[int, int] | None:
        """How many files are read and how many left out; None where that would tell of rows that are not seen."""
        if not self.access.whole:
            return None
        every = len(self.snapshot.files)
        read = every if self.adds is None else len(self.adds)
        return (read, every - read) if self._narrow else (every, 0)

    @property
    def may_narrow(self) -> bool:
        """Whether leaving files out can be worth it."""
        return self.table.disk.atomic or len(self.snapshot.files) >= _WORTH

    @property
    def _narrow(self) -> bool:
        """Whether only the files of `adds` are read."""
        if self.table.disk.atomic or self.adds is None:
            return self.adds is not None
        return len(self.adds) + _WORTH <= len(self.snapshot.files)

    def scan(self, needed: frozenset[str] | None, found: Sequence[Condition]) -> tuple[Scan, str]:
        """For the worker: the table, and what this one query needs of it.

        Args:
            needed: names of columns; None for all.
            found: conditions that the reading side may apply.
        """
        stored = self.snapshot.metadata.schema
        name = self.reference.layer, view_name(self.reference)
        if self.table.disk.atomic:  # what is not needed is not fetched, so every question has files of its own
            rows, paths = scan(self.table, self.snapshot, self.adds, self._read(needed))
            some = rows
        else:
            rows, paths = scan(self.table, self.snapshot)
            some = scan(self.table, self.snapshot, self.adds)[0] if self._narrow else rows
        if self.direct:
            return Scan(*name, rows, paths, direct=True), "" if some is rows else some
        every = seen(rows, stored, self.access, None, ())
        return Scan(*name, every, paths, direct=False), seen(some, stored, self.access, needed, found)

    def _read(self, needed: frozenset[str] | None) -> frozenset[str] | None:
        """The columns that are read for those that are needed: filters and masks look at others too."""
        if needed is None:
            return None
        masks = (masked for name, masked in self.access.columns if masked is not None and name.lower() in needed)
        texts = [text.lower() for text in (*self.access.filters, *masks)]
        names = (name.lower() for name in self.snapshot.metadata.schema.names)
        return needed | {name for name in names if any(name in text for text in texts)}
