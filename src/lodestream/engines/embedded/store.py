"""Where a flow keeps its plans and its state: one folder per table and epoch, written through the disk seam."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from lodestream.engines.embedded.spill import Spill
from lodestream.errors import CorruptionError
from lodestream.lake.crash import point
from lodestream.lake.disk import Data, Disk, put_if_absent, replace_durable, write_durable
from lodestream.lake.layout import flow_folder
from lodestream.lake.pins import pins
from lodestream.model.batch import BatchPlan
from lodestream.model.table import TableName

_MAGIC = b"LODESTATE1\n"
_PLANS_KEPT = 10_000
_PAGE = 1 << 16  # a file of state that is larger is mapped, not read
_IN_MEMORY_BYTES_MAX = 16 << 20
FOLDED = "folded.json"
"""Name of the file, beside the plans, that holds what older plans had read: `starts` and `ends` by unit, and `gaps`."""


@dataclass(frozen=True, slots=True)
class StateFile:
    """One link of the state chain: what batch `batch` changed, or all of it when `previous` is None.

    Attributes:
        table_id: Delta id of the table that the state belongs to.
        batch: the batch after which this state holds.
        attempt: which run of the batch wrote it; the main commit names the one that counts.
        previous: name of the link before, None for a base.
        facts: small values (watermarks, positions).
        sections: Arrow tables by name (`dedup`, `windows`, `ledger`).
    """

    table_id: str
    epoch: int
    batch: int
    attempt: str
    previous: str | None
    facts: Mapping[str, Any]
    sections: Mapping[str, pa.Table] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name, unique per batch and attempt."""
        return f"{self.batch:020d}-{self.attempt}"

    def write(self, file: IO[bytes]) -> None:
        """Write a header line, then the sections as Arrow IPC streams, each with its digest in the header."""
        unknown = [[name, 10**18, "0" * 32] for name in self.sections]
        start = -(-(len(_MAGIC) + 34 + len(self._header(unknown))) // 64) * 64  # so that what is mapped is aligned
        file.seek(start)
        described = []
        for name, table in self.sections.items():
            sink = _Digesting(file)
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            described.append([name, sink.size, sink.digest.hexdigest()])
        line = self._header(described).ljust(start - len(_MAGIC) - 34)
        digest = hashlib.blake2b(line, digest_size=16).hexdigest().encode()
        file.seek(0)
        file.write(b"".join((_MAGIC, digest, b"\n", line, b"\n")))

    def _header(self, sections: Sequence[Sequence[Any]]) -> bytes:
        header = {
            "table_id": self.table_id, "epoch": self.epoch, "batch": self.batch, "attempt": self.attempt,
            "previous": self.previous, "facts": dict(self.facts), "sections": sections,
        }  # fmt: skip
        return json.dumps(header, sort_keys=True).encode()

    @classmethod
    def read(cls, data: Data, path: str) -> StateFile:
        """Read what `write` wrote; large sections stay where `data` lies.

        Raises:
            CorruptionError: a byte is not as written.
        """
        view = memoryview(data)
        start = len(_MAGIC) + 33
        end = _line_end(view, start)
        head, line = bytes(view[:start]), bytes(view[start:end])
        digest = hashlib.blake2b(line, digest_size=16).hexdigest().encode()
        if head != b"".join((_MAGIC, digest, b"\n")):
            raise CorruptionError("state file is not as it was written; rebuild the table", path=path)
        header = json.loads(line)
        sections, start = {}, end + 1
        for name, size, wanted in header.pop("sections"):
            part = view[start : start + size]
            if hashlib.blake2b(part, digest_size=16).hexdigest() != wanted:
                raise CorruptionError("state file is not as it was written; rebuild the table", path=path, part=name)
            sections[name] = pa.ipc.open_stream(pa.py_buffer(part)).read_all()
            start += size
        return cls(**header, sections=sections)


def _line_end(view: memoryview, start: int) -> int:
    """Where the first line end from `start` on is; the end of all when there is none."""
    for at in range(start, len(view), _PAGE):
        if (found := bytes(view[at : at + _PAGE]).find(b"\n")) >= 0:
            return at + found
    return len(view)


class _Digesting(io.RawIOBase):
    """Hands on what is written, and knows its size and digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size, self.digest = 0, hashlib.blake2b(digest_size=16)

    def writable(self) -> bool:
        return True

    def write(self, data: Data) -> int:
        view = memoryview(data)
        self._file.write(view)
        self.digest.update(view)
        self.size += view.nbytes
        return view.nbytes


class FlowStore:
    """Plans and state files of one flow and epoch.

    Args:
        disk: the seam for every effect.
        lake: root folder of the lake.
        table: the flow's table.
        epoch: rebuild generation.
    """

    def __init__(self, disk: Disk, lake: str, table: TableName, epoch: int) -> None:
        self.disk = disk
        self.epoch = epoch
        self._lake, self._table = lake, table
        self.root = os.path.join(flow_folder(lake, table), str(epoch))
        self._plans = os.path.join(self.root, "plans")
        self._states = os.path.join(self.root, "state")

    def plan(self, batch: int) -> BatchPlan | None:
        """Plan N as it was first written, or None."""
        path = os.path.join(self._plans, f"{batch:020d}.json")
        try:
            data = self.disk.read(path)
        except FileNotFoundError:
            return None
        # Its writer may have died between link and sync; what follows must not outlive the plan.
        self.disk.sync_directory(self._plans)
        try:
            return BatchPlan.from_json(data)
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptionError("plan cannot be read; lodestream doctor names what to do", path=path) from error

    def put_plan(self, plan: BatchPlan) -> BatchPlan:
        """Write plan N unless there is one; returns the one that stands."""
        path = os.path.join(self._plans, f"{plan.batch:020d}.json")
        point("plan.before")
        if put_if_absent(self.disk, path, plan.to_json()):
            point("plan.after")
            return plan
        standing = self.plan(plan.batch)
        if standing is None:
            raise CorruptionError("plan disappeared while it was written", path=path)
        return standing

    def last_planned(self) -> int:
        """The highest plan number, 0 when there is none."""
        numbers = [
            int(name[:20]) for name in self.disk.list(self._plans) if name.endswith(".json") and name[:20].isdigit()
        ]
        return max(numbers, default=0)

    def put_state(self, state: StateFile, spill: Spill | None = None) -> int:
        """Write one link of the chain durably; returns its size in bytes. A large one is put together by `spill`."""
        data: Data
        if spill is not None and sum(table.nbytes for table in state.sections.values()) > _IN_MEMORY_BYTES_MAX:
            data = spill.file(state.write)
        else:
            state.write(held := io.BytesIO())
            data = held.getbuffer()
        write_durable(self.disk, os.path.join(self._states, state.name), data)
        return memoryview(data).nbytes

    def discard_state(self, name: str) -> None:
        """Delete a link that no commit names."""
        with contextlib.suppress(FileNotFoundError):
            self.disk.unlink(os.path.join(self._states, name))

    def chain(self, name: str, table_id: str, epoch: int, batch: int, spill: Spill | None = None) -> list[StateFile]:
        """The links from the base to the named one, in order; `spill` takes what is large and lies on no local disk.

        Raises:
            CorruptionError: a link is missing, damaged, or belongs to another table, epoch or batch.
        """
        links: list[StateFile] = []
        wanted: str | None = name
        while wanted is not None:
            path = os.path.join(self._states, wanted)
            link = self.link(wanted, spill)
            if (link.table_id, link.epoch, link.name) != (table_id, epoch, wanted) or link.batch > batch:
                raise CorruptionError("state belongs to another table, epoch or batch", path=path)
            links.append(link)
            wanted = link.previous
        if links[0].batch != batch:
            raise CorruptionError("state is of another batch", path=name, batch=batch)
        return links[::-1]

    def link(self, name: str, spill: Spill | None = None) -> StateFile:
        """One link. Raises CorruptionError when it is missing or damaged."""
        path = os.path.join(self._states, name)
        try:
            data = self._read(path, spill)
        except FileNotFoundError as error:
            raise CorruptionError("state is missing; lodestream doctor names what to do", path=path) from error
        return StateFile.read(data, path)

    def _read(self, path: str, spill: Spill | None) -> Data:
        if self.disk.size(path) < _PAGE:
            return self.disk.read(path)
        if self.disk.beside(path) == path:
            with pa.memory_map(path) as file:
                return file.read_buffer()  # type: ignore[no-any-return]
        data = self.disk.read(path)
        return data if spill is None else spill.file(lambda file: file.write(data))

    def forget_before(self, kept: str, batch: int, now_us: int) -> None:
        """Delete state links older than the base `kept`, and plans older than the last ten thousand.

        Links that are being copied to another place stay until the next base.

        How far those plans had read each source unit is folded into one file first: together with the plans that stay
        it says what the flow has taken in, without the state.
        """
        copied = {name for pin in pins(self.disk, self._lake, now_us) for name in pin.states.get(str(self._table), ())}
        for name in self.disk.list(self._states):
            if name < kept[:20] and name not in copied:
                self.discard_state(name)
        old = [n for n in self.disk.list(self._plans) if n[:20].isdigit() and int(n[:20]) < batch - _PLANS_KEPT]
        if not old:
            return
        self._fold(old)
        for name in old:
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(os.path.join(self._plans, name))

    def _fold(self, names: list[str]) -> None:
        path = os.path.join(self._plans, FOLDED)
        folded: dict[str, Any] = json.loads(self.disk.read(path)) if self.disk.exists(path) else {"ends": {}}
        ends, starts, gaps = folded["ends"], folded.setdefault("starts", {}), folded.setdefault("gaps", [])
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                plan = BatchPlan.from_json(self.disk.read(os.path.join(self._plans, name)))
                for planned in plan.ranges:
                    ends[planned.unit] = max(ends.get(planned.unit, 0), planned.end)
                    starts[planned.unit] = min(starts.get(planned.unit, planned.start), planned.start)
                    gap = [planned.unit, planned.start, planned.end]
                    if planned.facts.get("gap") and gap not in gaps:
                        gaps.append(gap)
        replace_durable(self.disk, path, json.dumps(folded, sort_keys=True).encode())
