"""A verb as part of `lodestream up`: it gets its token from there, and stops cleanly when that ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_HANDED = "LODESTREAM_HANDED_TOKEN"
_LOOKS, _PAUSE_S = 10, 0.01


def handed_token() -> str | None:
    """The token for development that this process was started with; None when it was started by itself."""
    return os.environ.get(_HANDED) or None


def main() -> None:
    """Run the verb in the arguments. The first line of stdin is a token or empty; the end of stdin ends the verb."""
    token = _line()
    if token:
        os.environ[_HANDED] = token  # of this process only: nobody reads it from outside
    threading.Thread(target=_watch, name="parent", daemon=True).start()
    from lodestream.cli.root import main as run

    run(sys.argv[1:])


def _line() -> str:
    """The first line, read from the descriptor: a thread within `sys.stdin` would hold its lock to the very end."""
    found = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        found += byte
    return found.decode().strip()


def _watch() -> None:
    parent = os.getppid()
    while os.read(0, 4096):
        pass
    for _ in range(_LOOKS):
        if os.getppid() != parent:  # it was killed, and nobody reads what is said here any more
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            break
        time.sleep(_PAUSE_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
