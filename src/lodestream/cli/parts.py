"""The processes of `lodestream up`: started, heard, and ended together."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO, Any

from lodestream.cli.call import Call
from lodestream.cli.interrupt import STOPPING
from lodestream.errors import ConfigError, ConflictError, TransientError

_START_S = 120.0
_END_S = 60.0
"""A part that has not ended by then, after it was asked to, is killed; nothing is lost by that either."""
_LAST_LINES = 8
_SIGNALLED = 128


class _Part:
    """One process, and what it says."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name, self.process = name, process
        self.lines: deque[str] = deque(maxlen=_LAST_LINES)
        self.answered = threading.Event()
        self.readers: list[threading.Thread] = []


class Parts:
    """Starts verbs of the command line as processes of their own.

    Args:
        call: project, lake and environment for each; what they say is told there, line by line with their name.
        token: handed to each over its standard input, where nobody else reads it.
    """

    def __init__(self, call: Call, token: str | None) -> None:
        self._call, self._token = call, token
        self._parts: dict[str, _Part] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self.said: dict[str, Mapping[str, Any]] = {}

    @property
    def names(self) -> list[str]:
        """Those that were started."""
        return list(self._parts)

    def pid(self, name: str) -> int:
        """The process of a part."""
        return self._parts[name].process.pid

    def start(self, name: str, *arguments: str) -> None:
        """Start a part; its terminal is not ours, so Ctrl-C reaches it through us alone."""
        call = self._call
        command = [sys.executable, "-P", "-m", "lodestream.cli.parent", "--project", call.project]
        command += [*(("--lake", call.lake) if call.lake else ()), *(("--env", call.env) if call.env else ())]
        command += [*(("--debug",) if call.debug else ()), *arguments]
        with self._changed:
            if self._stopping:
                raise Stopped
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                start_new_session=True, errors="replace",
            )  # fmt: skip
            part = self._parts[name] = _Part(name, process)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{self._token or ''}\n")
            process.stdin.flush()
        for stream, listen in ((process.stdout, self._answers), (process.stderr, self._says)):
            thread = threading.Thread(target=listen, args=(part, stream), name=name, daemon=True)
            part.readers.append(thread)
            thread.start()
        threading.Thread(target=self._watch, args=(part,), name=name, daemon=True).start()

    def ready(self, name: str) -> None:
        """Wait until a part has said where it answers, or any has ended.

        Raises:
            TransientError: it takes too long.
        """
        part, deadline = self._parts[name], time.monotonic() + _START_S
        with self._changed:
            while not part.answered.is_set():
                if self._stopping or self._ended() is not None:
                    raise Stopped
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TransientError("a part of lodestream does not answer", part=name)

    def wait(self) -> int | None:
        """Wait until one ends by itself; its exit code. None when all were told to stop."""
        with self._changed:
            while not self._stopping and self._ended() is None:
                self._changed.wait()
            ended = None if self._stopping else self._ended()
        return None if ended is None else self._failed(ended)

    def stop(self) -> None:
        """Ask every part to end after what is under way; safe from any thread, and again."""
        with self._changed:
            first, self._stopping = not self._stopping, True
            self._changed.notify_all()
        if first:
            self._ask()

    def end(self) -> None:
        """Ask every part to end, and wait until it has."""
        self._ask()
        deadline = time.monotonic() + _END_S
        for part in self._parts.values():
            try:
                part.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._call.say(f"{part.name} does not end and is killed; nothing is lost")
                part.process.kill()
                part.process.wait()
            for reader in part.readers:
                reader.join(5)

    def kill(self) -> None:
        """End every part at once."""
        for part in list(self._parts.values()):
            if part.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(part.process.pid, signal.SIGKILL)

    def _ask(self) -> None:
        """The end of its standard input asks a part to end."""
        for part in list(self._parts.values()):
            if part.process.stdin is not None:
                with contextlib.suppress(OSError):
                    part.process.stdin.close()

    def _ended(self) -> _Part | None:
        return next((part for part in self._parts.values() if part.process.poll() is not None), None)

    def _failed(self, part: _Part) -> int:
        for reader in part.readers:
            reader.join(5)
        code = part.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        self._call.say(f"{part.name} {how}, so the others end too. Its last words:")
        for line in part.lines or ["(nothing)"]:
            self._call.say(f"  {line}")
        return _SIGNALLED - code if code < 0 else code or 1

    def _watch(self, part: _Part) -> None:
        part.process.wait()
        with self._changed:
            self._changed.notify_all()

    def _answers(self, part: _Part, stream: IO[str]) -> None:
        for line in stream:
            said = _object(line)
            if said is None:
                self._tell(part, line)
            elif "error" not in said:  # which is told in words as well
                with self._changed:
                    self.said[part.name] = said
                    part.answered.set()
                    self._changed.notify_all()

    def _says(self, part: _Part, stream: IO[str]) -> None:
        for line in stream:
            self._tell(part, line)

    def _tell(self, part: _Part, line: str) -> None:
        text = line.rstrip("\n")
        if text and not (self._stopping and text.startswith(STOPPING)):  # that was said for all of them
            part.lines.append(text)
            self._call.say(f"{part.name:8} | {text}")


def _object(line: str) -> dict[str, Any] | None:
    """The JSON object of a line, None when it is something else."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Stopped(Exception):  # noqa: N818 - nothing is wrong: it is how a start ends early
    """The start was interrupted: a part has ended, or all are to."""


class Place:
    """The file that says that the parts run, and where."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, told: Mapping[str, Any]) -> None:
        """Say where, without the token."""
        url = told["url"].partition("#")[0] if told["url"] else None
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "url": url, "postgres": told["postgres"]}, self._file)
        self._file.flush()


@contextlib.contextmanager
def only_one(lake: str) -> Iterator[Place]:
    """Hold the place of the one `up` of a lake.

    Raises:
        ConflictError: another one runs.
    """
    folder = os.path.join(lake, "_lodestream")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "up.json"), "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            known: dict[str, Any] = {}
            with contextlib.suppress(ValueError):
                known = json.load(file)
            raise ConflictError(
                "`lodestream up` runs on this lake already", pid=known.get("pid"), url=known.get("url"),
                fix="use that one, or end it first",
            ) from error  # fmt: skip
        place = Place(file)
        place.write({"url": None, "postgres": None})
        try:
            yield place
        finally:
            file.truncate(0)


def is_free(host: str, port: int) -> bool:
    """Whether a port can be listened on. Raises ConfigError when the address is none of ours."""
    try:
        family, _, _, _, _ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return False
        raise ConfigError("cannot listen", host=host, port=port, reason=str(error)) from error
    return True
