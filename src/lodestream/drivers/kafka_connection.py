"""How to reach a Kafka cluster: the settings that sources and sinks share, and what librdkafka is told."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, field_validator, model_validator

from lodestream.errors import ConfigError
from lodestream.ports.settings import Settings

Client = TypeVar("Client")

LOG = logging.getLogger("lodestream.kafka")
"""What librdkafka has to say; silent unless somebody listens, for errors reach the caller as exceptions."""
LOG.addHandler(logging.NullHandler())

TUNABLE = frozenset(
    {
        "acks", "batch.num.messages", "batch.size", "broker.address.family", "check.crcs", "client.dns.lookup",
        "client.id", "client.rack", "compression.level", "compression.type", "connections.max.idle.ms",
        "fetch.error.backoff.ms", "fetch.max.bytes", "fetch.min.bytes", "fetch.wait.max.ms", "group.protocol",
        "heartbeat.interval.ms", "linger.ms", "max.in.flight.requests.per.connection", "max.partition.fetch.bytes",
        "max.poll.interval.ms", "message.max.bytes", "metadata.max.age.ms", "partition.assignment.strategy",
        "queue.buffering.max.kbytes", "queue.buffering.max.messages", "queued.max.messages.kbytes",
        "queued.min.messages", "receive.message.max.bytes", "reconnect.backoff.max.ms", "reconnect.backoff.ms",
        "request.timeout.ms", "retry.backoff.ms", "session.timeout.ms", "socket.connection.setup.timeout.ms",
        "socket.keepalive.enable", "socket.nagle.disable", "socket.receive.buffer.bytes", "socket.send.buffer.bytes",
        "socket.timeout.ms", "topic.metadata.refresh.interval.ms", "transaction.timeout.ms",
    }
)  # fmt: skip
"""The librdkafka properties that `client:` may set; none of them names a file, a program or a login."""

_EVENT_HUBS_USER = "$ConnectionString"
_QUIET_LONGEST_MS = 180_000
"""Event Hubs drops connections that were silent for four minutes, and metadata grows stale with them."""


class Tls(Settings):
    """Transport encryption; `{}` trusts the system's authorities."""

    ca: str | None = None
    """PEM file of the authorities to trust instead of the system's."""
    certificate: str | None = None
    """PEM file of the client's certificate, for brokers that want one. Renewed files are taken up while running."""
    key: str | None = None
    """PEM file of that certificate's key."""
    key_password: SecretStr | None = None
    """Password of the key."""

    @model_validator(mode="after")
    def _paired(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return self


class OAuth(Settings):
    """A client that gets its tokens from an OAuth 2.0 / OpenID Connect endpoint (Entra ID, Confluent, Keycloak)."""

    token_endpoint: str = Field(pattern=r"https?://.+")
    """URL that gives tokens."""
    client_id: str
    """The client's id."""
    client_secret: SecretStr
    """The client's secret."""
    scope: str | None = None
    """What is asked for, such as `https://NAMESPACE.servicebus.windows.net/.default`."""
    extensions: dict[str, str] = Field(default_factory=dict)
    """SASL extensions, such as Confluent's `logicalCluster` and `identityPoolId`."""
    ca: str | None = None
    """PEM file of the authorities to trust for the endpoint."""


class Connection(Settings):
    """Which cluster, and how to get in."""

    servers: str = "localhost:9092"
    """Brokers to begin with, `HOST:PORT` separated by commas."""
    profile: Literal["kafka", "confluent_cloud", "event_hubs"] = "kafka"
    """Whose cluster: sets what that service wants (TLS, SASL, keepalives, no transactions)."""
    tls: Tls | None = None
    """TLS; on by itself with the profiles of cloud services."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """SASL mechanism of `user` and `password`."""
    user: str | None = None
    """SASL user, or API key; not needed with `connection_string`."""
    password: SecretStr | None = None
    """SASL password, or API secret."""
    connection_string: SecretStr | None = None
    """Event Hubs connection string, in the place of user and password."""
    oauth: OAuth | None = None
    """OAUTHBEARER instead of user and password."""
    client: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further librdkafka properties; only those that tune, none that name files, programs or logins."""

    @field_validator("servers")
    @classmethod
    def _are_addresses(cls, given: str) -> str:
        for one in given.split(","):
            if not one.strip() or "://" in one or any(map(str.isspace, one.strip())):
                raise ValueError(f"servers are HOST:PORT, several separated by commas; not {one!r}")
        return given

    @field_validator("client")
    @classmethod
    def _allowed(cls, given: dict[str, Any]) -> dict[str, Any]:
        refused = sorted(given.keys() - TUNABLE)
        if refused:
            raise ValueError(f"client may not set {', '.join(refused)}; it may set {', '.join(sorted(TUNABLE))}")
        return given

    @model_validator(mode="after")
    def _one_login(self) -> Connection:
        logins = [self.user is not None, self.connection_string is not None, self.oauth is not None]
        if sum(logins) > 1:
            raise ValueError("choose one of user, connection_string and oauth")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        if self.profile == "event_hubs" and not any(logins):
            raise ValueError("profile event_hubs wants a connection_string, user and password, or oauth")
        if self.profile == "confluent_cloud" and not any(logins):
            raise ValueError("profile confluent_cloud wants an API key and secret as user and password, or oauth")
        return self

    @property
    def transactional(self) -> bool:
        """Whether the service has transactions; Event Hubs has them in some tiers only, so none are used there."""
        return self.profile != "event_hubs"

    def librdkafka(self, root: str) -> dict[str, Any]:
        """Properties for a librdkafka client.

        Args:
            root: folder that the files of `tls` are relative to.
        """
        cloud = self.profile != "kafka"
        tls = self.tls or (Tls() if cloud else None)
        sasl = self._sasl(root)
        protocol = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
        found: dict[str, Any] = {"bootstrap.servers": self.servers, "security.protocol": protocol, **sasl}
        if tls:
            found |= _tls(tls, root)
        if self.profile == "event_hubs":
            found |= {
                "socket.keepalive.enable": True, "connections.max.idle.ms": _QUIET_LONGEST_MS,
                "metadata.max.age.ms": _QUIET_LONGEST_MS,
            }  # fmt: skip
        if self.profile == "confluent_cloud":
            found["client.dns.lookup"] = "use_all_dns_ips"
        return {**found, "client.id": "lodestream", **self.client}

    def stamps(self, root: str) -> dict[str, float]:
        """When each file of certificates and keys was last written; compare to see whether one was renewed."""
        named = [self.tls.ca, self.tls.certificate, self.tls.key] if self.tls else []
        paths = [os.path.join(root, name) for name in named if name]
        return {path: os.stat(path).st_mtime for path in paths if os.path.exists(path)}

    def _sasl(self, root: str) -> Mapping[str, Any]:
        if self.oauth is not None:
            return _oauth(self.oauth, root)
        if self.connection_string is not None:
            user, password = _EVENT_HUBS_USER, self.connection_string.get_secret_value()
        elif self.user is not None and self.password is not None:
            user, password = self.user, self.password.get_secret_value()
        else:
            return {}
        return {"sasl.mechanism": self.mechanism, "sasl.username": user, "sasl.password": password}


def _tls(tls: Tls, root: str) -> dict[str, Any]:
    files = {"ssl.ca.location": tls.ca, "ssl.certificate.location": tls.certificate, "ssl.key.location": tls.key}
    found: dict[str, Any] = {key: os.path.join(root, name) for key, name in files.items() if name}
    if tls.key_password is not None:
        found["ssl.key.password"] = tls.key_password.get_secret_value()
    return found


def _oauth(oauth: OAuth, root: str) -> dict[str, Any]:
    found = {
        "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": oauth.token_endpoint, "sasl.oauthbearer.client.id": oauth.client_id,
        "sasl.oauthbearer.client.secret": oauth.client_secret.get_secret_value(),
        "sasl.oauthbearer.scope": oauth.scope,
        "sasl.oauthbearer.extensions": ",".join(f"{key}={value}" for key, value in oauth.extensions.items()) or None,
        "https.ca.location": os.path.join(root, oauth.ca) if oauth.ca else None,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def made(kind: type[Client], settings: Mapping[str, Any]) -> Client:
    """A client of `kind`, such as `confluent_kafka.Consumer`.

    Raises:
        ConfigError: a file of `tls` is missing or no PEM, or `client` has a value that there is not.
    """
    import confluent_kafka as ck

    try:
        return kind(dict(settings), logger=LOG)  # type: ignore[call-arg]
    except ck.KafkaException as error:
        fix = "correct tls, client or what else the cause names"
        raise ConfigError("the Kafka client does not take its settings", cause=error.args[0].str(), fix=fix) from error
