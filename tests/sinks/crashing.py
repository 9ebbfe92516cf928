"""Runs a project in children that are killed; started as a program, it forks them from a clean interpreter.

A command on stdin is one line of JSON, `{"root": …, "point": …, "nth": …}` or `{"root": …, "seconds": …}`; the answer
is the number of the signal that ended the child, 0 when it came to rest, or text when it failed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Children:
    """Starts children one by one and says how each ended."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sinks.crashing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=ROOT,
        )  # fmt: skip

    def run(self, root: Path, **command: Any) -> int:
        """Run the project until idle, or until it is killed; the number of the signal, 0 for none."""
        self.begin(root, **command)
        return self.ended()

    def begin(self, root: Path, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"root": str(root), **command}) + "\n")
        self._process.stdin.flush()

    def ended(self) -> int:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        assert answer.isdigit(), f"a child failed: {answer}"
        return int(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def _child(command: dict[str, Any]) -> None:
    from lodestream.app import open_project
    from lodestream.lake import crash

    passed = {"nth": 0}

    def at(name: str) -> None:
        if name == command.get("point"):
            passed["nth"] += 1
            if passed["nth"] >= command.get("nth", 1):
                os.kill(os.getpid(), signal.SIGKILL)

    crash.install(at)
    if "seconds" in command:
        killer = threading.Timer(command["seconds"], os.kill, (os.getpid(), signal.SIGKILL))
        killer.daemon = True
        killer.start()
    app = open_project(command["root"])
    app.apply()
    app.pipeline().run(until_idle=True)


def main() -> None:
    import lodestream.app
    import lodestream.sinks.kafka  # noqa: F401 - what children need, imported once

    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                _child(command)
                code = 0
            except BaseException as error:
                sys.stderr.write(f"{time.monotonic():.1f} child: {error!r}\n")
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0 if status == 0 else f"status {status}"
        sys.stdout.write(f"{ended}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
