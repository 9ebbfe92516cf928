"""Paths in the log: percent-encoded, relative, and never out of the table's folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

from lodestream.errors import CorruptionError

NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
_PLAIN = re.compile(r"(?:[A-Za-z0-9_=+~,@-][A-Za-z0-9_=+~,@.-]*/)*[A-Za-z0-9_=+~,@-][A-Za-z0-9_=+~,@.-]*\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ESCAPED = re.compile(r"[\x00-\x1f\x7f\"#%'*/:=?\\{\[\]^]")
_SEGMENT_BYTES_MAX = 200


class ForeignPathError(CorruptionError):
    """A log names a file outside its table."""


def encode_path(relative: str) -> str:
    """The form in which a relative path stands in the log (a URI path)."""
    return relative if _PLAIN.match(relative) else quote(relative, safe="/=+~,@")


def decode_path(path: str, where: str) -> str:
    """The relative path of a file on disk, from its form in the log.

    Args:
        path: `path` of an action.
        where: the table, for the message.

    Raises:
        ForeignPathError: it leads out of the table's folder, or would for a reader that decodes it twice.
        CorruptionError: it cannot be decoded.
    """
    if _PLAIN.match(path):
        return path
    try:
        relative = unquote_to_bytes(path).decode()
        twice = [unquote_to_bytes(segment) for segment in relative.split("/")]
    except UnicodeDecodeError as error:
        raise CorruptionError("log names a file that cannot be decoded", path=path, table=where) from error
    if _leaves(path) or _leaves(relative) or b".." in twice:
        fix = "the log was changed by hand or by an attacker; restore the table from a copy"
        raise ForeignPathError("log names a file outside its table", path=path, table=where, fix=fix)
    return relative


def _leaves(path: str) -> bool:
    segments = path.split("/")
    return bool(
        not path
        or "\0" in path
        or path[0] in "/\\"
        or _SCHEME.match(segments[0])
        or any(segment in ("", ".", "..") for segment in segments)
        or ".." in path.split("\\")
    )


def partition_folder(columns: Sequence[str], values: Sequence[str | None]) -> str:
    """The folder of a partition, `day=2013-01-01/hour=7`, escaped as Hive and Spark do it.

    A value too long for a file name is cut and marked with its digest: readers take values from the log. (Polars
    2.1 alone takes them from the folder's name and shows the cut one.)
    """
    return "/".join(_segment(column, value) for column, value in zip(columns, values, strict=True))


def _segment(column: str, value: str | None) -> str:
    text = f"{_escape(column)}={NULL_FOLDER if value is None else _escape(value)}"
    raw = text.encode()
    if len(raw) <= _SEGMENT_BYTES_MAX:
        return text
    digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
    return f"{raw[: _SEGMENT_BYTES_MAX - 40].decode(errors='ignore')}~{digest}"


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", text)
