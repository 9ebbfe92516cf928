"""Client certificates: from a name in them to a principal, revocation lists, and TLS that takes up renewed files."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import BinaryIO
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from lodestream.errors import AccessError, ConfigError
from lodestream.model.access import Principal
from lodestream.project.identity import CertificateSettings
from lodestream.project.serving import TlsSettings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEADER_MAX = 16_384
_Seen = tuple[tuple[str, int, int], ...]


class Certificates:
    """Knows whose certificates are whose.

    Args:
        settings: names, and files relative to `root`.
        root: project folder.
        clock: microseconds since 1970 UTC.

    Raises:
        ConfigError: a file cannot be read.
    """

    def __init__(self, settings: CertificateSettings, root: str, clock: Callable[[], int]) -> None:
        self.settings, self._root, self._clock = settings, root, clock
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._lists: tuple[x509.CertificateRevocationList, ...] = ()
        self._revoked()
        self._store = None
        if settings.ca is not None:
            with _file(os.path.join(root, settings.ca)) as file:
                self._store = Store(x509.load_pem_x509_certificates(file.read()))

    def principal(self, der: bytes) -> Principal | None:
        """Whose certificate it is, as a name, when they hold it and when it ends; None when no name in it is known.

        The chain must have been verified by whoever took the connection.

        Args:
            der: the client's certificate.

        Raises:
            AccessError: it has expired, is revoked, is no client's, or names several.
        """
        found = _loaded(der)
        try:
            return self._named(found)
        except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise AccessError("the client certificate cannot be read") from error

    def _named(self, found: x509.Certificate) -> Principal | None:
        now = _time(self._clock())
        if not found.not_valid_before_utc <= now < found.not_valid_after_utc:
            raise AccessError("the client certificate is not valid at this time")
        if not _of_client(found):
            raise AccessError("the client certificate is not for clients")
        self._check_revoked(found)
        names = {self.settings.principals[name] for name in _names(found) if name in self.settings.principals}
        if not names:
            return None
        if len(names) > 1:
            raise AccessError("the client certificate names several principals")
        ends_us = (found.not_valid_after_utc - _EPOCH) // timedelta(microseconds=1)
        via = f"certificate:{found.serial_number:x}"
        return Principal(names.pop(), "service", scopes=tuple(self.settings.scopes), via=via, expires_us=ends_us)

    def forwarded(self, text: str) -> Principal | None:
        """Whose certificate a trusted proxy hands on: `:base64:` of RFC 9440, or PEM with escapes.

        Raises:
            AccessError: as `principal`, or it cannot be read, or is not of the authorities of `ca`.
        """
        der = _forwarded(text)
        if self._store is not None:
            policy = PolicyBuilder().store(self._store).time(_time(self._clock())).build_client_verifier()
            try:
                policy.verify(_loaded(der), [])
            except VerificationError:
                raise AccessError("the client certificate is not of an authority of identity.certificates.ca") from None
        return self.principal(der)

    def still_good(self, serial: str) -> bool:
        """Whether a certificate that let somebody in has not been revoked since."""
        try:
            lists = self._revoked()
        except ConfigError:
            return False
        number = int(serial, 16)
        return not any(one.get_revoked_certificate_by_serial_number(number) for one in lists)

    def _check_revoked(self, found: x509.Certificate) -> None:
        try:
            lists = self._revoked()
        except ConfigError as error:
            raise AccessError("whether the client certificate is revoked cannot be known now") from error
        now = _time(self._clock())
        for one in lists:
            if one.issuer == found.issuer:
                if one.next_update_utc is not None and one.next_update_utc <= now:
                    raise AccessError("the list of revoked certificates is out of date")
                if one.get_revoked_certificate_by_serial_number(found.serial_number) is not None:
                    raise AccessError("the client certificate is revoked")

    def _revoked(self) -> tuple[x509.CertificateRevocationList, ...]:
        """The lists, read anew when their file has changed. Raises ConfigError when it cannot be read."""
        if self.settings.crl is None:
            return ()
        path = os.path.join(self._root, self.settings.crl)
        with self._lock:
            seen = _seen([path])
            if seen != self._seen:
                with _file(path) as file:
                    self._lists = _crls(file.read(), path)
                self._seen = seen
            return self._lists


class ServerTls:
    """TLS of a server whose certificate and revocation list may be renewed while it runs.

    Args:
        tls: files, relative to `root`.
        crl: PEM file of revoked client certificates; None for none.
        root: project folder.

    Raises:
        ConfigError: a file cannot be read.
    """

    def __init__(self, tls: TlsSettings, crl: str | None, root: str) -> None:
        self._tls, self._crl, self._root = tls, crl, root
        self._lock = threading.Lock()
        self._seen = _seen(self._files)
        self._context, self._own = self._made()

    def context(self) -> ssl.SSLContext:
        """For the next connection: of the files as they are now, or, while they cannot be read, as they were."""
        return self.current()[0]

    @property
    def certificate(self) -> bytes:
        """The server's own certificate in DER, which channel binding is about."""
        return self.current()[1]

    def current(self) -> tuple[ssl.SSLContext, bytes]:
        """`context` and `certificate` that go together."""
        with self._lock:
            seen = _seen(self._files)
            if seen != self._seen:
                with contextlib.suppress(ConfigError):  # half renewed: the others follow in a moment
                    (self._context, self._own), self._seen = self._made(), seen
            return self._context, self._own

    @property
    def _files(self) -> list[str]:
        names = (self._tls.certificate, self._tls.key, self._tls.client_ca, self._crl)
        return [self._path(name) for name in names if name is not None]

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _made(self) -> tuple[ssl.SSLContext, bytes]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._path(self._tls.certificate), self._path(self._tls.key))
            if self._tls.client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._path(self._tls.client_ca))
                if self._crl is not None:
                    context.load_verify_locations(self._path(self._crl))
                    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        except (OSError, ssl.SSLError) as error:
            raise ConfigError("a certificate of server.tls cannot be read", reason=str(error)) from error
        with _file(self._path(self._tls.certificate)) as file:
            own = x509.load_pem_x509_certificates(file.read())[0]
        return context, own.public_bytes(Encoding.DER)


