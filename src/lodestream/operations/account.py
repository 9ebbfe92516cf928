"""What became of the input of one table, as a proof found it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestream.model.table import TableName


@dataclass
class Report:
    """What became of the input of one table.

    Attributes:
        table: its name.
        input: number of input positions.
        counts: positions by disposition: output, quarantine, late, duplicate, dropped, open; in a table of changes also
            superseded and deleted.
        problems: what breaks the law, in words with example positions; empty when it holds.
        skipped: why the table cannot be proven (a `sql:` table has no positions), else None.
        notes: what could not be looked at any more, and is taken as the table has it.
    """

    table: TableName
    input: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the law holds."""
        return not self.problems

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "table": str(self.table), "input": self.input, **self.counts, "reconciled": self.ok,
            "problems": self.problems, "skipped": self.skipped, "notes": self.notes,
        }  # fmt: skip
