"""Where the catalog writes down what was asked and changed, in the transaction that does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Protocol

from lodestream.catalog.store import Rows
from lodestream.ports.authority import Event

TABLES = ("CREATE TABLE IF NOT EXISTS catalog_journal (at_us BIGINT NOT NULL, event TEXT NOT NULL)",)


class Journal(Protocol):
    """An append-only record of events."""

    def append(self, rows: Rows, events: Sequence[Event], at_us: int) -> None:
        """Add events, in order, in a writing transaction of the catalog's store.

        Raises:
            TransientError: they cannot be written; the transaction is rolled back, and what was asked is not done.
        """


class PlainJournal:
    """Events as lines of JSON in a table."""

    def append(self, rows: Rows, events: Sequence[Event], at_us: int) -> None:
        """See `Journal`."""
        for event in events:
            told = {field.name: getattr(event, field.name) for field in fields(event)} | {"detail": dict(event.detail)}
            rows.all("INSERT INTO catalog_journal (at_us, event) VALUES (?, ?)", at_us, json.dumps(told))
