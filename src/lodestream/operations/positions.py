"""Reads positions back from tables and sources with code that the engine does not use (delta-rs and plain files)."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from lodestream.errors import CorruptionError
from lodestream.lake.layout import ERASURE_PROPERTY, RENAMED_PROPERTY, flow_folder, present_app_id, table_path
from lodestream.model.table import TableName
from lodestream.operations.lake_files import LakeFiles

I64 = npt.NDArray[np.int64]
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CODE_SHIFT = 42  # positions below 4 Ti fit beside 2 M source names in one signed integer
_PLACE = (1 << _CODE_SHIFT) - 1


@dataclass
class Coder:
    """Gives each (source, position) one integer, the same for all tables of one check."""

    codes: dict[tuple[str, int], int] = field(default_factory=dict)

    def encode(self, sources: pa.ChunkedArray | pa.Array, positions: pa.ChunkedArray | pa.Array) -> I64:
        """N keys for n positions; equal positions of one source have equal keys, others differ."""
        if isinstance(sources, pa.ChunkedArray):
            sources = sources.combine_chunks()
        coded = sources.dictionary_encode() if not pa.types.is_dictionary(sources.type) else sources
        names = coded.dictionary.to_pylist()
        places = np.asarray(positions.to_numpy(zero_copy_only=False), np.int64)
        if not len(places):
            return places
        indices, above = coded.indices.to_numpy(), places >> _CODE_SHIFT
        if not above.any():
            code = np.array([self._code(name, 0) for name in names], np.int64)[indices]
        else:  # windows are at their start, microseconds since 1970
            pairs, which = np.unique(np.column_stack([indices, above]), axis=0, return_inverse=True)
            code = np.array([self._code(names[i], high) for i, high in pairs.tolist()], np.int64)[which.ravel()]
        if len(self.codes) >= 1 << (63 - _CODE_SHIFT):
            raise ValueError("too many sources to check in one go")
        keys: I64 = code << _CODE_SHIFT | places & _PLACE
        return keys

    def _code(self, name: str, above: int) -> int:
        return self.codes.setdefault((name, above), len(self.codes))

    def decode(self, key: int) -> tuple[str, int]:
        """The (source, position) of a key."""
        name, above = list(self.codes)[key >> _CODE_SHIFT]
        return name, above << _CODE_SHIFT | key & _PLACE


def read_columns(files: LakeFiles, table: DeltaTable, columns: Iterable[str]) -> pa.Table:
    """Columns of all live rows, read file by file; partition columns come from the log, for files lack them."""
    wanted = list(columns)
    parts = []
    adds = pa.table(table.get_add_actions(flatten=True))
    values = {c: adds.column(f"partition.{c}") for c in wanted if f"partition.{c}" in adds.column_names}
    for i, uri in enumerate(table.file_uris()):
        with files.parquet(uri) as file:
            have = [c for c in wanted if c in file.schema_arrow.names]
            part = _plain(file.read(columns=have))
        for column, by_file in values.items():
            part = part.append_column(column, pa.repeat(by_file[i], len(part)))
        parts.append(part)
    if not parts:
        kinds = {f.name: pa.field(f.name, pa.string()) for f in pa.schema([(c, pa.string()) for c in wanted])}
        return pa.schema(list(kinds.values())).empty_table()
    return pa.concat_tables(parts, promote_options="permissive").select(wanted)


def _plain(rows: pa.Table) -> pa.Table:
    """Without views, which delta-rs writes where it rewrites files: files of both kinds go together then."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    fields = [field.with_type(plain.get(field.type, field.type)) for field in rows.schema]
    return rows.cast(pa.schema(fields)) if any(field.type in plain for field in rows.schema) else rows


def expired_rows(table: DeltaTable, application: str) -> int:
    """How many rows retention has taken from a flow's table, as the table's own counter says."""
    return int(table.transaction_version(f"{application}/retention") or 0)


def expired_above(table: DeltaTable | None, name: TableName) -> int:
    """The same for a table by its name; 0 when it is not there."""
    return 0 if table is None else expired_rows(table, present_app_id(name, table.metadata().configuration))


def read_upto(files: LakeFiles, name: TableName, table: DeltaTable, columns: Iterable[str]) -> pa.Table:
    """The rows that the table `name` had at the version of `table`, but for those that were erased since.

    Where rows were erased, files of older versions may be gone; the batch that brought a row then says if it was there.
    """
    newest, wanted = files.table(table_path(files.lake, name)), list(columns)
    if newest is None:
        raise CorruptionError("table was deleted while it was read", table=str(name))
    configuration = newest.metadata().configuration
    if not {ERASURE_PROPERTY, RENAMED_PROPERTY} & set(configuration) or newest.version() == table.version():
        return read_columns(files, table, wanted)
    last = last_batch(table, present_app_id(name, configuration))
    rows = read_columns(files, newest, list(dict.fromkeys([*wanted, "_batch"])))
    if not len(rows):
        return rows.select(wanted)
    return rows.filter(pc.less_equal(rows.column("_batch").cast(pa.int64()), last)).select(wanted)


def last_batch(table: DeltaTable, app_id: str) -> int:
    """The number of the flow's last committed batch, 0 before the first."""
    return table.transaction_version(app_id) or 0


def batch_info(files: LakeFiles, path: str, batch: int, app_id: str) -> Mapping[str, object]:
    """The commitInfo of the flow's commit of `batch`; empty when the log no longer has it."""
    folder = os.path.join(path, "_delta_log")
    names = (name for name in files.names(folder) if name.endswith(".json") and name[:20].isdigit())
    for name in sorted(names, reverse=True):
        lines = files.read(os.path.join(folder, name)).split(b"\n")
        actions = [json.loads(line) for line in lines if line.strip()]
        if any(a.get("txn", {}).get("appId") == app_id and a["txn"]["version"] == batch for a in actions):
            info: dict[str, object] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
            return info
    return {}


