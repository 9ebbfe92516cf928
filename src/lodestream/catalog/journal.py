"""What the catalog asks of the audit log: write down what was asked and changed, or it is not done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lodestream.drivers.database import Rows
from lodestream.ports.authority import Event


class Journal(Protocol):
    """An append-only record of events."""

    def record(self, event: Event) -> None:
        """Add an event; at once when it changes something.

        Raises:
            TransientError: it cannot be written; what was asked must not be done.
        """

    def append(self, rows: Rows, events: Sequence[Event], at_us: int) -> None:
        """Add events, in order, in a writing transaction of the catalog's store.

        Raises:
            TransientError: they cannot be written; the transaction is rolled back, and what was asked is not done.
        """

    def settle(self) -> None:
        """A transaction with `append` in it is committed."""

    def close(self) -> None:
        """Write what is left; twice is harmless."""
