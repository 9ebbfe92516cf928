"""One way to know more about a row: what an enricher promises to the engine.

There are two kinds. An *in-line* enricher computes columns from columns, at once and always the same. A *slow* one asks
somebody else; its rows wait in the state of their flow until there is an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import pyarrow as pa

from lodestream.model.types import Schema
from lodestream.ports.settings import Settings


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions of a slow enricher are asked.

    Attributes:
        version: part of every question's identity; another version asks anew.
        timeout_us: how long a row waits at most, microseconds.
        waiting_max: no further rows are read while so many wait.
        parallel: how many questions are under way at once.
        rate_per_s: how many are begun per second at most; None for no bound.
    """

    version: str
    timeout_us: int
    waiting_max: int
    parallel: int
    rate_per_s: float | None


@dataclass(frozen=True, slots=True)
class EnricherWants:
    """What an enricher's settings ask of a table.

    Attributes:
        reads: the columns it reads, each with the path of the setting that names it.
        adds: the columns it adds.
        types: names of the types that a read column may have; empty for any.
        asking: how it is asked; None for an in-line enricher.
        written_out: paths of settings that hold a secret and are no reference.
    """

    reads: tuple[tuple[tuple[str | int, ...], str], ...]
    adds: Schema
    types: tuple[str, ...] = ()
    asking: Asking | None = None
    written_out: tuple[tuple[str | int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Enriched:
    """What an enricher found for n rows.

    Attributes:
        columns: n rows with the columns that it adds, in their types.
        errors: row numbers for which it has no value, each with a reason such as `too_long`.
    """

    columns: pa.Table
    errors: tuple[tuple[int, str], ...] = ()


class Enricher(Protocol):
    """What both kinds have; made with `(settings)` once references are resolved."""

    settings: ClassVar[type[Settings]]

    @classmethod
    def wants(cls, settings: Settings) -> EnricherWants:
        """What settings ask for; references in them are not resolved."""

    def close(self) -> None:
        """Let go; twice is harmless."""


@runtime_checkable
class InlineEnricher(Enricher, Protocol):
    """Computes columns: pure, without network, the same on every machine with the same packages."""

    def enrich(self, rows: pa.Table) -> Enriched:
        """The new columns of n rows, which hold the columns that it reads."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking once.

    Exactly one of `text`, `refusal` and `later` is set.

    Attributes:
        text: the answer as it came; `decode` reads it.
        refusal: why there will be no answer to this question, such as `http:400`.
        later: why it should be asked again, such as `http:503`.
        retry_after_s: how long to wait first, when the other side says so.
        outage: nobody would get an answer now, whatever they asked.
    """

    text: str | None = None
    refusal: str | None = None
    later: str | None = None
    retry_after_s: float | None = None
    outage: bool = False


@runtime_checkable
class SlowEnricher(Enricher, Protocol):
    """Asks somebody else. `ask` is called by several threads at once."""

    def questions(self, rows: pa.Table) -> list[str]:
        """The question of each of n rows, in a canonical form: equal content is an equal question."""

    def ask(self, question: str, key: str) -> Answer:
        """Ask once and wait for the answer; whatever goes wrong outside is part of the answer.

        Args:
            question: of `questions`.
            key: 32 hex digits that stand for the question, the same whenever it is asked.
        """

    def decode(self, texts: Sequence[str]) -> Enriched:
        """N answers that `ask` gave out, now or under other settings, as n rows; what does not fit has an error."""
