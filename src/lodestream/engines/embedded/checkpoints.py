"""Where Spark's queries keep how far they are: one folder per time that Spark took the table over."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass

from lodestream.errors import CorruptionError
from lodestream.lake.disk import Disk, replace_durable
from lodestream.model.batch import SourceRange

_BEGAN = "began.json"
_FOLDER = "spark"
DELETIONS = "deletions"
"""Folder beside them with the deletions that tables of changes remember."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A query's checkpoint, and where the query began.

    Attributes:
        path: the folder.
        batch: the flow's batch after which Spark took over, which the query's batch 0 repeats; 0 when Spark began the
            table, whose batch 1 is the query's batch 0.
        seed, joined_seed: folders in it with the rows that the state then stood for, and those of the stream that is
            joined; empty for none.
        upto, upstream_batch: the upstream's version that was taken in last then, -1 for none, and its batch.
        joined_upto, joined_batch: the same of the stream that is joined.
        consumed: what was read of each unit of the source then.
    """

    path: str
    batch: int = 0
    seed: str = ""
    upto: int = -1
    upstream_batch: int = 0
    joined_seed: str = ""
    joined_upto: int = -1
    joined_batch: int = 0
    consumed: tuple[SourceRange, ...] = ()

    def batch_of(self, number: int) -> int:
        """The flow's number of the query's batch `number`."""
        return number + (self.batch or 1)

    def number_of(self, batch: int) -> int:
        """The query's number of the flow's batch."""
        return batch - (self.batch or 1)

    @property
    def started(self) -> int:
        """The last of the flow's batches that the query has begun, or the one before its first."""
        folder = os.path.join(self.path, "offsets")
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return self.batch_of(max((int(name) for name in names if name.isdigit()), default=-1))

    @property
    def query(self) -> str | None:
        """The query's id, None when there is none yet or it is lost."""
        try:
            with open(os.path.join(self.path, "metadata"), encoding="utf-8") as file:
                return str(json.load(file)["id"])
        except (OSError, ValueError, KeyError):
            return None

    def put(self, disk: Disk) -> None:
        """Write down where it began, durably; from then on `checkpoint_at` finds it."""
        told = asdict(self)
        del told["path"]
        replace_durable(disk, os.path.join(self.path, _BEGAN), json.dumps(told, sort_keys=True).encode())


def checkpoint_at(disk: Disk, root: str, batch: int) -> Checkpoint | None:
    """The checkpoint of the query that took over after a batch; 0 for the one that began the table.

    Args:
        disk: the seam for every effect.
        root: folder of the flow's epoch.
        batch: the flow's batch.

    Returns:
        None while there is none, or none that is ready.
    """
    if batch == 0:
        return Checkpoint(os.path.join(root, _FOLDER))
    path = folder_at(root, batch)
    began = os.path.join(path, _BEGAN)
    if not disk.exists(began):
        return None
    try:
        told = json.loads(disk.read(began))
        return Checkpoint(path, **told | {"consumed": tuple(SourceRange(**one) for one in told["consumed"])})
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptionError("where Spark took over cannot be read; begin the table again", path=began) from error


def folder_at(root: str, batch: int) -> str:
    """Folder for the checkpoint of a query that takes over after a batch."""
    return os.path.join(root, f"{_FOLDER}-{batch}")


def checkpoint_folders(disk: Disk, root: str) -> list[str]:
    """Names of the folders of all checkpoints, also of those that are not ready."""
    split = ((name, name.partition("-")) for name in disk.list(root))
    return [name for name, (folder, dash, batch) in split if folder == _FOLDER and (batch.isdigit() if dash else True)]


def forget_spark(disk: Disk, root: str) -> None:
    """Delete checkpoints, with the rows in them, and remembered deletions: another engine has gone on without them."""
    for name in (*checkpoint_folders(disk, root), DELETIONS):
        folder = os.path.join(root, name)
        for one in disk.walk(folder):
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(os.path.join(folder, one.path))


def checkpoint_of(disk: Disk, root: str, query: str) -> Checkpoint | None:
    """The checkpoint of a query by its id, None when it is lost."""
    for name in checkpoint_folders(disk, root):
        found = checkpoint_at(disk, root, int(name.partition("-")[2] or 0))
        if found is not None and found.query == query:
            return found
    return None
