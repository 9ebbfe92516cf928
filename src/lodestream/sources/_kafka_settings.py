"""What a table may say of the topics it reads."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lodestream.drivers.kafka_connection import Connection
from lodestream.formats._times import parse_timestamp
from lodestream.sources._kafka_columns import Includable
from lodestream.sources.files import seconds

Seconds = Annotated[float, BeforeValidator(seconds)]


class KafkaSettings(Connection):
    """Which topics are read, from where on, and what a message becomes."""

    topic: str | list[str] | None = None
    """The topic, or a list of topics."""
    pattern: str | None = None
    """A regular expression instead: every topic whose whole name it matches, also those that are made later."""
    start: Literal["earliest", "latest"] | dict[str, dict[int, int]] | str = "earliest"
    """Where a partition begins that was never read: `earliest`, `latest`, a time (ISO 8601), or offsets by topic and
    partition (`{orders: {0: 1200}}`; partitions that are not named begin at the earliest)."""
    include: list[Includable] = Field(default_factory=list)
    """What else of each message becomes a column: `key` is `kafka_key`, and so on."""
    tombstones: Literal["quarantine", "rows"] = "quarantine"
    """A message without payload: set aside (`parse:tombstone`), or a row of NULLs and what is included."""
    on_data_loss: Literal["stop", "record_gap"] = "stop"
    """When retention took records before they were read: stop, or go on and record the gap in quarantine."""
    on_recreated: Literal["stop", "follow"] = "stop"
    """When a topic was deleted and made again: stop, or read the new one too, as units `topic~2/partition`."""
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    """Whether messages of open and aborted transactions are left out."""
    share: bool = False
    """Whether processes that run this table share its partitions, as members of one consumer group."""
    group: str | None = None
    """Consumer group that shows our positions to lag tools. Default: a name of this table in this lake alone."""
    linger: Seconds = Field(default=0.1, ge=0, le=60)
    """Shortest time (seconds, or text such as `50 ms`) between two batches under load; a lone message never waits."""

    align: Seconds = Field(default=1.0, ge=0, le=3600)
    """While history is read, partitions go together by the time of their messages: how long (seconds, or text such as
    `5 s`) to wait for a partition that is behind and shows nothing; 0 takes what comes."""

    @field_validator("pattern")
    @classmethod
    def _is_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @field_validator("start")
    @classmethod
    def _is_time(cls, start: Any) -> Any:
        if isinstance(start, str) and start not in ("earliest", "latest"):
            try:
                parse_timestamp(start)
            except ValueError:
                raise ValueError("start is earliest, latest, a time such as 2024-05-01T12:00:00Z, or offsets") from None
        if isinstance(start, dict) and any(min(pair) < 0 for offsets in start.values() for pair in offsets.items()):
            raise ValueError("partitions and offsets of start are 0 or more")
        return start

    @model_validator(mode="after")
    def _topics_or_pattern(self) -> KafkaSettings:
        if (self.topic is None) == (self.pattern is None) or not (self.pattern or self.topics):
            raise ValueError("name a topic, a list of topics, or a pattern")
        if isinstance(self.start, dict) and self.topic is not None:
            strange = sorted(self.start.keys() - set(self.topics))
            if strange:
                raise ValueError(f"start names topics that are not read: {', '.join(strange)}")
        return self

    @property
    def topics(self) -> list[str]:
        """The named topics."""
        return [self.topic] if isinstance(self.topic, str) else list(self.topic or [])

    undeciding: ClassVar[frozenset[str]] = frozenset(
        {*Connection.model_fields, "on_data_loss", "on_recreated", "share", "group", "linger", "align"}
    )
    """Settings that decide no row: changing them needs no rebuild."""
