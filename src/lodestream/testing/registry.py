"""Starts `lodestream registry` in a process of its own, for tests that need a real schema registry."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_STOP_S = 20


@dataclass
class Registry:
    """A registry at work.

    Attributes:
        url: where it answers.
        process: its process; `kill` ends it without a goodbye.
    """

    url: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(_STOP_S)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_S)


def start_registry(*arguments: str, store: str, port: int = 0) -> Registry:
    """Start one; it answers when this returns.

    Args:
        *arguments: more options of `lodestream registry`.
        store: its file or PostgreSQL URL.
        port: 0 is any free one.

    Raises:
        RuntimeError: it ended at once; the message is what it said.
    """
    command = [sys.executable, "-m", "lodestream.cli", "registry", "--port", str(port), "--store", store, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stderr
    url = process.stdout.readline().strip()
    if not url:
        said = process.stderr.read()
        process.wait(_STOP_S)
        _close(process)
        raise RuntimeError(said)
    return Registry(url, process)


@contextlib.contextmanager
def running_registry(*arguments: str, store: str, port: int = 0) -> Iterator[Registry]:
    """A registry that is stopped when the block ends."""
    found = start_registry(*arguments, store=store, port=port)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.stop()
        _close(found.process)


def _close(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
