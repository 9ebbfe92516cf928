"""Talks HTTP with a schema registry: authentication, TLS, bounds, retries, and errors by what they mean."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import httpx

from lodestream.errors import AccessError, ConfigError, TransientError
from lodestream.ports.registry import SchemaRefusedError, UnknownSchemaError

ANSWER_BYTES_MAX = 16 << 20
_TRIES = 3
_WAIT_S = 0.2
_REST_S = 1.0
"""How long nothing is asked after the registry did not answer, so that an outage costs little."""
_AGAIN = (408, 425, 429)
_NOT_THERE = (40401, 40402, 40403)


class RegistryHttp:
    """One registry over HTTP. May be used by many threads.

    Redirects are not followed and proxies of the environment not used, so that credentials go nowhere else.

    Args:
        settings: `url`, and `user`, `password`, `ca`, `certificate`, `key` where they are needed.
        clock: seconds that only grow.

    Raises:
        ConfigError: the settings do not fit, or a file of them cannot be read.
    """

    def __init__(self, settings: Mapping[str, Any], clock: Callable[[], float]) -> None:
        url = httpx.URL(str(settings["url"]))
        user, password = settings.get("user") or unquote(url.username), settings.get("password")
        password = unquote(url.password) if password is None else password
        url = url.copy_with(username=None, password=None)
        self.url = str(url).rstrip("/")
        self._clock = clock
        self._closing = threading.Event()
        self._resting_until = float("-inf")
        self._client = httpx.Client(
            auth=httpx.BasicAuth(user, password) if user else None,
            verify=_context(settings) if url.scheme == "https" else False,
            timeout=httpx.Timeout(10.0, connect=3.0),
            limits=httpx.Limits(max_keepalive_connections=0),  # asked rarely; nothing to close when forgotten
            follow_redirects=False,
            trust_env=False,
            headers={"Accept": "application/vnd.schemaregistry.v1+json, application/json"},
        )

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path. Raises as `post` does."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a JSON body.

        Raises:
            UnknownSchemaError: the registry has no such schema, version or subject.
            SchemaRefusedError: it does not take the schema.
            ConfigError: this is no registry.
            AccessError: it does not let us.
            TransientError: it does not answer.
        """
        return self._ask("POST", path, body)

    def close(self) -> None:
        """Let go of the connections and end what waits; twice is harmless."""
        self._closing.set()
        self._client.close()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        rest = self._resting_until - self._clock()
        if rest > 0:
            raise TransientError("schema registry does not answer", retry_after_s=rest, registry=self.url)
        for turn in range(_TRIES):
            try:
                status, headers, data = self._once(method, path, body)
            except httpx.TransportError as error:
                cause, wait = str(error) or type(error).__name__, None
                if _alert(error):
                    raise AccessError(
                        "schema registry refuses our certificate; set certificate: and key: to ones of its CA",
                        registry=self.url, cause=cause,
                    ) from error  # fmt: skip
                if _is_certificate(error):
                    raise ConfigError(
                        "certificate of the schema registry is not trusted; name its CA with ca:, or check the address",
                        registry=self.url, cause=cause,
                    ) from error  # fmt: skip
            except RuntimeError as error:  # closed while it was asked
                raise TransientError("schema registry was closed", registry=self.url) from error
            else:
                if status < 500 and status not in _AGAIN:
                    return self._read(status, data)
                cause, wait = f"HTTP {status}", _seconds(headers.get("retry-after"))
            if turn + 1 < _TRIES:
                self._closing.wait(min(wait if wait is not None else _WAIT_S * 4**turn, 2.0))
        self._resting_until = self._clock() + _REST_S
        raise TransientError(
            "schema registry does not answer", retry_after_s=max(wait or 0.0, _REST_S), registry=self.url, cause=cause
        )

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, httpx.Headers, bytes]:
        with self._client.stream(method, f"{self.url}{path}", json=body) as answer:
            data = bytearray()
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > ANSWER_BYTES_MAX:
                    raise ConfigError(
                        "answer of the schema registry is too large", registry=self.url, bytes_max=ANSWER_BYTES_MAX
                    )
            return answer.status_code, answer.headers, bytes(data)

    def _read(self, status: int, data: bytes) -> dict[str, Any]:
        try:
            told = json.loads(data)
        except (ValueError, RecursionError):
            told = None
        if 200 <= status < 300 and isinstance(told, dict):
            return told
        code = told.get("error_code") if isinstance(told, dict) else None
        said = str(told.get("message"))[:2000] if isinstance(told, dict) else None
        if status in (401, 403):
            raise AccessError(
                "schema registry refuses; check user and password, or the certificate", registry=self.url, said=said
            )
        if status == 404 and code in _NOT_THERE:
            raise UnknownSchemaError(said or "not there")
        if status in (409, 422):
            raise SchemaRefusedError("schema registry refuses the schema", registry=self.url, said=said)
        raise ConfigError("no schema registry answers at this address", registry=self.url, status=status, said=said)


def _context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    ca, certificate, key = (settings.get(name) for name in ("ca", "certificate", "key"))
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "TLS files of the schema registry cannot be used", ca=ca, certificate=certificate, key=key, cause=str(error)
        ) from error
    return context


def _alert(error: BaseException) -> bool:
    """Whether the other side ended the handshake over our certificate."""
    return any(
        isinstance(one, ssl.SSLError) and "ALERT" in (one.reason or "") and ("CERT" in one.reason or "CA" in one.reason)
        for one in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = inner.__cause__ or inner.__context__


def _is_certificate(error: BaseException) -> bool:
    """Whether the other side's certificate is the cause, which no second try mends."""
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _causes(error))


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; None when there is none, or it is a date."""
    return min(float(text), 60.0) if text is not None and text.isascii() and text.isdigit() else None