def _file(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ConfigError("a file of certificates cannot be read", file=path, reason=error.strerror) from error


def _seen(paths: Sequence[str]) -> _Seen:
    found = []
    for path in paths:
        try:
            stat = os.stat(path)
            found.append((path, stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((path, 0, -1))
    return tuple(found)


def _crls(content: bytes, path: str) -> tuple[x509.CertificateRevocationList, ...]:
    mark = b"-----END X509 CRL-----"
    try:
        found = [x509.load_pem_x509_crl(part + mark) for part in content.split(mark)[:-1]]
    except ValueError as error:
        raise ConfigError("a list of revoked certificates cannot be read", file=path) from error
    if not found:
        raise ConfigError("a list of revoked certificates is not PEM", file=path)
    return tuple(found)


def _loaded(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, InvalidSignature):
        raise AccessError("the client certificate cannot be read") from None


def _of_client(found: x509.Certificate) -> bool:
    """Whether it may be a client's: not an authority's, and, where it says what it is for, for clients."""
    try:
        constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
        if constraints.ca:
            return False
    except x509.ExtensionNotFound:
        pass
    try:
        usages = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages


def _names(found: x509.Certificate) -> list[str]:
    names = [f"subject:{found.subject.rfc4514_string()}"]
    try:
        others = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    names += [f"dns:{name.lower()}" for name in others.get_values_for_type(x509.DNSName)]
    names += [f"email:{name}" for name in others.get_values_for_type(x509.RFC822Name)]
    return names + [f"uri:{name}" for name in others.get_values_for_type(x509.UniformResourceIdentifier)]


def _forwarded(text: str) -> bytes:
    unreadable = AccessError("the client certificate cannot be read")
    if len(text) > _HEADER_MAX:
        raise unreadable
    text = text.strip()
    try:
        if text.startswith(":") and text.endswith(":") and len(text) > 2:
            return base64.b64decode(text[1:-1], validate=True)
        return x509.load_pem_x509_certificate(unquote(text).encode()).public_bytes(Encoding.DER)
    except (binascii.Error, ValueError):
        raise unreadable from None


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
