"""Looks through every file of a lake for a subject that was erased."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lodestream.engines.embedded.store import StateFile
from lodestream.errors import LodestreamError
from lodestream.lake.disk import Disk, LocalDisk
from lodestream.lake.layout import QUARANTINE_SUFFIX
from lodestream.model.steps import FlowPlan
from lodestream.model.table import LAYERS, TableName
from lodestream.operations.erase.find import holds, json_pairs, passing
from lodestream.operations.erase.subject import Subject
from lodestream.operations.tracing.keys import Test

_CHUNK = 1 << 22
_STATE = b"LODESTATE1\n"
_SOURCE = os.path.join("_lodestream", "ingest")


@dataclass
class Proof:
    """What was looked at, and where the subject still is.

    Attributes:
        files: number of files.
        size: their bytes.
        left: path in the lake and what was found there; empty when nothing was.
        sources: logs of records that were posted, which a source of the lake holds.
        unread: files that could not be read.
    """

    files: int = 0
    size: int = 0
    left: list[dict[str, str]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found and everything was read."""
        return not self.left and not self.unread


def look_through(disk: Disk, lake: str, flows: Mapping[TableName, FlowPlan], subject: Subject) -> Proof:
    """Read every file of the lake, whether a version refers to it or not; of its home on this machine too.

    In tables, quarantines and states columns are compared as typed values, and every text is searched for the words;
    other files are searched as bytes.
    """
    proof = Proof()
    _look_through(proof, disk, lake, flows, subject)
    if (home := disk.beside(lake)) != lake:
        _look_through(proof, LocalDisk(), home, flows, subject)
    return proof


def _look_through(
    proof: Proof, disk: Disk, root: str, flows: Mapping[TableName, FlowPlan], subject: Subject
) -> None:  # fmt: skip
    for one in sorted(disk.walk(root), key=lambda one: one.path):
        where = one.path
        try:
            with opened(disk, os.path.join(root, where)) as file:
                found = _look(file, where, flows, subject)
        except FileNotFoundError:  # deleted by who runs the tables
            continue
        except (pa.ArrowException, OSError, LodestreamError):
            proof.unread.append(where)
            continue
        proof.files, proof.size = proof.files + 1, proof.size + one.bytes
        if found and where.startswith(_SOURCE):
            proof.sources.append(where)
        elif found:
            proof.left.append({"file": where, "found": found})


def opened(disk: Disk, path: str) -> BinaryIO:
    """A file to read; one in an object store is fetched whole, and no copy of it stays."""
    return io.BytesIO(disk.read(path)) if disk.atomic else open(path, "rb")


def _look(opened: BinaryIO, where: str, flows: Mapping[TableName, FlowPlan], subject: Subject) -> str:
    """What of the subject a file holds, in words; empty for nothing."""
    if where.endswith(".parquet"):
        tests = _tests(where, flows, subject)
        with pq.ParquetFile(opened) as file:
            for batch in file.iter_batches():
                if found := shown_in(pa.Table.from_batches([batch]), tests, subject):
                    return found
        return ""
    head = opened.read(len(_STATE))
    if head == _STATE:
        opened.seek(0)
        return _in_state(opened.read(), where, where, flows, subject)
    pattern, rest = subject.pattern, head
    while pattern is not None and rest:
        if pattern.search(rest):
            return "word"
        more = opened.read(_CHUNK)
        rest = rest[-256:] + more if more else b""
    return ""


def _in_state(data: bytes, path: str, where: str, flows: Mapping[TableName, FlowPlan], subject: Subject) -> str:
    state = StateFile.read(data, path)
    table = TableName.parse(where.split(os.sep)[2])
    names = (table, *(flows[table].streams if table in flows else ()))
    tests = [test for name in names for test in subject.tests.get(name, ())]
    for name, section in state.sections.items():
        if found := shown_in(section, tests, subject):
            return f"{name}: {found}"
    return ""


def _tests(where: str, flows: Mapping[TableName, FlowPlan], subject: Subject) -> Sequence[Test]:
    parts = where.split(os.sep)
    if parts[0] not in LAYERS or len(parts) < 2 or "_delta_log" in parts:
        return ()
    aside = parts[1].endswith(QUARANTINE_SUFFIX)
    name = TableName(parts[0], parts[1].removesuffix(QUARANTINE_SUFFIX))
    names = (name, *flows[name].streams) if aside and name in flows else (name,)
    return [test for one in names for test in subject.tests.get(one, ())]


def shown_in(rows: pa.Table, tests: Sequence[Test], subject: Subject) -> str:
    """Where n rows show the subject, in words; empty when they do not."""
    if passing(tests, rows).any():
        return "value of a column"
    for field_ in rows.schema:
        values = rows.column(field_.name)
        if pa.types.is_primitive(field_.type):
            continue
        if field_.name == "row" and any(t and holds(json.loads(t), tests) for t in values.to_pylist()):
            return "value in column row"
        if _mentions(values, tests, subject.pattern):
            return f"word in column {field_.name}"
    return ""


def _mentions(values: pa.ChunkedArray, tests: Sequence[Test], pattern: re.Pattern[bytes] | None) -> bool:
    kind, pairs = values.type, json_pairs(tests)
    if pa.types.is_dictionary(kind):
        values = pa.chunked_array([chunk.dictionary for chunk in values.chunks], kind.value_type)
        kind = values.type
    for value in values.to_pylist():
        if value is None:
            continue
        if isinstance(value, bytes):
            text = value
        else:
            told = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            text = told.encode("utf-8", "surrogatepass")
        if pattern is not None and pattern.search(text):
            return True
        if isinstance(value, bytes) and pairs.search(value):
            return True
    return False
