"""Certificates for tests: an authority of one's own that signs servers and clients, good ones and bad ones."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority in a folder; `certificate` is what its clients trust.

    Args:
        folder: gets all files, made when missing.
        now: the time that certificates begin at, less a day.
        name: common name of the authority.
    """

    def __init__(self, folder: Path, now: dt.datetime, name: str = "Lodestream test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._now = folder, now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = (
            self._begin(self._name, self._key.public_key(), now - _DAY, now + 3650 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._own = signed
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, hosts: tuple[str, ...] = ("localhost", "127.0.0.1"), expired: bool = False,
        client: bool = True,
    ) -> Identity:  # fmt: skip
        """A certificate for a server or a client.

        Args:
            name: common name; also the files' name.
            hosts: DNS names, addresses, URIs and mail addresses it is good for.
            expired: whether it ended an hour before `now`.
            client: whether it is for clients too.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        begin, end = (
            (self._now - 2 * _DAY, self._now - _DAY / 24) if expired else (self._now - _DAY, self._now + 30 * _DAY)
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        for_whom = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
        usages = x509.ExtendedKeyUsage(for_whom)
        signed = (
            self._begin(subject, key.public_key(), begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
            .add_extension(usages, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        made = Identity(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        made.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        made.key.chmod(0o600)
        return made

    def revoke(self, *revoked: Identity, name: str = "crl", outdated: bool = False) -> Path:
        """A list of revoked certificates, as a PEM file.

        Args:
            *revoked: the certificates on it.
            name: of the file.
            outdated: whether the next one was due before `now`.
        """
        begin, end = (self._now - 3 * _DAY, self._now - 2 * _DAY) if outdated else (self._now - _DAY, self._now + _DAY)
        made = x509.CertificateRevocationListBuilder().issuer_name(self._name).last_update(begin).next_update(end)
        for one in revoked:
            serial = x509.load_pem_x509_certificate(one.certificate.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin).build()
            made = made.add_revoked_certificate(entry)
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        signed = (
            made.add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(known, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{name}.pem"
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return path

    def _begin(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begin: dt.datetime, end: dt.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


def _general(host: str) -> x509.GeneralName:
    if "://" in host:
        return x509.UniformResourceIdentifier(host)
    if "@" in host:
        return x509.RFC822Name(host)
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
