"""The program that reads records of one writer schema: a flat list of small values that any interpreter can run.

An interpreter takes a program, a block of bytes and n ranges of it, one Avro record in each, and gives

- `codes`: uint8[n], 0 where the record was read, else an index into `FAULTS`;
- one Arrow struct array of length n, which is what `shape` says of op 0. Rows whose code is not 0 hold anything.

A record is good when every read stayed inside its range and the last one ended where the range ends. The first fault
in reading order is the record's code; a record or a block of items that cannot fit into the rest of the range, by its
`least`, is `truncated` before it is read. Nothing outside of a record's range has any influence on its outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lodestream.formats._avro_schema import AvroType

FAULTS = (
    "", "truncated", "trailing", "varint", "length", "branch", "enum", "boolean", "items", "depth", "block",
)  # fmt: skip
"""What a code means.

`truncated`: a read beyond the end. `trailing`: bytes after the record. `varint`: a number of more than 64 bits (32 for
int). `length`: a negative length or size. `branch`: a union index that is none. `enum`: a symbol index that is none.
`boolean`: a byte that is neither 0 nor 1. `items`: more items in arrays and maps than allowed. `depth`: records, arrays
and maps nest too deep. `block`: an array block whose items do not end where its size in bytes says.
"""
TRUNCATED, TRAILING, VARINT, LENGTH, BRANCH, ENUM, BOOLEAN, ITEMS, DEPTH, BLOCK = range(1, len(FAULTS))

_ENDLESS = 1 << 40  # more bytes than any record has
FREE_ITEMS = 64
"""A record may have this many items more than it has bytes, so that items of no bytes (nulls) cost nothing."""


@dataclass(frozen=True, slots=True)
class Op:
    """One step. Ops refer to each other by index; an unwanted op may refer back to one that contains it (recursion).

    Attributes:
        code: `null`, `boolean`, `int`, `long`, `float`, `double`, `bytes` (also strings), `fixed`, `enum`, `record`,
            `array`, `map` or `union`. A map is an array whose item is a record of a `bytes` key and the value.
        wanted: whether it gives an Arrow array; else its bytes are only stepped over: without a look when `exact` or
            the size of an array block says how many they are.
        children: a record's fields, an array's or map's item, a union's branches.
        size: bytes of a fixed; number of symbols of an enum; for a union of null and one other type, the index of the
            other branch, else -1; for an array -1 when it is never NULL (as in Protobuf), else 0.
        least: the fewest bytes a value can take.
        exact: bytes of every value, or -1 when they vary.
    """

    code: str
    wanted: bool = False
    children: tuple[int, ...] = ()
    size: int = 0
    least: int = 0
    exact: int = -1


Program = tuple[Op, ...]
"""Op 0 is the whole record; it is always wanted.

The Arrow type of a wanted op: `null` null, `boolean` bool, `int` and `enum` int32, `long` int64, `float` float32,
`double` float64, `bytes` and `fixed` binary, `record` struct of its wanted children (fields named by the child's place
among all children), `array` and `map` list of the child (of null when the child is not wanted), `union` with size >= 0
the child's array with NULLs, any other union a struct of `branch` int32 and the wanted children (named by their place,
NULL where the branch is another; the struct itself is never NULL).
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one record may cost.

    Attributes:
        depth_max: how deep records, arrays and maps may nest; the record itself is 1.
        items_max: how many items all its arrays and maps may have together.
    """

    depth_max: int = 64
    items_max: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Want:
    """Which parts of a type are wanted: fields of a record or branches of a union by place, an item by place 0."""

    parts: Mapping[int, Want]


RunProgram = Callable[
    [Program, npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], Limits],
    tuple[npt.NDArray[np.uint8], pa.StructArray],
]
"""An interpreter: from a program, a block, begins and ends of records and limits to codes and the array of op 0."""


def compile_program(kind: AvroType, want: Want) -> Program:
    """The program for a writer schema whose top is a record."""
    made = _Compiler()
    made.wanted(kind, want)
    return tuple(op for op in made.ops if op)


class _Compiler:
    def __init__(self) -> None:
        self.ops: list[Op | None] = []
        self._stepped: dict[int, int] = {}
        self._sizes: dict[int, tuple[int, int]] = {}

    def wanted(self, kind: AvroType, want: Want) -> int:
        at = len(self.ops)
        self.ops.append(None)
        inner = list(self._inner(kind))
        children = tuple(
            self.wanted(child, want.parts[i]) if i in want.parts else self._step_over(child)
            for i, child in enumerate(inner)
        )
        if kind.kind == "map":
            children = (self._entry(children[0], self._string(wanted=True), wanted=True),)
        self.ops[at] = self._op(kind, children, wanted=True)
        return at

    def _step_over(self, kind: AvroType) -> int:
        if id(kind) in self._stepped:
            return self._stepped[id(kind)]
        at = self._stepped[id(kind)] = len(self.ops)
        self.ops.append(None)
        children = tuple(self._step_over(child) for child in self._inner(kind))
        if kind.kind == "map":
            children = (self._entry(children[0], self._string(wanted=False), wanted=False),)
        self.ops[at] = self._op(kind, children, wanted=False)
        return at

    @staticmethod
    def _inner(kind: AvroType) -> tuple[AvroType, ...]:
        return tuple(field.type for field in kind.fields) if kind.kind == "record" else kind.inner

    def _string(self, *, wanted: bool) -> int:
        self.ops.append(Op("bytes", wanted, least=1))
        return len(self.ops) - 1

    def _entry(self, value: int, key: int, *, wanted: bool) -> int:
        self.ops.append(Op("record", wanted, (key, value), least=2))
        return len(self.ops) - 1

    def _op(self, kind: AvroType, children: tuple[int, ...], *, wanted: bool) -> Op:
        least, exact = self._extent(kind)
        size = kind.size
        if kind.kind == "enum":
            size = len(kind.symbols)
        elif kind.kind == "union":
            others = [i for i, branch in enumerate(kind.inner) if branch.kind != "null"]
            size = others[0] if len(others) == 1 and len(kind.inner) == 2 else -1
        code = "bytes" if kind.kind == "string" else kind.kind
        return Op(code, wanted, children, size, least, exact)

    def _extent(self, kind: AvroType) -> tuple[int, int]:
        """Fewest bytes, and the bytes of every value or -1; a type inside itself counts as nothing."""
        known = self._sizes.get(id(kind))
        if known:
            return known
        self._sizes[id(kind)] = (0, -1)
        if kind.kind == "record":
            inner = [self._extent(field.type) for field in kind.fields]
            exact = -1 if any(e < 0 for _, e in inner) else min(sum(e for _, e in inner), _ENDLESS)
            found = (min(sum(least for least, _ in inner), _ENDLESS), exact)
        elif kind.kind == "union":
            found = (1 + min(self._extent(branch)[0] for branch in kind.inner), -1)
        else:
            exact = {"null": 0, "boolean": 1, "float": 4, "double": 8, "fixed": kind.size}.get(kind.kind, -1)
            found = (exact if exact >= 0 else 1, exact)
        self._sizes[id(kind)] = found
        return found
