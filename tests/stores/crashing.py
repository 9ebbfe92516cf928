"""Runs a project until idle, and dies by its own hand at a step: `crashing.py PROJECT STEP`, 0 for not at all."""

import itertools
import os
import signal
import sys

from lodestream.app import open_project
from lodestream.lake import crash


def main(project: str, step: int) -> None:
    passed = itertools.count(1)

    def at(_name: str) -> None:
        if next(passed) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    crash.install(at)
    with open_project(project) as app:
        app.apply()
        app.pipeline().run(until_idle=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
