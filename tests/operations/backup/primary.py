"""A primary that takes in files, and whoever replicates it, each a process of its own: `primary.py ROOT [REPLICA]`."""

import sys
import time
from pathlib import Path

from lodestream.app import open_project
from tests.engines.lakes import Lab
from tests.operations.backup.copies import replica_of, source


def main(root: str, replica: str | None) -> None:
    if replica is None:
        with open_project(root) as app:
            app.apply()
            app.pipeline().run()
        return
    lab, copy = Lab.at(Path(root)), replica_of(Lab.at(Path(replica)))
    while True:
        copy.follow(source(lab))
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
