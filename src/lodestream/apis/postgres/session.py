"""What one connection keeps between messages: settings, transaction, prepared statements, portals and cursors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from lodestream.apis.postgres.failures import PgError
from lodestream.apis.postgres.questions import Planned
from lodestream.apis.postgres.statements import Statement
from lodestream.apis.postgres.streams import RowStream
from lodestream.apis.postgres.variables import Variables
from lodestream.model.access import Principal

IDLE, OPEN, FAILED = b"I", b"T", b"E"
_STATEMENTS_MAX = 1000
_PORTALS_MAX = 100
_HELD_BYTES_MAX = 32 << 20


@dataclass
class Prepared:
    """A statement that a client has prepared.

    Attributes:
        statement: what it is; None for an empty one.
        types: numbers of the parameters' types as the client gave them, 0 where it left that to us.
        parameters: how many it takes.
        shape: columns and parameters, once they are known.
    """

    statement: Statement | None
    types: tuple[int, ...] = ()
    parameters: int = 0
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What a statement gives and takes.

    Attributes:
        schema: its columns; None when it gives no rows.
        parameters: numbers of the types of its parameters.
    """

    schema: pa.Schema | None
    parameters: tuple[int, ...] = ()


@dataclass
class Portal:
    """A statement with its values, ready to run or running.

    Attributes:
        statement: what it is; None for an empty one.
        values: of its parameters.
        formats: of the columns, as the client asked: none for text, one for all, or one for each.
        rows: what it gives, once it runs.
        sent: rows that the client has.
        done: whether it has run to its end.
        hold: whether it outlives the transaction.
        tag: what the client hears in the end, where it is not the number of rows.
    """

    statement: Statement | None
    values: Sequence[object] = ()
    formats: Sequence[int] = ()
    rows: RowStream | None = None
    sent: int = 0
    done: bool = False
    hold: bool = False
    tag: str = ""
    planned: Planned | None = None

    def column_formats(self, columns: int) -> list[int]:
        """The format of each column."""
        if not self.formats:
            return [0] * columns
        if len(self.formats) == 1:
            return list(self.formats) * columns
        if len(self.formats) != columns:
            raise PgError(
                "08P01", f"bind message has {len(self.formats)} result formats but query has {columns} columns"
            )
        return list(self.formats)

    def close(self) -> None:
        """Let go of what runs."""
        if self.rows is not None:
            self.rows.close()


@dataclass
class Session:
    """State of one connection.

    Attributes:
        principal: whose it is; renewed while their credential is good.
        database: name of the database.
        variables: settings.
        process: number of the connection.
        status: `I` outside a transaction, `T` in one, `E` in one that has failed.
    """

    principal: Principal
    database: str
    variables: Variables
    process: int = 0
    status: bytes = IDLE
    statements: dict[str, Prepared] = field(default_factory=dict)
    portals: dict[str, Portal] = field(default_factory=dict)
    savepoints: list[str] = field(default_factory=list)

    def check(self, statement: Statement | None, ends: Callable[[Statement], bool]) -> None:
        """Refuse all but the end of a transaction that has failed."""
        if self.status == FAILED and statement is not None and not ends(statement):
            raise PgError(
                "25P02", "current transaction is aborted, commands ignored until end of transaction block"
            )  # fmt: skip

    def prepared(self, name: str) -> Prepared:
        """A prepared statement. Raises PgError when there is none of that name."""
        found = self.statements.get(name)
        if found is None:
            raise PgError("26000", f'prepared statement "{name}" does not exist')
        return found

    def prepare(self, name: str, made: Prepared) -> None:
        """Keep a prepared statement; the one without a name takes the place of the last one."""
        if name and name in self.statements:
            raise PgError("42P05", f'prepared statement "{name}" already exists')
        if len(self.statements) >= _STATEMENTS_MAX:
            raise PgError("53000", f"too many prepared statements: {_STATEMENTS_MAX} at most")
        self.statements[name] = made

    def portal(self, name: str) -> Portal:
        """A portal or cursor. Raises PgError when there is none of that name."""
        found = self.portals.get(name)
        if found is None:
            raise PgError("34000", f'cursor "{name}" does not exist' if name else "portal does not exist")
        return found

    def open(self, name: str, made: Portal) -> None:
        """Keep a portal; the one without a name takes the place of the last one."""
        if name and name in self.portals:
            raise PgError("42P03", f'cursor "{name}" already exists')
        self.close(name)
        if len(self.portals) >= _PORTALS_MAX:
            made.close()
            raise PgError("53000", f"too many open cursors: {_PORTALS_MAX} at most")
        self.portals[name] = made

    @property
    def room_bytes(self) -> int:
        """How many bytes of rows may still be held for a client that has paused, over all of its portals."""
        held = sum(portal.rows.held_bytes for portal in self.portals.values() if portal.rows is not None)
        return max(0, _HELD_BYTES_MAX - held)

    def close(self, name: str) -> None:
        """Close a portal, if there is one of that name."""
        found = self.portals.pop(name, None)
        if found is not None:
            found.close()

    def end_transaction(self) -> None:
        """Close what does not outlive a transaction."""
        self.status = IDLE
        self.savepoints.clear()
        self.variables.end_transaction()
        for name in [name for name, portal in self.portals.items() if not portal.hold]:
            self.close(name)

    def end(self) -> None:
        """Close everything."""
        for name in list(self.portals):
            self.close(name)
        self.statements.clear()
