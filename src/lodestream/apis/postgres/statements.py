"""The kinds of statements: a question for the lake, or one of those that concern the session alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from lodestream.apis.postgres.lexer import Token


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement.

    Attributes:
        text: as written.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Question(Statement):
    """It asks for rows."""


@dataclass(frozen=True, slots=True)
class Transaction(Statement):
    """BEGIN, COMMIT, ROLLBACK and those about savepoints.

    Attributes:
        action: `begin`, `commit`, `rollback`, `savepoint`, `release` or `rollback to`.
        name: of the savepoint.
    """

    action: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class SetVariable(Statement):
    """SET; `value` is None for DEFAULT."""

    name: str = ""
    value: str | None = None
    local: bool = False


@dataclass(frozen=True, slots=True)
class Reset(Statement):
    """RESET of one setting, or of `all`."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Show(Statement):
    """SHOW of one setting, or of `all`."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Declare(Statement):
    """DECLARE name CURSOR FOR query."""

    name: str = ""
    query: str = ""
    hold: bool = False
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Fetch(Statement):
    """FETCH or MOVE; `count` is None for all that is left."""

    name: str = ""
    count: int | None = 1
    move: bool = False


@dataclass(frozen=True, slots=True)
class Close(Statement):
    """CLOSE of one cursor, or of `all`."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Discard(Statement):
    """DISCARD of `all`, `plans`, `sequences` or `temp`."""

    what: str = ""


@dataclass(frozen=True, slots=True)
class Deallocate(Statement):
    """DEALLOCATE of one prepared statement, or of `all`."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Prepare(Statement):
    """PREPARE name (types) AS query."""

    name: str = ""
    types: tuple[str, ...] = ()
    query: str = ""


@dataclass(frozen=True, slots=True)
class Execute(Statement):
    """EXECUTE name (values)."""

    name: str = ""
    values: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy(Statement):
    """COPY query TO STDOUT."""

    query: str = ""
    form: str = "text"
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ignored(Statement):
    """A statement that does nothing here; `tag` is what the client hears."""

    tag: str = ""
