"""Runs Avro programs with the native kernel: the same codes and arrays as the NumPy interpreter gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.formats._avro_decode import run_program
from lodestream.formats._avro_program import FREE_ITEMS, Limits, Op, Program, RunProgram
from lodestream.formats._lines import Ints
from lodestream.formats._native import Described, to_array
from lodestream.native import KERNELS

_COLUMNS: dict[str, tuple[str, pa.DataType]] = {
    "null": ("null", pa.null()), "boolean": ("boolean", pa.bool_()), "int": ("int", pa.int32()),
    "enum": ("int", pa.int32()), "long": ("bigint", pa.int64()), "float": ("float", pa.float32()),
    "double": ("double", pa.float64()), "bytes": ("binary", pa.binary()), "fixed": ("binary", pa.binary()),
}  # fmt: skip


_PROGRAMS_MAX = 1000


def interpreter(kernels: Any | None = KERNELS) -> RunProgram:
    """What runs Avro programs: natively, or with NumPy when `kernels` is None; for one thread."""
    return run_program if kernels is None else NativePrograms(kernels)


class NativePrograms:
    """Runs programs with the native kernel, which takes each in once."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self._known: dict[int, tuple[Program, Limits, Any, pa.DataType]] = {}

    def __call__(
        self, program: Program, block: npt.NDArray[np.uint8], starts: Ints, ends: Ints, limits: Limits
    ) -> tuple[npt.NDArray[np.uint8], pa.StructArray]:
        """Codes and the array of op 0, as `_avro_program` says, for the records at `starts` to `ends` of the block."""
        reader, kind = self._reader(program, limits)
        codes, piece = reader.read(*(np.ascontiguousarray(array) for array in (block, starts, ends)))
        return np.frombuffer(codes, np.uint8), to_array(kind, piece)

    def _reader(self, program: Program, limits: Limits) -> tuple[Any, pa.DataType]:
        known = self._known.get(id(program))
        if known and known[0] is program and known[1] == limits:
            return known[2], known[3]
        described, kind = _column(program, 0)
        ops = [(op.code, op.wanted, list(op.children), op.size, op.least, op.exact) for op in program]
        reader = self._kernels.AvroReader(ops, described, (limits.depth_max, limits.items_max, FREE_ITEMS))
        if len(self._known) >= _PROGRAMS_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[id(program)] = program, limits, reader, kind
        return reader, kind


def _column(program: Program, at: int) -> tuple[Described, pa.DataType]:
    """An op's column as the kernel and as Arrow have it."""
    op = program[at]
    if not op.wanted:
        return ("null", 0, 0, True, [], []), pa.null()
    if op.code in _COLUMNS:
        name, kind = _COLUMNS[op.code]
        return (name, 0, 0, True, [], []), kind
    if op.code in ("array", "map"):
        item, kind = _column(program, op.children[0])
        return ("array", 0, 0, True, [], [item]), pa.list_(pa.field("item", kind))
    if op.code == "union" and op.size >= 0:
        return _column(program, op.children[op.size])
    return _fields(program, op)


def _fields(program: Program, op: Op) -> tuple[Described, pa.DataType]:
    wanted = [i for i, child in enumerate(op.children) if program[child].wanted]
    inner = [_column(program, op.children[i]) for i in wanted]
    names: Sequence[str] = [str(i) for i in wanted]
    fields = [pa.field(name, kind) for name, (_, kind) in zip(names, inner, strict=True)]
    described = [column for column, _ in inner]
    if op.code == "union":
        return ("union", 0, 0, True, [], described), pa.struct([pa.field("branch", pa.int32()), *fields])
    return ("struct", 0, 0, True, list(names), described), pa.struct(fields)
