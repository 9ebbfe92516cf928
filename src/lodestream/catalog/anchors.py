"""Signed notes of how far the audit log was: they tell when its tail was cut off or all of it was written anew."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from lodestream.catalog.chain import Anchor
from lodestream.errors import ConfigError, TransientError
from lodestream.lake.disk import LocalDisk

KEY_FILE = "audit.key"
ANCHORS_FILE = "audit.anchors"
_TAIL_BYTES = 4_096
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Read:
    """What a file of anchors holds: those that are right, and what is wrong with the first that is not."""

    anchors: tuple[Anchor, ...]
    problem: str | None = None


class Anchors:
    """The key and the anchors of one lake.

    An anchor is a line: its number, a record's place and digest, the time, and an HMAC-SHA256 that covers the line
    before too, so that no line can be taken out of the middle. Whoever reads the key can make anchors: keep a copy of
    the file where the lake's processes cannot write, and hand it to `lodestream audit verify --anchors`.

    Args:
        folder: where both lie; the lake's folder of keys.
    """

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, ANCHORS_FILE)
        self._folder = folder
        self._key_path = os.path.join(folder, KEY_FILE)
        self._key: bytes | None = None

    @property
    def fresh(self) -> bool:
        """Whether there was never an anchor nor a key here."""
        return not os.path.exists(self._key_path) and not os.path.exists(self.path)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else anchors meanwhile. Raises TransientError when the folder cannot be written."""
        return self._alone(f"{self.path}.lock")

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """No other process of this machine appends meanwhile; whoever asked first is next.

        The database sees to it anyway, but one that lets writers knock until it opens serves some of them late.
        """
        return self._alone(f"{self._key_path}.lock")

    @contextlib.contextmanager
    def _alone(self, path: str) -> Iterator[None]:
        with _writing(path):
            os.makedirs(self._folder, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough while a forked process has a copy
            os.close(lock)

    def newest(self) -> Anchor | None:
        """The last anchor of the file, taken on trust; None when there is none."""
        line = self._last_line()
        return _anchor(line) if line else None

    def add(self, seq: int, digest: str, time_us: int) -> Anchor:
        """Sign and append; call it while `held`. Raises TransientError when it cannot be written."""
        with _writing(self.path):
            if self._key is None:
                self._key = self._read_key() or self._make_key()
            before = self._last_line()
            known = _anchor(before) if before else None
            anchor = Anchor(known.number + 1 if known else 1, seq, digest, time_us)
            mac = _mac(self._key, anchor, _mac_of(before))
            line = json.dumps([anchor.number, seq, digest, time_us, mac], separators=(",", ":")).encode() + b"\n"
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                end = _end(descriptor)
                if os.pwrite(descriptor, line, end) != len(line):
                    raise TransientError("anchor of the audit log is written in part", file=self.path)
                os.ftruncate(descriptor, end + len(line))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return anchor

    def read(self, path: str | None = None) -> Read:
        """Every anchor up to the first that is not right.

        Args:
            path: a copy kept elsewhere.

        Raises:
            ConfigError: a named copy or the key cannot be read.
        """
        key, found = self._read_key(), list[Anchor]()
        try:
            with open(path or self.path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = b""
            if path is not None:
                raise ConfigError("no such file of anchors", file=path) from None
        except OSError as error:
            raise ConfigError("anchors cannot be read", file=path or self.path, cause=error.strerror) from error
        if key is None:
            return Read((), "the key of the anchors is gone" if content else None)
        before = ""
        for number, line in enumerate(content.split(b"\n")[:-1], 1):  # what follows the last newline was never finished
            anchor, mac = _anchor(line), _mac_of(line)
            if anchor is None or not hmac.compare_digest(mac, _mac(key, anchor, before)):
                return Read(
                    tuple(found), f"anchor {number} was changed, or the one before it is not the one it follows"
                )
            if anchor.number != number:
                return Read(tuple(found), f"anchor {number} is missing")
            found.append(anchor)
            before = mac
        return Read(tuple(found))

    def _last_line(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return b""
        return lines[-1] if lines else b""

    def _read_key(self) -> bytes | None:
        try:
            with open(self._key_path, "rb") as file:
                text = file.read().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(
                "key of the audit log cannot be read", file=self._key_path, cause=error.strerror
            ) from error
        try:
            key = bytes.fromhex(text.decode())
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ConfigError("key of the audit log is damaged; put it back from a backup", file=self._key_path)
        return key

    def _make_key(self) -> bytes:
        """Make the key for good, or take the one that another process made first."""
        made = f"{self._key_path}.{secrets.token_hex(4)}"
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES).hex().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                LocalDisk().link(made, self._key_path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made)
        key = self._read_key()
        assert key is not None
        return key


def _mac(key: bytes, anchor: Anchor, before: str) -> str:
    told = f"lodestream anchor 1\n{anchor.number}\n{anchor.seq}\n{anchor.digest}\n{anchor.time_us}\n{before}"
    return hmac.new(key, told.encode(), hashlib.sha256).hexdigest()


def _anchor(line: bytes) -> Anchor | None:
    match _values(line):
        case [int() as number, int() as seq, str() as digest, int() as time_us, str()]:
            return Anchor(number, seq, digest, time_us)
    return None


def _mac_of(line: bytes) -> str:
    match _values(line):
        case [_, _, _, _, str() as mac] if mac.isascii():
            return mac
    return ""


def _values(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _end(descriptor: int) -> int:
    """Where the next line goes: behind the last newline, over what a crash left half written."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL_BYTES)
    found = os.pread(descriptor, size - start, start).rfind(b"\n")
    return start + found + 1 if found >= 0 or start == 0 else size


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError("audit log cannot be anchored", file=path, cause=error.strerror) from error
