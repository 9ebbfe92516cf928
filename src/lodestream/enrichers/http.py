"""Asks an HTTP service about each row: a JSON object goes out, a JSON object comes back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import pyarrow as pa
from pydantic import Field, SecretStr, field_validator

from lodestream.enrichers._answers import Answers, BadAnswerError
from lodestream.enrichers._connections import Connections, NoAnswerError, TooLargeError
from lodestream.errors import ConfigError
from lodestream.formats._json_text import json_objects
from lodestream.model.types import Column, Schema
from lodestream.ports import settings as base
from lodestream.ports.enricher import Answer, Asking, Enriched, EnricherWants
from lodestream.project.values import COLUMN, parse_column_type, parse_duration

_RATE = re.compile(r"(\d+(?:\.\d+)?) per (second|minute|hour)")
_PER_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
_SECRET = re.compile(r"auth|cookie|key|password|secret|token", re.IGNORECASE)
_AGAIN = (408, 425, 429)
_NOT_LET_IN = (401, 403, 407)
_TOO_MANY = 429
_PAUSE_MAX_S = 3600.0


class HttpEnricherSettings(base.Settings):
    """What is sent where, what comes back, and how hard the service is asked."""

    url: str
    """Where questions are posted to: `http://…` or `https://…`."""
    send: tuple[str, ...] | dict[str, str]
    """Columns that make the question, a JSON object; `{key: column}` where a key has another name than its column."""
    receive: dict[str, str] = Field(min_length=1)
    """Columns that the answer, a JSON object, gives: name and type. Each must be among the answer's keys; other keys
    are left alone."""
    version: str = "1"
    """Part of every question's identity. Change it when the service would answer differently now: then the table is
    rebuilt and everything is asked anew."""
    timeout: str = "5 minutes"
    """How long a row waits at most; then it goes on without an answer."""
    request_timeout: str = "10 seconds"
    """How long one exchange may take, from its first byte to its last."""
    parallel: int = Field(default=16, ge=1, le=256)
    """How many questions are under way at once."""
    rate: str | None = None
    """How many questions are begun at most, such as `50 per second`."""
    waiting_max: int = Field(default=100_000, ge=1)
    """No further rows are read while so many wait."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """HTTP headers to send along. Secrets are references: `Bearer ${env:SCORE_TOKEN}`."""
    answer_bytes_max: int = Field(default=65_536, ge=2, le=16 << 20)
    """Longer answers are refused."""
    ca: str | None = None
    """File of the certificates that are trusted. Default: those of the system."""

    undeciding: ClassVar[frozenset[str]] = frozenset(
        ("url", "timeout", "request_timeout", "parallel", "rate", "waiting_max", "headers", "answer_bytes_max", "ca")
    )
    """Settings that may change without asking anew, and are not stored with the table."""

    @field_validator("url")
    @classmethod
    def _http(cls, text: str) -> str:
        if "${" in text:
            return text
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write http://host/path or https://host/path")
        if parts.username is not None:
            raise ValueError("no user and password in an address; send a header with a reference")
        return text

    @field_validator("send")
    @classmethod
    def _something(cls, send: tuple[str, ...] | dict[str, str]) -> tuple[str, ...] | dict[str, str]:
        if not send:
            raise ValueError("name at least one column")
        return send

    @field_validator("receive")
    @classmethod
    def _types(cls, receive: dict[str, str]) -> dict[str, str]:
        for name, kind in receive.items():
            if not COLUMN.fullmatch(name):
                raise ValueError(f"not a column name: {name}")
            parse_column_type(kind)
        return receive

    @field_validator("timeout", "request_timeout")
    @classmethod
    def _duration(cls, text: str) -> str:
        if parse_duration(text) == 0:
            raise ValueError("a duration of nothing")
        return text

    @field_validator("rate")
    @classmethod
    def _rate(cls, text: str | None) -> str | None:
        if text is not None and ((match := _RATE.fullmatch(text)) is None or float(match[1]) <= 0):
            raise ValueError("write a number per second, minute or hour, such as 50 per second")
        return text

    @property
    def rate_per_s(self) -> float | None:
        """The bound in questions per second."""
        match = _RATE.fullmatch(self.rate) if self.rate is not None else None
        return None if match is None else float(match[1]) / _PER_S[match[2]]

    @property
    def keys(self) -> dict[str, str]:
        """Column by key of the question."""
        return self.send if isinstance(self.send, dict) else {name: name for name in self.send}

    @property
    def columns(self) -> Schema:
        """The columns of an answer."""
        return Schema(tuple(Column(name, parse_column_type(kind)) for name, kind in self.receive.items()))


class HttpEnricher:
    """Posts one JSON object per question and takes one back.

    408, 425, 429, 5xx, and no answer at all are asked again; so are 401, 403 and 407, which say something of us and not
    of the row. Other statuses from 300 up are final, and so is an answer that does not have the declared columns.
    Each request carries `Idempotency-Key`, the same whenever the same question is asked.
    """

    settings: ClassVar[type[base.Settings]] = HttpEnricherSettings

    def __init__(self, settings: HttpEnricherSettings) -> None:
        self._keys = settings.keys
        self._answers = Answers(settings.columns)
        self._headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        bound_s = parse_duration(settings.request_timeout) / 1e6
        try:
            self._connections = Connections(
                settings.url, time_s=bound_s, bytes_max=settings.answer_bytes_max, ca=settings.ca
            )
        except OSError as error:
            raise ConfigError("certificates cannot be read", ca=settings.ca, cause=str(error)) from error

    @classmethod
    def wants(cls, settings: base.Settings) -> EnricherWants:
        """The columns of the question and of the answer."""
        assert isinstance(settings, HttpEnricherSettings)
        if isinstance(settings.send, dict):
            reads = [(("send", key), column) for key, column in settings.send.items()]
        else:
            reads = [(("send", i), column) for i, column in enumerate(settings.send)]  # type: ignore[misc]
        asking = Asking(
            settings.version, parse_duration(settings.timeout), settings.waiting_max, settings.parallel,
            settings.rate_per_s,
        )  # fmt: skip
        written_out = tuple(
            ("headers", name)
            for name, value in settings.headers.items()
            if _SECRET.search(name) and "${" not in value.get_secret_value()
        )
        return EnricherWants(tuple(reads), settings.columns, asking=asking, written_out=written_out)

    def questions(self, rows: pa.Table) -> list[str]:
        """One JSON object per row, keys as declared; times are ISO 8601, bytes Base64."""
        named = pa.table({key: rows.column(column) for key, column in self._keys.items()})
        return [text.decode() for text in json_objects(named)]

    def ask(self, question: str, key: str) -> Answer:
        """Post the question once."""
        headers = {
            "Content-Type": "application/json", "Accept": "application/json", "Idempotency-Key": key, **self._headers,
        }  # fmt: skip
        try:
            status, told, data = self._connections.post(question.encode(), headers)
        except NoAnswerError as error:
            return Answer(later=f"http:{error}", outage=True)
        except TooLargeError:
            return Answer(refusal="answer:size")
        if 200 <= status < 300:
            return self._read(data)
        reason = f"http:{status}"
        if status in _NOT_LET_IN or status >= 500 or status in _AGAIN:
            return Answer(later=reason, retry_after_s=_seconds(told), outage=status not in _AGAIN)
        return Answer(refusal=reason)

    def decode(self, texts: Sequence[str]) -> Enriched:
        """Answers as rows; one that an earlier declaration took may lack a column of this one."""
        return self._answers.table(texts)

    def close(self) -> None:
        """Shut the connections; twice is harmless."""
        self._connections.close()

    def _read(self, data: bytes) -> Answer:
        try:
            self._answers.values(data)
        except BadAnswerError as error:
            return Answer(refusal=str(error))
        return Answer(text=data.decode())


def _seconds(headers: Mapping[str, str]) -> float | None:
    """A Retry-After in seconds; None when there is none, or it is a date."""
    for name, unit in (("retry-after-ms", 1e3), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if text.isascii() and text.isdigit():
            return min(int(text[:9]) / unit, _PAUSE_MAX_S)
    return None


component = HttpEnricher
