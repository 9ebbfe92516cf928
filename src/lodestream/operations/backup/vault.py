"""Where copies lie and what is known of them: blobs by digest, lists of files, points, and a journal of the one begun.

    backup.json          what this is, and the version of its form
    points/<id>.json     one point, whole as soon as it is there
    blobs/<2>/<digest>   files, packs of small files, and lists of files, each named by its SHA-256
    journal/<id>.jsonl   files that were copied for a point that is not whole yet
    turn.json            who works on it now

A blob never changes, so it does not matter who wrote it, or how often; a point is written when all that it names is
durable, and a file that no point names is nobody's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lodestream.errors import ConfigError, ConflictError, CorruptionError
from lodestream.lake.crash import point
from lodestream.lake.disk import Data, Disk, Stored, put_if_absent
from lodestream.operations.backup.turn import Turn, renewed

FORMAT = 1
"""Version of the form; a set of a later one is refused."""
_MARKER = "backup.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a point.

    Attributes:
        path: `lake/…`, `home/…` or `project/…`.
        size: bytes.
        digest: SHA-256 of its content, hexadecimal.
        blob: digest of the blob that holds it; None when it lies in its place in a replica.
        offset: where it begins in a pack; None when the blob is the file.
    """

    path: str
    size: int
    digest: str
    blob: str | None = None
    offset: int | None = None

    def to_line(self) -> str:
        """The entry as one line of JSON."""
        return json.dumps([self.path, self.size, self.digest, self.blob, self.offset], ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one table, flow or other part: blobs that say, one after the other, what joined and what left."""

    lists: tuple[str, ...]
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a lake.

    Attributes:
        id: later ones are greater.
        made_us: when it was begun, microseconds since 1970 UTC.
        project: name of the project.
        lake: where it was.
        tables: what each table was: `path`, `id`, `version`, and of its flow `flow`, `epoch`, `batch`, `state`.
        groups: the files, by part, in the order in which they are put in place.
        erasures: the erasures that had been asked for: `id`, `time_us`, `columns`, and whether they were `done`.
        left_out: what of the lake it does not hold, in words.
    """

    id: str
    made_us: int
    project: str
    lake: str
    tables: tuple[Mapping[str, Any], ...]
    groups: Mapping[str, Group]
    erasures: tuple[Mapping[str, Any], ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def file_count(self) -> int:
        """Number of files."""
        return sum(group.files for group in self.groups.values())

    @property
    def byte_count(self) -> int:
        """Bytes of all files."""
        return sum(group.bytes for group in self.groups.values())

    def to_json(self) -> bytes:
        """The point with a digest over all of it."""
        body = asdict(self)
        return json.dumps({"digest": _told(body), **body}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, path: str) -> Point:
        """Read `to_json`'s form. Raises CorruptionError on anything else."""
        try:
            body = json.loads(data)
            if body.pop("digest") != _told(body):
                raise ValueError("digest")
            groups = {
                name: Group(tuple(one["lists"]), one["files"], one["bytes"]) for name, one in body["groups"].items()
            }
            told: dict[str, Any] = {key: body[key] for key in ("id", "made_us", "project", "lake")}
            told |= {key: tuple(body[key]) for key in ("tables", "erasures", "left_out")}
            return cls(**told, groups=groups)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fix = "restore another point; lodestream backup --list --verify tells which are whole"
            raise CorruptionError("point of a backup is damaged", path=path, fix=fix) from error


def _told(body: Mapping[str, Any]) -> str:
    return digest_of(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def digest_of(data: Data) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Vault:
    """One backup set, or what a replica keeps of its own.

    Args:
        disk: the seam for every effect.
        root: folder or URL.
    """

    def __init__(self, disk: Disk, root: str) -> None:
        self.disk, self.root = disk, root
        self._turn: Turn | None = None

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether there is a set of a form that can be read.

        Raises:
            ConfigError: it was made by a newer version.
            CorruptionError: what says so cannot be read.
        """
        path = os.path.join(self.root, _MARKER)
        try:
            told = json.loads(self.disk.read(path))
            made = int(told["format"])
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptionError("file that says what this set is cannot be read", path=path) from error
        if made > FORMAT:
            fix = "use the version of lodestream that made it, or a later one"
            raise ConfigError("backup set has a newer form than this version knows", place=self.root, form=made,
                              known=FORMAT, fix=fix)  # fmt: skip
        return True

    def check_place(self) -> None:
        """Raise ConfigError when there is something else than a set."""
        if self.exists:
            return
        if there := [name for name in self.disk.list(self.root) if not name.startswith(".")]:
            fix = "name an empty place, or a backup set"
            raise ConfigError("place is not empty and not a backup set", place=self.root, holds=min(there),
                              fix=fix)  # fmt: skip

    def make(self, project: str) -> None:
        """Say that this is a set, unless it is one."""
        if not self.exists:
            told = json.dumps({"format": FORMAT, "project": project}).encode()
            put_if_absent(self.disk, os.path.join(self.root, _MARKER), told)

    @contextlib.contextmanager
    def turn(self, clock: Callable[[], int]) -> Iterator[None]:
        """Nobody else makes or prunes points meanwhile, as far as a store can keep them from it; see `Turn`.

        Args:
            clock: microseconds since 1970 UTC.

        Raises:
            ConflictError: somebody else does.
        """
        turn = Turn(self.disk, self.root, clock)
        turn.take()
        self._turn = turn
        try:
            with renewed(turn.keep):
                yield
        finally:
            self._turn = None
            turn.leave()

    def keep_turn(self) -> None:
        """Look whether it is still our turn, before what others would suffer from. Raises ConflictError if not."""
        if self._turn is not None:
            self._turn.keep()

    # --- blobs --------------------------------------------------------------------------------------------------------

    def _blob(self, digest: str) -> str:
        return os.path.join(self.root, "blobs", digest[:2], digest)

    def blobs(self) -> dict[str, Stored]:
        """Every blob by its digest, its path relative to their folder."""
        found = self.disk.walk(os.path.join(self.root, "blobs"))
        return {os.path.basename(one.path): one for one in found}

    def put_blob(self, data: Data, digest: str | None = None) -> str:
        """Write content durably, unless it is there; its digest, which the caller may know."""
        digest = digest or digest_of(data)
        put_if_absent(self.disk, self._blob(digest), data)
        return digest

    def blob(self, digest: str) -> bytes:
        """The content of a blob.

        Raises:
            CorruptionError: it is missing, or not what was written.
        """
        path = self._blob(digest)
        try:
            data = self.disk.read(path)
        except FileNotFoundError:
            fix = "restore another point, or make a new one, which copies it again"
            raise CorruptionError("file of a backup is missing", path=path, fix=fix) from None
        if digest_of(data) != digest:
            fix = "delete it and make a new point, which copies it again; or restore another point"
            raise CorruptionError("file of a backup is damaged", path=path, fix=fix)
        return data

    # --- points -------------------------------------------------------------------------------------------------------

    def points(self) -> list[str]:
        """Ids of the whole points, the oldest first."""
        names = self.disk.list(os.path.join(self.root, "points"))
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def point(self, id_: str) -> Point:
        """A point. Raises ConfigError when there is none of that name, CorruptionError when it is damaged."""
        path = os.path.join(self.root, "points", f"{id_}.json")
        try:
            return Point.from_json(self.disk.read(path), path)
        except FileNotFoundError:
            known = ", ".join(self.points()[-5:]) or None
            raise ConfigError("no such point", point=id_, newest=known, fix="lodestream backup --list") from None

    def read_points(self) -> tuple[list[Point], dict[str, CorruptionError]]:
        """The points that can be read, the oldest first, and by id what is wrong with the others."""
        points, damaged = [], {}
        for id_ in self.points():
            try:
                points.append(self.point(id_))
            except CorruptionError as error:
                damaged[id_] = error
        return points, damaged

    def newest(self) -> Point | None:
        """The newest point that can be read; None when there is none."""
        for id_ in reversed(self.points()):
            with contextlib.suppress(CorruptionError):
                return self.point(id_)
        return None

    def put_point(self, made: Point) -> None:
        """Make a point whole; all that it names is durable."""
        point("backup.before_point")
        if not put_if_absent(self.disk, os.path.join(self.root, "points", f"{made.id}.json"), made.to_json()):
            raise ConflictError("a point of that name is there", point=made.id, place=self.root)
        point("backup.point")

    def drop_point(self, id_: str) -> None:
        """Take a point away; its blobs stay until `sweep`."""
        with contextlib.suppress(FileNotFoundError):
            self.disk.unlink(os.path.join(self.root, "points", f"{id_}.json"))

    def sweep(self, kept: Collection[str]) -> tuple[int, int]:
        """Delete every blob but these and those of the journal; how many went, and their bytes."""
        held = {*kept, *(entry.blob for entry in self.journal().values())}
        unneeded = [one for digest, one in self.blobs().items() if digest not in held]
        for one in unneeded:
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(os.path.join(self.root, "blobs", one.path))
        return len(unneeded), sum(one.bytes for one in unneeded)

    # --- lists of files -----------------------------------------------------------------------------------------------

    def entries(self, group: Group | None) -> dict[str, Entry]:
        """The files of a part of a point, by path. Raises CorruptionError when a list is damaged."""
        found: dict[str, Entry] = {}
        for digest in group.lists if group is not None else ():
            for line in self.blob(digest).splitlines():
                told = json.loads(line)
                if isinstance(told, str):
                    found.pop(told, None)
                else:
                    found[told[0]] = Entry(*told)
        return found

    def put_entries(self, now: Mapping[str, Entry], before: Mapping[str, Entry], group: Group | None) -> Group:
        """Write down a part's files as what changed since an earlier point; anew once that is longer than they are."""
        changed = [entry.to_line() for path, entry in now.items() if before.get(path) != entry]
        left = [json.dumps(path, ensure_ascii=False) + "\n" for path in before if path not in now]
        size = sum(entry.size for entry in now.values())
        if group is not None and not changed and not left:
            return group
        lists = group.lists if group is not None else ()
        if len(lists) >= _LISTS_MAX or len(changed) + len(left) >= len(now):
            lists, left, changed = (), [], [entry.to_line() for entry in now.values()]
        pieces = list(_pieces([*left, *changed]))
        return Group((*lists, *(self.put_blob(piece) for piece in pieces)), len(now), size)

    # --- the journal --------------------------------------------------------------------------------------------------

    def note(self, entries: Iterable[Entry]) -> None:
        """Remember files that were copied for a point that is not whole yet."""
        path = os.path.join(self.root, "journal", f"{uuid.uuid4().hex}.jsonl")
        put_if_absent(self.disk, path, "".join(entry.to_line() for entry in entries).encode())

    def journal(self) -> dict[str, Entry]:
        """The files that were copied for a point that is not whole, by path; a line that is not whole counts not."""
        found: dict[str, Entry] = {}
        folder = os.path.join(self.root, "journal")
        for name in self.disk.list(folder):
            if name.endswith(".jsonl"):
                for line in self.disk.read(os.path.join(folder, name)).splitlines():
                    with contextlib.suppress(ValueError, TypeError):
                        entry = Entry(*json.loads(line))
                        found[entry.path] = entry
        return found

    def close_journal(self) -> None:
        """Forget the journal; the point is whole."""
        folder = os.path.join(self.root, "journal")
        for name in self.disk.list(folder):
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(os.path.join(folder, name))


_LISTS_MAX = 64
_PIECE_BYTES = 8 << 20


def _pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Lines put together to blobs of some megabytes; one, empty, for none."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line.encode())
        size += len(held[-1])
        if size >= _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
