"""What `server:` in lodestream.yaml may say about those who serve: TLS, networks, limits."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from lodestream.ports.settings import Settings
from lodestream.project.identity import IdentitySettings
from lodestream.project.values import parse_duration


class TlsSettings(Settings):
    """Certificates of the server."""

    certificate: str
    """PEM file with the server's certificate and those above it, relative to the project's folder."""
    key: str
    """PEM file with its private key (PKCS#8)."""
    client_ca: str | None = None
    """PEM file; with it, only clients with a certificate of these authorities may connect."""


class IngestSettings(Settings):
    """Bounds of `POST /ingest/{stream}`; those per key can be set on the key itself."""

    body_bytes_max: int = Field(default=16 << 20, ge=1024, le=1 << 30)
    """A larger body, also once decompressed, is refused with 413."""
    records_max: int = Field(default=100_000, ge=1, le=10_000_000)
    """A body of more records is refused with 413."""
    bodies_bytes_max: int = Field(default=256 << 20, ge=1024)
    """Bodies that are being received at once; more are refused with 429."""
    body_timeout: str = "30 seconds"
    """A body that has not come by then is refused with 408."""
    requests_per_s: float | None = Field(default=None, gt=0)
    """Requests per second of one key; without, no bound."""
    bytes_per_s: float | None = Field(default=None, gt=0)
    """Bytes per second of one key; without, no bound."""
    records_per_day: int | None = Field(default=None, ge=1)
    """Records of one key per day (UTC); without, no bound."""
    queue_bytes_max: int = Field(default=64 << 20, ge=1024)
    """Bytes of a stream that wait for the disk; more are refused with 429."""
    backlog_bytes_max: int = Field(default=4 << 30, ge=1024)
    """Bytes of a stream that its table has not taken in; more are refused with 429."""
    segment_bytes: int = Field(default=64 << 20, ge=4096)
    """Size of the log's files; the log is cleared file by file."""
    answers_kept: str = "24 hours"
    """How long a request with an `Idempotency-Key` gets the same answer again."""

    @field_validator("body_timeout", "answers_kept")
    @classmethod
    def _duration(cls, text: str) -> str:
        if parse_duration(text) <= 0:
            raise ValueError("a duration of nothing")
        return text


class PostgresSettings(Settings):
    """The PostgreSQL protocol, `lodestream postgres`; it listens on `server.host` and takes `server.tls`."""

    port: int = Field(default=5433, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    processes: int = Field(default=1, ge=1, le=64)
    """Processes that share the port; each has workers of its own for queries."""
    connections_max: int = Field(default=100, ge=1, le=10_000)
    """Connections of each process at once; more are refused."""
    query_time: str = "5 minutes"
    """How long a question may take until its last row; a client's `statement_timeout` can only shorten it."""
    login_time: str = "10 seconds"
    """A client that has not signed in by then is sent away."""
    idle_time: str = "1 hour"
    """A connection that says nothing for so long is closed."""
    message_bytes_max: int = Field(default=1 << 20, ge=65_536, le=1 << 30)
    """A client's message that is larger ends its connection."""

    @field_validator("query_time", "login_time", "idle_time")
    @classmethod
    def _duration(cls, text: str) -> str:
        if parse_duration(text) <= 0:
            raise ValueError("a duration of nothing")
        return text


class QuerySettings(Settings):
    """Bounds of queries, through whichever door they come. Each server process has workers of its own."""

    workers: int = Field(default=4, ge=1, le=256)
    """Queries that run at once; each has a process of its own."""
    threads: int = Field(default=2, ge=1, le=256)
    """Threads that one query may use."""
    per_principal: int = Field(default=2, ge=1, le=256)
    """Queries of one user at once; more wait, and those of others go first. One worker is always left to others."""
    queue_max: int = Field(default=64, ge=0)
    """Queries that may wait; more are refused with 503."""
    queue_time: str = "10 seconds"
    """A query that found no room by then is refused with 503."""
    time: str = "30 seconds"
    """A query that takes longer is ended, unless its door says otherwise."""
    memory_bytes: int = Field(default=1 << 30, ge=64 << 20)
    """A query that needs more fails; it can never take more from the machine."""

    @field_validator("queue_time", "time")
    @classmethod
    def _duration(cls, text: str) -> str:
        if parse_duration(text) <= 0:
            raise ValueError("a duration of nothing")
        return text


class ApiSettings(Settings):
    """Bounds of `/api`."""

    time_max: str = "5 minutes"
    """The longest time that a request may ask for, in place of `server.query.time`."""
    page_rows_max: int = Field(default=10_000, ge=1, le=1_000_000)
    """Rows of one page of `/api/tables/{table}`; whoever wants more asks in SQL."""
    streams_max: int = Field(default=2000, ge=1)
    """Streams of events that may be open at once."""
    streams_per_user_max: int = Field(default=250, ge=1)
    """Of these, streams of one user."""

    @field_validator("time_max")
    @classmethod
    def _duration(cls, text: str) -> str:
        if parse_duration(text) <= 0:
            raise ValueError("a duration of nothing")
        return text


class ServingSettings(Settings):
    """Who may connect to `lodestream serve`, and how."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine's own needs a key and TLS, or a trusted proxy."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    tls: TlsSettings | None = None
    """Certificates; without, plain HTTP."""
    hosts: tuple[str, ...] = ()
    """Names that the `Host` header may have; without, any, and without keys this machine's own only."""
    allow: tuple[str, ...] = ()
    """Networks that may connect, such as `10.0.0.0/8`; without, any."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose `X-Forwarded-For` is believed."""
    identity: IdentitySettings = IdentitySettings()
    """Who may sign in without a key: access tokens, client certificates; and sessions of the console."""
    ingest: IngestSettings = IngestSettings()
    """Bounds of HTTP ingest."""
    postgres: PostgresSettings = PostgresSettings()
    """The PostgreSQL protocol."""
    query: QuerySettings = QuerySettings()
    """Bounds of queries."""
    api: ApiSettings = ApiSettings()
    """Bounds of `/api`."""

    @field_validator("allow", "trusted_proxies")
    @classmethod
    def _networks(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            ipaddress.ip_network(text.strip())
        return texts


def serving(server: Mapping[str, Any]) -> ServingSettings:
    """The settings of those who serve. Raises pydantic.ValidationError for what is not possible."""
    return ServingSettings(**{key: value for key, value in server.items() if key in ServingSettings.model_fields})
