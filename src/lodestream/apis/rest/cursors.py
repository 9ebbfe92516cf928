"""Where a page ends: a signed text that goes on at the same version, for the same question of the same caller."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from lodestream.apis.problems import ProblemError

_TAG_BYTES = 16
_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends.

    Attributes:
        version: of the table.
        key: text of the first column's value in the last row; None when it is NULL or there is no telling.
        keyed: whether `key` says where to go on.
        skip: rows to leave out from there.
    """

    version: int
    key: str | None
    keyed: bool
    skip: int


class Cursors:
    """Makes and reads cursors.

    Args:
        secret: what they are signed with; the same in every process that serves the lake.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def write(self, place: Place, question: str) -> str:
        """The cursor of a place in the answer to a question."""
        body = json.dumps([place.version, place.key, place.keyed, place.skip], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._tag(body, question) + body).rstrip(b"=").decode()

    def read(self, text: str, question: str) -> Place:
        """The place. Raises ProblemError 400 for a cursor of another question, or one that nobody was given."""
        try:
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if len(text) <= _BYTES_MAX else b""
        except (ValueError, binascii.Error):
            data = b""
        tag, body = data[:_TAG_BYTES], data[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body, question)):
            raise ProblemError(400, "the cursor is not of this question; begin without one")
        version, key, keyed, skip = json.loads(body)
        return Place(version, key, keyed, skip)

    def _tag(self, body: bytes, question: str) -> bytes:
        told = len(question).to_bytes(4, "big") + question.encode() + body
        return hmac.new(self._secret, told, hashlib.sha256).digest()[:_TAG_BYTES]
