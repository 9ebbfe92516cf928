"""The files of a cut, part by part: what each is called in a copy, and whether it may ever change under its name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from lodestream.engines.embedded.store import FOLDED
from lodestream.errors import CorruptionError, DataLossRefused
from lodestream.lake.actions import AddFile
from lodestream.lake.checkpoint import Contents, count_actions, write_checkpoint
from lodestream.lake.disk import Disk
from lodestream.lake.layout import caught_up_file, erasures_folder, flow_folder
from lodestream.lake.log import Snapshot, list_log, load, log_folder, read_commit
from lodestream.lake.paths import decode_path
from lodestream.operations.backup.cut import Cut, FlowCut, TableCut


@dataclass(frozen=True, slots=True)
class Item:
    """A file to copy.

    Attributes:
        path: in the copy: `lake/…`, `home/…`, `project/…`.
        read: gives its content; FileNotFoundError when it has gone.
        size: bytes that it must have; None for any.
        fixed: whether its content never changes while its name stands, so that it is copied once.
        early: whether nobody looks at it before a log or a plan names it; the others follow, in this order.
        must: whether the copy is worth nothing without it.
    """

    path: str
    read: Callable[[], bytes]
    size: int | None = None
    fixed: bool = True
    early: bool = False
    must: bool = True


Part = tuple[str, Callable[[], Iterator[Item]]]
"""The name of a part of a lake, and its files in the order in which they are put in place."""


def parts(
    disk: Disk, lake: str, cut: Cut, erasures_before: Mapping[str, str], since: Mapping[str, int] | None = None
) -> list[Part]:  # fmt: skip
    """The parts of the lake itself, in the order in which they are put in place.

    Args:
        disk: the lake's disk.
        lake: its root.
        cut: the moment.
        erasures_before: per flow, the last erasure that had gone through its table when it was copied last.
        since: by table's path, the version that readers of the copy see now; None where nobody reads it.
    """
    found: list[Part] = [("lake", partial(_lake, disk, lake, cut))]
    for table in cut.tables:
        if table.flow is not None:
            same = erasures_before.get(str(table.flow.name), table.flow.erasure) == table.flow.erasure
            found.append((f"flow {table.flow.name}", partial(_flow, disk, lake, table.flow, same)))
        found.append((f"table {table.path.replace(os.sep, '/')}", partial(_table, disk, lake, table, since)))
    return found


def _at(disk: Disk, lake: str, *below: str, fixed: bool = True, early: bool = False, must: bool = True,
        size: int | None = None) -> Item:  # fmt: skip
    path = os.path.join(*below)
    read = partial(disk.read, os.path.join(lake, path))
    return Item(f"lake/{path}", read, size, fixed, early, must)


def _told(path: str, data: bytes) -> Item:
    return Item(f"lake/{path}", lambda: data, fixed=False)


# --- a table ----------------------------------------------------------------------------------------------------------


def _table(disk: Disk, lake: str, table: TableCut, since: Mapping[str, int] | None) -> Iterator[Item]:
    """Data files, then checkpoints, then the log: a log that is read names no file that is not there.

    Versions between two cuts may have had files that are gone, such as those of open windows. Where somebody reads the
    copy, it then gets a checkpoint of the cut, so that they go from cut to cut.
    """
    path = os.path.join(lake, table.path)
    snapshot = load(disk, path, table.version)
    if snapshot is None or snapshot.metadata.id != table.id:
        raise CorruptionError("table was deleted or replaced while it was copied", table=path)
    names = list_log(disk, path)
    for add in snapshot.files.values():
        yield _data(disk, lake, table, add)
    had = set()
    for add in _gone_but_read(disk, path, table, names.commits):
        # One that was copied and is gone here was erased, or is not needed any more.
        if add.path not in snapshot.files and disk.exists(os.path.join(path, add.file)):
            had.add(add.path)
            yield _data(disk, lake, table, add, must=False)
    log = os.path.relpath(log_folder(path), path)
    whole = [version for version in names.checkpoints if version <= table.version]
    for version in whole:
        for name in names.checkpoints[version]:
            yield _at(disk, lake, table.path, log, name)
    if since is not None and table.version not in names.checkpoints:
        fresh = range(since.get(table.path, -1) + 1, table.version)
        between = (add.path for v in fresh if v in names.commits for add in read_commit(disk, path, v).adds)
        if any(one not in snapshot.files and one not in had for one in between):
            read = partial(_checkpoint, snapshot)
            yield Item(f"lake/{table.path}/{log}/{table.version:020d}.checkpoint.parquet", read, fixed=False)
    first = min((version for version in names.commits), default=0)
    for version in range(first, table.version + 1):
        if version in names.commits:
            yield _at(disk, lake, table.path, log, f"{version:020d}.json")
    if whole:
        read = partial(_hint, disk, log_folder(path), max(whole), names.checkpoints[max(whole)])
        yield Item(f"lake/{table.path}/{log}/_last_checkpoint", read, fixed=False)


def _data(disk: Disk, lake: str, table: TableCut, add: AddFile, *, must: bool = True) -> Item:
    return _at(disk, lake, table.path, add.file, early=True, must=must, size=add.size or None)


def _checkpoint(snapshot: Snapshot) -> bytes:
    held = Contents(snapshot.metadata, snapshot.protocol, snapshot.files, snapshot.tombstones, snapshot.txns)
    return write_checkpoint(held)[0]


def _gone_but_read(disk: Disk, path: str, table: TableCut, commits: frozenset[int]) -> Iterator[AddFile]:
    """Files that are live no more and that a reader, a replay or a proof still reads.

    A file of a version that the lake itself no longer keeps is nothing that a copy could have.
    """
    seen: set[str] = set()
    for version in range(table.unread, table.version + 1):
        if version in commits:
            for add in read_commit(disk, path, version).adds:
                if add.data_change and add.path not in seen:
                    seen.add(add.path)
                    yield add
    for version in sorted(table.pinned):
        try:
            earlier = load(disk, path, version)
        except (DataLossRefused, CorruptionError):
            continue
        for add in earlier.files.values() if earlier is not None else ():
            if add.path not in seen:
                seen.add(add.path)
                yield add
    for name in table.needed - seen:
        yield AddFile(name, file=decode_path(name, path))


def _hint(disk: Disk, folder: str, version: int, names: tuple[str, ...]) -> bytes:
    told = {"version": version, "size": sum(count_actions(disk.read(os.path.join(folder, name))) for name in names)}
    return json.dumps(told | ({"parts": len(names)} if len(names) > 1 else {})).encode()


# --- a flow -----------------------------------------------------------------------------------------------------------


def _flow(disk: Disk, lake: str, flow: FlowCut, same_erasure: bool) -> Iterator[Item]:
    """State, then plans up to the last committed batch; what folded ones had read is looked at after the listing."""
    folder = os.path.join(flow_folder("", flow.name), str(flow.epoch))
    for name in flow.state:
        yield _at(disk, lake, folder, "state", name, early=True)
    plans = os.path.join(folder, "plans")
    for name in sorted(disk.list(os.path.join(lake, plans))):
        if name[:20].isdigit() and name.endswith(".json") and int(name[:20]) <= flow.batch:
            # An erasure takes values out of plans; one that has gone meanwhile is in the file of folded ones.
            yield _at(disk, lake, plans, name, fixed=same_erasure, must=False)
    yield _at(disk, lake, plans, FOLDED, fixed=False, must=False)
    if disk.exists(caught_up_file(lake, flow.name)):
        yield _at(disk, lake, caught_up_file("", flow.name), must=False)


# --- the lake ---------------------------------------------------------------------------------------------------------


def _lake(disk: Disk, lake: str, cut: Cut) -> Iterator[Item]:
    """Erasures, and how far sinks are."""
    below = erasures_folder("")
    if cut.erasures:
        yield _at(disk, lake, below, "key")
    for one in cut.erasures:
        yield _told(os.path.join(below, f"{one.id}.json"), json.dumps(asdict(one), sort_keys=True, indent=1).encode())
    for path, data in cut.sinks.items():
        yield _told(path, data)