@dataclass
class Consumed:
    """What a flow has read of one source unit: `start <= position < end`, but for the gaps, which were gone already.

    `topic_id` is that of the Kafka topic, where it was told.
    """

    start: int
    end: int
    gaps: list[tuple[int, int]] = field(default_factory=list)
    topic_id: str | None = None

    def take(self, start: int, end: int) -> None:
        """Another range of the unit."""
        self.start, self.end = min(self.start, start), max(self.end, end)


def consumed_ranges(files: LakeFiles, table: TableName, epoch: int, batch: int) -> dict[str, Consumed]:
    """Per source unit, what the flow has read by `batch`, from its plan files."""
    folder = os.path.join(flow_folder(files.lake, table), str(epoch), "plans")
    found: dict[str, Consumed] = {}
    for name in files.names(folder):
        if name.endswith(".json") and name[:20].isdigit() and int(name[:20]) <= batch:
            try:
                ranges = json.loads(files.read(os.path.join(folder, name)))["ranges"]
            except FileNotFoundError:  # folded since the folder was listed
                continue
            for one in ranges:
                found.setdefault(one["unit"], Consumed(one["start"], one["end"])).take(one["start"], one["end"])
                found[one["unit"]].topic_id = one["facts"].get("topic_id")
                if one["facts"].get("gap"):
                    found[one["unit"]].gaps.append((one["start"], one["end"]))
    with contextlib.suppress(FileNotFoundError):
        old = json.loads(files.read(os.path.join(folder, "folded.json")))
        for unit, end in old["ends"].items():
            start = old.get("starts", {}).get(unit, 0)
            found.setdefault(unit, Consumed(start, end)).take(start, end)
        for unit, start, end in old.get("gaps", ()):
            found[unit].gaps.append((start, end))
    return found


def line_starts(path: str, end: int, *, header: bool) -> I64:
    """Byte offsets below `end` at which a record of a line file begins; blank lines are not records.

    Args:
        path: the file.
        end: bytes to look at.
        header: whether the first line is a header, as in CSV.
    """
    with open(path, "rb") as file:
        data = np.frombuffer(file.read(end), np.uint8)
    breaks = np.flatnonzero(data == 10)
    starts = np.concatenate([[0], breaks + 1])
    stops = np.concatenate([breaks, [len(data)]])
    if header:
        starts, stops = starts[1:], stops[1:]
    keep = starts < stops
    starts, stops = starts[keep], stops[keep]
    # A line of nothing but spaces, tabs and carriage returns is no record; it begins and ends with one of them.
    blanks = np.isin(data[starts], (32, 9, 13)) & np.isin(data[stops - 1], (32, 9, 13))
    blank = [int(i) for i in np.flatnonzero(blanks) if not data[starts[i] : stops[i]].tobytes().strip(b" \t\r")]
    if len(starts) and not starts[0] and data[: stops[0]].tobytes().strip(b" \t\r") == _BYTE_ORDER_MARK:
        blank.append(0)
    return np.delete(starts, blank)


def multiline_rows(path: str, *, delimiter: str, quote: str, header: bool) -> int:
    """Number of records of a CSV file whose quoted fields may hold line ends; `quote` is empty when there is none."""
    csv.field_size_limit(1 << 31)
    with open(path, encoding="latin-1", newline="") as file:
        if quote:
            rows = csv.reader(file, delimiter=delimiter, quotechar=quote)
        else:
            rows = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        count = sum(bool(delimiter.join(row).strip(" \t\r")) for row in rows)
    return max(0, count - header)


def avro_rows(path: str) -> int:
    """Number of records of an Avro file by what its blocks say; a file or a block without sense counts as one."""
    with open(path, "rb") as file:
        try:
            if file.read(4) != b"Obj\x01":
                return 1
            _skip_avro_metadata(file)
        except (ValueError, OverflowError, MemoryError):
            return 1
        sync = file.read(16)
        if len(sync) != 16:
            return 1
        size = os.fstat(file.fileno()).st_size
        rows = 0
        while file.tell() < size:
            try:
                count, stored = _avro_long(file), _avro_long(file)
                if count < 0 or not 0 <= stored <= size - file.tell() - 16:
                    return rows + 1
            except ValueError:
                return rows + 1
            file.seek(stored, os.SEEK_CUR)
            if file.read(16) != sync:
                return rows + 1
            rows += count if count <= 1024 * (stored + 1) else 1
        return rows


def _skip_avro_metadata(file: BinaryIO) -> None:
    """Step over an Avro file's header map. Raises ValueError."""
    while count := _avro_long(file):
        if count < 0:
            _avro_long(file)
        for _ in range(2 * abs(count)):
            length = _avro_long(file)
            if length < 0 or len(file.read(length)) != length:
                raise ValueError("cut off")


def _avro_long(file: BinaryIO) -> int:
    """A zigzag varint. Raises ValueError where the file ends."""
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise ValueError("no number")
        value |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            return (value >> 1) ^ -(value & 1)


def repeated(keys: I64) -> I64:
    """The keys that are there more than once."""
    unique, counts = np.unique(keys, return_counts=True)
    return unique[counts > 1]


def together(aside: Mapping[str, I64]) -> I64:
    """The keys of all kinds."""
    return np.concatenate([np.empty(0, np.int64), *aside.values()])
