"""SCRAM-SHA-256: proves that a client holds a key without the key crossing the network (RFC 5802, RFC 7677).

One exchange is checked against every key of a name, so keys of one name share a salt. A name that nobody has gets a
salt and does as much work as any other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lodestream.errors import AccessError

ITERATIONS = 4096
"""Rounds of PBKDF2 on the client's side; the secret has 256 random bits, so more of them would add nothing."""
MECHANISM = "SCRAM-SHA-256"
MECHANISM_PLUS = "SCRAM-SHA-256-PLUS"
_MESSAGE_MAX = 4096
_REFUSED = "the user name or the key is wrong, or the key has ended"


@dataclass(frozen=True, slots=True)
class Verifier:
    """What is kept of a key to check a proof: it does not let anybody in by itself."""

    stored_key: bytes
    server_key: bytes


def salt(secret: bytes, name: str) -> bytes:
    """The salt of a name, also of one that nobody has; stable as long as the lake's secret is."""
    return _hmac(secret, b"scram salt\0" + name.encode())[:16]


def verifier(text: str, salted: bytes, iterations: int = ITERATIONS) -> Verifier:
    """The verifier of a key's text. Key texts are ASCII, which SASLprep leaves as they are."""
    password = hashlib.pbkdf2_hmac("sha256", text.encode(), salted, iterations)
    return Verifier(_h(_hmac(password, b"Client Key")), _hmac(password, b"Server Key"))


def end_point(certificate: bytes) -> bytes:
    """Binding data `tls-server-end-point` (RFC 5929) of the server's certificate in DER."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    found = x509.load_der_x509_certificate(certificate)
    kind = found.signature_hash_algorithm
    weak = kind is None or isinstance(kind, hashes.MD5 | hashes.SHA1)
    return found.fingerprint(hashes.SHA256() if weak or kind is None else kind)


class ScramServer:
    """One exchange, seen from the server: `first`, then `final`.

    Args:
        username: as the protocol gave it before; None takes the one in the client's first message.
        find_salt: salt of a name, for any name at all.
        find: verifiers to try for a name: as many for a name that nobody has, none of which can match.
        binding: data of `tls-server-end-point` when SCRAM-SHA-256-PLUS was offered; None when it was not.
        nonce: the server's part; made when not given.
    """

    def __init__(
        self, username: str | None, find_salt: Callable[[str], bytes], find: Callable[[str], Sequence[Verifier]],
        *, binding: bytes | None = None, nonce: str | None = None,
    ) -> None:  # fmt: skip
        self.username = username
        self._find_salt, self._find, self._binding = find_salt, find, binding
        self._own = nonce or secrets.token_urlsafe(24)
        self._header, self._bare, self._nonce, self._sent = "", "", "", ""

    def first(self, message: bytes, *, plus: bool = False) -> bytes:
        """The server's first message in answer to the client's.

        Args:
            message: client-first-message.
            plus: whether the client chose SCRAM-SHA-256-PLUS.

        Raises:
            AccessError: the message cannot be read, or its binding does not go with the mechanism.
        """
        parts = _text(message).split(",", 2)
        if len(parts) != 3 or parts[1]:
            raise AccessError("the first SCRAM message cannot be read, or asks for another identity")
        flag = parts[0]
        if plus != (flag == "p=tls-server-end-point") or flag not in ("n", "y", "p=tls-server-end-point"):
            raise AccessError("the channel binding does not go with the SCRAM mechanism")
        if (flag == "y" or plus) and (self._binding is not None) != plus:
            raise AccessError("somebody has taken SCRAM-SHA-256-PLUS out of the offer, or it was never there")
        self._header, self._bare = f"{flag},,", parts[2]
        fields = _fields(self._bare, ("n", "r"))
        if self.username is None:
            self.username = _name(fields[0])
        if not fields[1]:
            raise AccessError("the first SCRAM message has no nonce")
        self._nonce = fields[1] + self._own
        salted = base64.b64encode(self._find_salt(self.username)).decode()
        self._sent = f"r={self._nonce},s={salted},i={ITERATIONS}"
        return self._sent.encode()

    def final(self, message: bytes) -> tuple[int, bytes]:
        """Check the client's proof.

        Returns:
            Which of the verifiers it fits, and the server's final message.

        Raises:
            AccessError: it fits none, or the message cannot be read.
        """
        assert self.username is not None, "first, then final"
        without, mark, proof_text = _text(message).rpartition(",p=")
        if not mark:
            raise AccessError("the last SCRAM message has no proof")
        binding, nonce = _fields(without, ("c", "r"))
        wanted = self._header.encode() + (self._binding or b"" if self._header.startswith("p") else b"")
        if not hmac.compare_digest(_decoded(binding), wanted) or not hmac.compare_digest(
            nonce.encode(), self._nonce.encode()
        ):
            raise AccessError("the last SCRAM message belongs to another exchange")
        proof = _decoded(proof_text)
        if len(proof) != hashlib.sha256().digest_size:
            raise AccessError("the proof of the last SCRAM message cannot be read")
        told = f"{self._bare},{self._sent},{without}".encode()
        found, signature = -1, b""
        for at, one in enumerate(self._find(self.username)):  # all of them, so that the time says nothing
            key = bytes(a ^ b for a, b in zip(proof, _hmac(one.stored_key, told), strict=True))
            answer = _hmac(one.server_key, told)
            if hmac.compare_digest(_h(key), one.stored_key):
                found, signature = at, answer
        if found < 0:
            raise AccessError(_REFUSED)
        return found, b"v=" + base64.b64encode(signature)


def _text(message: bytes) -> str:
    if len(message) > _MESSAGE_MAX:
        raise AccessError("a SCRAM message is too long")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise AccessError("a SCRAM message is not UTF-8") from None


def _fields(text: str, names: tuple[str, ...]) -> list[str]:
    """Values of the attributes that a message begins with; extensions may follow, but none that is mandatory."""
    parts = text.split(",")[: len(names)]
    if [part[:2] for part in parts] != [f"{name}=" for name in names]:
        raise AccessError("a SCRAM message cannot be read")
    return [part[2:] for part in parts]


def _name(text: str) -> str:
    if "=" in text.replace("=2C", "").replace("=3D", ""):
        raise AccessError("the user name of a SCRAM message cannot be read")
    return text.replace("=2C", ",").replace("=3D", "=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AccessError("a SCRAM message cannot be read") from None


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _h(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()
