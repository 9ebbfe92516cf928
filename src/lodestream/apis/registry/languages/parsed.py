"""What each schema language gives: a schema that was read, and the differences that break a reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

NESTING_MAX = 100
"""How deep a schema's JSON may nest."""

STEPS_MAX = 50_000
"""How many pairs of types one comparison may look at, so that no schema holds the registry up for long."""

Texts = Sequence[tuple[str, str]]
"""(name, text) of every schema that another builds on, those without needs of their own first."""


class InvalidSchemaError(ValueError):
    """A schema's text is not a schema of its language; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One reason why a reader cannot take what a writer wrote.

    Attributes:
        rule: its kind in capitals, such as `TYPE_MISMATCH`.
        text: what and where, for people.
    """

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A schema that was read.

    Attributes:
        text: what is stored and given out.
        model: the language's own form of it.
        identity: equal for texts that differ in nothing but layout; they have one id.
    """

    text: str
    model: Any = field(compare=False)
    identity: str


class Language(Protocol):
    """One schema language."""

    def parse(self, text: str, references: Texts = ()) -> Parsed:
        """Read a schema. Raises InvalidSchemaError."""

    def normal(self, parsed: Parsed) -> str:
        """A text that is equal for schemas which mean the same and differ in spelling or order."""

    def form(self, parsed: Parsed, name: str) -> str:
        """The text in another form that clients ask for by name; the canonical text when there is no such form."""

    def differences(self, reader: Parsed, writer: Parsed) -> list[Difference]:
        """Why `reader` cannot take everything that `writer` wrote. Raises InvalidSchemaError when it takes too long."""


class Steps:
    """Counts the steps of one piece of work and ends it when they become too many."""

    def __init__(self) -> None:
        self._left = STEPS_MAX

    def take(self, count: int = 1) -> None:
        """Some more steps. Raises InvalidSchemaError when there were too many."""
        self._left -= count
        if self._left < 0:
            raise InvalidSchemaError(f"schema is too large to work with. steps_max={STEPS_MAX}")


def read_json(text: str) -> Any:
    """A schema's JSON. Raises InvalidSchemaError when it is none, or nests deeper than `NESTING_MAX`."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise InvalidSchemaError(f"nests too deep. depth_max={NESTING_MAX}") from None
    except ValueError as error:
        raise InvalidSchemaError(f"not JSON: {error}") from None
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """Raises InvalidSchemaError when a JSON value nests deeper than `NESTING_MAX`."""
    level, depth = [value], 0
    while level:
        if depth > NESTING_MAX:
            raise InvalidSchemaError(f"nests too deep. depth_max={NESTING_MAX}")
        inner: list[Any] = []
        for one in level:
            inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        level, depth = inner, depth + 1


def write_json(value: Any, *, sort: bool = False) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=sort)


def _refuse(word: str) -> Any:
    raise InvalidSchemaError(f"not JSON: {word}")
