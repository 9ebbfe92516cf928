"""Runs one kind of upkeep on copies of a table, each killed before another effect on the disk: `dying.py OP BASE OUT`.

A process of its own that forks, so that hundreds of kills take seconds; it uses no threads before it forks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from typing import Any

from lodestream.engines.embedded.rebuild import begin_epoch
from lodestream.lake.compaction import everything, rewrite
from lodestream.lake.disk import LocalDisk
from lodestream.lake.retention import expire, expired
from lodestream.lake.table import DeltaTable
from lodestream.lake.vacuum import unneeded, vacuum
from lodestream.testing.faults import ThroughDisk

DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS
"""The time of the upkeep; the table was written ten days before it."""


class MortalDisk(ThroughDisk):
    """Kills the process before effect number `last`."""

    def __init__(self, last: int) -> None:
        super().__init__(LocalDisk())
        self.left = last

    def _step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def _mortal(name: str) -> Any:
    def effect(self: MortalDisk, *arguments: Any) -> Any:
        self._step()
        return getattr(self.inner, name)(*arguments)

    return effect


for _name in ("write", "create", "fsync", "sync_directory", "make_directories", "link", "replace", "unlink"):
    setattr(MortalDisk, _name, _mortal(_name))


def compact(table: DeltaTable) -> None:
    for group in everything(table.snapshot.files.values(), target_bytes=1 << 20, z_columns=("id",)):
        rewrite(table, group, target_bytes=1 << 20, z_columns=("id",), clock_us=NOW_MS * 1000)


def checkpoint(table: DeltaTable) -> None:
    table.checkpoint(NOW_MS * 1000)


def clean(table: DeltaTable) -> None:
    table.clean_log(keep_versions=1, needed_from=10**9)


def delete(table: DeltaTable) -> None:
    vacuum(table, unneeded(table, now_ms=NOW_MS, keep_ms=DAY_MS))


def let_go(table: DeltaTable) -> None:
    if table.snapshot.txns.get("app/retention"):
        return
    files = expired(table.snapshot.files.values(), ["day"], before_ms=NOW_MS - 5 * DAY_MS)
    expire(table, files[:1], application="app", clock_us=NOW_MS * 1000)


def restore(table: DeltaTable) -> None:
    if table.snapshot.metadata.configuration.get("lodestream.epoch") is None:
        begin_epoch(table, 2, clock_us=NOW_MS * 1000)


OPERATIONS = {
    "checkpoint": checkpoint, "clean": clean, "compact": compact, "vacuum": delete, "expire": let_go,
    "restore": restore,
}  # fmt: skip


def main(operation: str, base: str, out: str) -> None:
    """One copy `out/N` for each effect N, until the operation comes to its end."""
    for number in range(500):
        copy = os.path.join(out, str(number))
        shutil.copytree(base, copy)
        child = os.fork()
        if not child:
            table = DeltaTable.open(LocalDisk(), copy)
            assert table is not None
            table.disk = MortalDisk(number)
            OPERATIONS[operation](table)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            print(json.dumps({"kills": number, "code": os.waitstatus_to_exitcode(status)}))
            return
    raise SystemExit("it does not end")


if __name__ == "__main__":
    main(*sys.argv[1:])
